"""pam-gate: what it answers to whom, that everything odd refuses, and that sshd says why."""

from __future__ import annotations

import random
import subprocess
import time
from datetime import datetime, timedelta

import pytest

from sentinel_agent.policy.access import encode_access
from sentinel_agent.policy.model import Policy, encode, format_time
from sentinel_agent.sessions.plan import utc
from tests.agent.policies import KEYS, build_policy, grant_document
from tests.lab.node import REPOSITORY, Node
from tests.lab.wait import wait_for

PAM_GATE = REPOSITORY / "agent" / "src" / "sentinel_agent" / "gates" / "pam_gate"
ACCESS = "/var/lib/sentinel/access"
LOGINS = "/run/sentinel/logins"
URL = "https://booking.example/nodes"
OUT_OF_ORDER = "The lock of this node is out of order."


@pytest.fixture(scope="module")
def node(node: Node) -> Node:
    """The node with both gates, and some more accounts."""
    node.run(["install", "-d", "-m", "0755", "/run/sentinel"])
    for user in ("bob", "carol"):
        node.add_user(user)
    return node


def from_now(seconds: float) -> datetime:
    return utc(int(time.time())) + timedelta(seconds=seconds)


def grant(user: str, start_s: float, end_s: float, **more: object) -> dict[str, object]:
    times = {
        "not_before": format_time(from_now(start_s)),
        "not_after": format_time(from_now(end_s)),
    }
    return grant_document(user, 0, 1) | times | more


def policy_of(*grants: dict[str, object], expires_s: float = 7 * 24 * 3600) -> Policy:
    return build_policy(*grants, expires_at=format_time(from_now(expires_s)))


def write_access(node: Node, content: str) -> None:
    node.run(["rm", "-rf", ACCESS, LOGINS])
    node.run(["chown", "root:sentinel-akc", "/var/lib/sentinel"])
    node.run(["chmod", "0750", "/var/lib/sentinel"])
    node.write(ACCESS, content, mode=0o600)


def ask(
    node: Node, user: str = "alice", phase: str = "account", **more: str
) -> subprocess.CompletedProcess[str]:
    env = {"PAM_USER": user, "PAM_TYPE": phase, "PAM_SERVICE": "sshd"} | more
    return node.run(["/usr/lib/sentinel/pam-gate"], env=env, check=False)


def counted(node: Node) -> str:
    path = node.root / LOGINS[1:]
    return path.read_text() if path.exists() else ""


def booked(user: str = "alice") -> str:
    return encode_access(policy_of(grant(user, -60, 3600)), {}, URL).decode()


def test_the_booked_user_passes_in_silence_and_is_counted(node: Node) -> None:
    write_access(node, booked())
    done = ask(node)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert counted(node) == "granted alice\n"
    assert (node.root / LOGINS[1:]).stat().st_mode & 0o7777 == 0o600


def test_whoever_is_refused_is_told_where_to_book_in_both_languages(node: Node) -> None:
    write_access(node, booked())
    before = node.syslog()
    done = ask(node, "bob")
    assert done.returncode == 1
    english, chinese = done.stdout.splitlines()
    assert english == f"You have no running reservation on this node. Book it: {URL}"
    assert chinese == f"您在本节点没有正在进行的预约。预约：{URL}"
    assert counted(node) == "refused bob\n"
    logged = wait_for("it is logged", lambda: node.syslog().removeprefix(before))
    assert "refused user=bob reason=no running reservation" in logged


def test_without_a_url_nothing_is_made_up(node: Node) -> None:
    write_access(node, encode_access(policy_of()).decode())
    assert ask(node).stdout.splitlines() == [
        "You have no running reservation on this node.",
        "您在本节点没有正在进行的预约。",
    ]


def test_a_line_is_good_from_its_first_second_to_before_its_last(node: Node) -> None:
    now = int(time.time())
    head = f"sentinel-access 1 {now + 9999} -\n"
    for opens, ends, is_open in [
        (now, now + 100, True), (now - 100, now, False), (now - 100, now - 1, False),
        (now + 100, now + 200, False), (now - 100, now + 100, True), (now + 100, now, False),
    ]:  # fmt: skip
        write_access(node, f"{head}alice {opens} {ends}\n")
        assert (ask(node).returncode == 0) is is_open, (opens - now, ends - now)
    write_access(node, f"sentinel-access 1 {now} -\nalice {now - 100} {now + 100}\n")
    assert ask(node).returncode == 1


def test_lines_of_others_and_blanked_ones_change_nothing(node: Node) -> None:
    header, line = booked().splitlines()
    for more in (
        "alicex {0}",
        "alic {0}",
        "####################",
        "al### 17##### 1#",
        "bob {0}",
    ):
        others = more.format(line.partition(" ")[2])
        write_access(node, f"{header}\n{others}\n")
        assert ask(node).returncode == 1, more
        assert not ask(node).stdout.startswith(OUT_OF_ORDER)
        write_access(node, f"{header}\n{others}\n{line}\n")
        assert ask(node).returncode == 0, more


ODD = {
    "empty": "",
    "only a header, cut": "sentinel-access 1 17",
    "another version": "sentinel-access 2 9999999999 -\nalice 0 9999999999\n",
    "another file": '{"version":3}\nalice 0 9999999999\n',
    "no url": "sentinel-access 1 9999999999\nalice 0 9999999999\n",
    "more in the header": "sentinel-access 1 9999999999 - x\nalice 0 9999999999\n",
    "negative expiry": "sentinel-access 1 -1 -\nalice 0 9999999999\n",
    "hexadecimal expiry": "sentinel-access 1 0xffffffffff -\nalice 0 9999999999\n",
    "expiry that overflows": f"sentinel-access 1 {'9' * 40} -\nalice 0 9999999999\n",
    "no end": "sentinel-access 1 9999999999 -\nalice 0\n",
    "end that is no number": "sentinel-access 1 9999999999 -\nalice 0 never\n",
    "end that overflows": f"sentinel-access 1 9999999999 -\nalice 0 {'9' * 30}\n",
    "negative start": "sentinel-access 1 9999999999 -\nalice -1 9999999999\n",
    "more on the line": "sentinel-access 1 9999999999 -\nalice 0 9999999999 x\n",
    "pattern for a name": "sentinel-access 1 9999999999 -\n* 0 9999999999\n",
    "empty line before": "sentinel-access 1 9999999999 -\n\nalice 0 9999999999\n",
    "carriage returns": "sentinel-access 1 9999999999 -\r\nalice 0 9999999999\r\n",
    "a name alone": "sentinel-access 1 9999999999 -\nalice\n",
}  # fmt: skip


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_an_odd_access_file_refuses(node: Node, text: str) -> None:
    write_access(node, text)
    done = ask(node)
    assert done.returncode == 1
    assert done.stdout.startswith(OUT_OF_ORDER)
    assert counted(node) == "refused alice\n"


def test_a_file_cut_off_anywhere_lets_nobody_more_in(node: Node) -> None:
    whole = encode_access(policy_of(grant("bob", -60, 90), grant("alice", -30, 3600)), {}, URL)
    write_access(node, "")
    node.write("/tmp/whole", whole.decode())
    # One shell puts each in place and asks.
    script = f"""
        for size in $(seq 0 {len(whole)}); do
            head -c $size /tmp/whole >{ACCESS}
            /usr/lib/sentinel/pam-gate >/dev/null && echo $size
        done; true
    """
    env = {"PAM_USER": "alice", "PAM_TYPE": "account"}
    assert node.run(["sh", "-c", script], env=env).stdout == f"{len(whole)}\n"


DAMAGES = {
    "missing": "rm {0}",
    "binary": "head -c 100000 /dev/urandom > {0}",
    "zeros": "head -c 1000 /dev/zero > {0}",
    "writable to all": "chmod 0602 {0}",
    "writable to the group": "chmod 0620 {0}",
    "the user's own": "chown alice {0}",
    "behind a link": "mv {0} {0}.real && ln -s {0}.real {0}",
    "a folder": "rm {0} && mkdir -m 0700 {0}",
    "a pipe": "rm {0} && mkfifo -m 0600 {0}",
    "in a folder that all may write": "chmod 0777 /var/lib/sentinel",
    "in the user's folder": "chown alice /var/lib/sentinel",
    "in a folder that is a link": "mv /var/lib/sentinel /var/lib/real;"
    " chown alice /var/lib/real; ln -s real /var/lib/sentinel",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_an_access_file_that_cannot_be_trusted_refuses(node: Node, damage: str) -> None:
    write_access(node, booked())
    assert ask(node).returncode == 0
    node.run(["sh", "-c", damage.format(ACCESS)])
    try:
        done = ask(node)
    finally:
        node.run(
            [
                "sh",
                "-c",
                "cd /var/lib && test ! -L sentinel || { rm sentinel; mv real sentinel; }",
            ]
        )
    assert done.returncode == 1
    assert done.stdout.startswith(OUT_OF_ORDER)


@pytest.mark.parametrize(
    "name",
    ["", "../x", "alice\n", "\nalice", "alice bob", "-alice", "-n", "Alice", "a" * 33,
     "alice;id", "$(id)", "`id`", "*", "a*", "alic?", "[a-z]*", "аlice", "alice\t", "#",
     "alice#", "é", "1a", "sentinel-access", "%s%s%n"],
    ids=ascii,
)  # fmt: skip
def test_a_hostile_name_is_refused_and_stands_nowhere(node: Node, name: str) -> None:
    write_access(node, booked())
    before = node.syslog()
    assert ask(node, name).returncode == 1
    assert counted(node) == ("refused sentinel-access\n" if name[:1] == "s" else "refused -\n")
    logged = wait_for("it is logged", lambda: node.syslog().removeprefix(before))
    assert logged.count("refused user=") == 1
    assert name[:1] == "s" or "user=- reason=not a user name" in logged


def test_other_phases_and_a_missing_environment_refuse(node: Node) -> None:
    write_access(node, booked())
    for phase in ("auth", "open_session", "close_session", "password", ""):
        assert ask(node, phase=phase).returncode == 1, phase
    bare = node.run(["env", "-i", "/usr/lib/sentinel/pam-gate"], check=False)
    assert bare.returncode == 1


def test_a_hostile_environment_changes_nothing(node: Node) -> None:
    node.write("/tmp/evil/date", "#!/bin/sh\necho 1\n", mode=0o755)
    node.write("/tmp/evil/stat", "#!/bin/sh\necho 0 0 0 0 8180 0\n", mode=0o755)
    node.write("/tmp/evil/rc", "exit 0\n")
    evil = {
        "PATH": "/tmp/evil", "IFS": "0123456789", "ENV": "/tmp/evil/rc",
        "LC_ALL": "zh_CN.GB18030", "BASH_ENV": "/tmp/evil/rc", "SHELLOPTS": "noexec",
        "BASH_FUNC_date%%": "() { echo 1; }", "BASH_FUNC_[%%": "() { return 0; }",
        "BASH_FUNC_read%%": "() { exit 0; }", "url": "x", "name": "alice", "now": "0",
    }  # fmt: skip
    write_access(node, booked())
    assert PAM_GATE.read_text().startswith("#!/bin/sh -p\n")
    for shell in ("dash", "bash"):
        for user, status in (("alice", 0), ("bob", 1)):
            env = {"PAM_USER": user, "PAM_TYPE": "account"} | evil
            # env(1): the node's own programs are found by PATH.
            settings = [f"{name}={value}" for name, value in env.items()]
            command = ["env", *settings, f"/bin/{shell}", "-p", "/usr/lib/sentinel/pam-gate"]
            assert node.run(command, check=False).returncode == status, (shell, user)


def test_it_answers_the_same_in_bash(node: Node) -> None:
    """/bin/sh is bash on openEuler and the Red Hat family."""
    good = booked()
    for text in (good, *ODD.values()):
        write_access(node, text)
        env = {"PAM_USER": "alice", "PAM_TYPE": "account"}
        command = ["bash", "--posix", "-p", "/usr/lib/sentinel/pam-gate"]
        done = node.run(command, env=env, check=False)
        assert (done.returncode == 0) is (text == good), text
        assert done.stderr == ""


def test_counting_waits_for_nothing_and_does_not_grow_for_ever(node: Node) -> None:
    for obstacle in (
        f"mkfifo {LOGINS}", f"mkdir {LOGINS}", f"ln -s /tmp/victim {LOGINS}",
        f"truncate -s 1M {LOGINS}", "mv /run/sentinel /run/away",
    ):  # fmt: skip
        write_access(node, booked())
        node.run(["sh", "-c", obstacle])
        try:
            granted, refused = ask(node), ask(node, "bob")
        finally:
            node.run(["sh", "-c", "test ! -e /run/away || mv /run/away /run/sentinel"])
        assert (granted.returncode, granted.stderr) == (0, ""), obstacle
        assert (refused.returncode, refused.stderr) == (1, ""), obstacle
        node.run(["test", "!", "-e", "/tmp/victim"])
        assert not obstacle.startswith("truncate") or len(counted(node)) == 1 << 20


def random_policy(numbers: random.Random) -> tuple[Policy, dict[int, datetime]]:
    """Grants of two users around now; none begins or ends within the test's time."""
    moments = [hours * 3600 for hours in range(-3, 4) if hours] + [-60, 600]
    grants = []
    for number in range(numbers.randint(0, 6)):
        start, end = sorted(numbers.sample(moments, 2))
        keys = numbers.choice([[], KEYS[:1], KEYS])
        user = numbers.choice(["alice", "bob"])
        grants.append(grant(user, start, end, reservation=number + 1, keys=list(keys)))
    held_back = numbers.sample(range(1, 7), numbers.choice([0, 0, 1, 3]))
    opens = {number: from_now(numbers.choice(moments)) for number in held_back}
    expires_s = numbers.choice([7 * 24 * 3600, 7 * 24 * 3600, 4000, -100])
    return policy_of(*grants, expires_s=expires_s), opens


def test_both_gates_give_the_same_answer(node: Node) -> None:
    """The real programs, for many policies; the gate's whole seconds aside."""
    numbers = random.Random(20260301)
    count = 30
    for number in range(count):
        policy, opens = random_policy(numbers)
        node.write(f"/tmp/both/{number}/policy.json", encode(policy, opens).decode())
        content = encode_access(policy, opens, URL).decode()
        node.write(f"/tmp/both/{number}/access", content)
    write_access(node, "")
    node.write(
        "/tmp/both/run",
        f"""
        cd /tmp/both
        for number in $(seq 0 {count - 1}); do
            install -m 0640 -g sentinel-akc $number/policy.json /var/lib/sentinel/policy.json
            install -m 0600 $number/access {ACCESS}
            for user in alice bob carol; do
                keys=$(/usr/lib/sentinel/get-keys $user | wc -l)
                PAM_USER=$user PAM_TYPE=account /usr/lib/sentinel/pam-gate >/dev/null
                echo "$number $user $keys $?"
            done
        done
        """,
    )
    answers = node.run(["sh", "/tmp/both/run"]).stdout.splitlines()
    assert len(answers) == 3 * count
    seen = {True: 0, False: 0}
    for answer in answers:
        case, user, keys, status = answer.split()
        is_open = int(keys) > 0
        assert (status == "0") is is_open, (
            answer, (node.root / f"tmp/both/{case}/access").read_text(),
        )  # fmt: skip
        assert not (user == "carol" and is_open)
        seen[is_open] += 1
    assert min(seen.values()) > 10, seen
