"""Looks, before anything is changed, whether the node can be installed. It changes nothing."""

from __future__ import annotations

import contextlib
import pwd
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import commands
from ..config import Config
from ..errors import LockError, ServerError
from ..lock import drop_in, pam, sshd
from ..lock.breakglass import find_operators
from ..lock.check_login import NOBODY
from ..lock.files import PAM_FILE, find_foreign_commands, read_text
from ..lock.scene import find_listener
from ..lock.sshd import Sshd
from ..lock.sshd_listener import SYSTEMD, find_listeners
from ..server.client import BookingClient
from ..server.enrolment import find_exposure
from . import breakglass_sshd
from .plan import Options

PYTHON = "/usr/bin/python3"
OLDEST_PYTHON = "(3, 7)"
PROGRAMS = ("ssh", "ssh-keygen", "setpriv", "unshare", "mount", "sh", "usermod")
SELINUX = Path("/sys/fs/selinux/enforce")
_AKC = "authorizedkeyscommand"


@dataclass(frozen=True)
class Finding:
    """Something about the node; one that `stops` must be put right first."""

    text: str
    stops: bool = True


def look_at_node(options: Options, config: Config, program: Sshd) -> list[Finding]:
    """Return what an operator should know, all of it at once."""
    return [
        *_system(options),
        *_server(options, config),
        *_sshd(options, config, program),
        *_operators(options, config),
    ]


def _system(options: Options) -> Iterator[Finding]:
    missing = [
        name for name in PROGRAMS if not shutil.which(name, path=commands.ENVIRONMENT["PATH"])
    ]
    if missing:
        yield Finding(f"these programs are missing: {', '.join(missing)}")
    # What get-keys imports; Debian's python3-minimal has no json.
    code = f"import sys, datetime, json, syslog; sys.exit(sys.version_info < {OLDEST_PYTHON})"
    if (done := commands.run([PYTHON, "-IS", "-c", code])).status != 0:
        yield Finding(f"get-keys needs {PYTHON}, 3.7 or newer, with json: {done.reason}")
    if not SYSTEMD.is_dir():
        yield Finding("systemd is not init here: nothing is started", stops=False)
    if SELINUX.exists() and SELINUX.read_text().strip() == "1":
        yield Finding(
            "SELinux is enforcing: labels are restored, but that sshd may run get-keys and "
            "read its cache in this policy has not been tested", stops=False,
        )  # fmt: skip
    port = options.breakglass_port
    if port and not _is_own_or_free(port):
        yield Finding(f"port {port} is taken: give --breakglass-port another, or 0 for none")


def _server(options: Options, config: Config) -> Iterator[Finding]:
    exposure = "" if options.plain_http else find_exposure(options.server)
    if exposure:
        yield Finding(exposure)
    problem = _unreadable(options.ca_file) if options.ca_file is not None else ""
    if problem:
        yield Finding(f"--ca-file {options.ca_file}: {problem}")
    if exposure or problem:
        return
    client = BookingClient(options.server, options.ca_file, client_cert=config.client_files)
    try:
        client.get_policy("", 0)
    except ServerError as error:
        # Without a token it refuses us, and so it is there.
        if not error.is_permanent:
            yield Finding(f"{options.server} does not answer as it should: {error}")
    finally:
        client.close()


def _sshd(options: Options, config: Config, program: Sshd) -> Iterator[Finding]:
    if program.version < drop_in.OLDEST:
        yield Finding(f"OpenSSH {program.version_text} is older than 8.2")
        return
    try:
        sshd.test_config(program)
        settings = sshd.effective(program, NOBODY)
        listener = find_listener(program)
    except LockError as error:
        yield Finding(f"sshd as it is now: {error}")
        return
    if listener is None:
        yield Finding("no sshd runs here: the live port cannot be tried", stops=False)
    elif listener.config not in (None, sshd.MAIN_CONFIG):
        yield Finding(f"the running sshd reads {listener.config}, not {sshd.MAIN_CONFIG}")
    for other in find_listeners():
        if listener is not None and other.pid != listener.pid:
            ports = ", ".join(sorted({str(port) for _, _, port in other.sockets}))
            yield Finding(
                f"another sshd listens on port {ports} and reads {other.config}: of the lock, "
                "only PAM's part is in it", stops=False,
            )  # fmt: skip
    yield from _foreign(options, config, settings, listener.argv if listener else ())
    names = sorted(path.name for path in config.sshd_drop_in.parent.glob("*.conf"))
    earlier = [name for name in names if name < config.sshd_drop_in.name]
    main = read_text(sshd.MAIN_CONFIG)
    if not drop_in.is_read_first(main, str(config.sshd_drop_in), names):
        why = f"{', '.join(earlier)} sorts before ours" if earlier else "it is not the first"
        yield Finding(
            f"{sshd.MAIN_CONFIG} would not read our drop-in first ({why}): while the node is "
            "locked, a marked line at its top does", stops=False,
        )  # fmt: skip
    if not PAM_FILE.exists():
        yield Finding(f"no {PAM_FILE}: PAM has no configuration for sshd")
        return
    try:
        pam.insert(read_text(PAM_FILE), "", pam.read_service)
    except ValueError as error:
        yield Finding(f"{PAM_FILE}: {error}")


def _foreign(
    options: Options,
    config: Config,
    settings: Mapping[str, tuple[str, ...]],
    argv: Sequence[str],
) -> Iterator[Finding]:
    """Find another package's AuthorizedKeysCommand: sshd takes only one."""
    found = find_foreign_commands(config)
    found += [f"sshd's arguments: {word}" for word in argv if _AKC in word.lower()]
    effective = " ".join(settings.get(_AKC, ("none",)))
    is_ours = effective == "none" or effective.startswith(drop_in.GET_KEYS)
    if not found and not is_ours:
        found = [f"sshd -T: {effective}"]
    for line in found:
        yield Finding(
            f"another AuthorizedKeysCommand ({line}): it is not asked while the node is "
            "locked; --replace-akc if meant", stops=not options.replace_akc,
        )  # fmt: skip


def _operators(options: Options, config: Config) -> Iterator[Finding]:
    """Find out whether somebody will get in whatever happens."""
    for user, path in options.breakglass.items():
        try:
            pwd.getpwnam(user)
        except KeyError:
            yield Finding(f"--breakglass {user}: no such account on this node")
        if problem := _unreadable(path):
            yield Finding(f"--breakglass {user}: {path}: {problem}")
        elif b"PRIVATE KEY" in path.read_bytes():
            yield Finding(f"--breakglass {user}: {path} is a private key; give its .pub file")
        elif commands.run(["ssh-keygen", "-l", "-f", str(path.absolute())]).status != 0:
            yield Finding(f"--breakglass {user}: {path} has no public key in it")
    there = find_operators(config.breakglass_group)
    for operator in there:
        is_given = operator.user in options.breakglass
        if operator.problem and operator.is_expected and not is_given:
            yield Finding(f"break-glass {operator.user}: {operator.problem}", stops=False)
    if not options.breakglass and all(operator.problem for operator in there):
        yield Finding(
            "nobody could get in past the lock: give --breakglass USER=PUBKEYFILE for at least "
            "one operator"
        )


def _unreadable(path: Path) -> str:
    """Return why a file cannot be read, empty when it can."""
    try:
        with path.open("rb"):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _is_own_or_free(port: int) -> bool:
    with contextlib.suppress(OSError, ValueError):
        pid = int(Path(breakglass_sshd.PID_FILE).read_text())
        return Path(f"/proc/{pid}").exists() or _is_free(port)
    return _is_free(port)


def _is_free(port: int) -> bool:
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", port))
            probe.listen(1)
    except OSError:
        return False
    return True
