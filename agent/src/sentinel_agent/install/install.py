"""Installs the lock on a node: looks, plans, does, verifies, registers, and locks if asked to.

Nothing of sshd is changed before a break-glass login has worked, and the invite code is spent
after everything that can fail without it. What each step does is in the modules it calls.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace

from .. import __version__
from ..config import DEFAULT_PATH, Config, load_config
from ..errors import ConfigError, InstallError, LockError, NotRegistered, ServerError
from ..files import sole_agent
from ..lock import check_login, sshd, switch
from ..lock.breakglass import find_operators
from ..lock.sshd import Sshd
from ..policy.access import Access
from ..policy.cache import Cache
from ..policy.held import HeldPolicy
from ..policy.model import Policy, decode
from ..server.client import BookingClient
from ..server.enrolment import register
from ..server.registration import Registration, load_registration
from . import breakglass_sshd
from .plan import Options, plan_files, start_agent, start_breakglass
from .preflight import Finding, look_at_node
from .record import Made, Record, load_record, store_complete, store_progress
from .steps import StartUnit, Step

# Prints one line to whoever runs the command.
Say = Callable[[str], None]
# Returns the invite code; asked for only when it is about to be spent, or in a dry run never.
ReadCode = Callable[[], str]


def install(options: Options, read_code: ReadCode, say: Say, *, is_dry: bool = False) -> None:
    """Install the node, or print what would be done. Raises AgentError.

    An installation that failed or was cut off is repeated by the same command.
    """
    if os.geteuid() != 0:
        raise InstallError("only root can install a node")
    config = _configuration(options)
    # As it is compared and stored: without a slash at its end.
    options = replace(options, server=config.server)
    program = sshd.find_sshd()
    record, _ = load_record(config.state_dir)
    known, missing = None, []
    try:
        known = _registered(config, options)
        if known is None and not is_dry:
            read_code()
    except (InstallError, ConfigError) as error:
        missing.append(Finding(str(error)))
    _look(options, config, program, missing, say)
    steps = plan_files(options, config, program, record or Record())
    starts = [start_breakglass()] if options.breakglass_port else []
    if is_dry:
        for step in (*steps, *starts):
            say(f"{_known(step) if step.is_done() else 'would'} {step.describe()}")
        for text in _later(known, options):
            say(f"would {text}")
        say(f"{_known(start_agent())} {start_agent().describe()}")
        return
    installer = _Installer(config, record or Record(), options, say)
    for step in (*steps, *starts):
        installer.do(step)
    config = load_config(DEFAULT_PATH)
    _verify(config, program, options, say)
    if known is None:
        known = _register(options, read_code)
        say(f"done  register with {known.server} as {known.node}")
    else:
        say(f"have  registered with {known.server} as {known.node}")
    policy = _fetch_policy(config, known, say)
    for warning in switch.rehearse(config, is_in_force=policy is not None):
        say(f"note  {warning}")
    say("done  rehearse the lock on copies of sshd's and PAM's files")
    installer.complete()
    is_locking = policy is not None and policy.mode == "enforce" and config.enforce
    failure = _lock(config, say) if is_locking else None
    installer.do(start_agent())
    # That the unit was enabled belongs to the record too, which is unfinished until it is in.
    installer.complete()
    if failure is not None:
        raise InstallError(f"installed, but not locked; the agent goes on trying. {failure}")
    if not is_locking:
        say("note  the node's mode is observe: sshd is as it was; booking switches to enforce")


class _Installer:
    """Does steps and remembers what they make."""

    def __init__(self, config: Config, record: Record, options: Options, say: Say) -> None:
        self._state_dir = config.state_dir
        self._say = say
        self._record = Record(__version__, options.breakglass_port, record.made)
        if not self._state_dir.exists():
            # It holds the record, so it comes before everything that is recorded; its group and
            # mode are a step like others.
            self._state_dir.mkdir(mode=0o700, parents=True)
            self._remember(Made(kind="folder", name=str(self._state_dir)))

    def do(self, step: Step) -> None:
        """Do one step, if it is not done. Raises InstallError, StateError."""
        if step.is_done():
            self._say(f"{_known(step)} {step.describe()}")
            return
        try:
            step.do(self._remember)
        except OSError as error:
            raise InstallError(f"{step.describe()}: {error}") from error
        self._say(f"done  {step.describe()}")

    def complete(self) -> None:
        """Remember that all is made. Raises StateError."""
        store_complete(self._state_dir, self._record)

    def _remember(self, made: Made) -> None:
        self._record = self._record.with_made(made)
        store_progress(self._state_dir, self._record)


def _configuration(options: Options) -> Config:
    """Return the settings that will be in force. Raises ConfigError."""
    # One that is not there is for preflight.py to find, together with all else.
    is_there = options.ca_file is not None and options.ca_file.is_file()
    given = {"server": options.server, "address": options.address,
             "ca_file": options.ca_file if is_there else None}  # fmt: skip
    path = DEFAULT_PATH if DEFAULT_PATH.exists() else None
    if path is not None:
        there = load_config(path)
        if there.server and there.server != options.server.rstrip("/"):
            raise InstallError(f"{path} names another server: {there.server}")
    return load_config(path, **{name: value for name, value in given.items() if value})


def _registered(config: Config, options: Options) -> Registration | None:
    """Return the registration that an installation before this one has left."""
    try:
        known = load_registration(config.state_dir)
    except NotRegistered:
        return None
    if known.server != options.server:
        raise InstallError(
            f"the node is registered with {known.server}; `sentinel-agent uninstall` first"
        )
    return known


def _register(options: Options, read_code: ReadCode) -> Registration:
    """Spend the code. Raises AgentError."""
    try:
        return register(_configuration(options), read_code())
    except ServerError as error:
        if not error.is_permanent:
            raise InstallError(f"not registered, repeat the same command: {error}") from error
        raise InstallError(
            f"not registered: {error}. Make a new invite code on the node's page in booking, "
            "and repeat the same command with it: all before this is done"
        ) from error


def _look(
    options: Options, config: Config, program: Sshd, more: Sequence[Finding], say: Say
) -> None:
    """Say what is found. Raises InstallError when something has to be put right first."""
    found = [*more, *look_at_node(options, config, program)]
    say(f"have  OpenSSH {program.version_text}, {program.binary}")
    for finding in found:
        say(f"{'STOP ' if finding.stops else 'note '} {finding.text}")
    if any(finding.stops for finding in found):
        raise InstallError("nothing was changed; put right what is marked STOP, and repeat")


def _known(step: Step) -> str:
    """Return the word for a step that there is nothing to do for."""
    if isinstance(step, StartUnit):
        return "note " if step.is_done() else "would"
    return "have "


def _later(known: Registration | None, options: Options) -> list[str]:
    return [
        "log in as a break-glass account through an sshd on loopback, and stop if that fails",
        "rehearse the lock on copies of sshd's and PAM's files",
        f"spend the invite code at {options.server}" if known is None
        else f"stay registered as {known.node}",
        "lock sshd if the node's mode is enforce already: write the drop-in and PAM's block, "
        "reload sshd, log in as a break-glass account, put all back if anything fails",
    ]  # fmt: skip


def _verify(config: Config, program: Sshd, options: Options, say: Say) -> None:
    """Make sure that an operator gets in, before anything depends on it. Raises LockError."""
    for warning in switch.rehearse(config):
        say(f"note  {warning}")
    say("done  log in as a break-glass account through an sshd on loopback")
    if options.breakglass_port:
        verify_breakglass_sshd(config, program)
        say("done  the same with the break-glass sshd's configuration")


def verify_breakglass_sshd(config: Config, program: Sshd) -> None:
    """Log in with the break-glass sshd's configuration. Raises LockError.

    It is run for this one login, so that it is known to work before it is started.
    """
    # By its own name: from that, older ones choose PAM's service.
    own = Sshd(breakglass_sshd.PROGRAM, program.version, breakglass_sshd.CONFIG)
    sshd.test_config(own)
    failures = []
    usable = [found for found in find_operators(config.breakglass_group) if not found.problem]
    for operator in usable:
        with check_login.check_key(program, operator.user) as key:
            failure = check_login.login_through_own_sshd(own, operator.user, key)
        if not failure:
            return
        failures.append(f"{operator.user}: {failure}")
    raise LockError("break-glass sshd", "; ".join(failures) or "no account has a usable key")


def _fetch_policy(config: Config, known: Registration, say: Say) -> Policy | None:
    """Fetch the policy and put it where the gates read it; None where that must wait.

    Raises StateError.
    """
    client = BookingClient(
        known.server, config.ca_file, known.token, client_cert=config.client_files
    )
    try:
        policy, problems = decode(client.get_policy("", 0).document)
    except ServerError as error:
        say(f"note  no policy yet, the agent will fetch it: {error}")
        return None
    finally:
        client.close()
    for problem in problems:
        say(f"note  policy: {problem}")
    # A running agent has its own policy.
    with sole_agent(config.state_dir) as is_away:
        if is_away:
            access = Access(config.cache_file.with_name("access"), known.server)
            held = HeldPolicy(Cache(config.cache_file, config.cache_group), access, known)
            held.replace(policy)
    say(f"done  fetch the policy, version {policy.version}, mode {policy.mode}")
    return policy


def _lock(config: Config, say: Say) -> LockError | None:
    try:
        switch.engage(config)
    except LockError as error:
        return error
    say("done  lock sshd, and log in as a break-glass account on the live port")
    return None
