"""get-keys under a hostile cache, environment, time zone and caller."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_agent.gates import get_keys
from tests.agent.booking_server import make_grant, make_policy
from tests.agent.policies import KEYS
from tests.lab.node import GET_KEYS, Node, why_not
from tests.lab.wait import wait_for

CACHE = "/var/lib/sentinel/policy.json"
SOCKET = "/run/sentinel/logins.sock"
PROGRAM = "/usr/lib/sentinel/get-keys"


def put_cache(node: Node, content: bytes) -> None:
    """Replace the cache as the agent does: by a file that is ready."""
    path = node.root / CACHE[1:]
    ready = path.with_name(".ready")
    ready.write_bytes(content)
    os.chown(ready, 0, path.parent.stat().st_gid)
    ready.chmod(0o640)
    ready.replace(path)


def run(
    node: Node, *arguments: str | bytes, env: dict[str, str] | None = None
) -> tuple[int, str]:
    """Run the program as sshd does: its own user, little in the environment."""
    settings = [f"{name}={value}" for name, value in (env or {}).items()]
    command = node.argv(["env", "-i", *settings, PROGRAM], user="sentinel-akc")
    done = subprocess.run(
        [*map(os.fsencode, command), *map(os.fsencode, arguments)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, cwd="/",
    )  # fmt: skip
    return done.returncode, done.stdout


BOOKED = make_policy(make_grant("alice", KEYS[0]))
TEXT = json.dumps(BOOKED)
DAMAGED = {
    "invalid utf-8": TEXT.encode().replace(b"gpu-01", b"gpu-\xff"),
    "utf-16": TEXT.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + TEXT.encode(),
    "two documents": (TEXT + TEXT).encode(),
    "something behind": (TEXT + "\0").encode(),
    "grants twice": TEXT.replace('"version"', '"grants": [], "version"').encode(),
    "expiry twice": TEXT.replace('"version"', '"expires_at": "2020-01-01T00:00:00Z", "version"')
    .encode(),
    "a grant's user twice": TEXT.replace('"user":', '"user": "bob", "user":').encode(),
    "not a number": TEXT.replace('"version": 1', '"version": NaN').encode(),
    "infinity": TEXT.replace('"version": 1', '"version": -Infinity').encode(),
    "nested lists": b"[" * 5_000_000,
    "nested objects": b'{"a":' * 2_000_000,
    "nested in a field": TEXT.replace('"version": 1', '"version": ' + "[" * 10**6 + "]" * 10**6)
    .encode(),
    "a text without end": TEXT.encode() + b'"' + b"x" * 10**7,
    "a key with a lone surrogate": TEXT.replace("AAAAalice", r"AAAA\ud800").encode(),
    "a key with an escaped line end": TEXT.replace("AAAAalice", r"AA\nssh-ed25519 BB").encode(),
    "a control character": TEXT.replace("AAAAalice", "AAAA\nssh-ed25519 BBBB").encode(),
    "comments": ("// x\n" + TEXT).encode(),
    "single quotes": TEXT.replace('"', "'").encode(),
}  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_cache_denies_in_time(node: Node, content: bytes) -> None:
    put_cache(node, TEXT.encode())
    assert run(node, "alice")[0] == 0
    put_cache(node, content)
    # Not by SIGALRM, which would hold sshd up for as long as it may.
    assert run(node, "alice") == (1, "")


ODD_AND_HARMLESS = {
    "a number of a million digits": TEXT.replace('"version": 1', '"version": ' + "9" * 10**6),
    "a lone surrogate elsewhere": TEXT.replace("gpu-01", r"\ud800"),
    "a nul elsewhere": TEXT.replace("gpu-01", r"\u0000"),
    "another's odd grant": TEXT.replace('"grants": [', '"grants": [{"user": "bob"}, '),
    "white space around": f"\n\t {TEXT}\r\n ",
    "names in escapes": TEXT.replace('"user"', r'"\u0075ser"'),
}


@pytest.mark.parametrize("text", ODD_AND_HARMLESS.values(), ids=ODD_AND_HARMLESS)
def test_what_is_odd_and_not_the_users_denies_nobody_else(node: Node, text: str) -> None:
    put_cache(node, text.encode())
    status, lines = run(node, "alice")
    assert (status, lines.count("\n")) == (0, 1)
    assert lines.endswith(f" {KEYS[0]}\n")


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.text(), lambda inner: st.lists(inner)
    | st.dictionaries(st.text(), inner), max_leaves=10,
)  # fmt: skip


@given(ANY_JSON, st.booleans())
def test_json_is_read_as_json_says(value: object, is_ascii: bool) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii)
    assert get_keys.parse_json(f" {text}\n") == value


JSON_CHARACTERS = st.text('{}[]",:\\u0e+-.1ntrsfal \n\x00')


@given(JSON_CHARACTERS)
def test_both_readers_of_json_agree(text: str) -> None:
    answers = []
    for blocked in ({}, {"_json": None}):
        with mock.patch.dict(sys.modules, blocked):
            try:
                answers.append(get_keys.parse_json(text))
            except (ValueError, StopIteration):
                answers.append("refused")
    assert answers[0] == answers[1]


def test_a_python_without_the_fast_reader_gives_the_same_answer(node: Node) -> None:
    put_cache(node, TEXT.encode())
    # The real `signal` needs `_signal` itself.
    script = f"""
import runpy, sys, types
signal = types.SimpleNamespace(alarm=lambda seconds: None)
sys.modules.update(_json=None, _signal=None, signal=signal)
sys.argv = ["get-keys", "alice"]
runpy.run_path({PROGRAM!r}, run_name="__main__")
"""
    done = node.run(["/usr/bin/python3", "-IS", "-c", script], user="sentinel-akc", check=False)
    assert done.stdout == run(node, "alice")[1] != ""


def test_whole_answers_while_the_cache_is_replaced(node: Node) -> None:
    one = json.dumps(make_policy(make_grant("alice", KEYS[0]))).encode()
    two = json.dumps(make_policy(make_grant("alice", KEYS[1]), node="x" * 5000)).encode()
    is_over = threading.Event()

    def replace() -> None:
        while not is_over.is_set():
            put_cache(node, one)
            put_cache(node, two)

    put_cache(node, one)
    writer = threading.Thread(target=replace)
    writer.start()
    try:
        answers = [run(node, "alice") for _ in range(30)]
    finally:
        is_over.set()
        writer.join()
    seen = {lines.split(" ", 1)[1] for status, lines in answers if status == 0}
    assert len([status for status, _ in answers if status == 0]) == len(answers)
    assert seen == {f"{key}\n" for key in KEYS}


def test_two_thousand_grants_are_read_in_time(node: Node) -> None:
    devices = [
        {"vendor": "ascend", "uuid": f"npu-0000:C{card}:00.0", "index": card, "minor": card}
        for card in range(8)
    ]
    keys = [f"ssh-rsa {'A' * 372}{number}" for number in range(2)]
    others = [make_grant(f"user{n}", *keys, devices=devices) for n in range(2000)]
    policy = make_policy(*others, make_grant("alice", KEYS[0]))
    put_cache(node, json.dumps(policy).encode())
    status, lines = run(node, "alice")
    assert (status, lines.count("\n")) == (0, 1)


def test_the_callers_environment_changes_nothing(node: Node) -> None:
    put_cache(node, TEXT.encode())
    usual = run(node, "alice")
    for module in ("os", "pwd", "json", "_json", "syslog", "encodings", "sitecustomize"):
        node.write(f"/tmp/evil/{module}.py", "print('ssh-ed25519 EVIL')\n")
    node.write("/usr/lib/sentinel/pwd.py", "print('ssh-ed25519 EVIL')\n")
    odd = {
        "PYTHONPATH": "/tmp/evil", "PYTHONHOME": "/tmp/evil", "PYTHONINSPECT": "1",
        "PYTHONSTARTUP": "/tmp/evil/os.py", "PYTHONIOENCODING": "utf-16", "PYTHONUTF8": "0",
        "PYTHONWARNINGS": "error", "PYTHONDEVMODE": "1", "PYTHONVERBOSE": "1",
        "LC_ALL": "xx_XX.broken", "LANG": "zh_CN.GB18030", "TZ": ":/dev/zero",
        "HOME": "/tmp/evil", "PATH": "/tmp/evil",
    }  # fmt: skip
    try:
        assert run(node, "alice", env=odd) == usual
    finally:
        node.run(["rm", "/usr/lib/sentinel/pwd.py"])


@pytest.mark.parametrize(
    "arguments",
    [["--local-expiry"], ["alice", "--local-expiry"], ["--local-expiry", "alice", "alice"],
     ["--local-expiry", "--local-expiry"], ["--local", "alice"], ["--help"], [b"\xff\xfe"],
     [b"alice\xff"], ["a" * 100_000], ["ａｌｉｃｅ"], ["alice\n"], ["0"], [" alice"],
     ["--", "alice"], ["--local-expiry=1", "alice"], ["--check"], ["--check", "--check"],
     ["--local-expiry", "--check", "alice"], ["--check", "--check", "alice"],
     ["--check", "alice", "alice"], ["--local-expiry", "--check"]],
    ids=lambda arguments: ascii(arguments)[:40],
)  # fmt: skip
def test_odd_arguments_are_denied(node: Node, arguments: list[str | bytes]) -> None:
    put_cache(node, TEXT.encode())
    assert run(node, *arguments) == (1, "")


def listen(node: Node) -> socket.socket:
    """Be the agent: get-keys may write to the socket."""
    path = node.root / SOCKET[1:]
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.setblocking(False)
    listener.bind(str(path))
    os.chown(path, 0, (node.root / "var/lib/sentinel").stat().st_gid)
    path.chmod(0o620)
    return listener


def test_a_refusal_is_reported_and_an_answer_is_not(node: Node) -> None:
    node.run(["useradd", "bob"])
    put_cache(node, TEXT.encode())
    with listen(node) as agent:
        assert run(node, "alice")[1] != ""
        assert run(node, "bob") == (0, "")
        assert run(node, "../x") == (1, "")
        assert agent.recv(100) == b"refused bob"
        assert agent.recv(100) == b"refused -"
        with pytest.raises(BlockingIOError):
            agent.recv(100)


def test_a_check_has_the_same_answer_and_leaves_no_trace(node: Node) -> None:
    """It is asked about people who have not tried to log in."""
    for user in ("carol", "dave"):
        node.run(["useradd", user])
    put_cache(node, TEXT.encode())
    with listen(node) as agent:
        for options in ([], ["--local-expiry"]):
            assert run(node, "--check", *options, "alice") == run(node, *options, "alice")
            assert run(node, "--check", *options, "carol") == (0, "")
            assert run(node, "--check", *options, "../x") == (1, "")
        with pytest.raises(BlockingIOError):
            agent.recv(100)
        # What came before it is in the log when this is.
        assert run(node, "dave") == (0, "")
        wait_for("it is logged", lambda: "user='dave'" in node.syslog())
        assert agent.recv(100) == b"refused dave"
    assert "user='carol'" not in node.syslog()


def test_an_agent_that_does_not_listen_holds_nothing_up(node: Node) -> None:
    put_cache(node, TEXT.encode())
    with listen(node) as agent:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            with pytest.raises(BlockingIOError):
                while True:
                    sender.sendto(b"x", str(node.root / SOCKET[1:]))
        # Its queue is full. By SIGALRM it would be -14.
        assert run(node, "nobody-here") == (0, "")
        assert agent.recv(100) == b"x"
    for obstacle in ("true", f"rm {SOCKET}", f"mkfifo -m 666 {SOCKET}", "rm -r /run/sentinel"):
        node.run(["sh", "-c", obstacle])
        assert run(node, "nobody-here") == (0, ""), obstacle


# OpenSSH before 9.1: expiry-time in local time.

ZONES = ("UTC", "Asia/Shanghai", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe",
         "America/Santiago", "Europe/Dublin", "Africa/Casablanca", "Asia/Kathmandu",
         "Pacific/Apia", "Pacific/Kiritimati")  # fmt: skip


def moments(zone: ZoneInfo) -> list[int]:
    """Return times in 2026: some of each season, and many about the changes of the clock."""
    hour = timedelta(hours=1)
    first = datetime(2026, 1, 1, tzinfo=UTC)
    found = [first + month * 30 * 24 * hour + timedelta(seconds=59) for month in range(12)]
    offsets = [(first + n * hour).astimezone(zone).utcoffset() for n in range(365 * 24)]
    for number in range(1, len(offsets)):
        if offsets[number] != offsets[number - 1]:
            change = first + number * hour
            found += [
                change + minutes * timedelta(minutes=1) for minutes in range(-125, 130, 15)
            ]
            found += [change - timedelta(seconds=1), change + timedelta(seconds=1)]
    return [int(moment.timestamp()) for moment in found]


@pytest.mark.parametrize("name", ZONES)
def test_sshd_reads_local_expiry_as_the_true_end(name: str, tmp_path: Path) -> None:
    """ssh-keygen -V reads its times with the same function as sshd (parse_absolute_time)."""
    ends = moments(ZoneInfo(name))
    script = (
        "import runpy, sys, time; local_expiry = runpy.run_path(sys.argv[1])['local_expiry'];"
        "show = lambda end: time.strftime('%Y%m%d%H%M%S.0', time.gmtime(int(end)));"
        "[print(local_expiry(show(end))) for end in sys.argv[2:]]"
    )
    shown = subprocess.run(
        ["/usr/bin/python3", "-IS", "-c", script, str(GET_KEYS), *map(str, ends)],
        env={"TZ": name}, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    for end, text in zip(ends, shown, strict=True):
        subprocess.run(
            ["ssh-keygen", "-q", "-s", key, "-I", "x", "-V", f"20200101:{text}",
             key.with_suffix(".pub")], env={"TZ": name}, check=True,
        )  # fmt: skip
        listed = subprocess.run(
            ["ssh-keygen", "-L", "-f", tmp_path / "key-cert.pub"],
            env={"TZ": "UTC"}, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        until = re.search(r"Valid: from \S+ to (\S+)", listed)
        assert until
        read = datetime.fromisoformat(until[1]).replace(tzinfo=UTC).timestamp()
        assert read == end, (name, text, end - read)


def test_a_real_sshd_takes_local_expiry_in_summer_time(tmp_path: Path) -> None:
    """An hour too early, sshd would refuse Alice in the last hour of her reservation."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    now = datetime.now(UTC)
    summer = next(name for name in ("Europe/Berlin", "Australia/Sydney", "America/Santiago")
                  if now.astimezone(ZoneInfo(name)).dst())  # fmt: skip
    with Node("gpu-01", tmp_path) as node:
        key = node.make_key("alice")
        node.add_user("alice")
        node.install_lock()
        drop_in = node.root / "etc/ssh/sshd_config.d/00-sentinel.conf"
        text = drop_in.read_text()
        assert f"{PROGRAM} %u" in text
        drop_in.write_text(text.replace(f"{PROGRAM} %u", f"{PROGRAM} --local-expiry %u"))
        node.run(["ln", "-sf", f"/usr/share/zoneinfo/{summer}", "/etc/localtime"])
        node.write_policy(make_policy(make_grant("alice", key, end_s=1800)))
        node.start_sshd()
        line = run(node, "--local-expiry", "alice")[1]
        assert re.search(r'expiry-time="\d{14}",', line)
        assert node.ssh("alice", key, "date +%Z").stdout.strip() not in ("", "UTC")
