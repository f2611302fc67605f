"""Every kind of session on a real sshd, and what only looks like one, beside the collector."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest

from tests.agent.session_kinds import CONNECTIONS, LEFT_BEHIND, prepare, sessions_of
from tests.exporters.running import parse_series, values
from tests.exporters.ssh_lab import CHECK_AS_NOBODY, CONFIG, Lab, make_lab
from tests.lab.node import why_not
from tests.lab.wait import wait_for

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

# Says that it runs, and waits.
WAITS = """\
import os, time
open(f"/tmp/runs-{name}-{os.getpid()}", "x").close()
time.sleep(1000)
"""


@pytest.fixture(scope="module")
def node_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with make_lab("ssh-03", tmp_path_factory.mktemp("ssh"), ["bob"]) as lab:
        prepare(lab.node, ["alice"])
        lab.add_key("alice")
        yield lab


@pytest.fixture
def lab(node_lab: Lab) -> Iterator[Lab]:
    node_lab.wait_until({}, 0)
    yield node_lab
    node_lab.end()
    for user in ("alice", "bob"):
        # All that is left of hers, as she could do it; it ends with itself.
        node_lab.node.run(["kill", "-KILL", "-1"], user=user, check=False)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path: sockets' paths have 108 bytes."""
    path = Path(tempfile.mkdtemp(prefix="kinds-"))
    yield path
    shutil.rmtree(path)


def test_twelve_kinds_of_sessions_are_what_they_are_and_leave_none_behind(
    lab: Lab, folder: Path
) -> None:
    began = time.time()
    with sessions_of(lab.node, ["alice"], lab.key, folder) as sessions:
        sessions["alice"].open_all()
        lab.wait_until(
            {
                ("alice", "pty"): 1,
                # A command, scp, sftp, rsync, one in a shared connection, an editor's.
                ("alice", "exec"): 6,
                # -N, and a forwarded port with a connection in it.
                ("alice", "forward-only"): 2,
            },
            CONNECTIONS,
        )
        series = parse_series(lab.page())
        assert values(series, "ssh_user_connections", "user") == {"alice": CONNECTIONS}
        assert values(series, "ssh_user_channels", "user") == {"alice": 7}
        for end in ("oldest", "newest"):
            starts = values(series, f"ssh_session_{end}_start_time_seconds", "type")
            assert starts.keys() == {"pty", "exec", "forward-only"}
            # The time that Linux was started is known in whole seconds.
            assert all(began - 2 < start < time.time() + 2 for start in starts.values())
    # rsync's client leaves its ssh behind, and its server has all the time.
    lab.node.run(["sh", "-c", "kill -KILL $(pgrep -u alice -f 'rsync --server')"])
    lab.wait_until({}, 0)
    left = lab.node.processes("alice")
    assert all(any(what in args for args in left) for what in LEFT_BEHIND)


def test_further_ways_to_connect_are_told_apart(lab: Lab, folder: Path) -> None:
    node, master = lab.node, folder / "m"
    # In the background, as soon as it is logged in.
    shared = ["-S", str(master)]
    lab.log_in("bob", options=["-f", "-N", "-M", *shared]).wait(20)
    lab.wait_until({("bob", "forward-only"): 1}, 1)
    # With the client's agent and X server, both forwarded.
    agent = folder / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(agent)]) as running:
        wait_for("the agent listens", agent.exists)
        env = {"SSH_AUTH_SOCK": str(agent), "DISPLAY": ":77"}
        lab.log_in("bob", "cat", options=["-A", "-X"], env=env)
        # From one account to another on the same node.
        hop = " ".join(node.ssh_argv("alice", lab.key, "-W", "%h:%p"))
        lab.log_in("bob", options=["-tt", "-o", f"ProxyCommand={hop}"])
        lab.wait_until(
            {
                ("bob", "forward-only"): 1,
                ("bob", "exec"): 1,
                ("bob", "pty"): 1,
                ("alice", "forward-only"): 1,
            },
            4,
        )
        running.kill()
    subprocess.run([*node.ssh_argv("bob", None, *shared), "-O", "exit"], check=True,
                   capture_output=True)  # fmt: skip


def test_file_transfer_by_a_program_of_its_own_is_a_command(lab: Lab) -> None:
    config = CONFIG.replace("internal-sftp", "/usr/lib/openssh/sftp-server")
    with lab.another_sshd(config):
        lab.log_in("bob", "sftp", options=["-p", "2200", "-s"])
        lab.wait_until({("bob", "exec"): 1}, 1)
        wait_for("it runs", lambda: "sftp-server" in str(lab.node.processes("bob")))


def test_who_becomes_somebody_else_stays_who_logged_in(lab: Lab) -> None:
    lab.log_in("alice", "echo secret | su bob -c 'sleep 777'")
    wait_for("su runs", lambda: "sleep 777" in str(lab.node.processes("bob")))
    lab.wait_until({("alice", "exec"): 1}, 1)


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        # It makes a terminal of its own, which becomes its controlling one.
        ("python3 -c 'import os, pty, time; main, side = pty.openpty(); "
         "os.open(os.ttyname(side), os.O_RDWR); open(\"/tmp/runs-own\", \"x\"); "
         "time.sleep(1000)'", "exec"),
        # It lets go of sshd's: TIOCNOTTY.
        ("exec python3 -c 'import fcntl, os, signal, time; "
         "signal.signal(signal.SIGHUP, signal.SIG_IGN); fcntl.ioctl(0, 0x5422); "
         "open(\"/tmp/runs-let-go\", \"x\"); time.sleep(1000)'", "pty"),
    ],
)  # fmt: skip
def test_a_program_that_changes_its_terminal_does_not_change_its_session(
    lab: Lab, command: str, kind: str
) -> None:
    lab.log_in("bob", command, options=["-tt"] if kind == "pty" else [])
    name = "let-go" if kind == "pty" else "own"
    wait_for("it has done so", (lab.node.root / f"tmp/runs-{name}").exists)
    lab.wait_until({("bob", kind): 1}, 1)


# What only looks like a session.


# A setuid program that is called sshd by its link, with all of its title in its arguments.
ROOT = "import os\nos.setresuid(0, 0, 0)\n"
FAMILY = "if os.fork() == 0:\n    os.setresuid({uid}, {uid}, {uid})\n"


@pytest.mark.parametrize(
    ("name", "title", "script", "mode"),
    [
        ("renamed", "bob", "import ctypes\nctypes.CDLL(None).prctl(15, b'sshd')\n", "755"),
        ("titled", "sshd: root@pts/0", "", "755"),
        ("both", "sshd: bob@notty", "import os\nos.fork()\n", "755"),
        ("setuid", "sshd: root@notty", ROOT, "4755"),
        ("family", "sshd: bob@notty", ROOT + FAMILY, "4755"),
    ],
    ids=["renamed", "titled", "both", "setuid", "family"],
)
def test_nothing_that_a_user_runs_is_taken_for_an_sshd(
    lab: Lab, name: str, title: str, script: str, mode: str
) -> None:
    """In her session, and beyond its end."""
    node, folder = lab.node, f"/var/lib/feigned-{name}"
    program = "py" if name == "renamed" else "sshd"
    node.run(["sh", "-ec", f"mkdir {folder}; cp $(readlink -f /usr/bin/python3) {folder}/py; "
              f"chmod {mode} {folder}/py; ln -s py {folder}/sshd"])  # fmt: skip
    bob = node.run(["id", "-u", "bob"]).stdout.strip()
    node.write(
        f"{folder}/script", (script + WAITS).replace("{uid}", bob).replace("{name}", name)
    )
    # The script comes by standard input, so that there is nothing behind the title.
    run = f"exec -a '{title}' {folder}/{program} <{folder}/script"
    lab.log_in("alice", f'bash -c "({run}) >/dev/null 2>&1 & cat"')
    count = 1 + script.count("fork()")
    runs = partial(Path(node.root, "tmp").glob, f"runs-{name}-*")
    wait_for("it runs", lambda: len(list(runs())) == count)
    pids = [path.name.rpartition("-")[2] for path in runs()]
    listed = ["-p", ",".join(pids)]
    table = node.run(["ps", "-o", "comm=,args=", *listed]).stdout.splitlines()
    assert [line.split() for line in table] == [["sshd", *title.split()]] * count
    lab.wait_until({("alice", "exec"): 1}, 1)
    lab.end()
    parents = partial(node.run, ["ps", "-o", "ppid=", *listed])
    wait_for("it is an orphan", lambda: "1" in parents().stdout.split())
    lab.wait_until({}, 0)
    node.run(["kill", "-KILL", *pids])


def test_a_users_own_sshd_lets_nobody_in_that_counts(lab: Lab) -> None:
    """A copy of the real program, run by alice, with a connection of hers through it."""
    node = lab.node
    config = (
        "UsePAM no\nStrictModes no\nPidFile none\nHostKey ~/own_key\n"
        "AuthorizedKeysFile /etc/ssh/lab_keys/%u\n"
    ).replace("~", "/home/alice")
    node.write("/home/alice/own_config", config, owner="alice")
    make = "cp /usr/sbin/sshd sshd; ssh-keygen -q -t ed25519 -N '' -f own_key"
    node.run(["sh", "-ec", f"cd /home/alice; {make}"], user="alice")
    argv = ["/home/alice/sshd", "-D", "-e", "-f", "/home/alice/own_config", "-p", "2222"]
    own = node.popen(argv, user="alice", log="own")
    wait_for("it listens", lambda: "Server listening" in node.log("own"))
    lab.log_in("alice", "sleep 888", options=["-p", "2222"])
    wait_for("she is in", lambda: "sleep 888" in str(node.processes("alice")))
    assert lab.scrape() == ({}, 0)
    node.send_signal(own, signal.SIGKILL)
    own.wait(10)


def test_an_sshd_in_a_container_is_another_machines(lab: Lab) -> None:
    inside = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc"]
    with lab.another_sshd(CONFIG, *inside):
        lab.log_in("bob", "sleep 999", options=["-p", "2200"])
        wait_for("bob is in", lambda: "sleep 999" in str(lab.node.processes("bob")))
        assert lab.scrape() == ({}, 0)


def test_sessions_go_on_to_be_counted_when_sshd_is_restarted(lab: Lab) -> None:
    expected: Mapping[tuple[str, str], float] = {
        ("bob", "exec"): 1, ("bob", "forward-only"): 1, ("root", "exec"): 1,
    }  # fmt: skip
    with lab.another_sshd(CONFIG):
        lab.log_in("bob", "cat", options=["-p", "2200"])
        lab.log_in("bob", options=["-p", "2200", "-N"])
        lab.log_in("root", "cat", options=["-p", "2200"])
        lab.wait_until(expected, 3)
    assert lab.scrape() == (expected, 3)


def test_a_hidden_process_table_is_said_and_is_no_empty_machine(lab: Lab) -> None:
    node = lab.node
    lab.log_in("bob", "cat")
    lab.wait_until({("bob", "exec"): 1}, 1)
    for hidden in ("1", "2"):
        node.run(["mount", "-o", f"remount,hidepid={hidden}", "/proc"])
        done = node.run([sys.executable, "-c", CHECK_AS_NOBODY], check=False)
        node.run(["mount", "-o", "remount,hidepid=0", "/proc"])
        assert done.returncode == 1
        assert "hidepid" in done.stderr
        assert "ssh_connections" not in done.stdout
