"""The `ipmi` probe as Prometheus sees it, beside other people's programs on the same BMC."""

from __future__ import annotations

import contextlib
import math
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentinel_exporters.catalog import load_collector
from sentinel_exporters.core import Target
from tests.exporters import ipmi_lab
from tests.exporters.bmc import PASSWORD, SERVER, USER, Bmc, free_udp_port
from tests.exporters.ipmi_lab import probe, up
from tests.exporters.ipmi_peers import fetch_series, ipmi_exporter, ipmitool_sensors
from tests.exporters.running import (
    REPOSITORY,
    Exporter,
    Series,
    label_sets,
    run_exporter,
    values,
)
from tests.exporters.udp_relay import UdpRelay
from tests.lab.wait import wait_for

ALL = ("ipmi", "dcmi", "bmc", "chassis", "sel")


@contextlib.contextmanager
def exporting(folder: Path, *, targets: tuple[str, ...] = ()) -> Iterator[Exporter]:
    """An exporter with the modules that the tests ask by."""
    (folder / "wrong").write_text("not-the-password\n")
    modules: dict[str, dict[str, object]] = {
        "default": {"collectors": ALL},
        "wrong-password": {"password_file": str(folder / "wrong")},
        "wrong-user": {"user": "nobody"},
        "few": {"collectors": ["ipmi"], "exclude_sensor_ids": [1, 13]},
        "admin": {"privilege": "admin", "collectors": ALL},
    }
    with ipmi_lab.exporting(folder, modules, targets=targets) as exporter:
        yield exporter


@pytest.fixture(scope="module")
def bmc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bmc]:
    """A BMC that no test changes."""
    bmc = Bmc(tmp_path_factory.mktemp("bmc")).start()
    yield bmc
    bmc.stop()


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    """An exporter that asks any BMC."""
    with exporting(tmp_path_factory.mktemp("exporter")) as exporter:
        yield exporter


@pytest.fixture
def own_bmc(tmp_path: Path) -> Iterator[Bmc]:
    """A BMC for this test alone."""
    bmc = Bmc(tmp_path).start()
    yield bmc
    bmc.stop()


def test_every_series_of_ipmi_exporter_is_there_with_its_value(
    exporter: Exporter, bmc: Bmc, tmp_path: Path
) -> None:
    with ipmi_exporter(bmc, tmp_path) as url:
        theirs = fetch_series(url)
    ours = probe(exporter, bmc)

    # Theirs has NaN for what is missing; how long it took differs; 1.6.1 knows no bmc_url.
    expected = {
        at: value
        for at, value in theirs.items()
        if not math.isnan(value) and at[0] not in ("ipmi_scrape_duration_seconds",)
    }
    found = {
        (name, tuple(label for label in labels if label != ("bmc_url", "N/A"))): value
        for (name, labels), value in ours.items()
    }
    assert len(expected) > 35
    assert {at: found.get(at) for at in expected} == pytest.approx(expected, abs=0.0051)
    unknown = {at for at in found if at not in expected and at[0].startswith("ipmi_")}
    assert {name for name, _ in unknown} <= {
        "ipmi_scrape_duration_seconds",
        # Later than 1.6.1.
        "ipmi_chassis_drive_fault_state",
        "ipmi_chassis_cooling_fault_state",
    }


def test_each_sensor_reads_as_ipmitool_reads_it(exporter: Exporter, bmc: Bmc) -> None:
    expected = ipmitool_sensors(bmc)
    expected["FAN3 Duty"] /= 100
    series = probe(exporter, bmc)

    families = (
        "ipmi_temperature_celsius", "ipmi_fan_speed_rpm", "ipmi_fan_speed_ratio",
        "ipmi_voltage_volts", "ipmi_power_watts", "ipmi_current_amperes", "ipmi_sensor_value",
    )  # fmt: skip
    found = {
        name: value
        for family in families
        for name, value in values(series, family, "name").items()
    }
    assert len(found) == 12
    assert found == pytest.approx(expected, abs=0.00051)


def test_the_id_is_that_of_the_sdr_record(exporter: Exporter, bmc: Bmc) -> None:
    series = probe(exporter, bmc)

    ids = {
        labels["name"]: labels["id"] for labels in label_sets(series, "ipmi_fan_speed_state")
    }
    assert ids == {"FAN1": "5", "FAN2": "6", "FAN3 Duty": "7"}


def test_a_sensor_that_reads_nothing_has_no_sample(exporter: Exporter, bmc: Bmc) -> None:
    silent = {sensor.name for sensor in SERVER if not (sensor.is_present and sensor.is_scanned)}
    series = probe(exporter, bmc)

    assert len(silent) == 3
    assert not [labels for _, labels in series if dict(labels).get("name") in silent]


def test_the_hosts_power_is_read_at_each_scrape(exporter: Exporter, own_bmc: Bmc) -> None:
    assert values(probe(exporter, own_bmc), "ipmi_chassis_power_state") == {"": 1}

    own_bmc.stop()
    own_bmc.is_host_on = False
    own_bmc.start()

    assert values(probe(exporter, own_bmc), "ipmi_chassis_power_state") == {"": 0}


def test_a_module_says_what_is_asked(exporter: Exporter, bmc: Bmc) -> None:
    everything, few = probe(exporter, bmc), probe(exporter, bmc, "few")

    assert up(few) == {"ipmi": 1}
    gone = {at for at in everything if at not in few and "id" in dict(at[1])}
    assert {dict(labels)["id"] for _, labels in gone} == {"1", "13"}


def test_a_bmc_without_dcmi_fails_in_that_alone(exporter: Exporter, bmc: Bmc) -> None:
    series = probe(exporter, bmc, "admin")

    assert up(series) == {"ipmi": 1, "dcmi": 0, "bmc": 1, "chassis": 1, "sel": 1}
    assert not values(series, "ipmi_dcmi_power_consumption_watts")
    # Many BMCs have none: it is no failure of the run.
    assert values(series, "sentinel_collector_success", "collector") == {"ipmi": 1}


def test_that_a_bmc_has_no_dcmi_is_logged_once(exporter: Exporter, own_bmc: Bmc) -> None:
    for _ in range(3):
        assert up(probe(exporter, own_bmc, "admin"))["dcmi"] == 0

    assert exporter.log.read_text().count(f"ipmi no dcmi bmc={own_bmc.target} ") == 1


@pytest.mark.parametrize("module", ["wrong-password", "wrong-user"])
def test_refused_credentials_give_up_0_and_a_reason_in_the_log(
    exporter: Exporter, bmc: Bmc, module: str
) -> None:
    series = probe(exporter, bmc, module)

    assert set(up(series).values()) == {0}
    assert values(series, "sentinel_collector_success", "collector") == {"ipmi": 0}
    logged = [line for line in exporter.log.read_text().splitlines() if module in line]
    assert any("login refused" in line and bmc.target in line for line in logged)


def test_no_password_is_in_a_page_or_the_log(exporter: Exporter, bmc: Bmc) -> None:
    pages = [exporter.get("/")[1], exporter.get("/metrics")[1]]
    for module in ("default", "wrong-password", "wrong-user", "no-such-module"):
        pages.append(exporter.get(f"/ipmi?target={bmc.target}&module={module}")[1])

    shown = b"".join(pages).decode() + exporter.log.read_text()
    assert PASSWORD not in shown
    assert "not-the-password" not in shown


def test_an_exporter_that_stops_ends_its_sessions(tmp_path: Path, bmc: Bmc) -> None:
    with UdpRelay((bmc.host, bmc.port), lambda packet: [(0.0, packet)]) as relay:
        with exporting(tmp_path) as exporter:
            assert up(exporter.series(f"/ipmi?target=127.0.0.1:{relay.port}"))["ipmi"] == 1
            asked = len(relay.requests)

        # Close Session; without it the BMC's slot would be taken for a minute.
        wait_for("a last request", lambda: len(relay.requests) == asked + 1)


def test_a_changed_password_counts_at_the_next_scrape(tmp_path: Path, own_bmc: Bmc) -> None:
    with exporting(tmp_path) as exporter:
        assert up(probe(exporter, own_bmc, "wrong-password"))["ipmi"] == 0
        (tmp_path / "wrong").write_text(f"{PASSWORD}\n")
        assert up(probe(exporter, own_bmc, "wrong-password"))["ipmi"] == 1
        (tmp_path / "wrong").write_text("not-the-password\n")
        assert up(probe(exporter, own_bmc, "wrong-password"))["ipmi"] == 0


def test_a_bmc_whose_answers_come_too_late_has_up_0(tmp_path: Path) -> None:
    # As when the look-up of its name takes longer than the scrape may.
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    ipmi = load_collector("ipmi")
    module = {"user": USER, "password_file": password, "collectors": ["ipmi", "sel"]}
    settings = ipmi.settings.model_validate({"modules": {"default": module}})

    told = ipmi.unread(settings, Target("bmc.example", "default", 0.0))

    assert [(one.metric.name, one.labels, one.value) for one in told] == [
        ("ipmi_up", ("ipmi",), 0),
        ("ipmi_up", ("sel",), 0),
    ]
    assert not ipmi.unread(settings, Target("bmc.example", "no-such-module", 0.0))


@pytest.mark.parametrize("content", [None, "x" * 21, b"\xff\xfe"])
def test_an_unusable_password_file_is_named_in_the_log(
    tmp_path: Path, bmc: Bmc, content: str | bytes | None
) -> None:
    with exporting(tmp_path) as exporter:
        file = tmp_path / "wrong"
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content.encode() if isinstance(content, str) else content)

        assert set(up(probe(exporter, bmc, "wrong-password")).values()) == {0}
        assert str(file) in exporter.log.read_text()


def test_a_host_without_a_bmc_gives_up_0_and_is_found_when_it_has_one(
    exporter: Exporter, tmp_path: Path
) -> None:
    bmc = Bmc(tmp_path, port=free_udp_port("127.0.0.1"))
    assert set(up(probe(exporter, bmc)).values()) == {0}

    bmc.start()
    assert up(probe(exporter, bmc))["ipmi"] == 1

    bmc.stop()
    assert set(up(probe(exporter, bmc)).values()) == {0}

    bmc.start()
    assert up(probe(exporter, bmc))["ipmi"] == 1
    bmc.stop()


def test_a_bmc_that_hangs_is_reported_before_prometheus_gives_up(
    exporter: Exporter, own_bmc: Bmc
) -> None:
    probe(exporter, own_bmc)
    own_bmc.pause()

    series = probe(exporter, own_bmc, X_Prometheus_Scrape_Timeout_Seconds="2")

    assert set(up(series).values()) == {0}
    # Prometheus would not have got a page that took longer.
    assert values(series, "ipmi_scrape_duration_seconds")[""] < 2
    own_bmc.resume()
    assert up(probe(exporter, own_bmc))["ipmi"] == 1


def test_scrapes_of_one_bmc_at_the_same_time_all_get_its_values(
    exporter: Exporter, bmc: Bmc
) -> None:
    pages: list[Series] = []
    # Two names for one BMC, so that the second scrape does not join the first.
    host = f"localhost:{bmc.port}"
    asked = [bmc.target, host, bmc.target, host]
    threads = [
        threading.Thread(
            target=lambda at=at: pages.append(exporter.series(f"/ipmi?target={at}"))
        )
        for at in asked
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    readings = [{at: v for at, v in page.items() if "id" in dict(at[1])} for page in pages]
    assert len(readings) == 4
    assert readings[0]
    assert readings[1:] == readings[:1] * 3


@pytest.mark.parametrize(
    "query",
    [
        "target=127.0.0.1/x",
        "target=monitor:pass@127.0.0.1",
        "target=127.0.0.1:http",
        "target=127.0.0.1:0",
        "target=2130706433",
        "target=fe80::1%25eth0",
        "target=",
        "target=127.0.0.1&target=127.0.0.2",
        "target=127.0.0.1&module=no-such-module",
    ],
)
def test_a_bad_target_or_module_is_a_bad_request(exporter: Exporter, query: str) -> None:
    status, _, _ = exporter.get(f"/ipmi?{query}")

    assert status == 400


def test_a_target_that_is_not_listed_is_refused_and_never_contacted(
    bmc: Bmc, tmp_path: Path
) -> None:
    with (
        exporting(tmp_path, targets=("127.0.0.1",)) as exporter,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger,
    ):
        stranger.bind(("127.0.0.2", 0))
        stranger.settimeout(0.2)
        status, body, _ = exporter.get(f"/ipmi?target=127.0.0.2:{stranger.getsockname()[1]}")

        assert (status, b"ipmi.targets" in body) == (400, True)
        with pytest.raises(TimeoutError):
            stranger.recv(1)
        assert up(probe(exporter, bmc))["ipmi"] == 1


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('targets = ["10.0.0.0/33"]', "ipmi.targets"),
        ("[ipmi.modules.a]", "ipmi.modules.a.user"),
        ('[ipmi.modules.a]\nuser = "x"\npassword_file = "/nowhere"', "password_file"),
        ('[ipmi.modules.a]\nuser = "12345678901234567"', "16 bytes"),
        ('[ipmi.modules.a]\npassword = "secret"', "ipmi.modules.a.password"),
        ('[ipmi.modules.a]\ncollectors = ["fru"]', "ipmi.modules.a.collectors"),
    ],
)
def test_a_wrong_setting_is_named_at_start(tmp_path: Path, line: str, problem: str) -> None:
    (tmp_path / "bad.toml").write_text(f"[ipmi]\n{line}\n")
    done = run_exporter("check", "--config", str(tmp_path / "bad.toml"))

    assert done.returncode == 2
    assert problem in done.stderr


def test_the_example_in_the_readme_is_valid(tmp_path: Path) -> None:
    readme = (REPOSITORY / "exporters" / "README.md").read_text().partition("\n## IPMI\n")[2]
    example = readme.partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "password").write_text("x\n")
    settings = example.replace("/etc/sentinel/bmc-password", str(tmp_path / "password"))
    (tmp_path / "example.toml").write_text(settings)

    assert "password" in settings
    assert run_exporter("devices", "--config", str(tmp_path / "example.toml")).returncode == 0
