"""Verifies everything that is installed on this node. It changes nothing that lasts.

It does what the agent does before and after it locks, so what it finds is what would happen.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .. import commands
from ..config import Config
from ..errors import AgentError, InstallError, StateError
from ..files import AGENT_LOCK, sole_agent
from ..lock import check_login, drop_in, pam, sshd, switch, verification
from ..lock.breakglass import find_operators
from ..lock.files import lock_text
from ..lock.sshd_listener import greets, is_systemd
from ..policy.cache import Cache
from ..policy.model import format_time
from ..server.client import BookingClient
from ..server.registration import load_registration
from ..sessions.plan import utc
from .install import verify_breakglass_sshd
from .plan import NODE_FILES, UNIT
from .record import Record, load_record
from .steps import MakeAccounts


@dataclass(frozen=True)
class Line:
    """One finding; `is_good` is None for what is only told."""

    subject: str
    text: str
    is_good: bool | None = True

    def __str__(self) -> str:
        word = {True: "ok  ", False: "FAIL", None: "note"}[self.is_good]
        return f"{word} {self.subject}: {self.text}"


def check_node(config: Config) -> Iterator[Line]:
    """Yield what is found, line by line. Raises InstallError for who is not root."""
    if os.geteuid() != 0:
        raise InstallError("only root can check a node")
    record, is_complete = None, False
    try:
        record, is_complete = load_record(config.state_dir)
    except StateError as error:
        yield Line("install", str(error), is_good=False)
    if record is None or not is_complete:
        yield Line("install", "not complete: run `sentinel-agent install`", is_good=False)
    else:
        yield Line("install", f"by version {record.agent_version}")
    for subject, look in (
        ("accounts", lambda: _accounts(config)),
        ("get-keys", lambda: _get_keys(config)),
        ("pam-gate", _pam_gate),
        ("sshd", _sshd),
    ):
        yield _tried(subject, look)
    yield from _break_glass(config, record or Record())
    yield from _server(config)
    yield from _policy(config)
    yield from _lock(config)
    yield from _agent(config)


def _tried(subject: str, look: Callable[[], str]) -> Line:
    """Return what `look` says, or why it failed."""
    try:
        return Line(subject, look())
    except AgentError as error:
        return Line(subject, str(error), is_good=False)


def _accounts(config: Config) -> str:
    step = MakeAccounts(
        config.cache_group, config.breakglass_group, NODE_FILES / "sysusers.conf"
    )
    if not step.is_done():
        raise InstallError(f"{config.cache_group} or {config.breakglass_group} is missing")
    return f"{config.cache_group}, {config.breakglass_group}"


def _get_keys(config: Config) -> str:
    text = lock_text(config, sshd.find_sshd())
    verification.check_get_keys(text.akc_user, text.command, ())
    return f"{drop_in.GET_KEYS} is safe and answers as {text.akc_user}"


def _pam_gate() -> str:
    verification.check_pam_gate()
    return f"{pam.PAM_GATE} is safe and refuses a stranger"


def _sshd() -> str:
    program = sshd.find_sshd()
    sshd.test_config(program)
    return f"OpenSSH {program.version_text}, its configuration is valid"


def _break_glass(config: Config, record: Record) -> Iterator[Line]:
    operators = find_operators(config.breakglass_group)
    for operator in operators:
        if not operator.problem:
            yield Line("break-glass", f"{operator.user} has a key")
        elif operator.is_expected:
            yield Line("break-glass", f"{operator.user}: {operator.problem}", is_good=False)
    if not record.breakglass_port:
        yield Line("break-glass sshd", "not installed", is_good=None)
        return

    def try_it() -> str:
        verify_breakglass_sshd(config, sshd.find_sshd())
        return "a login with its configuration works"

    yield _tried("break-glass sshd", try_it)
    port = record.breakglass_port
    usable = [operator for operator in operators if not operator.problem]
    if not greets("127.0.0.1", port):
        yield Line("break-glass sshd", f"no sshd answers on port {port}", is_good=False)
    elif usable:
        with check_login.check_key(sshd.find_sshd(), usable[0].user) as key:
            failure = check_login.login(usable[0].user, key, "127.0.0.1", port)
        text = failure or f"{usable[0].user} gets in on port {port}"
        yield Line("break-glass sshd", text, is_good=not failure)


def _server(config: Config) -> Iterator[Line]:
    try:
        known = load_registration(config.state_dir)
    except AgentError as error:
        yield Line("server", str(error), is_good=False)
        return
    server = config.server or known.server
    client = BookingClient(server, config.ca_file, known.token, client_cert=config.client_files)

    def ask() -> str:
        client.get_policy("", 0)
        return f"{server} knows this node as {known.node}"

    yield _tried("server", ask)
    client.close()


def _policy(config: Config) -> Iterator[Line]:
    try:
        policy = Cache(config.cache_file, config.cache_group).load()
    except AgentError as error:
        yield Line("policy", str(error), is_good=False)
        return
    if policy is None:
        yield Line("policy", "none yet: nobody could be let in", is_good=False)
        return
    ends = format_time(policy.expires_at)
    is_good = utc(time.time()) < policy.expires_at
    yield Line("policy", f"version {policy.version}, mode {policy.mode}, until {ends}", is_good)


def _lock(config: Config) -> Iterator[Line]:
    try:
        found = switch.state(config)
        if found == "locked":
            warnings, done = (
                switch.prove(config),
                "locked, and an operator gets in on the live port",
            )
        else:
            warnings, done = switch.rehearse(config), f"{found}; locking it would work"
    except AgentError as error:
        yield Line("lock", str(error), is_good=False)
        return
    yield Line("lock", done, is_good=found != "partial")
    for warning in warnings:
        yield Line("lock", warning, is_good=None)
    with contextlib.suppress(AgentError):
        policy = Cache(config.cache_file, config.cache_group).load()
        mode = policy.mode if policy is not None and config.enforce else "observe"
        wanted = "locked" if mode == "enforce" else "open"
        if found != wanted:
            yield Line("lock", f"{found}, and the mode in force is {mode}", is_good=False)


def _agent(config: Config) -> Iterator[Line]:
    if is_systemd():
        done = commands.run(["systemctl", "is-enabled", UNIT])
        yield Line("agent", f"{UNIT} is {done.output.strip() or done.reason}", not done.status)
    yield _tried("agent", lambda: _running(config))


def _running(config: Config) -> str:
    if not (config.state_dir / AGENT_LOCK).exists():
        raise InstallError("has never run here")
    with sole_agent(config.state_dir) as is_alone:
        if is_alone:
            raise InstallError("does not run: nobody's session is ended")
    return "runs"
