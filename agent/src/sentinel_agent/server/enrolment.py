"""Registers the node with the booking server: one invite code against one token."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

from ..config import Config
from ..errors import ConfigError, StateError
from ..sessions.plan import utc
from .client import BookingClient
from .registration import Registration, store_registration


def register(config: Config, code: str) -> Registration:
    """Spend the code and keep the token. Raises ConfigError, ServerError, StateError.

    The token is answered once: whether it can be kept is tried before the code is spent.
    """
    if not config.server:
        raise ConfigError("server: not set; give --server or set it in the configuration")
    try_to_write(config.state_dir)
    address = config.address or facing_address(config.server)
    client = BookingClient(config.server, config.ca_file, client_cert=config.client_files)
    try:
        node, token = client.register(code, socket.gethostname(), address)
    finally:
        client.close()
    registration = Registration(node, token, config.server, utc(time.time()))
    store_registration(config.state_dir, registration)
    return registration


def find_exposure(server: str) -> str:
    """Say why this server may be spoken to only by who trusts the network, empty for none.

    Whoever can listen would have the node's token, and could answer in the server's place.
    """
    parts = urlsplit(server)
    if parts.scheme != "http" or _is_loopback(parts.hostname):
        return ""
    return (
        f"{server} is not encrypted: who can listen can open this node. Use https, or "
        "--plain-http in a network that you trust"
    )


def facing_address(server: str) -> str:
    """Return this node's address on its way to the server. Raises ConfigError."""
    parts = urlsplit(server)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        family, kind, _, _, target = socket.getaddrinfo(
            parts.hostname, port, type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise ConfigError(f"no way to {server}: {error.strerror}; set address") from error


def read_code(text: str | None, path: Path | None, environment: str | None) -> str:
    """Return the invite code from the first of the three that is given. Raises ConfigError.

    A code on the command line shows in the list of processes as long as the command runs.
    """
    if text is None and path is not None:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"code file {path}: {error}") from error
    code = (text if text is not None else environment or "").strip()
    if not code:
        raise ConfigError("no invite code: give --code-file, SENTINEL_AGENT_CODE or --code")
    return code


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host or "").is_loopback
    return False


def try_to_write(folder: Path) -> None:
    """Make sure that a small file can be kept in the folder. Raises StateError."""
    probe = folder / ".write-test"
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        opened = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        os.write(opened, bytes(4096))
        os.fsync(opened)
        os.close(opened)
        probe.unlink()
    except OSError as error:
        raise StateError(f"cannot write in {folder}: {error.strerror}") from error
