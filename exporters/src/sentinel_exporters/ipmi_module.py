"""How one group of BMCs is asked: a module of the configuration. Asks no BMC.

The keys and their meaning are those of prometheus-community/ipmi_exporter's modules.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from .ipmi.errors import IpmiError
from .ipmi.session import Credentials, Privilege

log = logging.getLogger(__name__)

CollectorName = Literal[
    "ipmi", "dcmi", "bmc", "chassis", "sel", "sel-events", "sm-lan-mode", "bmc-watchdog"
]
# More than any password has; a longer file is refused.
_MAX_PASSWORD_FILE_BYTES = 4096
OTHERS_MAY_READ = stat.S_IROTH
DEFAULT_COLLECTORS: tuple[CollectorName, ...] = ("ipmi", "dcmi", "bmc", "chassis")


class SelEvent(BaseModel):
    """Entries of the event log that are counted under a name: `sel_events`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # The label `name`.
    name: Annotated[str, Field(min_length=1)]
    # Searched for in the entry's text; Python's syntax of regular expressions.
    regex: str

    @field_validator("regex")
    @classmethod
    def _check_regex(cls, value: str) -> str:
        if "[[:" in value:
            # Python would take it for a set of these characters.
            raise ValueError("[[:classes:]] are not known: write \\w, \\d or \\s")
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return value

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """`regex`, compiled."""
        return re.compile(self.regex)


class BaseModule(BaseModel, ABC):
    """What the modules of both configuration files have."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user: str
    privilege: Literal["user", "operator", "admin"] = "user"
    # The time for one BMC; a shorter scrape timeout of Prometheus goes before it.
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    collectors: tuple[CollectorName, ...] = DEFAULT_COLLECTORS
    # Record ids, as in the label `id`, of sensors that are not asked.
    exclude_sensor_ids: tuple[int, ...] = ()
    # What the collector "sel-events" counts by name.
    sel_events: tuple[SelEvent, ...] = ()

    @field_validator("user")
    @classmethod
    def _check_user(cls, value: str) -> str:
        if len(value.encode()) > 16:
            raise ValueError("IPMI user names have 16 bytes at most")
        return value

    @abstractmethod
    def credentials(self) -> Credentials:
        """Return who logs in. Raises IpmiError when the password cannot be had."""

    def _credentials(self, password: str, source: str) -> Credentials:
        if len(password.encode()) > 20:
            raise IpmiError(f"{source}: IPMI passwords have 20 bytes at most")
        return Credentials(self.user, password, Privilege[self.privilege.upper()])


class Module(BaseModule):
    """A module of our own file: `[ipmi.modules.<name>]`."""

    user: Annotated[str, Field(min_length=1)]
    # A file that holds the password and nothing else; read anew for each scrape.
    password_file: Path

    @field_validator("password_file")
    @classmethod
    def _check_password_file(cls, value: Path) -> Path:
        warn_of_others(value, check_password_file(value))
        return value

    def credentials(self) -> Credentials:
        """Read the password; raises IpmiError."""
        return self._credentials(read_password(self.password_file), str(self.password_file))


def check_password_file(path: Path) -> int:
    """Return the file's mode; raises ValueError when it cannot be the file of a password."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path} is not a file")
    return mode


def warn_of_others(path: Path, mode: int) -> None:
    """Log that others can read the password, where the file's `mode` lets them."""
    if mode & OTHERS_MAY_READ:
        log.warning(
            "ipmi password can be read by others file=%s mode=%04o", path, mode & 0o7777
        )


def read_password(path: Path) -> str:
    """Return what the file holds, without the end of its line; raises IpmiError."""
    try:
        content = _read_beginning(path)
    except OSError as error:
        raise IpmiError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > _MAX_PASSWORD_FILE_BYTES:
        raise IpmiError(f"{path} is longer than {_MAX_PASSWORD_FILE_BYTES} bytes")
    try:
        password = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise IpmiError(f"{path} is not UTF-8") from None
    if not password:
        # As while somebody writes it anew. BMCs count wrong logins and lock the user out.
        raise IpmiError(f"{path} is empty")
    return password


def _read_beginning(path: Path) -> bytes:
    """Return the content, and one byte too many of what is too long; raises OSError."""
    # Not read_text(), which takes ten times as long: this is done for each scrape. Opening a
    # pipe would wait for its writer, and with it the thread that takes in all connections.
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise OSError(errno.EINVAL, "not a file")
        return os.read(opened, _MAX_PASSWORD_FILE_BYTES + 1)
    finally:
        os.close(opened)
