"""Which units would take sshd's folder away when they stop, by their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentinel_agent.install.sshd_folder import find_units

SSHD = "RuntimeDirectory=sshd\n"
KEPT = "RuntimeDirectoryPreserve=yes\n"


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        (SSHD, True),
        (SSHD + "RuntimeDirectoryMode=0755\n", True),
        ("RuntimeDirectory = other sshd\n", True),
        ("RuntimeDirectory=sshd:link\n", True),
        (SSHD + "RuntimeDirectoryPreserve=restart\n", True),
        (SSHD + KEPT + "RuntimeDirectoryPreserve=no\n", True),
        (SSHD + "RuntimeDirectory=other\n", True),
        (SSHD + KEPT, False),
        (SSHD + "RuntimeDirectory=\n", False),
        ("#" + SSHD, False),
        ("RuntimeDirectory=sshd2 sshd/sub\n", False),
        ("", False),
    ],
)
def test_a_unit_that_removes_the_folder_is_found(
    tmp_path: Path, text: str, is_found: bool
) -> None:
    (tmp_path / "site.service").write_text(f"[Service]\n{text}")
    assert find_units([tmp_path]) == (["site.service"] if is_found else [])


def test_drop_ins_and_folders_count_as_they_do_for_systemd(tmp_path: Path) -> None:
    etc, usr = tmp_path / "etc", tmp_path / "usr"
    for folder in (etc, usr):
        folder.mkdir()
    (usr / "ssh.service").write_text(SSHD)
    (usr / "ssh@.service").write_text(SSHD)
    (usr / "masked.service").write_text(SSHD)
    (etc / "masked.service").symlink_to("/dev/null")
    (etc / "sshd.service").symlink_to(usr / "ssh.service")
    (usr / "sentinel-breakglass-sshd.service").write_text(SSHD)
    (usr / "changed.service").write_text(SSHD)
    (etc / "changed.service").write_text("")
    (usr / "kept.service").write_text(SSHD)
    (usr / "ssh.service.d").mkdir()
    for name in ("kept.service.d", "ssh@.service.d"):
        (etc / name).mkdir()
    (etc / "kept.service.d/site.conf").write_text(KEPT)
    # Our own does not hide that it is needed.
    (etc / "ssh@.service.d/sentinel.conf").write_text(KEPT)
    assert find_units([etc, usr]) == ["ssh.service", "ssh@.service"]
