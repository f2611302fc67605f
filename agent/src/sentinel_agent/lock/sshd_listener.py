"""The sshd that listens on this node: who it is, where it listens, and how it is reloaded.

It changes no file.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import signal
import socket
import struct
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from .. import commands
from ..errors import LockError
from .sshd import MAIN_CONFIG, Sshd, test_config

# The break-glass sshd is none of ours to reload.
BREAKGLASS_CONFIG = "/etc/sentinel/breakglass-sshd.conf"
# sshd.c, server_listen() and main(): the title that the listener gives itself.
TITLE = re.compile(r"^sshd: (.*) \[listener\] \d+ of [\d-]+ startups")
UNITS = re.compile(r"/(ssh|sshd)\.service(?:/|$)", re.MULTILINE)
SYSTEMD = Path("/run/systemd/system")
# proc_pid_status(5): real, effective, saved and file system uid.
ALL_ROOT = "\nUid:\t0\t0\t0\t0\n"
# proc(5), /proc/net/tcp: TCP_LISTEN.
LISTEN = "0A"
RELOAD_WAIT_S = 10.0
POLL_S = 0.02
GREETING_WAIT_S = 3.0


@dataclass(frozen=True)
class Listener:
    """A running sshd. `argv` is how it was started; `sockets` are (inode, address, port)."""

    pid: int
    argv: tuple[str, ...]
    sockets: tuple[tuple[int, str, int], ...]
    unit: str

    @property
    def config(self) -> Path | None:
        """The main configuration that it was told to read, None for the usual one."""
        for option, value in zip(self.argv, self.argv[1:], strict=False):
            if option == "-f":
                return Path(value)
        return None

    @property
    def endpoints(self) -> list[tuple[str, int]]:
        """Where this node reaches it: loopback where it listens there."""
        found = []
        for _, address, port in self.sockets:
            parsed = ipaddress.ip_address(address)
            loopback = "127.0.0.1" if parsed.version == 4 else "::1"
            end = (loopback if parsed.is_unspecified else address, port)
            if end not in found:
                found.append(end)
        return sorted(
            found, key=lambda end: (not ipaddress.ip_address(end[0]).is_loopback, end)
        )


def is_systemd() -> bool:
    """Say whether systemd is this node's init: sd_booted(3)."""
    return SYSTEMD.is_dir()


def find_listeners() -> list[Listener]:
    """Return every sshd that listens here, the break-glass one aside."""
    sockets = _listening()
    return [
        listener
        for path in Path("/proc").iterdir()
        if path.name.isdigit() and (listener := _read_listener(int(path.name), sockets))
    ]


def find_listener(pid_file: str = "") -> Listener | None:
    """Return the node's sshd, which reads the main configuration.

    Where several do, the one of `pid_file`. None when none runs. Raises LockError when it is
    not clear which is meant.
    """
    found = find_listeners()
    found = [one for one in found if one.config in (None, MAIN_CONFIG)] or found
    with contextlib.suppress(OSError, ValueError):
        named = int(Path(pid_file).read_text())
        found = [listener for listener in found if listener.pid == named] or found
    if len(found) > 1:
        pids = ", ".join(str(listener.pid) for listener in found)
        raise LockError("sshd", f"several sshd listen here (processes {pids})")
    return found[0] if found else None


def to_note(listener: Listener | None) -> str:
    """Return what `from_note` makes the same of; empty for none."""
    return json.dumps(asdict(listener)) if listener else ""


def from_note(text: str) -> Listener | None:
    """Return the listener that was noted, as far as it can be read."""
    try:
        document = json.loads(text)
        sockets = tuple((int(i), str(a), int(p)) for i, a, p in document["sockets"])
        argv = tuple(str(word) for word in document["argv"])
        return Listener(int(document["pid"]), argv, sockets, str(document["unit"]))
    except (ValueError, KeyError, TypeError):
        return None


def check_before_reload(listener: Listener) -> None:
    """Make sure that sshd, read anew, comes up again. Raises LockError.

    SIGHUP ends a listener that cannot use its arguments, its configuration or its addresses.
    """
    argv = listener.argv
    if not argv[0].startswith("/") or not os.access(argv[0], os.X_OK):
        raise LockError("reload", f"sshd was started as {argv[0]}, which cannot be run")
    own = [word for word in argv[1:] if word not in ("-D", "-d", "-e", "-i")]
    done = commands.run([argv[0], "-t", *own])
    if done.status != 0:
        raise LockError("reload", f"with the running sshd's arguments: {done.reason}")
    # As sshd will have them: a port can be among its arguments.
    settings = commands.run([argv[0], "-T", *own]).output.splitlines()
    addresses = [line.split()[1] for line in settings if line.startswith("listenaddress ")]
    held = {(address, port) for _, address, port in listener.sockets}
    if addresses and not any(_is_free(text, held) for text in addresses):
        raise LockError(
            "reload", f"sshd could listen on none of its addresses ({', '.join(addresses)})"
        )


def reload_sshd(listener: Listener) -> None:
    """Have the running sshd read its configuration. Raises LockError if it is silent then."""
    if listener.unit and is_systemd():
        done = commands.run(["systemctl", "reload", listener.unit])
        if done.status != 0:
            raise LockError("reload", f"systemctl reload {listener.unit}: {done.reason}")
    else:
        try:
            os.kill(listener.pid, signal.SIGHUP)
        except ProcessLookupError:
            raise LockError("reload", "sshd ended before it was reloaded") from None
    _wait_for_new_sockets(listener)
    if not is_answering(listener):
        raise LockError("reload", "sshd does not answer after it was reloaded")


def bring_back(program: Sshd, listener: Listener) -> None:
    """Have sshd read its files again after they were put back; start it if it ended.

    Raises LockError.
    """
    if Path(f"/proc/{listener.pid}").exists():
        # A mistake of the site's own would end it, and nothing of ours is in force by now.
        test_config(program)
        with contextlib.suppress(LockError):
            reload_sshd(listener)
            return
    _start_again(program, listener)


def _start_again(program: Sshd, listener: Listener) -> None:
    if is_answering(listener):
        return
    if listener.unit and is_systemd():
        commands.run(["systemctl", "restart", listener.unit])
    # What keeps it in the foreground may start it again by itself.
    if (listener.unit or "-D" in listener.argv) and _becomes_answering(listener):
        return
    # Without these it makes itself a daemon; with -D it would be a child of ours.
    own = [word for word in listener.argv[1:] if word not in ("-D", "-e", "-d")]
    for binary in dict.fromkeys((listener.argv[0], str(program.binary))):
        if commands.run([binary, *own]).status == 0 and _becomes_answering(listener):
            return
    raise LockError("reload", "sshd ended and could not be started again")


def is_answering(listener: Listener) -> bool:
    """Say whether an sshd greets where this one listened."""
    return any(greets(address, port) for address, port in listener.endpoints)


def _becomes_answering(listener: Listener) -> bool:
    deadline = time.monotonic() + GREETING_WAIT_S
    while not is_answering(listener):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def greets(address: str, port: int) -> bool:
    """Say whether an sshd answers there."""
    try:
        with socket.create_connection((address, port), GREETING_WAIT_S) as connection:
            connection.settimeout(GREETING_WAIT_S)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _wait_for_new_sockets(listener: Listener) -> None:
    """Wait until it has other sockets, unless they are systemd's."""
    before = {inode for inode, _, _ in listener.sockets}
    deadline = time.monotonic() + RELOAD_WAIT_S
    while time.monotonic() < deadline:
        now = _read_listener(listener.pid, _listening())
        if now is None and not Path(f"/proc/{listener.pid}").exists():
            return
        if now is not None and not before & {inode for inode, _, _ in now.sockets}:
            return
        if listener.unit and now is not None and _is_handed_out(listener):
            return
        time.sleep(POLL_S)


def _is_handed_out(listener: Listener) -> bool:
    """Say whether the sockets are systemd's: a listener of ssh.socket has them as they were."""
    done = commands.run(["systemctl", "is-active", f"{listener.unit.partition('.')[0]}.socket"])
    return done.status == 0


def _read_listener(pid: int, sockets: dict[int, tuple[str, int]]) -> Listener | None:
    folder = Path(f"/proc/{pid}")
    try:
        # A user's sshd listens too, for a forwarded port; a container's is in another network.
        # The folder's owner is no proof: a setuid program that a user has started is root's
        # there too, and has the name, the arguments and the sockets that the user gave it.
        is_roots = ALL_ROOT in (folder / "status").read_text()
        if not is_roots or (folder / "comm").read_text() != "sshd\n":
            return None
        if (folder / "ns/net").readlink() != Path("/proc/self/ns/net").readlink():
            return None
        title = (folder / "cmdline").read_bytes().decode(errors="replace").rstrip("\0")
        match = TITLE.match(title)
        if match is None and title.startswith("sshd: "):
            return None  # a connection's
        argv = match[1].split() if match else title.split("\0")
        held = []
        for descriptor in (folder / "fd").iterdir():
            name = str(descriptor.readlink())
            if name.startswith("socket:[") and int(name[8:-1]) in sockets:
                held.append((int(name[8:-1]), *sockets[int(name[8:-1])]))
        unit = UNITS.search((folder / "cgroup").read_text())
    except OSError:
        return None
    if not held or BREAKGLASS_CONFIG in argv:
        return None
    return Listener(pid, tuple(argv), tuple(sorted(held)), f"{unit[1]}.service" if unit else "")


def _listening() -> dict[int, tuple[str, int]]:
    """Return the listening TCP sockets of this network: inode to (address, port)."""
    found = {}
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/self/net/{name}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if words[3] == LISTEN:
                address, _, port = words[1].partition(":")
                found[int(words[9])] = (_address(address), int(port, 16))
    return found


def _address(text: str) -> str:
    """Return an address of /proc/net/tcp: words of 32 bits in the machine's byte order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    return str(ipaddress.ip_address(struct.pack(f"={len(words)}I", *words)))


def _is_free(text: str, held: set[tuple[str, int]]) -> bool:
    """Say whether sshd could listen at `address:port`, as `sshd -T` prints it."""
    host, _, number = text.rpartition(":")
    address, port = ipaddress.ip_address(host.strip("[]")), int(number)
    if (str(address), port) in held:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((str(address), port))
            probe.listen(1)
    except OSError:
        return False
    return True
