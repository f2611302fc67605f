"""The agent as a service: registering, reporting, failing and coming back."""

from __future__ import annotations

import json
import signal
import socket
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.agent.booking_server import (
    CODE,
    TOKEN,
    BookingServer,
    make_grant,
    make_policy,
)
from tests.agent.conftest import Lab
from tests.agent.policies import KEYS
from tests.lab.node import Node, why_not
from tests.lab.wait import wait_for

DEVICE = {"vendor": "ascend", "uuid": "npu-0000:C1:00.0", "index": 0, "minor": 0,
          "model": "910B", "bus_id": "0000:C1:00.0", "memory_bytes": None}  # fmt: skip
OTHER = DEVICE | {"uuid": "npu-0000:C2:00.0", "index": 1, "minor": 1, "bus_id": "0000:C2:00.0"}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A node with the lock installed; no sshd: these tests need no login."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with Node("gpu-01", tmp_path) as node, BookingServer(node.host_address) as server:
        node.install_lock()
        yield Lab(node, server, {})


def report(lab: Lab, *devices: dict[str, object], problems: tuple[str, ...] = ()) -> None:
    text = json.dumps({"devices": devices, "problems": problems})
    lab.node.write("/etc/sentinel/inventory.json", text)


def is_reported(lab: Lab, why: str) -> bool:
    return any(why in text for text in lab.agent_problems())


def last_uuids(lab: Lab) -> list[str]:
    devices = lab.server.inventories[-1]["devices"] if lab.server.inventories else []
    assert isinstance(devices, list)
    return [device["uuid"] for device in devices]


def register(lab: Lab, *arguments: str, **env: str) -> tuple[int, str]:
    done = lab.node.run(
        lab.node.agent_argv(
            "register", "--server", lab.server.url, "--plain-http", *arguments
        ),
        env=env, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_a_node_registers_by_argument_file_or_environment(lab: Lab) -> None:
    path = "/var/lib/sentinel/registration.json"
    lab.node.write("/etc/sentinel/code", f"{CODE}\n", mode=0o600)
    for arguments, env in (
        (["--code", CODE], {}),
        (["--code-file", "/etc/sentinel/code"], {}),
        ([], {"SENTINEL_AGENT_CODE": CODE}),
    ):
        status, text = register(lab, *arguments, **env)
        assert status == 0
        assert text.startswith(f"registered as gpu-01 with {lab.server.url}\nnext: ")
        assert "`sentinel-agent install`" in text
        kept = lab.node.root / path.lstrip("/")
        assert json.loads(kept.read_text())["token"] == TOKEN
        assert (kept.stat().st_mode & 0o7777, kept.stat().st_uid) == (0o600, 0)
        kept.unlink()
    assert register(lab)[0] == 2
    status, text = register(lab, "--code", "spent")
    assert (status, "status 403: this code is not valid" in text) == (1, True)


def test_without_encryption_the_code_is_not_spent_unless_that_is_meant(lab: Lab) -> None:
    argv = lab.node.agent_argv("register", "--server", lab.server.url, "--code", CODE)
    done = lab.node.run(argv, check=False)
    assert (done.returncode, "is not encrypted" in done.stderr) == (2, True)
    assert lab.server.requests == []
    # A server that the configuration names is no other.
    lab.node.write_agent_config(lab.server.url)
    done = lab.node.run(lab.node.agent_argv("register", "--code", CODE), check=False)
    assert (done.returncode, "is not encrypted" in done.stderr) == (2, True)
    assert lab.server.requests == []


def test_the_address_that_faces_the_server_is_registered(lab: Lab) -> None:
    seen: list[dict[str, object] | None] = []
    answer = lab.server.answer

    class Watching(BookingServer):
        def answer(self, method, path, headers, body):  # type: ignore[no-untyped-def]
            seen.append(body)
            return answer(method, path, headers, body)

    with Watching(lab.node.host_address) as server:
        lab.node.run(
            lab.node.agent_argv(
                "register", "--server", server.url, "--plain-http", "--code", CODE
            )
        )
        lab.node.run(
            lab.node.agent_argv("register", "--server", server.url, "--plain-http",
                                "--code", CODE, "--address", "gpu-01.lab")
        )  # fmt: skip
    assert [body and body["address"] for body in seen] == [lab.node.address, "gpu-01.lab"]
    assert seen[0]
    assert seen[0]["hostname"] == "gpu-01"


def test_a_code_is_not_spent_when_the_token_cannot_be_kept(lab: Lab) -> None:
    lab.node.run(["sh", "-c", "rm -r /var/lib/sentinel && touch /var/lib/sentinel"])
    status, text = register(lab, "--code", CODE)
    assert (status, "cannot write in /var/lib/sentinel" in text) == (1, True)
    assert lab.server.requests == []


def test_an_agent_that_is_not_registered_says_so(lab: Lab) -> None:
    done = lab.node.run(lab.node.agent_argv("run"), check=False)
    assert done.returncode == 1
    assert "sentinel-agent register" in done.stderr


def test_heartbeats_say_what_the_contract_asks(lab: Lab) -> None:
    lab.server.grant(mode="observe")
    lab.start_agent()
    beat = wait_for(
        "a heartbeat knows the policy",
        lambda: next((b for b in lab.server.heartbeats if b["policy_version"] == 2), None),
    )
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert beat.keys() - {"lock"} == {
        "agent_version", "sent_at", "boot_id", "mode", "policy_version", "sessions", "problems",
        "unclean",
    }  # fmt: skip
    assert (beat["mode"], beat["boot_id"], beat["sessions"]) == ("observe", boot_id, {})


def test_only_one_agent_runs(lab: Lab) -> None:
    lab.start_agent()
    done = lab.node.run(lab.node.agent_argv("run"), check=False)
    assert (done.returncode, "another agent runs" in done.stderr) == (1, True)


def test_it_stops_when_told_while_it_waits_for_the_server(lab: Lab) -> None:
    lab.start_agent()
    wait_for("it waits", lambda: any("wait=50" in line for line in lab.server.requests))
    assert lab.node.stop_agent(signal.SIGTERM) == 0
    assert "agent stopped" in lab.node.log("agent")


def test_it_comes_back_to_a_server_that_comes_back(lab: Lab) -> None:
    lab.start_agent()
    lab.server.stop()
    wait_for("it misses the server", lambda: "no answer" in lab.node.log("agent"))
    lab.server.grant(make_grant("alice", KEYS[0]))
    lab.server.start()
    lab.wait_for_policy()
    beats = len(lab.server.heartbeats)
    wait_for("it reports again", lambda: len(lab.server.heartbeats) > beats)


def test_it_starts_and_holds_the_cached_policy_without_the_server(lab: Lab) -> None:
    lab.server.grant(make_grant("alice", KEYS[0]))
    lab.start_agent()
    lab.node.stop_agent(signal.SIGKILL)
    lab.server.stop()
    before = lab.cache()
    lab.node.start_agent()
    wait_for("it misses the server", lambda: "no answer" in lab.node.log("agent"))
    assert lab.cache() == before
    (lab.node.root / "var/lib/sentinel/policy.json").unlink()
    wait_for("the policy is in memory too", lambda: lab.cache() == before)


def test_a_policy_that_is_refused_is_reported_and_the_held_one_stays(lab: Lab) -> None:
    lab.server.grant(make_grant("alice", KEYS[0]))
    lab.start_agent()
    held = lab.cache()
    for policy, why in (
        (make_policy(node="gpu-02", version=9), "policy: the policy is for node 'gpu-02'"),
        (make_policy(version=1), "policy: the policy has version 1, older than 2"),
    ):
        lab.server.publish(policy)
        wait_for(why, partial(is_reported, lab, why))
        assert lab.cache() == held
    lab.server.grant(version=10)
    lab.wait_for_policy()
    wait_for("all is well", lambda: not any("policy" in text for text in lab.agent_problems()))


def test_a_bad_grant_is_reported_for_as_long_as_it_is_there(lab: Lab) -> None:
    lab.start_agent(policy_wait_s=1)
    bad = make_grant("bob", KEYS[0], env={"LD_PRELOAD": "x"}, reservation=66)
    lab.server.publish(make_policy(make_grant("alice", KEYS[0]), bad, version=5))
    lab.wait_for_policy()
    why = "policy: grant of reservation 66 left out: env.LD_PRELOAD"
    asked = len([line for line in lab.server.requests if "policy" in line])
    wait_for(
        "it was asked again and changed nothing",
        lambda: len([line for line in lab.server.requests if "policy" in line]) > asked + 1,
    )
    beats = len(lab.server.heartbeats)
    wait_for("it reports again", lambda: len(lab.server.heartbeats) > beats + 1)
    assert any(text.startswith(why) for text in lab.agent_problems())
    assert "alice" in lab.cache()
    assert "bob" not in lab.cache()


def test_devices_are_sent_when_they_change(lab: Lab) -> None:
    lab.start_agent(inventory_s=0.2)
    wait_for("the start is reported", lambda: lab.server.inventories)
    assert lab.server.inventories[-1]["targets"] == [
        {"job": "agent", "port": 9642}, {"job": "node", "port": 9100},
        {"job": "sentinel", "port": 9641},
    ]  # fmt: skip
    report(lab, DEVICE, OTHER)
    wait_for("both are known", lambda: len(last_uuids(lab)) == 2)
    count = len(lab.server.inventories)
    report(lab, DEVICE, OTHER, problems=("npu-smi: card 2 does not answer",))
    problem = "inventory: npu-smi: card 2 does not answer"
    wait_for("the problem is reported", lambda: problem in lab.agent_problems())
    assert len(lab.server.inventories) == count
    report(lab, DEVICE)
    wait_for("one is gone", lambda: last_uuids(lab) == [DEVICE["uuid"]])


def test_devices_out_of_sight_are_not_reported_as_gone(lab: Lab) -> None:
    lab.start_agent(inventory_s=0.2)
    report(lab, DEVICE, OTHER)
    wait_for("both are known", lambda: len(last_uuids(lab)) == 2)
    report(lab, problems=("the driver does not answer",))
    wait_for("it is reported", lambda: any("driver" in text for text in lab.agent_problems()))
    lab.node.write("/etc/sentinel/inventory.json", "no JSON")
    wait_for("it is reported", lambda: any("not JSON" in text for text in lab.agent_problems()))
    lab.node.run(["rm", "/etc/sentinel/inventory.json"])
    wait_for("it is reported", lambda: any("status 1" in text for text in lab.agent_problems()))
    assert len(last_uuids(lab)) == 2


def test_a_clock_that_is_off_is_reported(lab: Lab) -> None:
    lab.server.clock_offset_s = 120
    lab.start_agent()
    wait_for(
        "it is reported",
        lambda: any("the clock is -120 s off" in text for text in lab.agent_problems()),
    )


def test_a_holder_without_an_account_is_reported(lab: Lab) -> None:
    lab.server.grant(make_grant("carol", KEYS[0]), make_grant("daemon", KEYS[0]))
    lab.start_agent()
    for why in (
        "enforce: carol holds a reservation and has no account here",
        "enforce: daemon holds a reservation and is a system account here",
    ):
        wait_for(why, partial(is_reported, lab, why))


def test_a_lock_that_is_not_installed_is_reported(lab: Lab) -> None:
    lab.node.run(["rm", "/etc/ssh/sshd_config.d/00-sentinel.conf"])
    lab.start_agent()
    wait_for(
        "it is reported",
        lambda: any("sshd is not locked" in text for text in lab.agent_problems()),
    )


def test_its_series_say_how_it_fares(lab: Lab) -> None:
    lab.server.grant(make_grant("alice", KEYS[0]))
    lab.start_agent(metrics_listen=f"{lab.node.address}:9642")

    def scrape() -> str:
        with urllib.request.urlopen(f"http://{lab.node.address}:9642/metrics") as answer:
            return str(answer.read().decode())

    wait_for("a heartbeat was taken", lambda: "last_heartbeat_timestamp" in scrape())
    text = scrape()
    assert "sentinel_agent_policy_version 2.0\n" in text
    assert "sentinel_agent_enforcing 1.0\n" in text
    lab.server.failures["heartbeat"] = (500, {})
    failed = 'sentinel_agent_task_errors_total{task="heartbeat"} '
    wait_for("it is counted", lambda: f"{failed}0.0" not in scrape())
    assert 'sentinel_agent_problems{task="heartbeat"} 1.0\n' in scrape()


def test_a_port_that_is_taken_costs_the_series_only(lab: Lab) -> None:
    lab.start_agent(metrics_listen="192.0.2.1:9642")
    wait_for(
        "it is reported",
        lambda: any("metrics: cannot listen" in text for text in lab.agent_problems()),
    )


def test_systemd_is_told_of_start_life_and_stop(lab: Lab) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(lab.node.root / "run" / "notify"))
        systemd.settimeout(30)
        lab.node.register_agent(lab.server.url, CODE)
        lab.node.agent = lab.node.popen(
            lab.node.agent_argv("run"), log="agent", env={"NOTIFY_SOCKET": "/run/notify"}
        )
        assert systemd.recv(100) == b"READY=1"
        assert systemd.recv(100) == b"WATCHDOG=1"
        lab.node.stop_agent()
        said = systemd.recv(100)
        while said == b"WATCHDOG=1":
            said = systemd.recv(100)
        assert said == b"STOPPING=1"
