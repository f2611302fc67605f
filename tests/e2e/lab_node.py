"""The story's node: exporters and agent as on a real one, kept alive as systemd would."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from tests.lab.node import REPOSITORY, Node

BIN = Path(sys.prefix) / "bin"
NPU_SMI = REPOSITORY / "tests" / "fakes" / "npu-smi"

SENTINEL_PORT = 9641
NODE_EXPORTER_PORT = 9100

CONFIG_PATH = "/etc/sentinel/exporter.toml"
EXPORTER_CONFIG = f"""\
listen = "0.0.0.0:{SENTINEL_PORT}"
collectors = ["npu", "ssh"]

[npu]
command = "{NPU_SMI}"
"""


class Service:
    """One program in the node that is started again whenever it ends, until stop()."""

    def __init__(self, node: Node, name: str, argv: list[str]) -> None:
        self._node = node
        self._name = name
        self._argv = argv
        self._stopping = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._keep_alive, daemon=True)

    def start(self) -> None:
        """Start it and keep it running."""
        self._thread.start()

    def stop(self) -> None:
        """End it for good."""
        self._stopping.set()
        self.kill()
        self._thread.join(20)

    def kill(self) -> None:
        """kill -9; unless stop() was called it comes back after half a second."""
        process = self._process
        if process is None:
            return
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        try:
            for pid in children.read_text().split():
                os.kill(int(pid), 9)
        except (FileNotFoundError, ProcessLookupError):
            pass

    def _keep_alive(self) -> None:
        while not self._stopping.is_set():
            self._process = self._node.popen(self._argv, log=self._name)
            while self._process.poll() is None:
                if self._stopping.wait(0.1):
                    self.kill()
            self._stopping.wait(0.5)


class LabNode:
    """A node with node_exporter, sentinel-exporter and, once registered, the agent."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.services: dict[str, Service] = {}

    def start_exporters(self) -> None:
        """Start both exporters."""
        self.node.write(CONFIG_PATH, EXPORTER_CONFIG)
        self._serve(
            "node-exporter",
            ["prometheus-node-exporter", f"--web.listen-address=:{NODE_EXPORTER_PORT}"],
        )
        self._serve("exporter", [str(BIN / "sentinel-exporter"), "serve", "--config",
                                 CONFIG_PATH])  # fmt: skip

    def register_agent(self, server: str, code: str) -> None:
        """Register with an invite code; the agent asks the exporter's program for devices."""
        command = [str(BIN / "sentinel-exporter"), "devices", "--config", CONFIG_PATH]
        self.node.register_agent(server, code, inventory_command=command)

    def start_agent(self) -> None:
        """Start the registered agent."""
        self._serve("agent", self.node.agent_argv("run"))

    def stop_services(self) -> None:
        """The node goes silent: agent and exporters end; sshd stays."""
        for service in self.services.values():
            service.stop()
        self.services.clear()

    def _serve(self, name: str, argv: list[str]) -> None:
        self.services[name] = Service(self.node, name, argv)
        self.services[name].start()
