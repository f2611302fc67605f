"""A real Prometheus on the rendered file: who it asks, with what, and what comes of it."""

from __future__ import annotations

from pathlib import Path

from provisioning.render import ROOT
from tests.lab.wait import wait_for

from .programs import SCRAPE_TOKEN, Lab, prometheus, serving

RULES = ROOT / "provisioning/prometheus/rules"

FAST = {
    "SCRAPE_INTERVAL": "1s",
    "IPMI_SCRAPE_INTERVAL": "1s",
    "IPMI_SCRAPE_TIMEOUT": "1s",
    "SD_REFRESH_INTERVAL": "1s",
    "EVALUATION_INTERVAL": "1s",
}


def test_nodes_are_found_through_booking_and_bmcs_asked_through_the_exporter(
    tmp_path: Path,
) -> None:
    with serving(Lab()) as booking, serving(Lab()) as exporter:
        booking.metrics["/metrics"] = 'sentinel_node_monitored{node="gpu-01"} 1\n'
        exporter.metrics["/metrics"] = "up_to_date 1\n"
        exporter.metrics["/ipmi"] = 'ipmi_up{collector="ipmi"} 1\n'
        more = FAST | {"IPMI_EXPORTER_ADDRESS": exporter.address}
        with prometheus(tmp_path, booking, **more) as server:
            labels = {"node": "gpu-01", "cluster": "lab", "tags": ",a,b,"}
            booking.add_target("sentinel", exporter.address, **labels)
            booking.add_target("node", exporter.address, **labels)
            booking.add_target("agent", exporter.address, **labels)
            booking.add_target("ipmi", "bmc-01.example.org", **labels, __meta_module="rack")

            def is_up(job: str) -> dict[str, str]:
                found = wait_for(
                    f"{job} is up", lambda: server.query(f'up{{job="{job}"}} == 1')
                )
                metric: dict[str, str] = found[0]["metric"]
                return metric

            assert is_up("booking")["instance"] == booking.address
            for job in ("sentinel", "node", "agent"):
                instance = {"__name__": "up", "job": job, "instance": exporter.address}
                assert is_up(job) == instance | labels
            # A BMC is known by its node: its address may change.
            assert is_up("ipmi") == {
                "__name__": "up", "job": "ipmi", "instance": "gpu-01", **labels
            }  # fmt: skip

    # The token goes to booking with every request, and to nobody else.
    bearer = f"Bearer {SCRAPE_TOKEN}"
    asked = {("/metrics", bearer)}
    asked |= {(f"/sd/{job}", bearer) for job in ("sentinel", "node", "agent")}
    assert booking.requests == asked | {("/sd/ipmi", bearer)}
    assert exporter.requests == {
        ("/metrics", ""),
        ("/ipmi?module=rack&target=bmc-01.example.org", ""),
    }


def test_a_failing_booking_keeps_the_targets_and_is_counted(tmp_path: Path) -> None:
    with serving(Lab()) as booking, serving(Lab()) as exporter:
        booking.metrics["/metrics"] = exporter.metrics["/metrics"] = "x 1\n"
        booking.add_target("sentinel", exporter.address, node="gpu-01")
        with prometheus(tmp_path, booking, **FAST) as server:
            wait_for("the node is up", lambda: server.query('up{job="sentinel"} == 1'))
            booking.is_broken = True
            wait_for(
                "the series of ServiceDiscoveryFailing",
                lambda: server.query("increase(prometheus_sd_http_failures_total[1m]) > 0"),
            )
            wait_for("booking is down", lambda: server.query('up{job="booking"} == 0'))
            assert server.query('up{job="sentinel",node="gpu-01"} == 1')


def test_all_rules_are_loaded_and_evaluate_without_an_error(tmp_path: Path) -> None:
    with serving(Lab()) as booking, prometheus(tmp_path, booking, **FAST) as server:

        def states() -> set[str]:
            # A group with a longer interval of its own may take that long to begin.
            groups = server.get("rules")["groups"]
            return {
                rule["health"]
                for group in groups
                for rule in group["rules"]
                if group["interval"] == 1
            }

        wait_for("every rule has run", lambda: "unknown" not in states())
        assert states() == {"ok"}
        areas = [*(ROOT / "alert_rules").glob("*.yml"), *RULES.glob("*.yml")]
        loaded = {Path(group["file"]).name for group in server.get("rules")["groups"]}
        assert loaded == {path.name for path in areas}
