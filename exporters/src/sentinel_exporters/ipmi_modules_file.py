"""Modules from a configuration file of prometheus-community/ipmi_exporter. Asks no BMC.

The keys are those of its IPMIConfig (config.go), and `password_file` besides. What has no
meaning without FreeIPMI's programs is accepted and named in the log; all else that is not
known, or not of the right type, is refused. A change counts when the file has been left alone
for a second: until then it may be half written.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections.abc import Hashable, Iterator, Mapping
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from .errors import ConfigError
from .ipmi.session import Credentials
from .ipmi_module import (
    DEFAULT_COLLECTORS,
    OTHERS_MAY_READ,
    BaseModule,
    CollectorName,
    SelEvent,
    check_password_file,
    read_password,
    warn_of_others,
)
from .yaml_errors import describe_yaml_error

log = logging.getLogger(__name__)

# FreeIPMI's names of the one driver that there is here (freeipmi.conf(5), driver-type).
_DRIVERS = {"", "lan_2_0", "lan20", "lan_20", "lan2_0", "lanplus"}
_PRIVILEGES = {"": "user", "administrator": "admin"}
_MAX_TIMEOUT_MS = 300_000
_DEFAULT_TIMEOUT_MS = 10_000
_SETTLED_S = 1.0


class FileModule(BaseModule):
    """A module of such a file."""

    password: SecretStr | None = None
    password_file: Path | None = None

    def credentials(self) -> Credentials:
        """Return who logs in; raises IpmiError."""
        if self.password_file is not None:
            return self._credentials(read_password(self.password_file), str(self.password_file))
        password = self.password.get_secret_value() if self.password is not None else ""
        return self._credentials(password, "pass")


class _Written(BaseModel):
    """A module as it is written: the keys and types of ipmi_exporter's IPMIConfig."""

    model_config = ConfigDict(extra="forbid")

    user: str = ""
    password: SecretStr | None = Field(default=None, alias="pass")
    # Not one of ipmi_exporter's.
    password_file: Path | None = None
    privilege: str = ""
    driver: str = ""
    timeout: int = Field(default=0, ge=0, lt=2**32)
    collectors: tuple[CollectorName, ...] = DEFAULT_COLLECTORS
    exclude_sensor_ids: tuple[int, ...] = ()
    workaround_flags: tuple[str, ...] = ()
    collector_cmd: dict[str, str] = {}
    default_args: dict[str, tuple[str, ...]] = {}
    custom_args: dict[str, tuple[str, ...]] = {}
    sel_events: tuple[SelEvent, ...] = ()

    def module(self, folder: Path) -> FileModule:
        """Return what it means; raises ValueError naming the key."""
        if self.password is not None and self.password_file is not None:
            raise ValueError("pass and password_file: one of the two")
        if self.password is not None and _count_bytes(self.password) > 20:
            raise ValueError("pass: IPMI passwords have 20 bytes at most")
        privilege = self.privilege.lower()
        privilege = _PRIVILEGES.get(privilege, privilege)
        milliseconds = min(self.timeout, _MAX_TIMEOUT_MS) or _DEFAULT_TIMEOUT_MS
        return FileModule.model_validate(
            {
                "user": self.user,
                "password": self.password,
                "password_file": self.password_file and folder / self.password_file,
                "privilege": privilege,
                "timeout_s": milliseconds / 1000,
                "collectors": self.collectors,
                "exclude_sensor_ids": self.exclude_sensor_ids,
                "sel_events": self.sel_events,
            }
        )

    def warnings(self) -> Iterator[tuple[str, str]]:
        """Yield what has no effect: key and reason."""
        if self.driver.lower() not in _DRIVERS:
            yield "driver", "BMCs are asked over the network by IPMI 2.0, as by LAN_2_0"
        if self.timeout > _MAX_TIMEOUT_MS:
            yield "timeout", f"{_MAX_TIMEOUT_MS} is the most that is waited"
        if self.workaround_flags:
            yield "workaround_flags", "they are for FreeIPMI, which is not used"
        for key in ("collector_cmd", "default_args", "custom_args"):
            if getattr(self, key):
                yield key, "no program is run to ask a BMC"


def _count_bytes(password: SecretStr) -> int:
    try:
        return len(password.get_secret_value().encode())
    except UnicodeEncodeError:
        raise ValueError("pass: has characters that do not exist") from None


class ModulesFile:
    """The file and what it says now. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError with every problem, one on a line, and without secrets."""
        self._path = path
        self._lock = threading.Lock()
        self._seen: object = None
        self._modules: Mapping[str, FileModule] = {}
        # What the file says, until modules could be made of it.
        self._pending: Mapping[str, _Written] | None = None
        self._problem = ""
        self._read()

    def modules(self) -> Mapping[str, FileModule]:
        """Return the modules by name: those of the file as it was last good."""
        with self._lock:
            try:
                self._read()
                self._problem = ""
            except ConfigError as error:
                if str(error) != self._problem:
                    self._problem = str(error)
                    log.error(
                        "ipmi configuration not usable, the former one stays file=%s reason=%s",
                        self._path, self._problem.replace("\n", "; "),
                    )  # fmt: skip
            return self._modules

    def _read(self) -> None:
        """Take in the file if it changed, or if a file that it names was not good before."""
        try:
            mode = self._look()
        except OSError as error:
            raise ConfigError(error.strerror or "cannot be read") from None
        if self._pending is None:
            return
        self._modules = _make_modules(self._pending, self._path.parent)
        self._warn(self._pending, mode)
        self._pending = None

    def _look(self) -> int:
        """Read the file if it changed since it was last read, and return its mode."""
        found = self._path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError("not a file")  # reading a pipe would wait for its writer
        if _identify(found) == self._seen:
            return found.st_mode
        with self._path.open("rb") as opened:
            content = opened.read()
            found = os.fstat(opened.fileno())
        if self._seen is not None and abs(time.time() - found.st_mtime) < _SETTLED_S:
            return found.st_mode
        # Also of content that is refused: it is complained of once.
        self._seen = _identify(found)
        self._pending = None
        self._pending = _parse(content)
        return found.st_mode

    def _warn(self, written: Mapping[str, _Written], mode: int) -> None:
        for name, one in written.items():
            if not one.user and one.collectors:
                log.warning(
                    "ipmi module without a user, BMCs are asked as the one that has no name"
                    " file=%s module=%s", self._path, name,
                )  # fmt: skip
            for key, reason in one.warnings():
                log.warning(
                    "ipmi configuration of no effect file=%s key=modules.%s.%s reason=%s",
                    self._path, name, key, reason,
                )  # fmt: skip
        if mode & OTHERS_MAY_READ and any(one.password for one in written.values()):
            log.warning(
                "ipmi configuration with passwords can be read by others file=%s mode=%04o",
                self._path, mode & 0o7777,
            )  # fmt: skip


def _identify(found: os.stat_result) -> object:
    """Return something that is another when the file is."""
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode


@cache
def modules_file(path: Path) -> ModulesFile:
    """Return the process' one reader of the file; raises ConfigError."""
    return ModulesFile(path)


class _Loader(yaml.SafeLoader):
    """YAML as Go's yaml.v2 fills a string with it: plain scalars are the text that they are.

    A name that is there twice is an error: one of the two would be lost.
    """

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, object]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise yaml.constructor.ConstructorError(
                problem=f"{twice[0]} is there twice", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


def _construct_text(_loader: _Loader, node: yaml.Node) -> str:
    return str(node.value)


# A password may look like any of these: 0123, 1e3, no.
for _kind in ("bool", "int", "float", "timestamp", "value"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _construct_text)


def _parse(content: bytes) -> dict[str, _Written]:
    try:
        # The loader is a SafeLoader; it makes nothing but texts, lists and mappings.
        document = yaml.load(content, Loader=_Loader)  # noqa: S506
    except yaml.MarkedYAMLError as error:
        raise ConfigError(describe_yaml_error(error)) from None
    except Exception:  # PyYAML lets out what its own code meets: IndexError, KeyError, …
        raise ConfigError("not a YAML file") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError("not a mapping with the key modules")
    problems = [f"{key}: unknown" for key in document if key != "modules"]
    modules = document.get("modules")
    if not isinstance(modules, dict | None):
        problems.append("modules: not a mapping")
        modules = None
    written = {}
    for name, keys in (modules or {}).items():
        where = f"modules.{name}"
        if not isinstance(keys, dict | None):
            problems.append(f"{where}: not a mapping")
            continue
        # A key without a value is as if it were not there.
        given = {key: value for key, value in (keys or {}).items() if value is not None}
        try:
            written[str(name)] = _Written.model_validate(given)
        except ValidationError as error:
            problems += (_say(where, item) for item in error.errors())
    if problems:
        raise ConfigError("\n".join(problems))
    return written


def _make_modules(written: Mapping[str, _Written], folder: Path) -> dict[str, FileModule]:
    modules: dict[str, FileModule] = {}
    modes: dict[Path, int] = {}
    problems: list[str] = []
    for name, one in written.items():
        where = f"modules.{name}"
        try:
            modules[name] = one.module(folder)
        except ValidationError as error:
            problems += (_say(where, item) for item in error.errors())
            continue
        except ValueError as error:
            problems.append(f"{where}.{error}")
            continue
        if (path := modules[name].password_file) is None:
            continue
        try:
            modes[path] = check_password_file(path)
        except ValueError as error:
            problems.append(f"{where}.password_file: {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    for path, mode in modes.items():
        warn_of_others(path, mode)
    return modules


def _say(where: str, item: ErrorDetails) -> str:
    path = ".".join([where, *(str(part) for part in item["loc"])])
    return f"{path}: {'unknown' if item['type'] == 'extra_forbidden' else item['msg']}"
