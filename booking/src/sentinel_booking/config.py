"""The booking server's settings, read once at start. Nothing else reads the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, ClassVar

from flask import current_app
from pydantic import Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from .errors import ConfigError

ENV_PREFIX = "SENTINEL_BOOKING_"


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
    # Processes, and threads in each; a waiting policy request holds a thread.
    workers: Annotated[int, Field(ge=1, le=64)] = 2
    threads: Annotated[int, Field(ge=1, le=256)] = 32
    # Proxies in front that set X-Forwarded-For and -Proto; 0: the header is not believed.
    trusted_proxies: Annotated[int, Field(ge=0, le=5)] = 0

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
    # Where the command finds its file; not a setting itself.
    known.add(ENV_PREFIX + "CONFIG")
    for name in os.environ:
        if name.startswith(ENV_PREFIX) and name not in known:
            problems.append(f"{name}: no such setting")
    try:
        config: Config = source()
    except ValidationError as error:
        for item in error.errors():
            where = ".".join(str(part) for part in item["loc"]) or "config"
            problems.append(f"{where}: {item['msg']}")
    except ValueError as error:  # not TOML
        problems.append(f"config file {path}: {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    return config


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
