"""The containers' files, without an engine: each thing that they name is there and known."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from sqlalchemy import create_engine, text

from provisioning.render import ROOT, render_tree
from sentinel_booking.config import load_config as load_booking_config
from sentinel_exporters.catalog import find_collectors
from sentinel_exporters.config import load_config as load_exporter_config
from tests.postgres import Postgres

from .stack import (
    COMPOSE,
    PINNED,
    SECRET,
    SERVICES,
    STACK,
    VARIABLE,
    dockerfile_environment,
    dockerfile_of,
    environment,
    interpolate,
    read_example,
)

# Compose


def test_the_stack_fits_the_compose_specification() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec",
         COMPOSE / "compose.yaml"], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_variable_is_in_the_example_and_the_other_way_round() -> None:
    used = {match[1] for match in VARIABLE.finditer((COMPOSE / "compose.yaml").read_text())}
    # Compose reads this one itself.
    assert read_example(with_alternatives=True).keys() - {"COMPOSE_PROFILES"} == used


def test_a_default_in_the_stack_is_the_one_in_the_example() -> None:
    for name, kind, default in VARIABLE.findall((COMPOSE / "compose.yaml").read_text()):
        if kind == "-":
            assert read_example()[name][0] == default


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_built_from_a_file_here_or_pinned(service: str) -> None:
    build = SERVICES[service].get("build")
    if build is None:
        assert PINNED.fullmatch(SERVICES[service]["image"])
    else:
        assert (COMPOSE / build["context"]).resolve() == ROOT
        assert (ROOT / build["dockerfile"]).is_file()


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_few_rights_and_reports_its_health(service: str) -> None:
    found = SERVICES[service]
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert not found.get("privileged")
    # The others end by themselves, or take part in nothing that others wait for.
    if service not in {"config", "booking-tables", "worker"}:
        assert "healthcheck" in found or "HEALTHCHECK" in dockerfile_of(service)


def test_volumes_secrets_and_dependencies_are_declared_and_used() -> None:
    volumes, secrets = set(), set()
    for service in SERVICES.values():
        volumes |= {one.split(":")[0] for one in service.get("volumes", [])}
        secrets |= set(service.get("secrets", []))
        assert service.get("depends_on", {}).keys() <= SERVICES.keys()
    assert volumes == STACK["volumes"].keys()
    assert secrets == STACK["secrets"].keys()


def test_who_waits_for_an_end_waits_for_a_service_that_ends() -> None:
    for service in SERVICES.values():
        for name, how in service.get("depends_on", {}).items():
            ends = SERVICES[name]["restart"] == "no"
            assert (how["condition"] == "service_completed_successfully") == ends


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_given_the_secrets_that_it_names(service: str) -> None:
    named = set(SECRET.findall(str(environment(service))))
    assert named <= set(SERVICES[service].get("secrets", []))


# What the programs say to it


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """The secrets as make-secrets makes them, in a folder of the test's own."""
    shutil.copy(COMPOSE / "make-secrets", tmp_path)
    subprocess.run([tmp_path / "make-secrets"], check=True, cwd="/")
    return tmp_path / "secrets"


def with_secrets(values: Mapping[str, str], secrets: Path) -> dict[str, str]:
    """Return the values with the containers' paths of secrets turned into this host's."""
    return {name: value.replace("/run/secrets", str(secrets)) for name, value in values.items()}


def set_variables(monkeypatch: pytest.MonkeyPatch, values: Mapping[str, str]) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("service", ["booking", "booking-tables", "worker"])
def test_booking_accepts_its_environment(
    service: str, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = dockerfile_environment(service) | environment(service)
    set_variables(monkeypatch, with_secrets(values, secrets))
    config = load_booking_config(None)
    assert config.listen == "0.0.0.0:8800"
    assert config.database_url == "sqlite:////var/lib/sentinel/booking.db"
    assert config.prometheus_url == "http://prometheus:9090"
    assert "booking:/var/lib/sentinel" in SERVICES[service]["volumes"]


def test_the_exporter_accepts_its_environment(
    secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = dockerfile_environment("ipmi-exporter") | environment("ipmi-exporter")
    set_variables(monkeypatch, with_secrets(values, secrets))
    config = load_exporter_config(None, find_collectors())
    assert config.listen == "0.0.0.0:9290"
    assert config.collectors == ("ipmi",)
    modules = config.section(find_collectors()["ipmi"]).model_dump()["modules"]
    assert modules["default"]["password_file"] == secrets / "bmc_password"


@pytest.mark.parametrize(
    ("service", "program"),
    [
        ("booking", "sentinel-booking"),
        ("booking-tables", "sentinel-booking"),
        ("worker", "sentinel-booking"),
        ("ipmi-exporter", "sentinel-exporter"),
    ],
)
def test_a_service_runs_a_command_that_the_program_has(service: str, program: str) -> None:
    file = dockerfile_of(service)
    assert file["ENTRYPOINT"] == f'["{program}"]'
    command: list[str] = SERVICES[service].get("command") or yaml.safe_load(file["CMD"])
    done = subprocess.run(
        [Path(sys.executable).with_name(program), *command, "--help"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("service", "program"),
    [("prometheus", "prometheus"), ("alertmanager", "prometheus-alertmanager")],
)
def test_a_service_is_given_options_that_the_program_has(service: str, program: str) -> None:
    done = subprocess.run([program, "--help"], capture_output=True, text=True, check=False)
    known = set(re.findall(r"--[\w.-]+", done.stdout + done.stderr))
    options = {option.partition("=")[0] for option in SERVICES[service]["command"]}
    assert options <= known


@pytest.fixture
def rendered(tmp_path: Path) -> Path:
    """What the service `config` writes, with the paths as in the containers."""
    command = [interpolate(argument) for argument in SERVICES["config"]["command"]]
    given = dict(argument.split("=", 1) for argument in command)
    render_tree(tmp_path / "config", given)
    return tmp_path / "config"


def test_the_rendered_files_name_only_secrets_that_their_service_is_given(
    rendered: Path,
) -> None:
    for service in ("prometheus", "alertmanager"):
        named = {
            name
            for path in (rendered / service).rglob("*.yml")
            for name in SECRET.findall(path.read_text())
        }
        assert named == set(SERVICES[service]["secrets"])


def test_the_rendered_files_name_services_by_the_ports_they_listen_on(rendered: Path) -> None:
    listens = {
        "booking": "8800", "ipmi-exporter": "9290", "prometheus": "9090", "alertmanager": "9093"
    }  # fmt: skip
    for service, port in listens.items():
        health = str(SERVICES[service].get("healthcheck", dockerfile_of(service)))
        assert f":{port}/" in health
    texts = "".join(path.read_text() for path in rendered.rglob("*.yml"))
    for service, port in listens.items():
        assert set(re.findall(rf"\b{service}:(\d+)", texts)) == {port}


def test_the_services_read_what_the_renderer_writes(rendered: Path) -> None:
    for service in ("prometheus", "alertmanager"):
        [option] = [one for one in SERVICES[service]["command"] if "--config.file=" in one]
        assert (rendered / option.removeprefix("--config.file=/config/")).is_file()
    folder = rendered / environment("grafana")["GF_PATHS_PROVISIONING"].removeprefix("/config/")
    assert {path.name for path in folder.iterdir()} >= {"datasources", "dashboards"}
    for service in ("prometheus", "alertmanager", "grafana"):
        assert "config:/config:ro" in SERVICES[service]["volumes"]
    assert dockerfile_of("config")["ENTRYPOINT"].endswith('"/config"]')
    assert "config:/config" in SERVICES["config"]["volumes"]


@pytest.mark.parametrize("service", SERVICES)
def test_a_port_is_published_to_this_host_or_where_the_operator_says(service: str) -> None:
    for port in SERVICES[service].get("ports", []):
        host, outside, inside = interpolate(port).split(":")
        assert host == "127.0.0.1"
        assert outside == inside


# Secrets


def test_make_secrets_makes_each_secret_and_keeps_it(secrets: Path) -> None:
    wanted = {Path(one["file"]).name for one in STACK["secrets"].values()}
    assert {path.name for path in secrets.iterdir()} == wanted
    before = {path.name: path.read_text() for path in secrets.iterdir()}
    random = {"jwt", "scrape", "webhook", "grafana_admin", "postgres_password"}
    assert len({before[name] for name in random}) == len(random)
    assert all(re.fullmatch(r"[\w-]{64}", before[name]) for name in random)
    subprocess.run([secrets.parent / "make-secrets"], check=True, cwd="/")
    assert {path.name: path.read_text() for path in secrets.iterdir()} == before


def test_other_users_of_the_host_cannot_reach_the_secrets(secrets: Path) -> None:
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o444 for path in secrets.iterdir())


def test_secrets_and_settings_stay_out_of_the_repository() -> None:
    ignored = (COMPOSE / ".gitignore").read_text().split()
    assert ignored == [".env", "secrets/"]


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    server.start()
    yield server
    server.stop()


def test_the_postgres_address_in_the_example_is_read_from_the_service_file(
    secrets: Path,
    postgres: Postgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = read_example(with_alternatives=True)["DATABASE_URL"][1]
    name = postgres.create_database().partition("@/")[2].partition("?")[0]
    # The server's own place; the rest is as make-secrets wrote it.
    service = (secrets / "pg_service").read_text()
    service = service.replace("host=db", f"host={postgres.folder}")
    (secrets / "pg_service").chmod(0o644)
    (secrets / "pg_service").write_text(service.replace("dbname=sentinel", f"dbname={name}"))
    monkeypatch.setenv("PGSERVICEFILE", str(secrets / "pg_service"))
    engine = create_engine(url)
    with engine.connect() as connection:
        assert connection.execute(text("select current_database()")).scalar() == name
        assert connection.execute(text("select current_user")).scalar() == "sentinel"
    engine.dispose()
    values = with_secrets(environment("booking"), secrets)
    set_variables(monkeypatch, values | {"SENTINEL_BOOKING_DATABASE_URL": url})
    assert load_booking_config(None).database_url == url
