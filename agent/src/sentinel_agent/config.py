"""The agent's settings, read once at start. Nothing else reads the environment."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from .errors import ConfigError

ENV_PREFIX = "SENTINEL_AGENT_"
DEFAULT_PATH = Path("/etc/sentinel/agent.toml")
# Read by the command line, and no settings: where the file is, and the invite code, which must
# not stand in the list of processes.
OTHER_NAMES = ("CONFIG", "CODE")

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=3600)]


class Config(BaseSettings):
    """One TOML file; `SENTINEL_AGENT_<NAME>` overrides a value. docs/config.md lists all."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)
    toml_path: ClassVar[Path | None] = None

    # The booking server, as https://host[:port]; empty: the one that the node registered with.
    server: str = ""
    # The certificate authority that signed the server's certificate; absent: the system's.
    ca_file: Path | None = None
    # Our own certificate and its key, for a proxy that demands one; both or neither.
    client_cert: Path | None = None
    client_key: Path | None = None
    # After so many days the token is exchanged for a new one; 0: never.
    token_days: Annotated[int, Field(ge=0, le=365)] = 7
    # Where Prometheus reaches this node; empty: the address that faces the server.
    address: str = ""
    # The token and what the agent remembers; only root may write in it.
    state_dir: Path = Path("/var/lib/sentinel")
    # get-keys reads this path and no other: another one is for trying the agent out.
    cache_file: Path = Path("/var/lib/sentinel/policy.json")
    # get-keys runs with this group, and the cache is readable to it.
    cache_group: str = "sentinel-akc"
    # The lock's part of sshd's configuration, which the agent writes and removes.
    sshd_drop_in: Path = Path("/etc/ssh/sshd_config.d/00-sentinel.conf")
    # sshd 9.8 and newer shuts out an address after failed logins; never one of these.
    operator_networks: tuple[str, ...] = ()
    # Prints the node's devices as JSON.
    inventory_command: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "sentinel-exporter",
        "devices",
    )
    inventory_timeout_s: Seconds = 60
    # What Prometheus scrapes on this node: job and port.
    targets: dict[str, Port] = {"node": 9100, "sentinel": 9641}
    # Members of the group, and these users, are never warned or ended.
    breakglass_group: str = "breakglass"
    ignored_users: frozenset[str] = frozenset()
    # false: the device files of the cards are left, or made again, as they were.
    cards: bool = True
    # Accounts besides those that may always open the cards: the drivers' and the exporter's.
    card_users: frozenset[str] = frozenset(
        {"HwHiAiUser", "nvidia-persistenced", "sentinel-exporter"}
    )
    # Accounts below are the system's. get-keys refuses those below 1000 whatever is set here.
    min_uid: Annotated[int, Field(ge=1000)] = 1000
    # false: only report what would be done, whatever the server says.
    enforce: bool = True
    # How long a session that was not warned before stays after its last warning.
    grace_s: Annotated[float, Field(ge=0, le=300)] = 3
    # How long processes have to end by themselves before they are killed.
    term_s: Annotated[float, Field(ge=0, le=60)] = 2
    # Sessions are warned this many minutes before their end.
    warn_minutes: tuple[Annotated[int, Field(ge=1, le=1440)], ...] = (15, 5, 1)
    # The longest pause between two looks at what is running; a late session lasts no longer.
    reconcile_s: Annotated[float, Field(gt=0, le=60)] = 4
    # A reservation waits so long for what a former holder has left running, and no longer.
    handover_limit_s: Annotated[float, Field(ge=0, le=3600)] = 60
    heartbeat_s: Seconds = 10
    # How often the devices are read; they are sent when they changed, and every 15 minutes.
    inventory_s: Seconds = 60
    # How long the server may hold the request for a new policy.
    policy_wait_s: Annotated[int, Field(ge=0, le=60)] = 50
    # Where the agent's own metrics are served; empty: nowhere.
    metrics_listen: str = "0.0.0.0:9642"

    @field_validator("server")
    @classmethod
    def _server_is_a_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if not value:
            return value
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be http://host[:port] or https://host[:port]")
        if parts.query or parts.fragment or parts.username:
            raise ValueError("must be the server's address only")
        return value.rstrip("/")

    @field_validator("operator_networks")
    @classmethod
    def _networks_are_addresses(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        # Written into sshd's configuration, where anything else would be a mistake or worse.
        return tuple(str(ipaddress.ip_network(value)) for value in values)

    @field_validator("metrics_listen")
    @classmethod
    def _listen_is_host_and_port(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if value and not (host and port.isdigit() and 0 < int(port) < 65536):
            raise ValueError("must be host:port, or empty")
        return value

    @model_validator(mode="after")
    def _files_are_usable(self) -> Self:
        for name in ("ca_file", "client_cert", "client_key"):
            path = getattr(self, name)
            if path is not None and not path.is_file():
                raise ValueError(f"{name} {path}: not found")
        if (self.client_cert is None) != (self.client_key is None):
            raise ValueError("client_cert, client_key: both or neither")
        for name in ("state_dir", "cache_file", "sshd_drop_in"):
            if not getattr(self, name).is_absolute():
                raise ValueError(f"{name}: must be an absolute path")
        return self

    @model_validator(mode="after")
    def _handover_outlasts_the_grace(self) -> Self:
        if self.handover_limit_s and self.handover_limit_s < self.grace_s + self.term_s:
            raise ValueError(
                "handover_limit_s: must be at least grace_s + term_s, or the next holder "
                "is let in beside the former one"
            )
        return self

    @property
    def all_targets(self) -> dict[str, int]:
        """What Prometheus scrapes on this node, with the agent's own port if it reaches it."""
        host, _, port = self.metrics_listen.rpartition(":")
        if not port or "agent" in self.targets or _is_loopback(host.strip("[]")):
            return self.targets
        return self.targets | {"agent": int(port)}

    @property
    def client_files(self) -> tuple[Path, Path] | None:
        """The files of our own certificate and of its key."""
        if self.client_cert is None or self.client_key is None:
            return None
        return self.client_cert, self.client_key

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


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def load_config(path: Path | None, **overrides: object) -> Config:
    """Read the TOML file at `path` (None: environment only); `overrides` win over both.

    Raises ConfigError with every problem found, one on a line.
    """
    if path is not None and not path.is_file():
        raise ConfigError(f"config file {path}: not found")
    source = type("FileConfig", (Config,), {"toml_path": path})
    problems: list[str] = []
    known = {ENV_PREFIX + name.upper() for name in (*Config.model_fields, *OTHER_NAMES)}
    for name in os.environ:
        if name.startswith(ENV_PREFIX) and name not in known:
            problems.append(f"{name}: no such setting")
    try:
        config: Config = source(**overrides)
    except ValidationError as error:
        for item in error.errors():
            where = ".".join(str(part) for part in item["loc"]) or "config"
            problems.append(f"{where}: {item['msg']}")
    except ValueError as error:  # not TOML, or a list in the environment that is not JSON
        problems.append(f"config file {path}: {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    return config
