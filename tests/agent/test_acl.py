"""Access lists of device files, held against setfacl and getfacl."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_agent.cards.acl import Acl, DeviceFile, NotADevice, read_device, write_device
from tests.lab.node import why_not

needs_root = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

BITS = st.integers(0, 7)
NAMED = st.dictionaries(st.integers(0, 2**32 - 2), BITS, max_size=5).map(
    lambda found: tuple(sorted(found.items()))
)


@st.composite
def acls(draw: st.DrawFn) -> Acl:
    users, groups = draw(NAMED), draw(NAMED)
    mask = draw(BITS) if users or groups else None
    return Acl(draw(BITS), draw(BITS), draw(BITS), users, groups, mask)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    """A character device's file that is open to all: what NVIDIA's tools make."""
    path = tmp_path / "nvidia0"
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 7))
    path.chmod(0o666)
    yield path
    path.unlink(missing_ok=True)


def getfacl(path: Path) -> list[str]:
    done = subprocess.run(
        ["getfacl", "--numeric", "--absolute-names", "--no-effective", str(path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.split()


@given(acls())
def test_an_acl_is_read_as_it_was_written(acl: Acl) -> None:
    assert Acl.decode(acl.encode()) == acl


@pytest.mark.parametrize(
    "text", [b"", b"\x02\0\0", b"\x01\0\0\0", b"\x02\0\0\0", b"\x02\0\0\0x"]
)
def test_what_is_no_acl_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="no ACL"):
        Acl.decode(text)


@needs_root
def test_a_closed_device_is_as_setfacl_closes_it(device: Path) -> None:
    other = device.with_name("nvidia1")
    os.mknod(other, stat.S_IFCHR | 0o666, os.makedev(1, 7))
    entries = "u::rw,g::---,o::---,u:1001:rw,u:1002:rw,g:990:rw,m::rw"
    subprocess.run(["setfacl", "--set", entries, str(other)], check=True)
    acl = Acl.closed_but_for([1002, 1001], [990])
    after = write_device(device, uid=0, gid=0, acl=acl)
    assert (after.acl, after.uid, after.gid) == (acl, 0, 0)
    assert getfacl(device)[3:] == getfacl(other)[3:]
    assert device.stat().st_mode == other.stat().st_mode
    assert read_device(other).acl == acl


@needs_root
def test_a_device_that_is_closed_to_all_has_no_acl_left(device: Path) -> None:
    write_device(device, uid=0, gid=0, acl=Acl.closed_but_for([1001]))
    write_device(device, uid=0, gid=0, acl=Acl.closed_but_for())
    assert stat.S_IMODE(device.stat().st_mode) == 0o600
    assert os.listxattr(device) == []


@needs_root
def test_owner_group_and_acl_are_given_back_exactly(device: Path) -> None:
    os.chown(device, 1001, 44)
    subprocess.run(["setfacl", "-m", "u:1003:r,m::rw", str(device)], check=True)
    before, listed = read_device(device), getfacl(device)
    write_device(device, uid=0, gid=0, acl=Acl.closed_but_for([1002]))
    assert getfacl(device) != listed
    write_device(device, uid=before.uid, gid=before.gid, acl=before.acl)
    assert getfacl(device) == listed


@needs_root
def test_what_is_no_device_is_never_written(device: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(device)
    before = getfacl(device)
    for name, kind in (("file", "a file"), ("link", "a symbolic link"), (".", "a folder")):
        with pytest.raises(NotADevice, match=f"is {kind} and no device"):
            write_device(tmp_path / name, uid=1001, gid=1001, acl=Acl.closed_but_for([1001]))
    assert getfacl(device) == before
    with pytest.raises(FileNotFoundError):
        read_device(tmp_path / "gone")


@pytest.mark.parametrize(
    ("uid", "acl", "is_more"),
    [
        (0, Acl.closed_but_for([1001], [990]), False),
        (0, Acl.closed_but_for(), False),
        (0, Acl.of_mode(0o600), False),
        (0, Acl.of_mode(0o666), True),
        (0, Acl.of_mode(0o660), True),
        (1001, Acl.of_mode(0o600), True),
        (0, Acl.closed_but_for([1001, 1002]), True),
        # Masked by a chmod: the next one may bring it back.
        (0, Acl(6, 0, 0, ((1002, 6),), (), 0), True),
    ],
)
def test_a_file_opens_more_than_wanted_if_anybody_else_can_open_it(
    uid: int, acl: Acl, is_more: bool
) -> None:
    found = DeviceFile((1, 2), 3, uid, 0, 0, acl)
    assert found.opens_more_than(Acl.closed_but_for([1001], [990])) is is_more
