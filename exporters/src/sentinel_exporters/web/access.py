"""Keep what the web configuration file says, and judge requests by it. Serves nothing.

As the exporters of Prometheus do, the file is looked at again for each connection and request.
A change counts when the file has been left alone for a second: one that is rewritten in place
is empty for a moment, which would permit everything. While it is broken, or a certificate is,
everybody is refused: what it was meant to forbid now is not known. Whether TLS is spoken at all
is settled at the start.
"""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import logging
import os
import socket
import ssl
import stat
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from .config_file import WebFile, parse_web_file
from .passwords import Passwords, PasswordsBusy
from .tls import encrypt, make_context

log = logging.getLogger(__name__)

# How long a request waits for its turn to have its password checked.
_PASSWORD_WAIT_S = 5.0
# A file that was written to more lately may be half written.
_SETTLED_S = 1.0


@dataclass(frozen=True)
class Verdict:
    """What becomes of a request: `status` 200 to serve it; `headers` go out with any answer."""

    status: int
    headers: Mapping[str, str]


class Access:
    """The web configuration file. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError when the file, or one that it names, is not usable."""
        self._path = path
        self._lock = threading.Lock()
        self._passwords = Passwords()
        self._content: bytes | None = None
        self._file = WebFile()
        self._certificates = b""
        self._context: ssl.SSLContext | None = None
        self._problem = ""
        self._read()
        self.is_encrypted = self._file.tls is not None
        for warning in self._file.warnings:
            log.warning("web configuration of no effect %s", warning)

    def encrypt(
        self,
        connection: socket.socket,
        deadline: float,
        go_on_with: Callable[[ssl.SSLSocket], None],
    ) -> None:
        """Shake hands, as tls.encrypt does; raises ConfigError besides."""
        file, context = self._look()
        if file.tls is None or context is None:
            raise ConfigError("tls_server_config is gone; start again without it")
        encrypt(connection, context, file.tls.client_allowed_sans, deadline, go_on_with)

    def judge(self, authorization: str) -> Verdict:
        """Judge a request by its Authorization header."""
        try:
            file, _ = self._look()
        except ConfigError:
            return Verdict(500, {})
        headers = file.http.headers
        try:
            if not file.users or self._is_known(file.users, authorization):
                return Verdict(200, headers)
        except PasswordsBusy:
            return Verdict(503, {**headers, "Retry-After": "5"})
        return Verdict(401, {**headers, "WWW-Authenticate": "Basic"})

    def _is_known(self, users: Mapping[str, str], authorization: str) -> bool:
        scheme, _, text = authorization.partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            name, colon, password = base64.b64decode(text, validate=True).partition(b":")
        except (binascii.Error, ValueError):
            return False
        if not colon:
            return False
        return self._passwords.is_good(
            users, name.decode(errors="replace"), password, _PASSWORD_WAIT_S
        )

    def _look(self) -> tuple[WebFile, ssl.SSLContext | None]:
        """Return what holds now; raises ConfigError, and logs when that begins and ends."""
        with self._lock:
            try:
                self._read()
            except ConfigError as error:
                if str(error) != self._problem:
                    self._problem = str(error)
                    log.error(
                        "web configuration is broken, everybody is refused path=%s reason=%s",
                        self._path, "; ".join(str(error).splitlines()),
                    )  # fmt: skip
                raise
            if self._problem:
                self._problem = ""
                log.info("web configuration is good again path=%s", self._path)
            return self._file, self._context

    def _read(self) -> None:
        try:
            content, is_settled = self._read_file()
            file = self._file
            if self._content is not None and content != self._content and not is_settled:
                # What held before holds on, be it that everybody is refused.
                if self._problem:
                    raise ConfigError(self._problem)
                content = self._content
            if content != self._content:
                file = parse_web_file(content, self._path.absolute().parent)
            certificates = _digest_files(file)
        except (OSError, ValueError) as error:  # a path with a NUL is a ValueError
            raise ConfigError(str(error)) from None
        if file is not self._file or certificates != self._certificates:
            self._context = make_context(file.tls) if file.tls else None
        self._content, self._file, self._certificates = content, file, certificates

    def _read_file(self) -> tuple[bytes, bool]:
        """Return the content, and whether it has been so for a while; raises OSError."""
        if not stat.S_ISREG(self._path.stat().st_mode):
            # Reading a pipe would wait for its writer.
            raise OSError(errno.EINVAL, "not a file", str(self._path))
        with self._path.open("rb") as opened:
            content = opened.read()
            changed = os.fstat(opened.fileno()).st_mtime
        return content, abs(time.time() - changed) >= _SETTLED_S


def _digest_files(file: WebFile) -> bytes:
    """Return something that is another when one of the files is; raises OSError."""
    tls = file.tls
    paths = (tls.cert_file, tls.key_file, tls.client_ca_file) if tls else ()
    # By content, not by time: a file may be changed twice within the clock's tick.
    digests = [hashlib.sha256(path.read_bytes()).digest() for path in paths if path]
    return b"".join(digests)
