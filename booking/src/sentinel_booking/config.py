"""The booking server's settings, read once at start. Nothing else reads the environment."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from flask import current_app
from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from .errors import ConfigError

ENV_PREFIX = "SENTINEL_BOOKING_"
# Where the programs find the file; not a setting itself.
CONFIG_ENV = ENV_PREFIX + "CONFIG"
# The key signs with HMAC-SHA-256, whose strength a shorter one would lower.
SECRET_KEY_MIN_CHARS = 32


class Config(BaseSettings):
    """One TOML file; `SENTINEL_BOOKING_<NAME>` overrides a value. docs/config.md lists all."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)
    toml_path: ClassVar[Path | None] = None

    # SQLAlchemy URL: sqlite:////path/booking.db or postgresql+psycopg://…
    database_url: str
    # File with the key that signs sign-ins; at least 32 bytes.
    secret_key_file: Path
    # File with the bearer token that Prometheus sends to /sd/<job> and /metrics.
    scrape_token_file: Path
    # File with the bearer token that Alertmanager sends to the webhook.
    webhook_token_file: Path
    # Where people reach the pages; https here makes the cookies Secure.
    public_url: str = "http://127.0.0.1:8800"
    # Where the charts' data comes from; empty: no charts.
    prometheus_url: str = ""
    # Where Grafana is, for links and embedded panels; empty: none.
    grafana_url: str = ""
    access_token_minutes: Annotated[int, Field(ge=1, le=1440)] = 15
    refresh_token_days: Annotated[int, Field(ge=1, le=365)] = 30
    # A reservation's greatest length, and how far ahead it may begin.
    max_reservation_hours: Annotated[int, Field(ge=1)] = 24 * 14
    max_advance_days: Annotated[int, Field(ge=1)] = 90
    # How far ahead a node's policy reaches: so long a cut-off node opens and closes by itself.
    policy_horizon_days: Annotated[int, Field(ge=1, le=90)] = 7
    # A node is shown as offline when its last heartbeat is older.
    offline_after_s: Annotated[int, Field(ge=5)] = 60
    # Waiting policy requests in one process; further ones are answered at once.
    max_policy_waiters: Annotated[int, Field(ge=0)] = 16
    invite_hours: Annotated[int, Field(ge=1, le=24 * 30)] = 24
    # Where gunicorn listens; one address and port.
    listen: str = "127.0.0.1:8800"
    # Certificate (with those between it and the authority) and its key: then it serves https.
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    # Processes, and threads in each; a waiting policy request holds a thread.
    workers: Annotated[int, Field(ge=1, le=64)] = 2
    threads: Annotated[int, Field(ge=1, le=256)] = 32
    # Proxies in front that set X-Forwarded-For and -Proto; 0: the header is not believed.
    trusted_proxies: Annotated[int, Field(ge=0, le=5)] = 0

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, value: str) -> str:
        try:
            url = make_url(value)
        except ArgumentError as error:
            # Without the value: it may hold a password.
            raise ValueError("not a database URL") from error
        backend = url.get_backend_name()
        if backend not in ("sqlite", "postgresql"):
            raise ValueError("must begin with sqlite: or postgresql+psycopg:")
        if url.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
            raise ValueError("only postgresql+psycopg: and sqlite: are supported drivers")
        if backend == "sqlite" and not Path(url.database or "").is_absolute():
            # In memory each thread would see a database of its own.
            raise ValueError("sqlite: needs an absolute path, as sqlite:////var/lib/…")
        return value

    @field_validator("public_url", "prometheus_url", "grafana_url")
    @classmethod
    def _check_http_url(cls, value: str, info: ValidationInfo) -> str:
        if not value and info.field_name != "public_url":
            return value
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must begin with http:// or https:// and name a host")
        return value.rstrip("/")

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError("must be an address and a port, as 127.0.0.1:8800")
        return value

    @model_validator(mode="after")
    def _check_tls_files(self) -> Config:
        if self.tls_cert_file is None and self.tls_key_file is None:
            return self
        if self.tls_cert_file is None or self.tls_key_file is None:
            raise ValueError("tls_cert_file, tls_key_file: both or neither")
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            # A key with a passphrase would make the server wait for somebody to type it.
            context.load_cert_chain(self.tls_cert_file, self.tls_key_file, _no_password)
        except (OSError, ValueError) as error:
            raise ValueError(f"tls_cert_file, tls_key_file: cannot be used: {error}") from error
        return self

    @model_validator(mode="after")
    def _leave_threads_for_people(self) -> Config:
        if self.threads <= self.max_policy_waiters:
            raise ValueError("threads must be greater than max_policy_waiters")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  fixed by the base class
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment over the file; nothing else."""
        sources: list[PydanticBaseSettingsSource] = [init_settings, env_settings]
        if cls.toml_path is not None:
            sources.append(TomlConfigSettingsSource(settings_cls, cls.toml_path))
        return tuple(sources)


def load_config(path: Path | None) -> Config:
    """Read the TOML file at `path` (None: environment only).

    Raises ConfigError with every problem found, one on a line.
    """
    if path is not None and not path.is_file():
        raise ConfigError(f"config file {path}: not found")
    source = type("FileConfig", (Config,), {"toml_path": path})
    problems: list[str] = []
    known = {ENV_PREFIX + name.upper() for name in Config.model_fields}
    known.add(CONFIG_ENV)
    for name in os.environ:
        if name.startswith(ENV_PREFIX) and name not in known:
            problems.append(f"{name}: no such setting")
    try:
        config: Config = source()
    except ValidationError as error:
        for item in error.errors(include_url=False, include_context=False, include_input=False):
            where = ".".join(str(part) for part in item["loc"]) or "config"
            problems.append(f"{where}: {item['msg']}")
    except ValueError as error:  # not TOML
        problems.append(f"config file {path}: {error}")
    else:
        problems += _secret_problems(config)
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def config_path_from_environment() -> Path | None:
    """The file that SENTINEL_BOOKING_CONFIG names, if it is set."""
    value = os.environ.get(CONFIG_ENV)
    return Path(value) if value else None


def _secret_problems(config: Config) -> list[str]:
    problems = []
    for path, min_chars in (
        (config.secret_key_file, SECRET_KEY_MIN_CHARS),
        (config.scrape_token_file, 16),
        (config.webhook_token_file, 16),
    ):
        try:
            read_secret(path, min_chars)
        except ConfigError as error:
            problems.append(str(error))
    return problems


def _no_password() -> str:
    raise ValueError("the key has a passphrase")


def read_secret(path: Path, min_chars: int = 16) -> str:
    """Return the secret in the file, without surrounding white space.

    Raises ConfigError when the file cannot be read or holds less than `min_chars`.
    """
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"secret file {path}: {error}") from error
    if len(secret) < min_chars:
        raise ConfigError(f"secret file {path}: shorter than {min_chars} characters")
    return secret


def current_config() -> Config:
    """Return the settings of the application that is running."""
    config: Config = current_app.extensions["sentinel_config"]
    return config
