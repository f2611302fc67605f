"""Settings: every problem at once, the environment over the file, and all documented."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from sentinel_agent.config import OTHER_NAMES, Config, load_config
from sentinel_agent.errors import ConfigError
from sentinel_agent.policy.access import Access
from sentinel_agent.policy.cache import Cache
from sentinel_agent.policy.held import HeldPolicy
from sentinel_agent.server.registration import Registration
from sentinel_agent.service.metrics import Metrics
from sentinel_agent.service.status import Status
from sentinel_agent.sessions.plan import utc
from tests.agent.policies import build_policy
from tests.lab.node import REPOSITORY

WRONG = """\
server = "booking.example"
heartbeat = 3
min_uid = 500
ca_file = "/no/such/file"
warn_minutes = [0]

[targets]
node = 99999
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "agent.toml"
    path.write_text(text)
    return path


def test_every_problem_is_reported_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENTINEL_AGENT_GRACE", "1")
    with pytest.raises(ConfigError) as failure:
        load_config(write(tmp_path, WRONG))
    lines = str(failure.value).splitlines()
    for name in ("server", "heartbeat", "min_uid", "warn_minutes.0", "targets.node"):
        assert any(line.startswith(f"{name}: ") for line in lines), name
    assert "SENTINEL_AGENT_GRACE: no such setting" in lines


@pytest.mark.parametrize(
    "text",
    ["server = ", 'ca_file = "/no/such/file"', 'state_dir = "here"', 'metrics_listen = "9642"',
     'server = "http://user:pw@host"', 'server = "ftp://host"', "inventory_command = []"],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        load_config(write(tmp_path, text))


def test_the_environment_overrides_the_file_and_arguments_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, 'server = "http://file"\naddress = "file"\ngrace_s = 7\n')
    monkeypatch.setenv("SENTINEL_AGENT_ADDRESS", "environment")
    monkeypatch.setenv("SENTINEL_AGENT_INVENTORY_COMMAND", '["echo", "x"]')
    config = load_config(path, server="http://argument/")
    assert (config.server, config.address, config.grace_s) == (
        "http://argument",
        "environment",
        7,
    )
    assert config.inventory_command == ("echo", "x")


@pytest.mark.parametrize(
    ("text", "port"),
    [("", 9642), ('metrics_listen = "[::]:9700"', 9700), ('metrics_listen = ""', None),
     ('metrics_listen = "127.0.0.1:9642"', None), ('metrics_listen = "[::1]:9642"', None),
     ('metrics_listen = "localhost:9642"', None), ("[targets]\nagent = 9999", 9999)],
)  # fmt: skip
def test_the_agents_own_port_is_a_target_where_prometheus_reaches_it(
    tmp_path: Path, text: str, port: int | None
) -> None:
    assert load_config(write(tmp_path, text)).all_targets.get("agent") == port


def test_a_grace_that_outlasts_the_handover_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="handover_limit_s"):
        load_config(write(tmp_path, "grace_s = 300"))
    for text in (
        "grace_s = 300\nhandover_limit_s = 302",
        "grace_s = 300\nhandover_limit_s = 0",
    ):
        assert load_config(write(tmp_path, text)).grace_s == 300


def run_agent(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sentinel_agent", *arguments],
        env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_check_config_says_what_is_wrong_and_exits_with_2(tmp_path: Path) -> None:
    wrong = run_agent("--config", str(write(tmp_path, WRONG)), "check-config")
    assert wrong.returncode == 2
    assert "heartbeat: " in wrong.stderr
    path = write(tmp_path, 'server = "https://booking.example"\n')
    right = run_agent("check-config", SENTINEL_AGENT_CONFIG=str(path))
    assert (right.returncode, right.stderr) == (0, "")
    missing = run_agent("--config", str(tmp_path / "none.toml"), "check-config")
    assert missing.returncode == 2


def test_each_setting_is_documented() -> None:
    text = (REPOSITORY / "docs" / "config.md").read_text()
    _, _, section = text.partition("\n## Agent\n")
    section = section.partition("\n## ")[0]
    for name in Config.model_fields:
        assert f"| `{name}` |" in section, name
    documented = [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")]
    assert sorted(documented) == sorted(Config.model_fields)
    for name in OTHER_NAMES:
        assert f"SENTINEL_AGENT_{name}" in section


def test_each_series_is_documented(tmp_path: Path) -> None:
    registration = Registration("gpu-01", "token", "http://server", utc(0))
    files = Cache(tmp_path / "policy.json", "root"), Access(tmp_path / "access")
    held = HeldPolicy(*files, registration)
    held.replace(build_policy())
    status = Status(
        last_heartbeat_at=0, clock_skew_s=0, policy_confirmed_monotonic_s=0, round_seconds=0,
        reconciled_monotonic_s=0, lock="locked",
    )  # fmt: skip
    registry: CollectorRegistry = Metrics(held, status).registry
    names = {
        metric.name + ("_total" if metric.type == "counter" else "")
        for metric in registry.collect()
    }
    section = (REPOSITORY / "docs" / "metrics.md").read_text().partition("\n## Agent\n")[2]
    section = section.partition("\n## ")[0]
    documented = {
        line.split("`")[1].partition("{")[0]
        for line in section.splitlines()
        if line.startswith("| `")
    }
    assert documented == names
