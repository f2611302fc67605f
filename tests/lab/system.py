"""The server side as `script/up` starts it, with ports and state of its own.

It speaks to it only as users do: HTTP, signals, the printed text.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import requests

from tests.lab.ports import free_ports
from tests.lab.wait import wait_for

ROOT = Path(__file__).resolve().parents[2]
_PORTS = (
    "booking",
    "exporter",
    "ipmi-exporter",
    "agent",
    "node-exporter",
    "prometheus",
    "alertmanager",
)


class System:
    """`script/up` in its own state folder; `address` is where a node reaches it."""

    def __init__(self, state: Path, address: str, *, smtp_port: int, offline_for: str) -> None:
        self.state = state
        self.address = address
        self.ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        self.smtp_port = smtp_port
        self.offline_for = offline_for
        self.url = f"http://{address}:{self.ports['booking']}"
        self.prometheus_url = f"http://127.0.0.1:{self.ports['prometheus']}"
        self.alertmanager_url = f"http://127.0.0.1:{self.ports['alertmanager']}"
        self.admin_password = ""
        self.output: list[str] = []
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, read the first administrator's password, wait until it is ready."""
        command = [str(ROOT / "script/up"), "--bind", "0.0.0.0", "--state", str(self.state)]
        for name, port in self.ports.items():
            command += [f"--{name}-port", str(port)]
        command += ["--public-url", self.url, "--node", "server"]
        command += ["--smtp", f"127.0.0.1:{self.smtp_port}", "--mail-to", "ops@example.org"]
        command += ["--offline-for", self.offline_for, "--mail-interval", "10s"]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            cwd=ROOT, start_new_session=True,
        )  # fmt: skip
        threading.Thread(target=self._collect, daemon=True).start()
        wait_for("script/up says that it is ready", self._is_ready, timeout_s=120)
        found = re.search(r"password, shown this once: (\S+)", self.text())
        if found:
            self.admin_password = found[1]

    def stop(self) -> None:
        """Ctrl-C, as a person would; ends whatever is left of the process group."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(timeout=30)
        finally:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
            self._process = None

    def text(self) -> str:
        """Everything it has printed so far."""
        return "".join(self.output)

    def pids(self, name: str) -> list[int]:
        """The process ids of one supervised program and its children, eldest first."""
        found = re.findall(rf"{name} +\S+ +pid (\d+)", self._supervisor("status", name))
        return [pid for first in found for pid in _family(int(first))]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Run an instant PromQL query; return its result vector."""
        answer = requests.get(
            f"{self.prometheus_url}/api/v1/query", params={"query": expression}, timeout=5
        )
        answer.raise_for_status()
        result: list[dict[str, Any]] = answer.json()["data"]["result"]
        return result

    def _supervisor(self, *arguments: str) -> str:
        return subprocess.run(
            [str(ROOT / ".venv/bin/supervisorctl"), "-c", str(self.state / "supervisord.conf"),
             *arguments], capture_output=True, text=True, check=False,
        ).stdout  # fmt: skip

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"script/up ended:\n{self.text()}")
        return "ServerSentinel is up" in self.text()

    def _collect(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.output.append(line)


def _family(pid: int) -> list[int]:
    """Return `pid` and all its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        below = [int(child) for child in children.read_text().split()]
    except FileNotFoundError:
        return []
    return [pid, *(one for child in below for one in _family(child))]
