"""A process that hangs in the kernel, as one does whose driver hangs, for as long as is wanted.

It begins another program (execve), and the kernel closes its files for that. One of them is on
a disk that never answers; until it does, whoever asks for the process's memory waits too.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Both ends: the FUSE server (linux/fuse.h) is the parent, who hangs is its child. It is in a
# mount namespace of its own. Arguments: folder, uid, and the files that the child has open.
SCRIPT = """
import ctypes, os, stat, struct, sys
folder, uid, *files = sys.argv[1:]
if not os.path.exists("/dev/fuse"):
    os.mknod("/dev/fuse", stat.S_IFCHR | 0o600, os.makedev(10, 229))
served = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={served},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
mount = ctypes.CDLL(None, use_errno=True).mount
if mount(b"hanging", folder.encode(), b"fuse", 0, options) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
child = os.fork()
if child == 0:
    os.close(served)
    for file in files:
        os.set_inheritable(os.open(file, os.O_RDWR), True)
    os.open(f"{folder}/file", os.O_RDONLY | os.O_CLOEXEC)
    os.setresuid(int(uid), int(uid), int(uid))
    os.execv("/bin/sleep", ["sleep", "600"])
LOOKUP, GETATTR, OPEN, FLUSH, INIT = 1, 3, 14, 25, 26
FOLDER, FILE = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o666
def attributes(node, mode):
    return struct.pack("Q32x20xI24x", node, mode)
while True:
    _, code, unique, node = struct.unpack_from("IIQQ", os.read(served, 1 << 17))
    error, body = 0, b""
    if code == INIT:
        body = struct.pack("II12xI40x", 7, 31, 4096)
    elif code == LOOKUP:
        body = struct.pack("2Q2Q2I", 2, 0, 3600, 3600, 0, 0) + attributes(2, FILE)
    elif code == GETATTR:
        body = struct.pack("QII", 3600, 0, 0) + attributes(node, FOLDER if node == 1 else FILE)
    elif code == OPEN:
        body = struct.pack("QII", 1, 0, 0)
    elif code == FLUSH:
        print(child, flush=True)
        continue
    else:
        error = -38  # ENOSYS
    os.write(served, struct.pack("IiQ", 16 + len(body), error, unique) + body)
"""


@contextmanager
def hanging(
    folder: Path, uid: int = 0, files: tuple[str, ...] = ()
) -> Iterator[tuple[int, Callable[[], None]]]:
    """Yield the pid of a process of the uid that hangs, and what lets it go on.

    `files`: what it has open.
    """
    folder.mkdir()
    argv = ["unshare", "--mount", sys.executable, "-c", SCRIPT, str(folder), str(uid), *files]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        pid = int(server.stdout.readline())
        try:
            yield pid, server.kill
        finally:
            # It goes on to its end when nobody serves the disk any more.
            subprocess.run(["kill", f"-{signal.SIGKILL.value}", str(pid)], check=False)
            server.kill()
