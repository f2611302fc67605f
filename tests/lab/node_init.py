"""Process 1 of a lab node: lays out its file system, collects its syslog, reaps its orphans.

It starts none of the node's programs; tests/lab/machine.py does. Its arguments are a word that
it leaves in /run/node/id, and folders: those that must stay visible although they may lie under
something that is hidden, and behind `hide:` those that must not be seen. It prints `ready` and
ends, and with it every process of the node, when its standard input closes: that happens
however the test process dies.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import stat
import sys
import threading
from pathlib import Path

MS_RDONLY, MS_NOSUID, MS_REMOUNT, MS_BIND = 1, 2, 32, 4096
MS_REC, MS_PRIVATE = 1 << 14, 1 << 18
LIBC = ctypes.CDLL(None, use_errno=True)

# Changes in these stay in the node; what the host has there can be read.
OVERLAID = ("/etc", "/usr", "/var")
# These start empty.
EMPTY = ("/home", "/tmp", "/var/log", "/dev")
SCRATCH = Path("/run")
# name, major, minor: what a login needs of /dev.
DEVICES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """mount(2). Raises OSError."""
    arguments = [os.fsencode(text) for text in (source, target, kind)]
    if LIBC.mount(*arguments, flags, os.fsencode(data)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), f"mount {source} on {target} as {kind}")


def lay_out(keep: list[str], hide: list[str]) -> None:
    """Hide the host's changeable folders behind tmpfs, save those in `keep`, and `hide`."""
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    # Held open, a folder can be bound again after something was mounted over it.
    kept = [(path, os.open(path, os.O_PATH | os.O_DIRECTORY)) for path in keep]
    mount("tmpfs", str(SCRATCH), "tmpfs", MS_NOSUID, "mode=0755")
    for path in OVERLAID:
        upper, work = (
            SCRATCH / "node" / part / path[1:].replace("/", "-") for part in ("upper", "work")
        )
        for folder in (upper, work):
            folder.mkdir(parents=True)
        # The merged folder takes its mode from the upper one.
        upper.chmod(stat.S_IMODE(Path(path).stat().st_mode))
        layers = f"lowerdir={path},upperdir={upper},workdir={work}"
        mount("overlay", path, "overlay", 0, layers)
    for path in EMPTY:
        mode = "1777" if path == "/tmp" else "0755"
        mount("tmpfs", path, "tmpfs", 0 if path == "/dev" else MS_NOSUID, f"mode={mode}")
    for path, held in kept:
        now_at = Path(path)
        now_at.mkdir(parents=True, exist_ok=True)
        if not os.path.samestat(now_at.stat(), os.fstat(held)):
            mount(f"/proc/self/fd/{held}", path, "", MS_BIND | MS_REC)
        os.close(held)
    for path in hide:
        if Path(path).is_dir():
            mount("tmpfs", path, "tmpfs", MS_RDONLY | MS_NOSUID, "mode=0755")
    # Whatever is not laid out above is the host's own.
    mount("none", "/", "", MS_REMOUNT | MS_BIND | MS_RDONLY)


def fill_dev() -> None:
    """Make the few devices of /dev, and terminals that no other namespace shares."""
    os.umask(0)
    for name, major, minor in DEVICES:
        os.mknod(f"/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
    Path("/dev/pts").mkdir(mode=0o755)
    mount("devpts", "/dev/pts", "devpts", 0, "newinstance,gid=5,mode=0620,ptmxmode=0666")
    Path("/dev/ptmx").symlink_to("pts/ptmx")
    Path("/dev/shm").mkdir(mode=0o1777)
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        Path("/dev", name).symlink_to(f"/proc/self/fd{target}")
    os.umask(0o022)


def collect_syslog() -> None:
    """Append what programs send to /dev/log to /var/log/syslog, one line each."""
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind("/dev/log")
    Path("/dev/log").chmod(0o666)

    def copy() -> None:
        with Path("/var/log/syslog").open("ab", buffering=0) as log:
            while True:
                log.write(receiver.recv(65536).replace(b"\n", b"\\n") + b"\n")

    threading.Thread(target=copy, daemon=True).start()


def reap() -> None:
    """Collect orphans: nothing else does where this is process 1."""
    while True:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        threading.Event().wait(0.05)


def main() -> None:
    """See the module's docstring."""
    folders = [argument.partition("hide:") for argument in sys.argv[2:]]
    lay_out(
        [kept for kept, word, _ in folders if not word],
        [hidden for _, word, hidden in folders if word],
    )
    (SCRATCH / "node" / "id").write_text(sys.argv[1])
    fill_dev()
    collect_syslog()
    threading.Thread(target=reap, daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    os._exit(0)


main()
