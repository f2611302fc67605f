"""Processes that were told some time ago: no ended one, and nobody for another's process."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentinel_exporters.npu.reading import Reading, Seen
from sentinel_exporters.npu.seen import find_same, look_at, read_start
from sentinel_exporters.npu_smi.source import NpuSmi
from tests.exporters.npu_machine import Machine, read
from tests.exporters.npu_tables import Row, Table, mapping
from tests.exporters.running import NPU_SMI

ALICE, BOB = 64321, 64322  # without an entry in the user database


class Proc:
    """A /proc with the processes that a test wants."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def start(
        self, pid: int, uid: int, started: int, name: str = "train", state: str = "S"
    ) -> None:
        process = self.folder / str(pid)
        process.mkdir(exist_ok=True)
        fields = f"{pid} ({name}) {state} " + "1 " * 18 + f"{started} 4096 12\n"
        (process / "stat").write_text(fields)
        (process / "status").write_text(f"Name:\t{name}\nUid:\t{uid}\t0\t0\t0\n")

    def end(self, pid: int) -> None:
        for path in (self.folder / str(pid)).iterdir():
            path.unlink()
        (self.folder / str(pid)).rmdir()


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path / "proc")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A card whose table tells no processes; the list tells two."""
    (tmp_path / "machine").mkdir()
    found = Machine(tmp_path / "machine")
    found.show("info", Table([Row("0", "0")]).text())
    found.show("mapping", mapping([(0, 0, 0)]))
    found.show(
        "proc-mem-0",
        "\tProcess id:5000 Process name:train           Process memory(MB):57010\n"
        "\tProcess id:5001 Process name:train           Process memory(MB):7\n",
    )
    return found


def source(machine: Machine, proc: Proc) -> NpuSmi:
    return NpuSmi(
        f"env FAKE_NPU_SMI={machine.folder} {NPU_SMI}",
        timeout_s=30,
        detail_interval_s=60,
        proc=proc.folder,
    )


def users(reading: Reading) -> dict[int, str]:
    (chip,) = reading.chips
    assert chip.processes is not None
    return {one.pid: reading.owners.get(one.pid, "") for one in chip.processes}


def test_a_process_that_has_ended_is_left_out_before_the_next_answer(
    machine: Machine, proc: Proc
) -> None:
    proc.start(5000, ALICE, 100)
    proc.start(5001, BOB, 101)
    found = source(machine, proc)
    assert users(read(found)) == {5000: str(ALICE), 5001: str(BOB)}
    proc.end(5000)
    assert users(read(found)) == {5001: str(BOB)}
    proc.start(5001, BOB, 101, state="Z")
    assert users(read(found)) == {}
    assert machine.asked().count("proc-mem -i 0") == 1


def test_a_number_that_is_given_anew_names_nobody(machine: Machine, proc: Proc) -> None:
    proc.start(5000, ALICE, 100)
    proc.start(5001, ALICE, 100)
    found = source(machine, proc)
    read(found)
    proc.end(5000)
    proc.start(5000, BOB, 900)
    assert users(read(found)) == {5001: str(ALICE)}


def test_a_process_that_was_not_there_is_nobodys_and_stays_so(
    machine: Machine, proc: Proc
) -> None:
    # As in a container, where the numbers are the host's.
    proc.start(5001, ALICE, 100)
    found = source(machine, proc)
    assert users(read(found)) == {5000: "", 5001: str(ALICE)}
    proc.start(5000, BOB, 900)
    assert users(read(found)) == {5001: str(ALICE)}


def test_the_owner_is_the_one_at_the_answer(machine: Machine, proc: Proc) -> None:
    proc.start(5000, ALICE, 100)
    found = source(machine, proc)
    read(found)
    (proc.folder / "5000" / "status").unlink()
    assert users(read(found))[5000] == str(ALICE)


def test_a_process_in_the_table_has_its_owner_of_now(machine: Machine, proc: Proc) -> None:
    machine.show("info", Table([Row("0", "0")], [["0     0", "5000", "x", "1"]]).text())
    proc.start(5000, ALICE, 100)
    found = source(machine, proc)
    assert users(read(found)) == {5000: str(ALICE)}
    proc.start(5000, BOB, 900)
    assert users(read(found)) == {5000: str(BOB)}


@pytest.mark.parametrize("name", ["train", "a b", "a) Z 1 (b", ")", "\n"])
def test_the_start_is_read_behind_any_name(proc: Proc, name: str) -> None:
    proc.start(7, ALICE, 12345, name=name)
    assert read_start(7, proc.folder) == 12345
    assert look_at([7, 8], proc.folder) == {7: Seen(str(ALICE), 12345), 8: Seen(None, None)}


def test_a_stat_that_is_cut_tells_no_start(proc: Proc) -> None:
    proc.start(7, ALICE, 12345)
    (proc.folder / "7" / "stat").write_text("7 (train) S 1 1\n")
    assert read_start(7, proc.folder) is None
    assert find_same({7: Seen(str(ALICE), 12345)}, proc.folder) == set()
