"""Connections that never log in, by which somebody could shut the operators out."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentinel_agent.install import breakglass_sshd
from sentinel_agent.lock.sshd import Sshd, read_version
from tests.lab.node import Node, why_not
from tests.lab.wait import wait_for

PORT = 2222
# More than MaxStartups has places.
FLOOD = f"""\
import socket, time
held = [socket.create_connection(("127.0.0.1", {PORT})) for _ in range(260)]
print("flooded", flush=True)
time.sleep(1000)
"""


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_a_flood_from_one_address_leaves_the_breakglass_sshd_open(tmp_path: Path) -> None:
    program = Sshd(Path("/usr/sbin/sshd"), read_version("/usr/sbin/sshd"))
    if program.version < breakglass_sshd.PER_SOURCE:
        pytest.skip("this sshd does not count by address")
    with Node("gpu-01", tmp_path) as node:
        node.install_gates()
        key = node.make_key("ops")
        for user in ("ops", "mallory"):
            node.add_user(user)
        node.add_breakglass("ops", key)
        host_key = "/etc/ssh/lab_host_key"
        node.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", host_key])
        for folder in ("run/sshd", "run/sentinel"):
            (node.root / folder).mkdir(mode=0o755, exist_ok=True)
        text = breakglass_sshd.render_config(program, "breakglass", PORT)
        node.write(str(breakglass_sshd.CONFIG), f"HostKey {host_key}\n{text}")
        node.write(str(breakglass_sshd.PAM_SERVICE), breakglass_sshd.PAM_TEXT)
        node.run(["ln", "-s", str(program.binary), str(breakglass_sshd.PROGRAM)])
        started = [str(breakglass_sshd.PROGRAM), "-D", "-e", "-f", str(breakglass_sshd.CONFIG)]
        node.popen(started, log="sshd")
        wait_for("it listens", lambda: "Server listening on 0.0.0.0" in node.log("sshd"))
        node.popen(["python3", "-c", FLOOD], user="mallory", log="flood")
        wait_for("all places are asked for", lambda: "flooded" in node.log("flood"))
        for _ in range(3):
            assert node.ssh("ops", key, "echo in", options=("-p", str(PORT))).stdout == "in\n"
