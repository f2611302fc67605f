"""The Debian package installed, used, upgraded and removed where no Python package is."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sentinel_agent import __version__
from tests.agent.booking_server import CODE, BookingServer, make_grant
from tests.agent.package_lab import (
    EXPORTER,
    FOLDER,
    PROGRAM,
    changes,
    dpkg,
    install,
    package,
    unpacked,
)
from tests.lab.node import SSHD_CONFIG, Node, why_not
from tests.lab.wait import wait_for

__all__ = ["package", "unpacked"]  # fixtures


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node that has no Python package and no repository; nothing is installed yet."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with Node("gpu-01", tmp_path, bare=True) as node:
        yield node


def test_the_programs_run_where_there_are_no_python_packages(
    node: Node, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(node, package)
    began = time.monotonic()
    assert node.run([PROGRAM, "--version"]).stdout == f"{__version__}\n"
    start_s = time.monotonic() - began
    node.write("/etc/sentinel/agent.toml", 'server = "http://192.0.2.1"\n')
    assert node.run([PROGRAM, "check-config"]).stdout == "the configuration is usable\n"
    node.write("/etc/sentinel/agent.toml", "colour = 1\n")
    refused = node.run([PROGRAM, "check-config"], check=False)
    assert (refused.returncode, "colour" in refused.stderr) == (2, True)
    # Every collector is in the program, and can be imported there.
    listed = node.run([EXPORTER, "metrics"]).stdout
    assert {line.split("\t")[0] for line in listed.splitlines()} == {
        "exporter", "gpu", "ipmi", "npu", "ssh",
        "gpu:dcgm", "gpu:nvidia_smi", "npu:npu_exporter",
    }  # fmt: skip
    devices = json.loads(node.run([EXPORTER, "devices"]).stdout)
    assert devices.keys() == {"devices", "problems"}
    size = subprocess.run(
        ["dpkg-deb", "--field", str(package), "Installed-Size"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    with capsys.disabled():
        print(
            f"\npackage: {package.stat().st_size / 2**20:.1f} MiB, installed "
            f"{int(size) / 1024:.1f} MiB; sentinel-agent --version: {start_s * 1000:.0f} ms"
        )


def test_what_the_program_starts_gets_the_libraries_of_the_system(
    node: Node, package: Path
) -> None:
    """sshd or npu-smi with the package's OpenSSL would be another program."""
    install(node, package)
    node.write("/usr/bin/npu-smi", "#!/bin/sh\nenv >/var/tmp/seen; exit 1\n", mode=0o755)
    node.run([EXPORTER, "devices"], env={"LD_LIBRARY_PATH": "/usr/local/Ascend/driver/lib64"})
    seen = (node.root / "var/tmp/seen").read_text().splitlines()
    assert "LD_LIBRARY_PATH=/usr/local/Ascend/driver/lib64" in seen
    node.run([EXPORTER, "devices"])
    seen = (node.root / "var/tmp/seen").read_text().splitlines()
    assert not [line for line in seen if "LD_LIBRARY_PATH" in line or FOLDER in line]


def run_agent(node: Node) -> None:
    """Start the agent as its unit would; systemd is not there to do it."""
    node.agent = node.popen([PROGRAM, "run"], log="agent")


@dataclass
class Locked:
    """A node on which the package's program has put the lock; alice holds a reservation."""

    node: Node
    server: BookingServer
    keys: dict[str, Path]
    # What the node had of its own before the package came.
    before: dict[str, tuple[int, int, int, str]]

    def admits(self, user: str) -> bool:
        """Say whether the user gets in now."""
        done = self.node.ssh(user, self.keys[user], "true")
        assert done.returncode in (0, 255), done.stderr
        return done.returncode == 0

    def admitted(self) -> set[str]:
        """Return who gets in now."""
        return {user for user in self.keys if self.admits(user)}


@pytest.fixture
def locked(node: Node, package: Path) -> Iterator[Locked]:
    keys = {name: node.make_key(name) for name in ("alice", "bob", "ops")}
    for name in keys:
        node.add_user(name)
    node.start_sshd(SSHD_CONFIG)
    before = changes(node)
    install(node, package)
    node.write("/tmp/ops.pub", keys["ops"].with_suffix(".pub").read_text())
    # The rounds of the agent are quick here; all else is as `install` would have it.
    node.write(
        "/etc/sentinel/agent.toml", "heartbeat_s = 0.5\nreconcile_s = 0.3\ngrace_s = 1\n"
    )
    with BookingServer(node.host_address) as server:
        server.grant(make_grant("alice", keys["alice"]))
        found = Locked(node, server, keys, before)
        how = [PROGRAM, "install", "--server", server.url, "--plain-http", "--code", CODE,
               "--breakglass", "ops=/tmp/ops.pub"]  # fmt: skip
        untouched = changes(node)
        assert "would lock" in node.run([*how, "--dry-run"]).stdout.replace("  ", " ")
        assert changes(node) == untouched
        node.run(how)
        run_agent(node)
        wait_for("the agent reports", lambda: server.heartbeats)
        yield found


def test_the_frozen_agent_holds_the_lock(locked: Locked) -> None:
    """Installs itself, fetches the policy, and ends whom the policy does not name any more."""
    node, server = locked.node, locked.server
    lines = node.run(["/usr/lib/sentinel/get-keys", "alice"], user="sentinel-akc").stdout
    assert lines.startswith("restrict,")
    assert locked.admitted() == {"alice", "ops"}
    assert server.heartbeats[-1]["lock"] == "locked"
    # The exporter of the same package tells the devices.
    wait_for("the inventory is told", lambda: server.inventories)
    assert "sentinel-exporter" not in str(server.heartbeats[-1]["problems"])
    checked = node.run([PROGRAM, "check"], check=False)
    failed = [line for line in checked.stdout.splitlines() if not line.startswith("ok ")]
    # Where systemd is not init nobody has started it.
    assert [line for line in failed if "break-glass sshd" not in line] == []
    assert node.stop_agent() == 0


def test_an_upgrade_keeps_the_lock_and_the_agent_at_work(
    locked: Locked, unpacked: Path, tmp_path: Path
) -> None:
    """Also when nothing of the program's folder is left as the running agent knew it."""
    node = locked.node
    newer = make_newer(unpacked, tmp_path)
    session = subprocess.Popen(
        [*node.ssh_argv("alice", locked.keys["alice"], "-tt"), "echo in; exec sleep 1000"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with session:
        assert session.stdout is not None
        assert session.stdout.readline().strip() == b"in"
        cache = node.root / "var/lib/sentinel/policy.json"
        policy = cache.read_bytes()
        install(node, newer)
        assert node.run([PROGRAM, "--version"]).stdout == "the next version\n"
        assert b"# newer" in (node.root / "usr/lib/sentinel/get-keys").read_bytes()
        assert cache.read_bytes() == policy
        assert locked.admitted() == {"alice", "ops"}
        assert session.poll() is None
        # The old agent still hears of changes, and still ends sessions.
        locked.server.grant(make_grant("bob", locked.keys["bob"]))
        wait_for("alice's session is ended", lambda: session.poll() is not None)
        wait_for("bob gets in", lambda: locked.admits("bob"))
    assert not locked.admits("alice")
    assert b"# newer" in (node.root / "usr/lib/sentinel/get-keys").read_bytes()
    assert node.stop_agent() == 0


def make_newer(unpacked: Path, folder: Path) -> Path:
    """Return a package of a later version, in which every file of the program is another."""
    tree = folder / "newer"
    shutil.copytree(unpacked, tree, symlinks=True)
    for path in (tree / FOLDER[1:]).rglob("*"):
        if path.is_file() and "sentinel_agent" not in path.relative_to(tree).parts:
            path.write_text("#!/bin/sh\necho the next version\n")
    for path in (tree / "usr/lib/sentinel/get-keys",
                 tree / FOLDER[1:] / "_internal/sentinel_agent/gates/get_keys.py"):  # fmt: skip
        path.write_text(path.read_text() + "# newer\n")
    control = tree / "DEBIAN/control"
    control.write_text(control.read_text().replace(f"{__version__}-1", f"{__version__}-2"))
    newer = folder / "newer.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(newer)],
        check=True, capture_output=True,
    )  # fmt: skip
    return newer


def test_a_package_is_not_removed_while_its_lock_cannot_be_taken_off(locked: Locked) -> None:
    """Without get-keys everybody but break-glass would be locked out."""
    # `uninstall` refuses as long as an agent runs that it cannot stop: it would lock again.
    said = dpkg(locked.node, "--remove", "sentinel-agent", check=False)
    assert "the agent runs" in said
    assert "nothing is removed" in said
    # Wanted away, and installed with all that belongs to it.
    assert "\nri  sentinel-agent" in dpkg(locked.node, "--list", "sentinel-agent")
    assert locked.admitted() == {"alice", "ops"}


def test_removing_the_package_opens_the_node_and_a_purge_leaves_it_as_it_was(
    locked: Locked,
) -> None:
    node = locked.node
    public = locked.keys["bob"].with_suffix(".pub").read_text()
    node.write("/home/bob/.ssh/authorized_keys", public, mode=0o600, owner="bob")
    node.run(["chown", "-R", "bob:", "/home/bob/.ssh"])
    assert not locked.admits("bob")
    node.stop_agent()
    dpkg(node, "--remove", "sentinel-agent")
    # As the site had it: his own keys count again.
    assert locked.admits("bob")
    assert not (node.root / "etc/ssh/sshd_config.d/00-sentinel.conf").exists()
    dpkg(node, "--purge", "sentinel-agent")
    assert changes(node) == locked.before


def test_a_package_that_was_purged_leaves_the_machine_as_it_was(
    node: Node, package: Path
) -> None:
    before = changes(node)
    install(node, package)
    made = changes(node).keys() - before.keys()
    assert {"/usr/bin/sentinel-agent", "/etc/sentinel", "/etc/passwd"} <= made
    # Nothing is locked, and nothing asks sshd or PAM for anything.
    assert not [name for name in made if name.startswith(("/etc/ssh", "/etc/pam.d"))]
    # What somebody else keeps there is theirs.
    node.write("/etc/sentinel/booking.toml", "")
    dpkg(node, "--remove", "sentinel-agent")
    assert "/var/lib/sentinel" in changes(node)
    assert "/etc/sentinel/booking.toml" in changes(node)
    (node.root / "etc/sentinel/booking.toml").unlink()
    dpkg(node, "--purge", "sentinel-agent")
    assert changes(node) == before
    assert "sentinel-agent" not in dpkg(node, "--list", check=False)


def test_a_group_of_the_site_outlives_the_package(node: Node, package: Path) -> None:
    node.run(["groupadd", "--system", "breakglass"])
    before = changes(node)
    install(node, package)
    dpkg(node, "--purge", "sentinel-agent")
    assert changes(node) == before
