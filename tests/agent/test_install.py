"""Installing, checking and uninstalling a node by the command, on a real sshd."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.booking_server import CODE, make_grant
from tests.agent.install_lab import InstallLab, install_lab
from tests.agent.lock_lab import DROP_IN
from tests.lab.node import why_not
from tests.lab.wait import wait_for

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
UNFINISHED = "/var/lib/sentinel/install-unfinished.json"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[InstallLab]:
    with install_lab(tmp_path) as made:
        yield made


def test_an_installed_node_follows_the_mode_and_leaves_no_trace(lab: InstallLab) -> None:
    """Dry run, install, observe, enforce, observe, check, uninstall: one node's life."""
    untouched = lab.system()

    dry = lab.install("--dry-run", code="")
    assert dry.returncode == 0, dry.stderr
    assert "would write /usr/lib/sentinel/get-keys" in dry.stdout
    assert "would spend the invite code" in dry.stdout
    assert lab.system() == untouched

    done = lab.install()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "start it yourself, systemd is not init here" in done.stdout
    assert lab.registrations() == 1
    assert not Path(lab.node.root / UNFINISHED[1:]).exists()
    # In observe sshd and PAM are as the site left them.
    installed = lab.system()
    for path in ("etc/ssh", "etc/pam.d/sshd"):
        assert {p: w for p, w in installed.items() if p.startswith(path)} == {
            p: w for p, w in untouched.items() if p.startswith(path)
        }
    assert lab.is_let_in("alice")

    again = lab.install()
    assert again.returncode == 0, again.stderr
    assert "have  registered" in again.stdout
    assert lab.registrations() == 1

    lab.start_agent()
    wait_for("the agent reports", lambda: lab.lock() == "open")
    lab.server.grant(mode="enforce")
    wait_for("it is locked", lambda: lab.lock() == "locked")
    assert not lab.is_let_in("alice")
    assert lab.is_let_in("ops")
    assert "sshd is not" not in lab.problems()
    lab.server.grant(make_grant("alice", lab.keys["alice"]), mode="enforce")
    wait_for("alice gets in", lambda: lab.is_let_in("alice"))
    checked = lab.run("check")
    assert "ok   lock: locked, and an operator gets in on the live port" in checked.stdout
    lab.server.grant(mode="observe")
    wait_for("it is open", lambda: lab.lock() == "open")
    assert lab.is_let_in("alice")

    refused = lab.run("uninstall")
    assert (refused.returncode, "stop it first" in refused.stderr) == (1, True)
    lab.server.grant(mode="enforce")
    wait_for("it is locked again", lambda: lab.lock() == "locked")
    assert lab.node.stop_agent() == 0
    heard = len(lab.server.heartbeats)
    gone = lab.run("uninstall")
    assert gone.returncode == 0, gone.stderr
    assert "done  tell booking that this node is open" in gone.stdout
    assert (len(lab.server.heartbeats), lab.lock()) == (heard + 1, "open")
    # The test's own change of the settings is an operator's: it is kept, and named.
    assert "kept  file /etc/sentinel/agent.toml: it was changed since" in gone.stdout
    assert "kept  folder /etc/sentinel: there is something in it" in gone.stdout
    lab.node.run(["rm", "-r", "/etc/sentinel"])
    assert lab.system() == untouched
    assert lab.is_let_in("alice")


def test_a_node_in_enforce_is_locked_when_the_command_ends(lab: InstallLab) -> None:
    untouched = lab.system()
    lab.server.policy["mode"] = "enforce"
    done = lab.install()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "done  lock sshd" in done.stdout
    assert lab.state() == "locked"
    assert not lab.is_let_in("alice")
    assert lab.is_let_in("ops")
    gone = lab.run("uninstall")
    assert gone.returncode == 0, gone.stderr
    assert lab.system() == untouched
    assert lab.is_let_in("alice")


# Options, what is planted before, and what the command says.
REFUSALS: dict[str, tuple[list[str], str, str]] = {
    "nobody would get in": (["--no-ops"], "true", "give --breakglass USER=PUBKEYFILE"),
    "a key of nobody": (
        ["--breakglass", "mallory=/var/keys/ops.pub"], "true", "no such account",
    ),
    "a file without a key": (
        ["--breakglass", "alice=/etc/hostname"], "true", "has no public key",
    ),
    "another command": (
        [], "echo 'AuthorizedKeysCommand /usr/bin/true' > /etc/ssh/sshd_config.d/ec2.conf; "
        "echo 'AuthorizedKeysCommandUser root' >> /etc/ssh/sshd_config.d/ec2.conf",
        "/etc/ssh/sshd_config.d/ec2.conf: /usr/bin/true",
    ),
    "sshd's own mistake": (
        [], "echo 'Nonsense yes' > /etc/ssh/sshd_config.d/50-site.conf", "Nonsense",
    ),
    "a PAM file without account phase": (
        [], "sed -i '/account/d' /etc/pam.d/sshd", "no account phase",
    ),
    "a server that is not there": (["--server", "http://198.18.0.1:1"], "true", "no answer"),
    "a server that is not encrypted": (["--https-only"], "true", "is not encrypted"),
    "another server in the configuration": (
        [], "mkdir /etc/sentinel; echo 'server = \"https://other.example\"' > "
        "/etc/sentinel/agent.toml", "names another server",
    ),
    "a port that is taken": (["--breakglass-port", "22"], "true", "port 22 is taken"),
}  # fmt: skip


def test_what_stands_in_the_way_is_named_and_nothing_is_changed(lab: InstallLab) -> None:
    """Before the first step, and before the code is spent."""
    for name, (options, planted, said) in REFUSALS.items():
        lab.node.run(["sh", "-ec", "rm -rf /run/etc; cp -a /etc /run/etc"])
        lab.node.run(["sh", "-ec", planted])
        before = lab.system()
        flags = [option for option in options if option not in ("--no-ops", "--https-only")]
        operators = [] if "--no-ops" in options else ["--breakglass", "ops=/var/keys/ops.pub"]
        plain = [] if "--https-only" in options else ["--plain-http"]
        argv = ["install", "--server", lab.server.url, *plain, *operators, *flags]
        done = lab.node.run(
            lab.node.agent_argv(*argv), env={"SENTINEL_AGENT_CODE": CODE}, check=False
        )
        assert done.returncode == 1, name
        assert said in done.stdout + done.stderr, (name, done.stdout, done.stderr)
        assert lab.system() == before, name
        lab.node.run(["sh", "-ec", "rsync -a --delete /run/etc/ /etc/"])
    assert lab.registrations() == 0


def test_all_that_stands_in_the_way_is_named_at_once(lab: InstallLab) -> None:
    before = lab.system()
    wrong = {
        "--code-file": "/var/keys/no-code", "--ca-file": "/var/keys/no.pem",
        "--breakglass": "mallory=/var/keys/no.pub", "--breakglass-port": "22",
    }  # fmt: skip
    done = lab.install(*(word for option in wrong.items() for word in option), code="")
    assert done.returncode == 1
    for said in (
        "no-code", "no.pem: No such file", "mallory: no such account", "no.pub: No such file",
        "port 22 is taken",
    ):  # fmt: skip
        assert said in done.stdout, (said, done.stdout)
    assert lab.system() == before


def test_another_packages_command_can_be_passed_over_on_purpose(lab: InstallLab) -> None:
    lab.node.write(
        "/etc/ssh/sshd_config.d/10-ec2.conf",
        "AuthorizedKeysCommand /usr/bin/true\nAuthorizedKeysCommandUser root\n",
    )
    lab.server.policy["mode"] = "enforce"
    done = lab.install("--replace-akc")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not lab.is_let_in("alice")
    lab.start_agent()
    wait_for("it is reported", lambda: "10-ec2.conf: /usr/bin/true" in lab.problems())
    lab.node.stop_agent()


def test_without_a_login_that_works_the_code_is_not_spent(lab: InstallLab) -> None:
    """Files look right, and sshd refuses all the same."""
    lab.node.write("/etc/ssh/sshd_config.d/50-site.conf", "AllowUsers alice\n")
    done = lab.install()
    assert done.returncode == 1
    assert "not listed in AllowUsers" in done.stderr
    assert lab.registrations() == 0
    assert not Path(lab.node.root / "var/lib/sentinel/install.json").exists()
    assert lab.state() == "open"
    lab.node.run(["rm", "/etc/ssh/sshd_config.d/50-site.conf"])
    assert lab.install().returncode == 0
    assert lab.registrations() == 1


def test_an_installation_that_was_cut_off_is_repeated_or_taken_away(lab: InstallLab) -> None:
    """kill -9 while files are made; a code that is refused; then the same command again."""
    untouched = lab.system()
    argv = ["install", "--server", lab.server.url, "--plain-http", "--breakglass",
            "ops=/var/keys/ops.pub"]  # fmt: skip
    made = lab.node.root / "etc/sentinel/banner"
    process = lab.node.popen(lab.node.agent_argv(*argv), env={"SENTINEL_AGENT_CODE": CODE})
    while not made.exists():
        assert process.poll() is None, lab.node.log("popen")
    lab.node.send_signal(process, signal.SIGKILL)
    process.wait(10)
    assert Path(lab.node.root / UNFINISHED[1:]).exists()
    gone = lab.run("uninstall")
    assert gone.returncode == 0, gone.stderr
    # Also what it was writing at that moment, which had no name yet.
    assert lab.system() == untouched
    refused = lab.install(code="wrong")
    assert (refused.returncode, "403" in refused.stderr) == (1, True)
    assert "repeat the same command with it" in refused.stderr
    done = lab.install()
    assert done.returncode == 0, done.stdout + done.stderr
    assert lab.run("uninstall").returncode == 0
    assert lab.system() == untouched


def test_check_names_what_is_wrong_and_changes_nothing(lab: InstallLab) -> None:
    assert "not complete" in lab.run("check").stdout
    assert lab.install().returncode == 0
    lab.node.popen(["/usr/lib/sentinel/sentinel-breakglass", "-D", "-f",
                    "/etc/sentinel/breakglass-sshd.conf"], log="breakglass")  # fmt: skip
    lab.start_agent()
    lab.server.grant(make_grant("alice", lab.keys["alice"]), mode="enforce")
    wait_for("it is locked", lambda: lab.lock() == "locked")
    good = lab.run("check")
    assert good.returncode == 0, good.stdout
    assert "ok   break-glass sshd: ops gets in on port 2222" in good.stdout
    # Who is there through it is counted like others.
    argv = [*lab.node.ssh_argv("ops", lab.keys["ops"], "-p", "2222"), "sleep 100"]
    with subprocess.Popen(argv) as session:
        wait_for("ops is counted", lambda: lab.server.heartbeats[-1]["sessions"] == {"ops": 1})
        session.kill()
    assert lab.node.stop_agent() == 0
    before = lab.system()
    mistakes = (
        ("chmod 0775 /usr/lib/sentinel", "FAIL get-keys:", "chmod 0755 /usr/lib/sentinel"),
        (f"echo x >> {DROP_IN}", "FAIL lock:", f"sed -i '$d' {DROP_IN}"),
        ("chmod 0600 /etc/sentinel/breakglass/ops", "FAIL break-glass: ops:",
         "chmod 0644 /etc/sentinel/breakglass/ops"),
        ("mv /var/lib/sentinel/policy.json /run/", "FAIL policy: none yet",
         "mv /run/policy.json /var/lib/sentinel/"),
        ("true", "FAIL agent: does not run", "true"),
    )  # fmt: skip
    lab.node.run(["sh", "-ec", "; ".join(planted for planted, _, _ in mistakes)])
    found = lab.run("check")
    assert found.returncode == 1
    for _, said, _ in mistakes:
        assert said in found.stdout, found.stdout
    lab.node.run(["sh", "-ec", "; ".join(undo for _, _, undo in mistakes)])
    assert lab.system() == before


def test_what_an_operator_changed_is_kept_and_named(lab: InstallLab) -> None:
    assert lab.install("--breakglass-port", "0").returncode == 0
    assert not (lab.node.root / "etc/sentinel/breakglass-sshd.conf").exists()
    lab.node.add_user("carol", groups=["breakglass"])
    lab.node.write(
        "/etc/sentinel/breakglass/carol", (lab.node.root / "var/keys/ops.pub").read_text()
    )
    lab.node.write("/var/lib/sentinel/notes", "mine\n")
    gone = lab.run("uninstall")
    assert gone.returncode == 0, gone.stderr
    for line in ("kept  group breakglass: carol joined it since",
                 "kept  folder /etc/sentinel/breakglass: there is something in it",
                 "kept  /var/lib/sentinel: notes"):  # fmt: skip
        assert line in gone.stdout, gone.stdout
    assert not (lab.node.root / "usr/lib/sentinel").exists()


def test_uninstall_does_not_wait_for_a_server_that_says_nothing(lab: InstallLab) -> None:
    assert lab.install().returncode == 0
    with socket.create_server((lab.node.host_address, 0)) as silent:
        url = f"http://{lab.node.host_address}:{silent.getsockname()[1]}"
        lab.node.write_agent_config(url)
        gone = lab.run("uninstall")
    assert gone.returncode == 0, gone.stderr
    assert "booking was not told that this node is open: no answer within 3 s" in gone.stdout
    assert not (lab.node.root / "var/lib/sentinel").exists()


def test_uninstall_without_install_does_nothing(lab: InstallLab) -> None:
    before = lab.system()
    done = lab.run("uninstall")
    assert (done.returncode, "nothing was installed" in done.stderr) == (1, True)
    assert lab.system() == before


def test_operators_keys_that_are_there_stay(lab: InstallLab) -> None:
    """And a private key is not taken for a public one."""
    lab.node.run(["mkdir", "-p", "-m", "0700", "/etc/sentinel", "/etc/sentinel/breakglass"])
    alice = (lab.node.root / "var/keys/alice.pub").read_text()
    lab.node.write("/etc/sentinel/breakglass/ops", alice)
    before = lab.system()
    assert lab.install().returncode == 0
    ops = (lab.node.root / "var/keys/ops.pub").read_text()
    listed = (lab.node.root / "etc/sentinel/breakglass/ops").read_text().splitlines()
    assert [line.strip() for line in listed] == [alice.strip(), ops.strip()]
    lab.node.write("/var/keys/private", lab.keys["ops"].read_text())
    refused = lab.install("--breakglass", "alice=/var/keys/private")
    assert (refused.returncode, "is a private key" in refused.stdout) == (1, True)
    assert lab.install().returncode == 0
    assert lab.run("uninstall").returncode == 0
    assert lab.system() == before


def test_the_driver_of_nvidia_gets_its_option_and_a_ca_is_kept(lab: InstallLab) -> None:
    lab.node.write("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1", "")
    lab.node.write("/var/keys/ca.pem", "a certificate\n")
    # Neither is asked by this server, which is not encrypted.
    assert (
        lab.install("--ca-file", "/var/keys/ca.pem", "--address", "node.example").returncode
        == 0
    )
    option = (lab.node.root / "etc/modprobe.d/sentinel-nvidia.conf").read_text()
    assert "options nvidia NVreg_ModifyDeviceFiles=0\n" in option
    config = (lab.node.root / "etc/sentinel/agent.toml").read_text()
    assert 'ca_file = "/etc/sentinel/server-ca.pem"\n' in config
    assert 'address = "node.example"\n' in config
    assert (lab.node.root / "etc/sentinel/server-ca.pem").read_text() == "a certificate\n"
    # And the unit runs this very program.
    unit = (lab.node.root / "etc/systemd/system/sentinel-agent.service").read_text()
    assert f"\nExecStart={' '.join(lab.node.agent_argv('run'))}\n" in unit
    assert "/usr/local/bin" not in unit
    lab.run("uninstall")
    assert not (lab.node.root / "etc/modprobe.d/sentinel-nvidia.conf").exists()
