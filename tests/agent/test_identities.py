"""Whose processes they are: containers, names and uids that change, directories that fail."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.agent.booking_server import make_grant
from tests.agent.conftest import Lab
from tests.lab.wait import wait_for

# A container without root: processes with uids of the range that was lent to the user. It does
# what podman does, but for newuidmap's part, which the test does as root.
CONTAINER = """\
import ctypes, os, signal, time
for number in (signal.SIGHUP, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
if os.fork():
    os._exit(0)
os.setsid()
assert ctypes.CDLL(None).unshare(0x10000000) == 0
with open("pid.new", "w") as file:
    file.write(str(os.getpid()))
os.rename("pid.new", "pid")
while not os.path.exists("mapped"):
    time.sleep(0.05)
for uid in (33, 999):
    if os.fork() == 0:
        os.setresuid(uid, uid, uid)
        time.sleep(1000)
time.sleep(1000)
"""
LENT = 200000

# A directory service: accounts of /etc/lab/passwd, for as long as /etc/lab/state says `up`.
DIRECTORY = r"""
#include <errno.h>
#include <fcntl.h>
#include <nss.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static enum nss_status find(const char *name, uid_t uid, struct passwd *found,
                            char *buffer, size_t size, int *error) {
    struct passwd *entry;
    char state[5] = "";
    int opened = open("/etc/lab/state", O_RDONLY);
    *error = ENOENT;
    if (opened >= 0) {
        if (read(opened, state, 4) < 0) state[0] = 0;
        close(opened);
    }
    while (strcmp(state, "hang") == 0) pause();
    if (strncmp(state, "up", 2) != 0) return NSS_STATUS_UNAVAIL;
    FILE *file = fopen("/etc/lab/passwd", "re");
    if (file == NULL) return NSS_STATUS_UNAVAIL;
    while (fgetpwent_r(file, found, buffer, size, &entry) == 0)
        if (name != NULL ? strcmp(found->pw_name, name) == 0 : found->pw_uid == uid) {
            fclose(file);
            return NSS_STATUS_SUCCESS;
        }
    fclose(file);
    return NSS_STATUS_NOTFOUND;
}

enum nss_status _nss_lab_getpwnam_r(const char *name, struct passwd *found, char *buffer,
                                    size_t size, int *error) {
    return find(name, 0, found, buffer, size, error);
}

enum nss_status _nss_lab_getpwuid_r(uid_t uid, struct passwd *found, char *buffer,
                                    size_t size, int *error) {
    return find(NULL, uid, found, buffer, size, error);
}
"""


def processes_of(lab: Lab, uid: int) -> list[str]:
    return lab.node.processes(str(uid))


def start_container(lab: Lab, user: str, uid: int, lent: int) -> None:
    """Start the user's container; its processes have the uids lent+33 and lent+999."""
    home = f"/home/{user}"
    lab.node.write(f"{home}/container.py", CONTAINER, owner=user)
    lab.node.run(["sh", "-c", f"cd {home} && exec setpriv --reuid={user} --regid={user} "
                  "--init-groups python3 container.py >/dev/null 2>&1"])  # fmt: skip
    pid = wait_for("it is there", (lab.node.root / f"home/{user}/pid").read_text)
    mapped = f"0 {uid} 1\\n1 {lent + 1} 65535"
    lab.node.run(["sh", "-c", f"printf '{mapped}' >/proc/{pid}/uid_map"])
    lab.node.write(f"{home}/mapped", "")
    for inner in (33, 999):
        wait_for(f"{user}'s {inner} runs", lambda: processes_of(lab, lent + inner))  # noqa: B023


def uid_of(lab: Lab, user: str) -> int:
    return int(lab.node.run(["id", "-u", user]).stdout)


def test_what_runs_in_a_users_container_ends_with_the_users_access(lab: Lab) -> None:
    """A break-glass user's is left alone, and so is one whose reservation runs."""
    users = {"alice": LENT, "bob": 2 * LENT, "ops": 3 * LENT}
    lab.server.grant(*(make_grant(user) for user in users))
    lab.start_agent()
    for user, lent in users.items():
        start_container(lab, user, uid_of(lab, user), lent)
    lab.server.grant(make_grant("bob"))
    for lent in (LENT + 33, LENT + 999, uid_of(lab, "alice")):
        wait_for(f"uid {lent} has nothing", lambda: not processes_of(lab, lent))  # noqa: B023
    for user in ("bob", "ops"):
        for inner in (33, 999):
            assert processes_of(lab, users[user] + inner), user
        assert lab.node.processes(user), user


def test_the_next_holder_waits_for_containers_too(lab: Lab) -> None:
    lab.server.grant(make_grant("alice"))
    lab.start_agent(term_s=3)
    start_container(lab, "alice", uid_of(lab, "alice"), LENT)
    lab.server.grant(make_grant("bob", lab.keys["bob"], start_s=0, reservation=2))
    lab.wait_for_policy()
    assert not lab.is_let_in("bob")
    wait_for("bob gets in", lambda: lab.is_let_in("bob"))
    assert processes_of(lab, LENT + 33) == []


def test_whoever_is_put_into_breakglass_while_being_ended_stays(lab: Lab) -> None:
    lab.server.grant(*(make_grant(user, lab.keys[user]) for user in ("alice", "bob")))
    lab.start_agent(grace_s=3)
    with lab.session("alice") as alice, lab.session("bob") as bob:
        lab.server.grant()
        for session in (alice, bob):
            wait_for("it is told", lambda: "no running reservation" in session.text())  # noqa: B023
        lab.node.run(["usermod", "--append", "--groups", "breakglass", "alice"])
        wait_for("bob is ended", lambda: not bob.is_open())
        wait_for("bob has nothing", lambda: not lab.node.processes("bob"))
        assert alice.is_open()


def test_operators_and_the_ignored_stay_when_their_own_reservations_end(lab: Lab) -> None:
    lab.node.add_user("watcher")
    lab.keys["watcher"] = lab.node.make_key("watcher")
    users = ("ops", "watcher", "bob")
    lab.server.grant(*(make_grant(user, lab.keys[user]) for user in users))
    lab.start_agent(ignored_users=["watcher"])
    with (
        lab.session("ops") as ops,
        lab.session("watcher") as watcher,
        lab.session("bob") as bob,
    ):
        # Nobody is made to wait for them: they are not going to leave.
        lab.server.grant(make_grant("alice", lab.keys["alice"], start_s=0, reservation=2))
        wait_for("bob is ended", lambda: not bob.is_open())
        wait_for("alice gets in", lambda: lab.is_let_in("alice"))
        assert ops.is_open()
        assert watcher.is_open()
        assert "ServerSentinel" not in ops.text() + watcher.text()


def test_an_account_with_a_former_holders_uid_is_somebody_else(lab: Lab) -> None:
    lab.server.grant(make_grant("alice"), make_grant("bob"))
    lab.start_agent()
    lab.server.grant()
    lab.wait_for_policy()
    uid = uid_of(lab, "alice")
    lab.node.run(["userdel", "alice"])
    lab.node.run(["useradd", "--uid", str(uid), "carol"])
    for user in ("carol", "bob"):
        lab.node.popen(["sleep", "1401"], user=user)
    # Whoever is still the former holder is ended.
    wait_for("bob's is ended", lambda: not lab.node.processes("bob"))
    assert lab.node.processes("carol") == ["sleep 1401"]


def test_a_deleted_account_is_ended_by_its_uid(lab: Lab) -> None:
    lab.server.grant(make_grant("alice"))
    lab.start_agent()
    uid = uid_of(lab, "alice")
    lab.node.popen(["setsid", "sleep", "1402"], user="alice")
    wait_for("it runs", lambda: processes_of(lab, uid))
    lab.node.run(["userdel", "--force", "alice"])
    assert processes_of(lab, uid)
    lab.server.grant()
    wait_for("it is ended", lambda: not processes_of(lab, uid))


def test_two_names_of_one_account_have_each_others_access(lab: Lab) -> None:
    uid = str(uid_of(lab, "alice"))
    lab.node.run(["useradd", "--non-unique", "--uid", uid, "--gid", "alice", "--home-dir",
                  "/home/alice", "--shell", "/bin/bash", "alice2"])  # fmt: skip
    lab.keys["alice2"] = lab.keys["alice"]
    lab.server.grant(
        make_grant("alice2", lab.keys["alice"]), make_grant("bob", lab.keys["bob"])
    )
    lab.start_agent()
    with lab.session("alice2") as alice, lab.session("bob") as bob:
        lab.server.grant(make_grant("alice2", lab.keys["alice"]))
        wait_for("bob is ended", lambda: not bob.is_open())
        assert alice.is_open()
        lab.server.grant()
        wait_for("alice is ended", lambda: not alice.is_open())


@pytest.fixture
def directory(lab: Lab, tmp_path: Path) -> Lab:
    """Dora (uid 5001) and the operator Olga (5002) are known to a directory only."""
    source, library = tmp_path / "lab.c", tmp_path / "libnss_lab.so.2"
    source.write_text(DIRECTORY)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    folder = lab.node.run(["sh", "-c", "dirname /usr/lib/*/libnss_compat.so.2"]).stdout.strip()
    (lab.node.root / folder.lstrip("/") / library.name).write_bytes(library.read_bytes())
    groups = (lab.node.root / "etc/group").read_text().splitlines()
    (breakglass,) = (line.split(":")[2] for line in groups if line.startswith("breakglass:"))
    lab.node.write(
        "/etc/lab/passwd",
        f"dora:*:5001:100::/tmp:/bin/bash\nolga:*:5002:{breakglass}::/tmp:/bin/bash\n",
    )
    lab.node.write("/etc/lab/state", "up")
    switch = lab.node.root / "etc/nsswitch.conf"
    lines = switch.read_text().splitlines()
    switch.write_text(
        "\n".join("passwd: files lab" if line.startswith("passwd:") else line for line in lines)
    )
    for user in ("dora", "olga"):
        lab.keys[user] = lab.node.make_key(user)
    lab.node.write(
        "/etc/sentinel/breakglass/olga", lab.keys["olga"].with_suffix(".pub").read_text()
    )
    return lab


@pytest.mark.parametrize("state", ["down", "hang"])
def test_a_directory_that_fails_ends_nobody_and_lets_nobody_off(
    directory: Lab, state: str
) -> None:
    lab = directory
    users = ("dora", "alice", "bob")
    lab.server.grant(*(make_grant(user, lab.keys[user]) for user in users))
    lab.start_agent()
    with (
        lab.session("dora") as dora, lab.session("olga") as olga, lab.session("alice") as alice,
        lab.session("bob") as bob,
    ):  # fmt: skip
        there = dict.fromkeys(("dora", "olga", "alice", "bob"), 1)
        wait_for("all are seen", lambda: lab.server.heartbeats[-1]["sessions"] == there)
        lab.node.write("/etc/lab/state", state)
        if state == "down":
            # What was known of the operators is known after a restart too.
            lab.node.stop_agent(signal.SIGKILL)
            lab.node.start_agent()
        else:
            # No such user: somebody has to ask the directory.
            lab.server.grant(*(make_grant(user) for user in (*users, "erin")))
            why = "enforce: the name service does not answer"
            wait_for(
                "it is reported",
                lambda: any(text.startswith(why) for text in lab.agent_problems()),
            )
        lab.server.grant(make_grant("dora", lab.keys["dora"]))
        wait_for("alice is ended", lambda: not alice.is_open())
        wait_for("bob is ended", lambda: not bob.is_open())
        assert dora.is_open()
        lab.server.grant()
        # Its client may wait: sshd itself asks the directory before it hangs up.
        wait_for("dora has nothing", lambda: not processes_of(lab, 5001))
        assert olga.is_open()
