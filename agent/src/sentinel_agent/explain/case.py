"""One user on this node at one time, for `explain`: each fact is found out when asked for.

It changes nothing and judges nothing.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path

import requests

from ..accounts import Accounts
from ..config import Config
from ..errors import AgentError, StateError
from ..files import AGENT_LOCK
from ..gates.get_keys import MIN_UID
from ..lock import sshd
from ..lock.breakglass import FOLDER, NO_SHELLS
from ..lock.drop_in import BREAKGLASS_KEYS, GET_KEYS
from ..lock.files import PAM_FILE, read_text
from ..lock.pam import BEGIN
from ..lock.sshd import Sshd
from ..names import NameService
from ..policy.cache import Cache
from ..policy.model import Grant, Policy
from ..server.registration import Registration, load_registration
from ..sessions.granted import GrantedUsers
from ..sessions.plan import grants_at, utc

ASK_TIMEOUT_S = 3.0
# A directory that is slow is asked for longer than the agent could wait.
NAMES_WAIT_S = 10.0
# Whatever a name service may take for one, but nothing that `sshd -C` would read otherwise.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,254}")
# systemd takes sshd's folder away with sshd, which says nothing without it. This gives it one,
# for its own process alone, beside all else that is in /run.
SHOW_FOLDER = (
    "unshare", "--mount", "--", "sh", "-c",
    "mount --rbind /run /mnt && mount -t tmpfs -o mode=0755 tmpfs /run && ln -s /mnt/* /run/"
    f' && mkdir -m 0755 {sshd.PRIVSEP_FOLDER} && exec "$@"', "sh",
)  # fmt: skip
SERIES = re.compile(r"sentinel_agent_(\w+) ([-+.\de]+)")


@dataclass(frozen=True)
class ServerSays:
    """Whether the booking server answers; `ahead_s`: its clock less this node's, ±1 s."""

    problem: str
    ahead_s: float | None = None


class Case:
    """The user, the node and the moment. What cannot be found out raises AgentError."""

    def __init__(self, config: Config, user: str, now: datetime) -> None:
        self.config = config
        self.user = user
        self.now = now
        self.names = NameService(NAMES_WAIT_S)
        self.accounts = Accounts(
            min_uid=config.min_uid,
            breakglass_group=config.breakglass_group,
            ignored_users=config.ignored_users,
            names=self.names,
        )

    @cached_property
    def registration(self) -> Registration:
        """What the node was registered as."""
        return load_registration(self.config.state_dir)

    @property
    def booking_url(self) -> str:
        """Where to book; empty when that is not known."""
        with contextlib.suppress(AgentError):
            return self.config.server or self.registration.server
        return self.config.server

    @cached_property
    def account(self) -> pwd.struct_passwd | None:
        """The Unix account, None when there is none, or the name service is hanging."""
        if not NAME.fullmatch(self.user) or self.accounts.uid_of(self.user) is None:
            return None
        try:
            return pwd.getpwnam(self.user)
        except KeyError:  # it was deleted just now
            return None

    @cached_property
    def exemption(self) -> str | None:
        """Why the lock ends nothing of the user's, None when it may."""
        if self.account is None:
            return None
        return self.accounts.exemption(self.user, self.account.pw_uid)

    @property
    def is_breakglass(self) -> bool:
        """Say whether the lock never refuses this user."""
        if self.user == "root":
            return True
        if self.account is None:  # the name service hangs, say: the key's file tells
            return bool(NAME.fullmatch(self.user)) and (FOLDER / self.user).exists()
        return (self.exemption or "").startswith("member of ")

    @property
    def has_shell(self) -> bool:
        """Say whether the account's shell is one that lets somebody in."""
        shell = self.shell
        return Path(shell).name not in NO_SHELLS and os.access(shell, os.X_OK)

    @property
    def shell(self) -> str:
        """The account's shell: passwd(5) has it that none means this one."""
        return (self.account.pw_shell if self.account else "") or "/bin/sh"

    @cached_property
    def program(self) -> Sshd:
        """The system's sshd."""
        return sshd.find_sshd()

    @cached_property
    def settings(self) -> Mapping[str, tuple[str, ...]]:
        """What sshd itself says it would do for this user, also while none runs."""
        prefix = () if sshd.PRIVSEP_FOLDER.exists() else SHOW_FOLDER
        return sshd.effective(self.program, self.user, prefix)

    def setting(self, keyword: str) -> str:
        """Return what sshd says for one keyword, empty where it says nothing."""
        try:
            return " ".join(self.settings.get(keyword, ()))
        except AgentError:
            return ""

    @property
    def door(self) -> str:
        """Which way in sshd has for this user: `get-keys`, `break-glass`, or the `site`'s.

        `unknown` where sshd cannot be asked.
        """
        command = self.setting("authorizedkeyscommand")
        if not command:
            return "unknown"
        if command.split(" ")[0] == GET_KEYS:
            return "get-keys"
        files = self.setting("authorizedkeysfile").split(" ")
        return "break-glass" if command == "none" and files[0] == BREAKGLASS_KEYS else "site"

    @property
    def is_pam_gate_asked(self) -> bool:
        """Say whether PAM's block is there, and does not pass this user by."""
        block = BEGIN in read_text(PAM_FILE)
        is_system = self.account is not None and self.account.pw_uid < MIN_UID
        return block and not is_system and self.exemption is None

    @property
    def is_enforcing(self) -> bool:
        """Say whether the mode in force is `enforce`."""
        policy = self.policy
        return policy is not None and policy.mode == "enforce" and self.config.enforce

    @cached_property
    def held(self) -> tuple[Policy, Mapping[int, datetime]] | None:
        """The policy in the cache, and until when grants in it are held back."""
        return Cache(self.config.cache_file, self.config.cache_group).load_held()

    @property
    def policy(self) -> Policy | None:
        """The policy in the cache; None when there is none, or it is damaged."""
        with contextlib.suppress(AgentError):
            return self.held[0] if self.held else None
        return None

    @property
    def grants(self) -> list[Grant]:
        """The user's grants, the earliest first."""
        found = self.policy.grants if self.policy else ()
        mine = [grant for grant in found if grant.user == self.user]
        return sorted(mine, key=lambda grant: (grant.not_before, grant.not_after))

    @property
    def running(self) -> list[Grant]:
        """The user's grants that have begun, whether held back or not."""
        now = grants_at(self.policy, self.now) if self.policy else []
        return [grant for grant in self.grants if grant in now]

    @property
    def opened(self) -> list[Grant]:
        """Those of the running ones that are not held back."""
        return [grant for grant in self.running if self.opens(grant) <= self.now]

    def opens(self, grant: Grant) -> datetime:
        """Return when the gates open the grant."""
        held_back = self.held[1] if self.held else {}
        return max(grant.not_before, held_back.get(grant.reservation, grant.not_before))

    @cached_property
    def granted(self) -> GrantedUsers:
        """Who held a reservation here at some time."""
        granted = GrantedUsers(self.config.state_dir)
        with contextlib.suppress(StateError):
            granted.load()
        return granted

    @cached_property
    def is_agent_running(self) -> bool:
        """Say whether a process holds the node's agent lock, without trying to take it.

        proc_locks(5) names the process; what it says of the file is not what stat(2) says on
        every file system.
        """
        file = self.config.state_dir / AGENT_LOCK
        with contextlib.suppress(OSError, ValueError):
            locks = Path("/proc/locks").read_text(encoding="ascii").splitlines()
            pids = {line.split()[4] for line in locks if line.split()[1:2] == ["FLOCK"]}
            return any(_has_open(pid, file) for pid in pids)
        return False

    @cached_property
    def agent_says(self) -> Mapping[str, float]:
        """The running agent's own series by name; none when it does not serve them."""
        host, _, port = self.config.metrics_listen.rpartition(":")
        if not port:
            return {}
        address = host if host.strip("[]") not in ("0.0.0.0", "::", "") else "127.0.0.1"  # noqa: S104
        try:
            answer = _session().get(f"http://{address}:{port}/metrics", timeout=ASK_TIMEOUT_S)
        except (requests.RequestException, OSError):
            return {}
        found = (SERIES.fullmatch(line) for line in answer.text.splitlines())
        return {match[1]: float(match[2]) for match in found if match}

    @cached_property
    def server_says(self) -> ServerSays:
        """Ask the booking server whether it is there, and what time it is."""
        if not self.booking_url:
            return ServerSays("not known")
        session = _session()
        session.verify = str(self.config.ca_file) if self.config.ca_file else True
        if self.config.client_files:
            session.cert = tuple(str(path) for path in self.config.client_files)  # type: ignore[assignment]
        asked = time.time()
        try:
            answer = session.get(
                f"{self.booking_url}/healthz", timeout=ASK_TIMEOUT_S, allow_redirects=False,
                stream=True,
            )  # fmt: skip
        except (requests.RequestException, OSError) as error:
            return ServerSays(f"does not answer: {type(error).__name__}")
        middle = utc((asked + time.time()) / 2)
        try:
            # Its seconds are cut off.
            said = parsedate_to_datetime(answer.headers["Date"]) + timedelta(seconds=0.5)
        except (KeyError, ValueError):
            return ServerSays("")
        return ServerSays("", (said - middle).total_seconds())


def _has_open(pid: str, file: Path) -> bool:
    try:
        return any(one.samefile(file) for one in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:  # it ended just now
        return False


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    return session
