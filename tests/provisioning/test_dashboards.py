"""The dashboards: fresh, complete, and each query gives data on a real Prometheus."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import pytest
from grafana_foundation_sdk.models import dashboard as model

from provisioning.grafana.__main__ import DASHBOARDS, FOLDER, encode
from sentinel_exporters import accelerator as family
from sentinel_exporters.accelerator import Identity
from sentinel_exporters.core import Metric, Sample
from sentinel_exporters.exposition import write_text
from tests.lab.wait import wait_for

from .programs import Lab, Prometheus, prometheus, serving

# Any: Grafana's JSON, of which each test looks at one part.
Json = dict[str, Any]

UIDS = sorted(DASHBOARDS)
VARIABLES = {"$cluster": ".*", "$node": ".*", "$device": ".*", "$__rate_interval": "1m"}


def read(uid: str) -> Json:
    found: Json = json.loads((FOLDER / f"{uid}.json").read_text())
    return found


def read_panels(uid: str) -> list[Json]:
    return [panel for panel in read(uid)["panels"] if panel["type"] != "row"]


PANELS = [
    pytest.param(panel, id=f"{uid}-{panel['id']}") for uid in UIDS for panel in read_panels(uid)
]


def queries(uid: str) -> Iterator[str]:
    made = read(uid)
    for panel in read_panels(uid):
        yield from (target["expr"] for target in panel["targets"])
    yield from (one["target"]["expr"] for one in made["annotations"]["list"])


QUERIES = sorted({expr for uid in UIDS for expr in queries(uid)})


@pytest.mark.parametrize("uid", UIDS)
def test_the_committed_json_is_what_the_program_makes(uid: str) -> None:
    committed = (FOLDER / f"{uid}.json").read_text()
    assert committed == encode(uid), "run: python -m provisioning.grafana"


def test_no_other_dashboard_is_committed() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*")) == UIDS


@pytest.mark.parametrize("uid", UIDS)
def test_the_sdks_model_reads_the_json_back(uid: str) -> None:
    made = read(uid)
    again = model.Dashboard.from_json(made)
    assert json.loads(json.dumps(again.to_json(), default=lambda part: part.to_json())) == made


@pytest.mark.parametrize("uid", UIDS)
def test_a_dashboard_has_the_usual_variables_links_and_a_description(uid: str) -> None:
    made = read(uid)
    assert made["uid"] == uid
    assert made["title"]
    assert made["description"]
    names = [one["name"] for one in made["templating"]["list"]]
    assert names == ["datasource", "cluster", "node", "device"]
    for one in made["templating"]["list"][1:]:
        assert one["datasource"]["uid"] == "${datasource}"
        assert one["includeAll"]
    assert "sentinel" in made["tags"]
    assert {link["type"] for link in made["links"]} == {"link", "dashboards"}
    assert all(one["hide"] is False for one in made["annotations"]["list"])
    # An id of its own would collide with another dashboard's in Grafana's database.
    assert made.get("id") is None


@pytest.mark.parametrize("uid", UIDS)
def test_panels_have_different_ids_and_places_within_the_grid(uid: str) -> None:
    panels = read(uid)["panels"]
    ids = [panel["id"] for panel in panels]
    assert all(ids)
    assert len(set(ids)) == len(ids)
    for panel in panels:
        at = panel["gridPos"]
        assert at["w"] > 0
        assert at["h"] > 0
        assert at["x"] + at["w"] <= 24
    for one, other in combinations(panels, 2):
        a, b = one["gridPos"], other["gridPos"]
        is_beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        is_below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert is_beside or is_below, f"{one['title']} covers {other['title']}"


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_it_shows_in_which_unit_from_which_source(panel: Json) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    references = [target["refId"] for target in panel["targets"]]
    assert len(set(references)) == len(references)
    if panel["type"] in {"timeseries", "state-timeline"}:
        assert "showLegend" in panel["options"]["legend"]
        assert all(target["legendFormat"] for target in panel["targets"])


@pytest.mark.parametrize("expr", QUERIES)
def test_a_query_is_limited_to_the_chosen_nodes(expr: str) -> None:
    assert "$node" in expr


@pytest.mark.parametrize("expr", QUERIES)
def test_a_counter_is_used_only_as_a_rate_over_grafanas_interval(expr: str) -> None:
    for found in re.finditer(r"\w+_total\b", expr):
        assert re.search(r"(rate|increase)\($", expr[: found.start()])
    for window in re.findall(r"\[([^\]]*)\]", expr):
        assert window == "$__rate_interval"


# The names come from the exporters' own declarations, so that a renamed one is noticed.
def devices() -> str:
    samples: list[Sample] = []
    for index, used in ((0, 0.8), (1, 0.0)):
        one = Identity(f"GPU-{index}", index, "nvidia")
        readings: Mapping[Metric, float] = {
            family.UTILIZATION: used,
            family.MEMORY_USED: used * 8e10,
            family.MEMORY_TOTAL: 8e10,
            family.TEMPERATURE: 40 + 40 * used,
            family.POWER: 70 + 400 * used,
            # Something of each kind of trouble.
            family.HEALTHY: 0,
            family.ROW_REMAP_PENDING: 1,
            family.ROW_REMAP_FAILURE: 1,
            family.PAGE_RETIREMENT_PENDING: 0,
            family.RECOVERY_ACTION: 0,
        }
        samples += one.sample(family.INFO, 1, "H100", f"0000:{index}1:00.0", "550.54")
        for metric, value in readings.items():
            samples += one.sample(metric, value)
        samples += one.sample(family.PROCESS_MEMORY, used * 8e10, "alice")
        samples += one.sample(family.THROTTLE_REASON, 1, "hw_thermal_slowdown")
        samples += one.sample(family.XID_LAST, 1_700_000_000, "79")
        samples += one.sample(family.ECC_ERRORS, 3, "corrected")
        samples += one.sample(family.NVLINK_UP, 0, "2")
        samples += one.sample(family.NVLINK_BYTES, 1e9, "sent")
        samples += one.sample(family.ACTIVITY, 0.4, "tensor")
        samples += one.sample(family.ACTIVITY, 0.3, "dram")
        samples += one.sample(family.ERROR_CODE, 1, "80E01801")
    return write_text(samples).decode()


# Names and labels as docs/architecture.md and node_exporter have them.
OTHERS = """\
ssh_sessions{user="alice",type="pty"} 2
node_cpu_seconds_total{cpu="0",mode="idle"} 100
node_cpu_seconds_total{cpu="0",mode="user"} 50
"""
AGENT = """\
sentinel_agent_policy_age_seconds 7
sentinel_agent_logins_total{result="granted",gate="pam"} 3
sentinel_agent_logins_total{result="refused",gate="keys"} 5
sentinel_agent_sessions_ended_total 1
sentinel_agent_card_repairs_total 2
"""
BOOKING = """\
sentinel_node_locked{node="gpu-01"} 1
sentinel_node_monitored{node="gpu-01"} 1
sentinel_node_monitored{node="gpu-02"} 1
sentinel_node_info{node="gpu-01",cluster="lab",mode="enforce",address="10.0.0.1"} 1
sentinel_node_info{node="gpu-02",cluster="lab",mode="enforce",address="10.0.0.2"} 1
sentinel_devices{node="gpu-01",vendor="nvidia"} 2
sentinel_reservation_device{node="gpu-01",uuid="GPU-0",user="alice",reservation="1"} 1
sentinel_reservation_device{node="gpu-01",uuid="GPU-1",user="bob",reservation="2"} 1
"""
FAST = {
    "SCRAPE_INTERVAL": "1s",
    "SD_REFRESH_INTERVAL": "1s",
    "EVALUATION_INTERVAL": "1s",
    "NODE_OFFLINE_FOR": "1s",
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has scraped one node that is up, and misses another."""
    folder = tmp_path_factory.mktemp("lab")
    with serving(Lab()) as booking, serving(Lab()) as exporter, serving(Lab()) as agent:
        booking.metrics["/metrics"] = BOOKING
        exporter.metrics["/metrics"] = devices() + OTHERS
        agent.metrics["/metrics"] = AGENT
        booking.add_target("sentinel", exporter.address, node="gpu-01", cluster="lab")
        booking.add_target("agent", agent.address, node="gpu-01", cluster="lab")
        with prometheus(folder, booking, **FAST) as server:
            wait_for(
                "gpu-02 is offline",
                lambda: server.query('ALERTS{alertname="NodeOffline",alertstate="firing"}'),
            )
            wait_for(
                "two scrapes, for rate()",
                lambda: (
                    server.query("count_over_time(node_cpu_seconds_total[1m]) >= 2")
                    and server.query("count_over_time(sentinel_agent_logins_total[1m]) >= 2")
                ),
            )
            yield server


@pytest.mark.parametrize("expr", QUERIES)
def test_a_query_parses_and_gives_data(lab: Prometheus, expr: str) -> None:
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, "an unknown variable"
    assert lab.get("format_query", query=expr)
    # The zero stands for "none"; here there is something of each.
    assert lab.query(expr.removesuffix(" or vector(0)"))


def test_the_variables_lists_are_filled(lab: Prometheus) -> None:
    found = {}
    for uid in UIDS:
        for one in read(uid)["templating"]["list"][1:]:
            matched = re.fullmatch(r"label_values\((.*), (\w+)\)", one["definition"])
            assert matched, one["definition"]
            series = re.sub(r"\$\w+", ".*", matched[1])
            found[one["name"]] = {
                labels[matched[2]] for labels in lab.get("series", **{"match[]": series})
            }
    assert found == {
        "cluster": {"lab"},
        "node": {"gpu-01", "gpu-02"},
        "device": {"GPU-0", "GPU-1"},
    }


def test_booked_and_used_are_told_apart(lab: Prometheus) -> None:
    panels = {panel["title"]: panel for panel in read_panels("sentinel-lab")}

    def value(title: str, target: int = 0) -> float:
        expr = panels[title]["targets"][target]["expr"]
        for name, text in VARIABLES.items():
            expr = expr.replace(name, text)
        return float(lab.query(expr)[0]["value"][1])

    assert value("Nodes up") == 1
    assert value("Nodes offline") == 1
    assert value("Devices") == 2
    assert value("Devices booked") == 2
    assert value("Devices in use") == 1
    assert value("Booked, not used") == 1
    assert value("Devices booked and used", 2) == 1
    assert value("SSH sessions") == 2
