"""Owner, mode and POSIX ACL of a character device's file: reads and writes them.

It decides nothing, follows no symbolic link, and never opens the device itself.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

# include/uapi/linux/posix_acl_xattr.h and posix_acl.h: a version, then the entries in the order
# of their tags, all little endian.
XATTR = "system.posix_acl_access"
VERSION = 2
HEADER = struct.Struct("<I")
ENTRY = struct.Struct("<HHI")
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
NO_ID = 0xFFFFFFFF

READ_WRITE = 6


class NotADevice(OSError):
    """What has the device's name is something else: a link, a file, a folder."""


@dataclass(frozen=True)
class Acl:
    """Permissions as rwx bits (0-7). `users` and `groups` are pairs of id and bits, by id.

    `mask` bounds what `users`, `group` and `groups` give; None when there is none.
    """

    owner: int
    group: int
    other: int
    users: tuple[tuple[int, int], ...] = ()
    groups: tuple[tuple[int, int], ...] = ()
    mask: int | None = None

    @classmethod
    def closed_but_for(cls, users: Iterable[int] = (), groups: Iterable[int] = ()) -> Self:
        """Return the ACL with which root, these uids and these gids read and write, only they.

        The same as `setfacl --set u::rw,g::---,o::---,u:<uid>:rw,g:<gid>:rw,m::rw`.
        """
        named = tuple((uid, READ_WRITE) for uid in sorted(set(users)))
        named_groups = tuple((gid, READ_WRITE) for gid in sorted(set(groups)))
        mask = READ_WRITE if named or named_groups else None
        return cls(READ_WRITE, 0, 0, named, named_groups, mask)

    @classmethod
    def of_mode(cls, mode: int) -> Self:
        """Return what the nine bits of a mode say."""
        return cls(mode >> 6 & 7, mode >> 3 & 7, mode & 7)

    @classmethod
    def decode(cls, text: bytes) -> Self:
        """Read the kernel's form. Raises ValueError."""
        if len(text) < HEADER.size or (len(text) - HEADER.size) % ENTRY.size:
            raise ValueError("no ACL: its length is wrong")
        if HEADER.unpack_from(text)[0] != VERSION:
            raise ValueError("no ACL of version 2")
        single: dict[int, int] = {}
        users: list[tuple[int, int]] = []
        groups: list[tuple[int, int]] = []
        for tag, bits, number in ENTRY.iter_unpack(text[HEADER.size :]):
            if tag == USER:
                users.append((number, bits))
            elif tag == GROUP:
                groups.append((number, bits))
            else:
                single[tag] = bits
        if not {USER_OBJ, GROUP_OBJ, OTHER} <= single.keys():
            raise ValueError("no ACL: it has no owner, group or other")
        return cls(
            single[USER_OBJ], single[GROUP_OBJ], single[OTHER],
            tuple(sorted(users)), tuple(sorted(groups)), single.get(MASK),
        )  # fmt: skip

    def encode(self) -> bytes:
        """Return the kernel's form, which it takes in this order only."""
        entries = [
            (USER_OBJ, self.owner, NO_ID),
            *((USER, bits, uid) for uid, bits in self.users),
            (GROUP_OBJ, self.group, NO_ID),
            *((GROUP, bits, gid) for gid, bits in self.groups),
            *([(MASK, self.mask, NO_ID)] if self.mask is not None else []),
            (OTHER, self.other, NO_ID),
        ]
        return HEADER.pack(VERSION) + b"".join(ENTRY.pack(*entry) for entry in entries)

    def __str__(self) -> str:
        """Return the short text form of setfacl(1), with numbers for names."""
        parts = [
            f"u::{_letters(self.owner)}",
            *(f"u:{uid}:{_letters(bits)}" for uid, bits in self.users),
            f"g::{_letters(self.group)}",
            *(f"g:{gid}:{_letters(bits)}" for gid, bits in self.groups),
            *([f"m::{_letters(self.mask)}"] if self.mask is not None else []),
            f"o::{_letters(self.other)}",
        ]
        return ",".join(parts)


@dataclass(frozen=True)
class DeviceFile:
    """A character device's file as it is now.

    `file` is which file it is (file system and inode), `number` which device (st_rdev).
    """

    file: tuple[int, int]
    number: int
    uid: int
    gid: int
    mode: int
    acl: Acl

    def opens_more_than(self, wanted: Acl) -> bool:
        """Say whether somebody but root can open it whom `wanted` does not let.

        Cautious: what a mask takes away counts as given, since a chmod brings it back.
        """
        return (
            self.uid != 0
            or bool(self.acl.group & ~wanted.group)
            or bool(self.acl.other & ~wanted.other)
            or not set(self.acl.users) <= set(wanted.users)
            or not set(self.acl.groups) <= set(wanted.groups)
        )


def read_device(path: Path) -> DeviceFile:
    """Return how the device's file is. Raises NotADevice, FileNotFoundError, OSError."""
    with _held(path) as held:
        return _read(held)


def write_device(path: Path, *, uid: int, gid: int, acl: Acl) -> DeviceFile:
    """Set owner and ACL, and return how the file is then.

    Raises NotADevice, FileNotFoundError, OSError (EROFS, ENOTSUP where there are no ACLs).
    """
    with _held(path) as held:
        found = Path(held).stat()
        # The ACL first: for whoever is to lose the device, a change of owner can wait.
        if acl.mask is None:
            # Without it a mode that says the same is all there is, on every file system.
            _remove_acl(held)
            _chmod(held, acl.owner << 6 | acl.group << 3 | acl.other)
        else:
            os.setxattr(held, XATTR, acl.encode())
        if (found.st_uid, found.st_gid) != (uid, gid):
            os.chown(held, uid, gid)
        return _read(held)


@contextlib.contextmanager
def _held(path: Path) -> Iterator[str]:
    """Yield a name for the device's file that stays the same file, whatever `path` becomes.

    O_PATH opens the name and not the device: the driver does not notice.
    """
    opened = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        mode = os.fstat(opened).st_mode
        if not stat.S_ISCHR(mode):
            raise NotADevice(errno.ENODEV, f"is {_kind(mode)} and no device", str(path))
        yield f"/proc/self/fd/{opened}"
    finally:
        os.close(opened)


def _read(held: str) -> DeviceFile:
    found = Path(held).stat()
    try:
        acl = Acl.decode(os.getxattr(held, XATTR))
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise
        acl = Acl.of_mode(found.st_mode)
    return DeviceFile(
        (found.st_dev, found.st_ino), found.st_rdev, found.st_uid, found.st_gid,
        stat.S_IMODE(found.st_mode), acl,
    )  # fmt: skip


def _remove_acl(held: str) -> None:
    try:
        os.removexattr(held, XATTR)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise


def _chmod(held: str, mode: int) -> None:
    # Not Path.chmod: this is no path, and what it leads to is what was checked.
    os.chmod(held, mode)  # noqa: PTH101


def _letters(bits: int) -> str:
    return "".join(
        letter if bits & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1))
    )


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    return "a folder" if stat.S_ISDIR(mode) else "a file"
