"""The exporter's configuration: file, environment, command line, and every problem at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sentinel_exporters.catalog import Collector, find_collectors
from sentinel_exporters.config import Config, load_config, split_address
from sentinel_exporters.errors import ConfigError
from tests.exporters.running import run_exporter


@pytest.fixture
def collectors() -> dict[str, Collector]:
    return find_collectors()


def load(
    tmp_path: Path,
    text: str,
    collectors: dict[str, Collector],
    options: dict[str, str] | None = None,
) -> Config:
    path = tmp_path / "exporter.toml"
    path.write_text(text)
    return load_config(path, collectors, options)


def test_without_a_file_the_defaults_hold(collectors: dict[str, Collector]) -> None:
    config = load_config(None, collectors)
    assert config.listen == "0.0.0.0:9641"
    assert config.collectors == "auto"
    assert config.section(collectors["npu"]).timeout_s == 9


def test_a_section_sets_its_collector_alone(
    tmp_path: Path, collectors: dict[str, Collector]
) -> None:
    config = load(tmp_path, "[npu]\ntimeout_s = 20", collectors)
    assert config.section(collectors["npu"]).timeout_s == 20
    assert config.section(collectors["ssh"]).timeout_s == 5


def test_the_environment_overrides_single_values_of_the_file(
    tmp_path: Path, collectors: dict[str, Collector], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENTINEL_EXPORTER_NPU__COMMAND", "/opt/npu-smi")
    monkeypatch.setenv("SENTINEL_EXPORTER_COLLECTORS", "npu, ssh")
    config = load(
        tmp_path, 'collectors = ["gpu"]\n[npu]\ntimeout_s = 20\ncommand = "x"', collectors
    )
    section = config.section(collectors["npu"]).model_dump()
    assert (section["timeout_s"], section["command"]) == (20, "/opt/npu-smi")
    assert config.collectors == ("npu", "ssh")


def test_the_command_line_goes_before_the_environment(
    tmp_path: Path, collectors: dict[str, Collector], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENTINEL_EXPORTER_LISTEN", "127.0.0.1:1")
    config = load(tmp_path, "", collectors, {"listen": "127.0.0.1:2", "collectors": "ssh"})
    assert (config.listen, config.collectors) == ("127.0.0.1:2", ("ssh",))


def test_all_problems_are_reported_at_once(
    tmp_path: Path, collectors: dict[str, Collector], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENTINEL_EXPORTER_LISTN", "127.0.0.1:1")
    monkeypatch.setenv("SENTINEL_EXPORTER_NPU__COMAND", "x")
    text = """
        listen = "nowhere"
        collectors = "gpu,tpu"
        speed = 1
        [npu]
        timeout_s = 0
        colour = "red"
        [tpu]
    """
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, text, collectors)
    problems = sorted(line.partition(":")[0] for line in str(refused.value).splitlines())
    assert problems == [
        "SENTINEL_EXPORTER_LISTN",
        "SENTINEL_EXPORTER_NPU__COMAND",
        "collectors",
        "listen",
        "npu.colour",
        "npu.comand",
        "npu.timeout_s",
        "speed",
        "tpu",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("listen = 5", "listen: must be text"),
        ('listen = "x"', "listen: must be <address>:<port>"),
        ('listen = "127.0.0.1:99999"', "listen: the port must be 65535 at most"),
        (
            '[ipmi]\ntargets = ["bmc1", "*bmc"]',
            "ipmi.targets: '*bmc': not a host name or an IP address",
        ),
        ("speed = 1", "speed: no such setting"),
        ("collectors = 5", "collectors: must be names, in a list or joined by commas"),
        ('collectors = ["gpu", 1]', "collectors: must be names, in a list or joined by commas"),
        ('collectors = " , "', "collectors: must name one, or be auto"),
        ("compat = [1]", "compat: must be names, in a list or joined by commas"),
        ('max_requests = "x"', "max_requests: must be a whole number"),
        ("max_requests = 0", "max_requests: must be greater than or equal to 1"),
        ("npu = 5", "npu: must be names with values"),
        ("[npu]\ntimeout_s = 'soon'", "npu.timeout_s: must be a number"),
        ("[npu]\ntimeout_s = 0", "npu.timeout_s: must be greater than 0"),
        ('[ipmi]\ntargets = "x"', "ipmi.targets: must be a list"),
        ('[ipmi.modules.a]\nuser = "u"', "ipmi.modules.a.password_file: is missing"),
    ],
)
def test_a_problem_is_said_in_plain_words(
    tmp_path: Path, collectors: dict[str, Collector], text: str, problem: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, text, collectors)
    assert str(refused.value) == problem


def test_variables_that_are_not_json_are_named_with_all_other_problems(
    tmp_path: Path, collectors: dict[str, Collector], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENTINEL_EXPORTER_IPMI__TARGETS", "10.0.0.0/8")
    monkeypatch.setenv("SENTINEL_EXPORTER_IPMI__MODULES", "default")
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, 'listen = "nowhere"\n[ipmi]\ntargets = ["bmc1"]\nspeed = 1', collectors)
    must_be = "must be JSON, as all lists and tables in variables"
    assert sorted(str(refused.value).splitlines()) == [
        f"SENTINEL_EXPORTER_IPMI__MODULES: {must_be}",
        f"SENTINEL_EXPORTER_IPMI__TARGETS: {must_be}",
        "ipmi.speed: no such setting",
        "listen: must be <address>:<port>",
    ]


def test_a_variable_in_json_is_a_list(
    collectors: dict[str, Collector], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENTINEL_EXPORTER_IPMI__TARGETS", '["10.0.0.0/8"]')
    section = load_config(None, collectors).section(collectors["ipmi"]).model_dump()
    assert section["targets"] == ("10.0.0.0/8",)


@pytest.mark.parametrize("text", ["listen = ", "[npu", "\x00"])
def test_a_file_that_is_not_toml_is_refused(
    tmp_path: Path, collectors: dict[str, Collector], text: str
) -> None:
    with pytest.raises(ConfigError, match=r"exporter\.toml"):
        load(tmp_path, text, collectors)


def test_a_file_that_is_not_there_is_refused(
    tmp_path: Path, collectors: dict[str, Collector]
) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        load_config(tmp_path / "none.toml", collectors)


def test_a_file_that_cannot_be_read_is_refused_with_the_reason(
    collectors: dict[str, Collector],
) -> None:
    # A file that is there and whose content nobody gets, root included.
    with pytest.raises(ConfigError, match="config file /proc/self/mem: Input/output error"):
        load_config(Path("/proc/self/mem"), collectors)


def test_what_is_not_a_file_is_refused_and_not_left_out(
    tmp_path: Path, collectors: dict[str, Collector]
) -> None:
    with pytest.raises(ConfigError, match=f"config file {tmp_path}: not a file"):
        load_config(tmp_path, collectors)
    # As by `--config <(…)`.
    reader, writer = os.pipe()
    with os.fdopen(reader), os.fdopen(writer, "w") as writing:
        writing.write('listen = "127.0.0.1:1"')
        writing.close()
        with pytest.raises(ConfigError, match="not a file"):
            load_config(Path(f"/dev/fd/{reader}"), collectors)


def test_an_invalid_configuration_ends_every_command_with_status_2(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("speed = 1\nlisten = 5\n")
    for command in ("serve", "check", "devices", "metrics"):
        done = run_exporter(command, "--config", str(tmp_path / "bad.toml"))
        assert done.returncode == 2
        assert "speed" in done.stderr
        assert "listen" in done.stderr
        assert done.stdout == ""


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9641", ("127.0.0.1", 9641)),
        (":9641", ("", 9641)),
        ("[::]:0", ("::", 0)),
        ("[127.0.0.1]:5", ("127.0.0.1", 5)),
    ],
)
def test_an_address_is_host_and_port(text: str, address: tuple[str, int]) -> None:
    assert split_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "9641", "a:b", "::1:80", "a:-1", "a:", "a:٣",
        "[::1", "::1]:5", "[::1]]:5", "[[::1]:5", "]:5", "[:5", "a[b]:5",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"address"):
        split_address(text)
