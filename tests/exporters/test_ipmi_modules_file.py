"""ipmi_exporter's own configuration file, as this exporter reads it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentinel_exporters.errors import ConfigError
from sentinel_exporters.ipmi.session import Credentials, Privilege
from sentinel_exporters.ipmi_modules_file import ModulesFile
from tests.exporters.bmc import PASSWORD, USER, Bmc
from tests.exporters.ipmi_lab import exporting, probe, up
from tests.exporters.ipmi_peers import fetch_series, ipmi_exporter_with
from tests.exporters.running import label_sets, run_exporter, values

# Every key that ipmi_exporter knows.
FULL = (Path(__file__).parent / "fixtures" / "ipmi" / "ipmi_exporter.yml").read_text()


@pytest.fixture(scope="module")
def bmc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bmc]:
    bmc = Bmc(tmp_path_factory.mktemp("bmc")).start()
    yield bmc
    bmc.stop()


def write(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "ipmi.yml"
    path.write_text(text)
    path.chmod(mode)
    return path


def let_settle(path: Path) -> Path:
    """Make it look as if the file was written two seconds ago."""
    os.utime(path, (time.time() - 2,) * 2)
    return path


def test_both_exporters_read_the_same_bmc_by_the_same_file(bmc: Bmc, tmp_path: Path) -> None:
    # Its version in Debian has no sel-events yet, and refuses what it does not know.
    known = FULL.partition("        advanced:")[0]
    with ipmi_exporter_with(write(tmp_path, known), bmc) as url:
        theirs = fetch_series(url)
    with exporting(tmp_path, {}, config_file=str(write(tmp_path, FULL))) as exporter:
        ours = probe(exporter, bmc)
        more = probe(exporter, bmc, "advanced")
        log = exporter.log.read_text()

    assert up(ours) == up(theirs) == {"bmc": 1, "ipmi": 1, "chassis": 1}
    found = {labels["id"] for labels in label_sets(ours, "ipmi_temperature_celsius")}
    expected = {labels["id"] for labels in label_sets(theirs, "ipmi_temperature_celsius")}
    assert found
    assert found <= expected  # it has NaN for sensors that read nothing
    assert not {"2", "5"} & expected
    assert values(more, "ipmi_sel_events_count_by_name", "name") == {"temperature": 3}
    for key in (
        "default.workaround_flags", "advanced.driver", "advanced.collector_cmd",
        "advanced.default_args", "advanced.custom_args",
    ):  # fmt: skip
        assert f"key=modules.{key} reason=" in log
    assert log.count("configuration of no effect") == 5
    assert PASSWORD not in log


def test_a_module_means_what_it_means_there(tmp_path: Path) -> None:
    modules = ModulesFile(write(tmp_path, FULL)).modules()

    one = modules["default"]
    assert one.credentials() == Credentials(USER, PASSWORD, Privilege.USER)
    assert (one.timeout_s, one.exclude_sensor_ids) == (10.0, (2, 5))
    assert one.collectors == ("bmc", "ipmi", "chassis")
    assert modules["advanced"].credentials().privilege is Privilege.ADMIN
    assert modules["local"].collectors == ()


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    text = "modules: {default: {user: u, pass: p, timeout: , collectors: }}"
    one = ModulesFile(write(tmp_path, text)).modules()["default"]

    assert one.collectors == ("ipmi", "dcmi", "bmc", "chassis")
    assert (one.privilege, one.timeout_s) == ("user", 10.0)


@pytest.mark.parametrize("password", ["0123", "1e3", "no", "12_3", "2001-01-01", "=", "0x1F"])
def test_a_password_that_looks_like_a_number_is_the_text_that_it_is(
    tmp_path: Path, password: str
) -> None:
    path = write(tmp_path, f"modules: {{default: {{user: on, pass: {password}}}}}")

    assert ModulesFile(path).modules()["default"].credentials() == Credentials("on", password)


def test_anchors_and_merges_work(tmp_path: Path) -> None:
    text = """
modules:
  one: &base {user: u, pass: p, collectors: [sel]}
  two: {<<: *base, user: v}
"""
    two = ModulesFile(write(tmp_path, text)).modules()["two"]

    assert (two.user, two.collectors) == ("v", ("sel",))


def test_a_password_can_be_in_a_file_beside(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("first\n")
    path = write(tmp_path, "modules: {default: {user: u, password_file: secret}}")
    one = ModulesFile(path).modules()["default"]
    assert one.credentials().password == "first"

    (tmp_path / "secret").write_text("second\n")
    assert one.credentials().password == "second"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("module: {}", "module: unknown"),
        ("[]", "not a mapping"),
        ("modules: []", "modules: not a mapping"),
        ("modules: {default: 5}", "modules.default: not a mapping"),
        ("modules: {default: {usr: x}}", "modules.default.usr: unknown"),
        ("modules: {default: {user: [x]}}", "modules.default.user: "),
        ("modules: {default: {user: 12345678901234567}}", "16 bytes"),
        ("modules: {default: {user: u, pass: {a: b}}}", "modules.default.pass: "),
        ("modules: {default: {user: u, pass: 123456789012345678901}}", "20 bytes"),
        ("modules: {default: {user: u, privilege: root}}", "modules.default.privilege: "),
        ("modules: {default: {user: u, timeout: 10s}}", "modules.default.timeout: "),
        ("modules: {default: {user: u, timeout: -1}}", "modules.default.timeout: "),
        ("modules: {default: {user: u, timeout: 1.5}}", "modules.default.timeout: "),
        ("modules: {default: {user: u, collectors: bmc}}", "modules.default.collectors: "),
        ("modules: {default: {user: u, collectors: [foo]}}", "modules.default.collectors.0: "),
        ("modules: {default: {user: u, exclude_sensor_ids: [x]}}", "exclude_sensor_ids.0: "),
        (
            "modules: {default: {user: u, collector_cmd: [x]}}",
            "modules.default.collector_cmd: ",
        ),
        ("modules: {default: {user: u, custom_args: {sel: x}}}", "custom_args.sel: "),
        ("modules: {default: {user: u, sel_events: [{name: x}]}}", "sel_events.0.regex: "),
        (
            "modules: {default: {user: u, sel_events: [{name: x, regex: (}]}}",
            "not a regular expression",
        ),
        (
            "modules: {default: {user: u, sel_events: [{name: x, regex: '[[:alpha:]]'}]}}",
            r"write \w",
        ),
        (
            "modules: {a: {user: u, password_file: no}}",
            "modules.a.password_file: there is no file /",
        ),
        (
            "modules: {a: {user: u, password_file: /}}",
            "modules.a.password_file: / is not a file",
        ),
        (f"modules: {{a: {{password_file: {'x' * 256}}}}}", ": File name too long"),
        (r'modules: {a: {pass: "\ud800"}}', "modules.a.pass: has characters that do not exist"),
        ("modules: {default: {user: u, user: v}}", "user is there twice"),
        ("modules: {default: {user: u}, default: {user: v}}", "line 1: default is there twice"),
        ("modules: {default: {user: u, pass: p, password_file: x}}", "one of the two"),
        (r'modules: {a: {password_file: "a\0b"}}', "modules.a.password_file: embedded null"),
        ("modules: {", "line 1: "),
        ("modules: !!python/object:os.system {}", "line 1: "),
        ("a: \x00", "not a YAML file"),
        # What PyYAML itself does not expect: TypeError, OverflowError.
        ("modules: !!map [a]", "not a YAML file"),
        (r'modules: "\U99999999"', "not a YAML file"),
    ],
)
def test_a_problem_is_named_with_its_key(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ModulesFile(write(tmp_path, text))

    assert problem in str(caught.value)


def test_every_problem_is_named_and_no_password(tmp_path: Path) -> None:
    text = (
        "modules:\n  a: {user: u, pass: [geheim]}\n  b: {user: u, pass: geheim, timeout: x}\n"
    )
    with pytest.raises(ConfigError) as caught:
        ModulesFile(write(tmp_path, text))

    assert "modules.a.pass: " in str(caught.value)
    assert "modules.b.timeout: " in str(caught.value)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    "sign",
    ["*", "!", "!!", "&geheim ", "@", "%", "`", '"', "'", "[", "{", "|", ">", "!a!", "- "],
)
def test_a_password_that_begins_with_a_sign_of_yaml_is_not_shown(
    tmp_path: Path, sign: str
) -> None:
    for text in (f"{sign}geheim", f"{sign}geheim!x y"):
        with pytest.raises(ConfigError) as caught:
            # Another mistake besides, where it is a text like any other.
            ModulesFile(write(tmp_path, f"modules:\n  a:\n    pass: {text}\n    speed: 1\n"))
        assert "geheim" not in str(caught.value)


def test_a_changed_file_counts_and_a_broken_one_does_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = ModulesFile(write(tmp_path, "modules: {one: {user: u, pass: p}}"))
    let_settle(write(tmp_path, "modules: {one: {user: other, pass: p}}"))
    assert file.modules()["one"].user == "other"

    let_settle(write(tmp_path, "modules: {one: {user: third, pass: p, tiemout: 5}}"))
    assert [file.modules()["one"].user for _ in range(3)] == ["other"] * 3
    assert caplog.text.count("modules.one.tiemout: unknown") == 1

    (tmp_path / "ipmi.yml").unlink()
    assert [file.modules()["one"].user for _ in range(3)] == ["other"] * 3
    assert caplog.text.count("No such file") == 1

    os.mkfifo(tmp_path / "ipmi.yml")
    assert [file.modules()["one"].user for _ in range(3)] == ["other"] * 3
    assert caplog.text.count("not a file") == 1

    (tmp_path / "ipmi.yml").unlink()
    let_settle(write(tmp_path, "modules: {two: {user: u, pass: p}}"))
    assert file.modules().keys() == {"two"}


def test_a_file_that_is_being_rewritten_counts_when_it_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = ModulesFile(write(tmp_path, "modules: {one: {user: u, pass: p}}"))
    # Who rewrites a file empties it first; what comes next may come in pieces.
    for written in ("", "modules: {one: {us", "modules: {two: {user: u, pass: p}}"):
        write(tmp_path, written)
        assert file.modules().keys() == {"one"}
    assert not caplog.text

    let_settle(tmp_path / "ipmi.yml")
    assert file.modules().keys() == {"two"}


def test_a_password_file_that_comes_later_makes_the_changed_file_good(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "seen").write_text("p")
    (tmp_path / "seen").chmod(0o644)
    file = ModulesFile(write(tmp_path, "modules: {one: {user: u, pass: p}}"))
    text = "{one: {user: u, password_file: seen}, two: {user: u, password_file: later}}"
    let_settle(write(tmp_path, f"modules: {text}"))
    assert [file.modules().keys() for _ in range(3)] == [{"one"}] * 3
    assert caplog.text.count("modules.two.password_file: there is no file") == 1

    (tmp_path / "later").write_text("p")
    (tmp_path / "later").chmod(0o600)
    assert file.modules().keys() == {"one", "two"}
    assert caplog.text.count("ipmi password can be read by others") == 1
    assert len(caplog.records) == 2


@pytest.mark.parametrize(
    ("modes", "key", "is_warned"),
    [
        ((0o644, 0o644), "pass: p", True),
        ((0o640, 0o644), "pass: p", False),
        ((0o644, 0o640), "password_file: secret", False),
        ((0o600, 0o644), "password_file: secret", True),
    ],
)
def test_passwords_that_others_can_read_are_warned_of(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    modes: tuple[int, int],
    key: str,
    is_warned: bool,
) -> None:
    mode, mode_of_secret = modes
    (tmp_path / "secret").write_text("p")
    (tmp_path / "secret").chmod(mode_of_secret)
    ModulesFile(write(tmp_path, f"modules: {{default: {{user: u, {key}}}}}", mode))

    assert ("can be read by others" in caplog.text) is is_warned
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_a_timeout_beyond_the_limit_is_cut_and_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = "modules: {default: {user: u, pass: p, timeout: 600000}}"
    one = ModulesFile(write(tmp_path, text)).modules()["default"]

    assert one.timeout_s == 300
    assert "key=modules.default.timeout reason=" in caplog.text


def test_a_file_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    write(tmp_path, "modules: {default: {user: u, pass: geheim, tiemout: 5}}")
    (tmp_path / "password").write_text("p")
    (tmp_path / "config.toml").write_text(
        f'collectors = "ipmi"\n[ipmi]\nconfig_file = "{tmp_path}/ipmi.yml"\n'
    )
    done = run_exporter("devices", "--config", str(tmp_path / "config.toml"))

    assert done.returncode == 2
    assert "ipmi.config_file" in done.stderr
    assert "modules.default.tiemout: unknown" in done.stderr
    assert "geheim" not in done.stderr


def test_one_name_in_both_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "modules: {default: {user: u, pass: p}}")
    (tmp_path / "password").write_text("p")
    (tmp_path / "config.toml").write_text(
        f'[ipmi]\nconfig_file = "{tmp_path}/ipmi.yml"\n[ipmi.modules.default]\nuser = "u"\n'
        f'password_file = "{tmp_path}/password"\n'
    )
    done = run_exporter("devices", "--config", str(tmp_path / "config.toml"))

    assert done.returncode == 2
    assert "default: in ipmi.modules, too" in done.stderr


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        ModulesFile(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="not a file"):
        ModulesFile(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="not a file"):
        ModulesFile(tmp_path / "pipe")
