"""Says whose container a process is in. It changes nothing.

A container without root has a user namespace, in which its processes have uids of the range
that was lent to its user (/etc/subuid, or a directory). The kernel knows who made the
namespace; it is asked, rather than a list that may be wrong.
"""

from __future__ import annotations

import fcntl
import os
import struct

# linux/nsfs.h
NS_GET_PARENT = 0xB702
NS_GET_OWNER_UID = 0xB704
# Namespaces nest at most 32 deep: user_namespaces(7).
NESTED_MAX = 33


def owner_of(pid: int) -> int | None:
    """Return the uid that made the process's outermost user namespace below ours.

    None for a process in our own namespace, and for one that has ended.
    """
    try:
        own = os.stat("/proc/self/ns/user")  # noqa: PTH116  a file of the kernel's
        opened = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if _is_same(opened, own):
            return None
        for _ in range(NESTED_MAX):
            parent = fcntl.ioctl(opened, NS_GET_PARENT)
            if _is_same(parent, own):
                os.close(parent)
                answer = fcntl.ioctl(opened, NS_GET_OWNER_UID, struct.pack("I", 0))
                return int(struct.unpack("I", answer)[0])
            os.close(opened)
            opened = parent
    except OSError:
        # It is not below ours, or this kernel (before 4.11) does not tell.
        return None
    finally:
        os.close(opened)
    return None


def _is_same(opened: int, other: os.stat_result) -> bool:
    found = os.fstat(opened)
    return (found.st_dev, found.st_ino) == (other.st_dev, other.st_ino)
