"""Logs in as a break-glass account over loopback, to see that it works. It changes no setting.

The key is made for one login: bound to this machine and to a minute, and taken away afterwards.
"""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from .. import commands
from ..errors import LockError
from ..files import replace_file
from .drop_in import LOOPBACK, UTC_EXPIRY
from .sshd import Sshd

RUN_FOLDER = Path("/run/sentinel")
CHECK_FOLDER = RUN_FOLDER / "check"
KEY_LIFE = timedelta(minutes=1)
LOGIN_WAIT_S = 20.0
# How long an sshd has to end after its client.
END_WAIT_S = 5.0
KEY_TYPES = ("ed25519", "ecdsa")
# No account has this name: it stands for everybody who holds nothing.
NOBODY = "sentinel-check"
# What sshd says of a refusal, at its more talkative level.
REASONS = ("not allowed", "refused", "bad owner", "denied", "error:", "fatal:", "cannot",
           "could not", "failed", "expired", "no such")  # fmt: skip


@contextlib.contextmanager
def check_key(sshd: Sshd, user: str, addresses: Sequence[str] = ()) -> Iterator[Path]:
    """Let the user in from this machine for a minute; yield the private key's path.

    `addresses` are this machine's own, besides loopback. Raises LockError.
    """
    sources = dict.fromkeys((*LOOPBACK, *addresses))
    ends = datetime.now(UTC) + KEY_LIFE
    if sshd.version >= UTC_EXPIRY:
        expiry = f"{ends:%Y%m%d%H%M%S}Z"
    else:
        expiry = f"{ends.astimezone():%Y%m%d%H%M%S}"
    with _folder() as folder:
        private = _make_key(folder)
        public = private.with_suffix(".pub").read_text().strip()
        options = f'restrict,from="{",".join(sources)}",expiry-time="{expiry}"'
        _make_check_folder()
        installed = CHECK_FOLDER / user
        # sshd reads it with the user's own rights.
        replace_file(installed, f"{options} {public}\n".encode(), mode=0o644)
        try:
            yield private
        finally:
            installed.unlink(missing_ok=True)


def forget_keys() -> None:
    """Take away what a check that was killed has left."""
    for path in (*CHECK_FOLDER.glob("*"), *CHECK_FOLDER.glob(".*")):
        with contextlib.suppress(OSError):
            path.unlink()
    for folder in RUN_FOLDER.glob("rehearsal-*"):
        shutil.rmtree(folder, ignore_errors=True)


def login(user: str, key: Path, address: str, port: int) -> str:
    """Log in and run a command; return why it failed, empty when it worked."""
    word = secrets.token_hex(8)
    done = commands.run(
        [*_ssh(user, address, port, key), f"echo {word}"], timeout_s=LOGIN_WAIT_S
    )
    if done.status == 0 and word in done.output:
        return ""
    return done.reason


def login_through_own_sshd(sshd: Sshd, user: str, key: Path, prefix: Sequence[str] = ()) -> str:
    """Log in as `login` does, through an sshd that serves this connection and no other.

    It listens on a free port of loopback, and its configuration is what `prefix` shows it.
    """
    with _folder() as folder, socket.create_server(("127.0.0.1", 0)) as server:
        log = folder / "sshd.log"
        argv = [*prefix, str(sshd.binary), "-i", "-e", "-f", str(sshd.config),
                "-o", "LogLevel=VERBOSE"]  # fmt: skip
        serving = threading.Thread(target=_serve, args=(server, argv, log), daemon=True)
        serving.start()
        failure = login(user, key, "127.0.0.1", server.getsockname()[1])
        # It ends the accept that is waiting.
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        serving.join(LOGIN_WAIT_S)
        said = log.read_text(errors="replace") if log.exists() else ""
    return f"{failure}{_reasons(said)}" if failure else ""


def offered_methods(address: str, port: int) -> tuple[str, str]:
    """Return how sshd lets somebody without a reservation try, and all that ssh said.

    The methods are as ssh prints them, `publickey,password`; empty when it did not answer.
    """
    argv = _ssh(NOBODY, address, port, None, "-o", "PreferredAuthentications=none")
    done = commands.run([*argv, "true"], timeout_s=LOGIN_WAIT_S)
    _, found, rest = done.errors.rpartition("Permission denied (")
    return (rest.partition(")")[0] if found else ""), done.errors


def _ssh(user: str, address: str, port: int, key: Path | None, *more: str) -> list[str]:
    options = {
        "BatchMode": "yes", "ConnectTimeout": "5", "ControlPath": "none",
        "GlobalKnownHostsFile": "/dev/null", "IdentitiesOnly": "yes", "IdentityAgent": "none",
        "PreferredAuthentications": "publickey", "ProxyCommand": "none",
        "StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null", "LogLevel": "INFO",
    }  # fmt: skip
    chosen = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    identity = ["-i", str(key)] if key else []
    # ssh takes the first value of an option.
    return ["ssh", "-F", "/dev/null", *more, *chosen, *identity, "-p", str(port),
            "-l", user, address]  # fmt: skip


def _make_key(folder: Path) -> Path:
    # Where only certified algorithms are allowed, ed25519 may not be.
    for kind in KEY_TYPES:
        path = folder / kind
        done = commands.run(
            ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", str(path)]
        )
        if done.status == 0:
            return path
    raise LockError("break-glass login", f"no key could be made: {done.reason}")


def _make_check_folder() -> None:
    for folder in (RUN_FOLDER, CHECK_FOLDER):
        folder.mkdir(mode=0o755, exist_ok=True)
        # The agent's umask is tighter, and sshd reads the folder as the user.
        folder.chmod(0o755)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    RUN_FOLDER.mkdir(mode=0o755, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rehearsal-", dir=RUN_FOLDER) as name:
        yield Path(name)


def _serve(server: socket.socket, argv: Sequence[str], log: Path) -> None:
    """Run an sshd for each connection until the socket is shut.

    Anybody on this machine can connect, too, and must not be able to make the check fail.
    """
    running: list[subprocess.Popen[bytes]] = []
    with log.open("ab") as output:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                break
            with connection:
                try:
                    process = subprocess.Popen(
                        argv, stdin=connection.fileno(), stdout=connection.fileno(),
                        stderr=output, env=commands.ENVIRONMENT, cwd="/",
                    )  # fmt: skip
                except OSError as error:
                    output.write(f"error: {argv[0]}: {error.strerror}\n".encode())
                else:
                    running.append(process)
    deadline = time.monotonic() + END_WAIT_S
    while any(process.poll() is None for process in running) and time.monotonic() < deadline:
        time.sleep(0.01)
    for process in running:
        process.kill()
        process.wait()


def _reasons(said: str) -> str:
    lines = [line.strip() for line in said.splitlines()]
    found = [line for line in lines if any(word in line.lower() for word in REASONS)]
    return f" (sshd: {ascii('; '.join(dict.fromkeys(found)))[1:-1][:300]})" if found else ""


def own_addresses(endpoints: Sequence[tuple[str, int]]) -> list[str]:
    """Return the addresses of an sshd that a login to it would come from, loopback aside."""
    return [
        address for address, _ in endpoints if not ipaddress.ip_address(address).is_loopback
    ]
