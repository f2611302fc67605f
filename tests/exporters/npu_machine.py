"""A machine of a test's own: a folder that the stand-ins for npu-smi and hccn_tool print."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from sentinel_exporters.npu.reading import Reading
from sentinel_exporters.npu_smi.source import NpuSmi
from tests.exporters.npu_tables import Row, Table, mapping, none_running
from tests.exporters.running import FAKES, NPU_SMI

FIXTURES = Path(__file__).parent / "fixtures" / "npu"


class Machine:
    """Cards with one chip each, and what the tools say of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "asked").touch()

    def show(self, name: str, text: str) -> None:
        """Let the tool print a text, such as `usages-5`."""
        (self.folder / f"{name}.txt").write_text(text)

    def copy(self, name: str, fixture: str, old: str = "", new: str = "") -> None:
        """Let the tool print a file of the fixtures, with one text in it replaced."""
        text = (FIXTURES / f"{fixture}.txt").read_text()
        assert old in text
        self.show(name, text.replace(old, new, 1) if old else text)

    def show_cards(
        self, cards: Sequence[int], *, health: str = "OK", driver: str = "1"
    ) -> None:
        """Let the table have these cards, whose logic ids begin with 0."""
        rows = [
            Row(str(card), "0", bus=f"0000:{card:02X}:00.0", health=health) for card in cards
        ]
        table = Table(rows, [none_running(str(card)) for card in cards], driver=driver)
        self.show("info", table.text())
        self.show("mapping", mapping([(card, 0, at) for at, card in enumerate(cards)]))

    def copy_details(self, card: int) -> None:
        """Let the tool tell everything of a 910B."""
        own = f"NPU ID                         : {card}\n"
        for kind in ("usages", "common", "memory", "volt"):
            self.copy(
                f"{kind}-{card}", f"{kind}-910b", "NPU ID                         : 5\n", own
            )
        wide = " " * 10
        self.copy(f"ecc-{card}", "ecc-910b", f"{wide} : 5\n", f"{wide} : {card}\n")
        self.copy(f"info-vnpu-{card}-0", "vnpu-none")
        self.copy(f"board-{card}-0", "board-910b")

    def asked(self) -> list[str]:
        """Return and forget the command lines so far, without `info`."""
        lines = (self.folder / "asked").read_text().splitlines()
        (self.folder / "asked").write_text("")
        return [line.removeprefix("info ").removeprefix("-t ") for line in lines]

    def source(
        self,
        *,
        timeout_s: float = 30,
        detail_interval_s: float = 60,
        has_network: bool = False,
        mapping_s: float = 3600,
    ) -> NpuSmi:
        """Return a source with nothing in its memory."""
        return NpuSmi(
            f"env FAKE_NPU_SMI={self.folder} {NPU_SMI}",
            timeout_s=timeout_s,
            detail_interval_s=detail_interval_s,
            hccn_tool=f"env FAKE_NPU_SMI={self.folder} {FAKES}/hccn_tool"
            if has_network
            else "",
            mapping_s=mapping_s,
        )


def read(source: NpuSmi) -> Reading:
    """Read with details."""
    return source.read(with_details=True)


def copy_310p_duo(machine: Machine) -> None:
    """Let the tool be that of a machine with two 310P cards of two chips."""
    shutil.copy(FIXTURES / "info-310p-duo-23.0.txt", machine.folder / "info.txt")
    shutil.copy(FIXTURES / "mapping-310p-duo.txt", machine.folder / "mapping.txt")
    for kind in ("usages", "common", "volt", "ecc"):
        machine.copy(f"{kind}-1536", f"{kind}-310p-duo")
    machine.copy("proc-mem-32768", "proc-mem-310p-duo")
