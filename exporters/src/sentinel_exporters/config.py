"""The exporter's settings, read once at start. Nothing else reads the environment."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from .catalog import Collector
from .core import CollectorSettings
from .errors import ConfigError
from .setting_errors import describe_setting_error

ENV_PREFIX = "SENTINEL_EXPORTER_"
_DELIMITER = "__"


class _NotJson(str):
    """What a variable says that should be JSON. As a text it is refused with all the rest."""


class _Variables(EnvSettingsSource):
    """The environment."""

    # Any: the value, as the base class has it.
    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            # The base class would report this one problem and none besides.
            return _NotJson(value)


class Config(BaseSettings):
    """One TOML file; `SENTINEL_EXPORTER_<NAME>` overrides a value. docs/config.md lists all.

    Each collector's section is a further field; load_config adds them.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=_DELIMITER,
        extra="forbid",
        frozen=True,
    )
    toml_path: ClassVar[Path | None] = None
    known_collectors: ClassVar[frozenset[str]] = frozenset()
    known_compat: ClassVar[frozenset[str]] = frozenset()

    # Address and port; [::]:9641 for IPv6.
    listen: str = "0.0.0.0:9641"
    # "auto": those of this machine whose source is present; else their names.
    collectors: Annotated[Literal["auto"] | tuple[str, ...], NoDecode] = "auto"
    # TLS and users: a file in the form of Prometheus' web configuration; none: plain HTTP.
    web_config: Path | None = None
    # Other exporters' families that are given besides: their names.
    compat: Annotated[tuple[str, ...], NoDecode] = ()
    # Pages that are collected at the same time; further requests get 503 at once.
    max_requests: Annotated[int, Field(ge=1, le=4096)] = 256
    # Targets that are probed at the same time, those that hang included; further ones get 503.
    max_probes: Annotated[int, Field(ge=1, le=4096)] = 256

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, value: str) -> str:
        split_address(value)
        return value

    @field_validator("collectors", "compat", mode="before")
    @classmethod
    def _split_names(cls, value: object, info: ValidationInfo) -> object:
        is_of_collectors = info.field_name == "collectors"
        if is_of_collectors and value == "auto":
            return value
        if isinstance(value, str):
            value = [name.strip() for name in value.split(",") if name.strip()]
        if not isinstance(value, list | tuple) or not all(isinstance(x, str) for x in value):
            raise ValueError("must be names, in a list or joined by commas")
        if is_of_collectors and not value:
            raise ValueError("must name one, or be auto")
        return tuple(dict.fromkeys(value))

    @field_validator("collectors")
    @classmethod
    def _check_names(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not isinstance(value, str):
            _refuse_unknown("collector", value, cls.known_collectors)
        return value

    @field_validator("compat")
    @classmethod
    def _check_compat(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        _refuse_unknown("family of another exporter", value, cls.known_compat)
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003  fixed by the base class
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The command line over the environment over the file; nothing else."""
        sources: list[PydanticBaseSettingsSource] = [init_settings, _Variables(settings_cls)]
        if cls.toml_path is not None:
            sources.append(TomlConfigSettingsSource(settings_cls, cls.toml_path))
        return tuple(sources)

    def section(self, collector: Collector) -> CollectorSettings:
        """Return the collector's own settings."""
        settings: CollectorSettings = getattr(self, collector.name)
        return settings


def _refuse_unknown(what: str, names: Iterable[str], known: Set[str]) -> None:
    unknown = sorted(set(names) - known)
    if unknown:
        there = ", ".join(sorted(known)) or "none"
        raise ValueError(f"no such {what}: {', '.join(unknown)} (of {there})")


def load_config(
    path: Path | None,
    collectors: Mapping[str, Collector],
    options: Mapping[str, Any] | None = None,
) -> Config:
    """Read the TOML file at `path` (None: environment only); `options` override both.

    Raises ConfigError with every problem found, one on a line.
    """
    try:
        if path is not None:
            if not stat.S_ISREG(path.stat().st_mode):
                # pydantic takes a pipe for a file that is not there, and goes on without.
                raise ConfigError(f"config file {path}: not a file")
            path.read_bytes()
    except OSError as error:
        raise ConfigError(f"config file {path}: {error.strerror}") from None
    # Any, here and for the options: the fields are found at run time, and pydantic checks them.
    sections: dict[str, Any] = {
        one.name: (one.settings, Field(default_factory=one.settings))
        for one in collectors.values()
    }
    source = create_model("Config", __base__=Config, **sections)
    source.toml_path = path
    source.known_collectors = frozenset(collectors)
    source.known_compat = frozenset(name for one in collectors.values() for name in one.compat)
    problems = list(_find_unknown_variables(source))
    try:
        config: Config = source(**(options or {}))
    except ValidationError as error:
        problems += map(_describe, error.errors())
    except ValueError as error:  # not TOML
        problems.append(f"config file {path}: {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def _describe(error: ErrorDetails) -> str:
    if isinstance(error["input"], _NotJson):
        variable = ENV_PREFIX + _DELIMITER.join(map(str, error["loc"])).upper()
        return f"{variable}: must be JSON, as all lists and tables in variables"
    return describe_setting_error(error, whole="config", unknown="no such setting")


def split_address(listen: str) -> tuple[str, int]:
    """Return host and port of `host:port` or `[v6]:port`; raises ValueError."""
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal():
        raise ValueError("must be <address>:<port>")
    if int(port) > 65535:
        raise ValueError("the port must be 65535 at most")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if "[" in bare or "]" in bare:
        raise ValueError("must be <address>:<port>")
    if ":" in bare and bare == host:
        raise ValueError("an IPv6 address is written in brackets: [::]:9641")
    return bare, int(port)


def _find_unknown_variables(source: type[Config]) -> Iterator[str]:
    # Where the command finds its file; not a setting itself.
    known = {ENV_PREFIX + "CONFIG"}
    for name, info in source.model_fields.items():
        variable = ENV_PREFIX + name.upper()
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            known |= {
                variable + _DELIMITER + option.upper()
                for option in info.annotation.model_fields
            }
        else:
            known.add(variable)
    for variable in os.environ:
        if variable.startswith(ENV_PREFIX) and variable not in known:
            yield f"{variable}: no such setting"
