"""Real servers for the booking tests: ours under gunicorn, and other people's programs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests
from apiflask import APIFlask

from sentinel_booking.app import create_app
from sentinel_booking.config import Config
from sentinel_booking.models import upgrade_schema


@dataclass(frozen=True)
class BookingServer:
    """A server that runs; `url` is without a slash at its end."""

    url: str
    port: int
    process: subprocess.Popen[bytes]

    def workers(self) -> set[int]:
        """The process ids of gunicorn's workers."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return {int(child) for child in children}

    def worker_of(self, client: socket.socket) -> int:
        """The worker that serves this client's connection."""
        inode = self._inode_of(client.getsockname()[1])
        for pid in self.workers():
            files = Path(f"/proc/{pid}/fd").iterdir()
            if f"socket:[{inode}]" in {_target_of(file) for file in files}:
                return pid
        raise AssertionError("no worker has the connection")

    def _inode_of(self, client_port: int) -> int:
        ports = f":{self.port:04X}", f":{client_port:04X}"
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if (fields[1][8:], fields[2][8:]) == ports:
                return int(fields[9])
        raise AssertionError("the server has no such connection")


def _target_of(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:  # closed since it was listed
        return ""


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def running(
    command: Sequence[str],
    log: Path,
    is_up: Callable[[], bool],
    env: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in its own session until the block ends; `is_up` says when it serves."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    try:
        until(
            lambda: process.poll() is not None or is_up(),
            lambda: f"{command[0]} is not up: {log.read_text()[-3000:]}",
        )
        assert process.poll() is None, f"{command[0]} ended: {log.read_text()[-3000:]}"
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise


def until(
    is_so: Callable[[], bool], complaint: Callable[[], str], timeout_s: float = 30
) -> None:
    """Wait until it is so; fail with the complaint when it does not come true."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, complaint()
        time.sleep(0.05)


def answers(url: str) -> bool:
    """True when something answers 200 there."""
    try:
        return requests.get(url, timeout=2).status_code == 200
    except requests.RequestException:
        return False


def migrated_app(config: Config) -> APIFlask:
    """The application on a database that `serve` accepts."""
    app = create_app(config)
    with app.app_context():
        upgrade_schema()
    return app


def write_config(config: Config, folder: Path, **settings: object) -> Path:
    """Write the config to a file in the folder; `settings` replace its values."""
    values = {**config.model_dump(include=config.model_fields_set), **settings}
    file = folder / "booking.toml"
    file.write_text(
        "".join(
            f"{name} = {value}\n" if isinstance(value, int) else f'{name} = "{value}"\n'
            for name, value in values.items()
        )
    )
    return file


@contextmanager
def booking_server(
    config: Config,
    folder: Path,
    *,
    host: str = "127.0.0.1",
    env: Mapping[str, str] | None = None,
    **settings: object,
) -> Iterator[BookingServer]:
    """Run `sentinel-booking serve` on the config's database, whose tables must be there.
    `settings` replace those of the config.
    """
    port = free_port()
    file = write_config(config, folder, listen=f"{host}:{port}", **settings)
    url = f"http://{host}:{port}"
    program = Path(sys.executable).parent / "sentinel-booking"
    command = [str(program), "--config", str(file), "serve"]
    log = folder / "booking.log"
    # What it has in /tmp stays there when it is killed.
    own = {"TMPDIR": str(folder), **(env or {})}
    with running(command, log, lambda: answers(f"{url}/healthz"), own) as process:
        server = BookingServer(url, port, process)
        seen: set[int] = set()

        def all_serve() -> bool:
            # The first worker answers while the others still start.
            with socket.create_connection((host, port), 5) as client:
                client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                client.recv(4096)
                seen.add(server.worker_of(client))
            return seen == server.workers()

        until(all_serve, lambda: f"only {seen} of {server.workers()} serve")
        yield server
