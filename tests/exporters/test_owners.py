"""Whose a uid is, also one that was lent to somebody's container."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from sentinel_exporters.owners import user_name

# Nobody's on this machine.
FREE = 3_000_000_001


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        (f"daemon:{FREE}:1\n", "daemon"),
        (f"games:100000:65536\ndaemon:{FREE - 65535}:65536\n", "daemon"),
        (f"daemon:{FREE - 65536}:65536\n", str(FREE)),
        (f"daemon:{FREE + 1}:65536\n", str(FREE)),
        # The number of one who is there, and of one who has gone.
        (f"1:{FREE}:10\n", pwd.getpwuid(1).pw_name),
        (f"{FREE}:{FREE}:10\n", str(FREE)),
        # What is no range is passed over.
        (
            f"\n# none\nx\nx:\nx:y:z\nx:{FREE}\nx:{FREE}:-1\nx:{FREE}:²\ndaemon:{FREE}:1",
            "daemon",
        ),
        ("", str(FREE)),
    ],
)
def test_a_lent_uid_is_its_borrowers(tmp_path: Path, lines: str, name: str) -> None:
    subuid = tmp_path / "subuid"
    subuid.write_text(lines)
    assert user_name(FREE, subuid) == name


def test_a_uid_with_a_name_is_nobody_elses(tmp_path: Path) -> None:
    subuid = tmp_path / "subuid"
    subuid.write_text("games:0:65536\n")
    assert user_name(1, subuid) == pwd.getpwuid(1).pw_name
    assert user_name(FREE, tmp_path / "missing") == str(FREE)
