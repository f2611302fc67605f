"""Cards whose files NVIDIA's own tools make, or do not make."""

from __future__ import annotations

import os
import stat
from functools import partial

from tests.agent.card_lab import (
    getfacl,
    grant,
    has_problem,
)
from tests.agent.conftest import Lab
from tests.lab.wait import wait_for


def load_nvidia(lab: Lab, *, modify: int) -> None:
    """Have /proc say what it says where NVIDIA's driver runs two cards."""
    lab.node.run(["mount", "-t", "tmpfs", "none", "/proc/driver"])
    lab.node.run(["mkdir", "-p", *(f"/proc/driver/nvidia/gpus/0000:0{n}:00.0" for n in "12")])
    for number in "12":
        path = lab.node.root / f"proc/driver/nvidia/gpus/0000:0{number}:00.0/information"
        path.write_text(f"Model: \t\t NVIDIA H100\nDevice Minor: \t {2 - int(number)}\n")
    (lab.node.root / "proc/driver/nvidia/params").write_text(
        f"ModifyDeviceFiles: {modify}\nDeviceFileUID: 0\nDeviceFileGID: 44\n"
        "DeviceFileMode: 432\n"
    )


def test_files_that_nvidias_tools_were_told_not_to_make_are_made(lab: Lab) -> None:
    load_nvidia(lab, modify=0)
    lab.server.grant(grant(lab, "alice", "nvidia1"), mode="observe")
    lab.start_agent()
    dev = lab.node.root / "dev"

    def listed() -> dict[str, tuple[str, int, int]]:
        return {
            path.name: (stat.filemode(found.st_mode), found.st_gid, found.st_rdev & 0xFFFFF)
            for path in dev.glob("nvidia*")
            for found in [path.stat()]
        }

    usual = {
        "nvidiactl": ("crw-rw----", 44, os.makedev(195, 255)),
        "nvidia0": ("crw-rw----", 44, os.makedev(195, 0)),
        "nvidia1": ("crw-rw----", 44, os.makedev(195, 1)),
    }
    wait_for("they are made as the driver's tools would", lambda: listed() == usual)
    for card in ("nvidia0", "nvidia1"):
        (dev / card).unlink()
    lab.server.grant(grant(lab, "alice", "nvidia1"))
    wait_for("alice is let to hers", lambda: "user:alice:rw-" in getfacl(lab, "nvidia1"))
    wait_for("nobody to the other", lambda: "group::---" in getfacl(lab, "nvidia0"))
    assert not any(line.startswith("user:alice") for line in getfacl(lab, "nvidia0"))
    (dev / "nvidia1").unlink()
    wait_for("it is made again", lambda: "user:alice:rw-" in getfacl(lab, "nvidia1"))
    lab.server.grant(mode="observe")
    wait_for("they are what the tools would make", lambda: listed() == usual)
    wait_for("all is well", lambda: not has_problem(lab, "enforce: "))


def test_tools_that_open_the_cards_again_are_reported(lab: Lab) -> None:
    load_nvidia(lab, modify=1)
    lab.server.grant(mode="observe")
    lab.start_agent()
    beats = len(lab.server.heartbeats)
    wait_for("it reports", lambda: len(lab.server.heartbeats) > beats + 1)
    why = "enforce: NVIDIA's tools open the device files again"
    assert not has_problem(lab, why)
    lab.server.grant()
    wait_for("it is reported", partial(has_problem, lab, why))
    assert list((lab.node.root / "dev").glob("nvidia*")) == []
