"""A node that is installed and open, and what the tests of the lock do to it and ask of it."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sentinel_agent.lock.switch import State
from tests.agent.booking_server import make_policy
from tests.lab.node import SSHD_CONFIG, Node

DROP_IN = "/etc/ssh/sshd_config.d/00-sentinel.conf"
JOURNAL = "/var/lib/sentinel/lock-change.json"
# What a change of the lock may touch, and what it depends on.
FOLDERS = ("etc/ssh", "etc/pam.d", "etc/sentinel", "usr/lib/sentinel", "var/lib/sentinel")
ACCOUNTS = ("etc/passwd", "etc/group", "etc/shadow", "etc/gshadow")
# Calls lock/switch.py as the agent would, once for each line read, and prints the answers.
CALL = """\
import json, sys
from sentinel_agent.lock import switch
from sentinel_agent.config import load_config
from sentinel_agent.errors import LockError
config = load_config(None)
for name in sys.argv[1:] or sys.stdin:
    try:
        answer = {"answer": getattr(switch, name.strip())(config)}
    except LockError as error:
        answer = {"step": error.step, "reason": error.reason}
    print(json.dumps(answer), flush=True)
"""


@dataclass(frozen=True)
class Refused:
    """What LockError said."""

    step: str
    reason: str


@dataclass
class LockLab:
    """ops is break-glass and has keys of his own too; alice has only her own."""

    node: Node
    keys: dict[str, Path]
    _numbers: Iterator[int] = field(default_factory=itertools.count, kw_only=True)
    _caller: subprocess.Popen[str] | None = field(default=None, kw_only=True)

    def call(self, name: str) -> object:
        """Call a function of lock/switch.py in the node; return its answer, or Refused."""
        if self._caller is None:
            # One process for all calls: to start Python takes longer than to lock.
            self._caller = subprocess.Popen(
                self.node.argv([sys.executable, "-c", CALL]), text=True, cwd="/",
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
        assert self._caller.stdin is not None
        assert self._caller.stdout is not None
        self._caller.stdin.write(f"{name}\n")
        self._caller.stdin.flush()
        document = json.loads(self._caller.stdout.readline())
        if "step" in document:
            return Refused(document["step"], document["reason"])
        return document["answer"]

    def close(self) -> None:
        """End the process that makes the calls."""
        if self._caller is not None:
            self._caller.communicate()
            self._caller = None

    def state(self) -> State:
        """Say where the lock stands."""
        found = self.call("state")
        assert found in ("locked", "open", "partial")
        return found

    def is_let_in(self, user: str) -> bool:
        """Say whether the user gets in with the user's own key."""
        return self.node.ssh(user, self.keys[user], "true").returncode == 0

    def tree(self, *folders: str) -> dict[str, tuple[object, ...]]:
        """Return type, owner, mode and content of everything in these folders of the node."""
        found: dict[str, tuple[object, ...]] = {}
        for folder in folders:
            top = self.node.root / folder
            for path in (top, *top.rglob("*")) if top.is_dir() else (top,):
                with contextlib.suppress(FileNotFoundError):
                    found[str(path.relative_to(self.node.root))] = _identity(path)
        return found

    def site(self) -> dict[str, tuple[object, ...]]:
        """Return `tree` of what the lock changes; the state folder's lock file aside."""
        found = self.tree("etc/ssh", "etc/pam.d", "var/lib/sentinel")
        found.pop("var/lib/sentinel/lock-change.flock", None)
        return found

    @contextlib.contextmanager
    def planted(self, *commands: str) -> Iterator[None]:
        """Run shell commands in the node, and put everything back as it was afterwards."""
        # One in another has its own.
        saved = f"/run/saved-{next(self._numbers)}"
        keep = "; ".join(f"mkdir -p {saved}/{name}; cp -a /{name}/. {saved}/{name}/"
                         for name in FOLDERS)  # fmt: skip
        accounts = " ".join(f"/{name}" for name in ACCOUNTS)
        self.node.run(["sh", "-ec", f"{keep}; cp -a {accounts} {saved}/"])
        try:
            for command in commands:
                self.node.run(["sh", "-ec", command])
            yield
        finally:
            back = "; ".join(f"rsync -a --delete {saved}/{name}/ /{name}/" for name in FOLDERS)
            done = f"cp -a {saved}/[psg]* /etc/; rm -r {saved}"
            self.node.run(["sh", "-ec", f"{back}; {done}"])

    def start_sshd(self, config: str = SSHD_CONFIG) -> None:
        """Have the node's sshd run with this main configuration, started anew."""
        self.stop_sshd()
        self.node.start_sshd(config)

    def stop_sshd(self) -> None:
        """End every sshd of the node, also one that was started by the code under test."""
        self.node.run(["sh", "-c", "kill $(pidof sshd) 2>/dev/null; while pidof sshd "
                       ">/dev/null; do sleep 0.05; done"], check=False)  # fmt: skip
        if self.node.sshd is not None:
            self.node.sshd.wait(10)
            self.node.sshd = None
        log = self.node.folder / "sshd.log"
        log.unlink(missing_ok=True)


def _identity(path: Path) -> tuple[object, ...]:
    found = path.lstat()
    owner = (found.st_mode, found.st_uid, found.st_gid)
    if path.is_symlink():
        return (*owner, str(path.readlink()))
    if path.is_file():
        return (*owner, hashlib.sha256(path.read_bytes()).hexdigest())
    return owner


def make_lock_lab(node: Node) -> LockLab:
    """Return a node with everything but the lock itself, open as a careless site's."""
    node.install_gates()
    keys = {name: node.make_key(name) for name in ("alice", "ops")}
    for name, key in keys.items():
        node.add_user(name)
        node.run(["install", "-d", "-o", name, "-m", "0700", f"/home/{name}/.ssh"])
        public = key.with_suffix(".pub").read_text()
        node.write(f"/home/{name}/.ssh/authorized_keys", public, mode=0o600, owner=name)
    node.add_breakglass("ops", keys["ops"])
    node.write("/etc/sentinel/banner", "Book it.\n")
    node.write_policy(make_policy())
    node.start_sshd()
    return LockLab(node, keys)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LockLab]:
    with Node("gpu-01", tmp_path_factory.mktemp("lock")) as node:
        made = make_lock_lab(node)
        yield made
        made.close()


@pytest.fixture
def lab(shared: LockLab) -> Iterator[LockLab]:
    """The shared node, as it was before the test."""
    with shared.planted():
        yield shared
    if shared.node.sshd is None or shared.node.sshd.poll() is not None:
        shared.start_sshd()
    else:
        # Whatever the test left in the running sshd.
        shared.node.write("/etc/ssh/sshd_config", SSHD_CONFIG)
        shared.node.reload_sshd()


def assert_locked_and_given_back(lab: LockLab) -> None:
    """Nobody but the operators gets in, and then all files are as they were."""
    before = lab.site()
    assert lab.call("engage") == []
    assert not lab.is_let_in("alice")
    assert lab.is_let_in("ops")
    assert lab.call("release") is None
    assert lab.site() == before


def offered(lab: LockLab, user: str) -> str:
    """Return what sshd says to the user who has no key, the banner with it."""
    argv = lab.node.ssh_argv(user, None)
    # ssh shows a banner from this level on.
    argv[argv.index("LogLevel=ERROR")] = "LogLevel=INFO"
    done = subprocess.run([*argv, "true"], capture_output=True, text=True, check=False)
    assert done.returncode == 255
    return done.stderr
