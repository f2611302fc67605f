"""Locks sshd and PAM, and opens them again, so that a failure at any step changes nothing.

It decides nothing: whoever calls it knows which of the two the node's mode asks for. All but
`state` and `drift` needs root.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from ..config import Config
from ..errors import AgentError, LockError, StateError
from . import check_login, sshd, sshd_listener, verification
from .change import Change
from .files import find_drift, locked_files, open_files
from .scene import Scene, find_listener, locked_copies, look

log = logging.getLogger(__name__)

State = Literal["locked", "open", "partial"]

# Somebody else is at it: an engage takes a few seconds.
BUSY_WAIT_S = 60.0
# sshd may have closed its sockets when we come, and not opened them again.
LOGIN_PAUSES_S = (0.2, 1.0)


def state(config: Config) -> State:
    """Say where the files of the lock stand; runs nothing but `sshd -V`, once.

    `locked`: the drop-in is there as it should be and sshd reads it first, and PAM's block is
    there. `open`: nothing of the lock is there. `partial`: anything between, also a change that
    was cut off. Raises LockError where there is no sshd.
    """
    if _change_of(config).is_pending():
        return "partial"
    if not find_drift(config):
        return "locked"
    return "partial" if open_files(config) else "open"


def drift(config: Config) -> list[str]:
    """Say in words what keeps the node from being `locked`; empty when it is.

    Raises LockError where there is no sshd.
    """
    return find_drift(config)


def engage(config: Config) -> list[str]:
    """Lock, in the order of docs/architecture.md; does nothing where all is locked.

    Returns warnings. Raises LockError, and then all is as it was before.
    """
    with _alone(config):
        _recover(config)
        if state(config) == "locked":
            return []
        scene = look(config)
        with locked_copies(scene) as prefix:
            warnings = _verify(scene, prefix, is_in_force=True)
        _change(
            scene,
            locked_files(config, scene.text),
            lambda: verification.check_settings(
                scene.program, scene.text, scene.usable, scene.users
            ),
            lambda: _prove_locked(scene),
        )
        log.info("sshd is locked warnings=%d", len(warnings))
        return warnings


def release(config: Config) -> None:
    """Take the lock away; does nothing where all is open.

    Raises LockError, and then all is as it was before.
    """
    with _alone(config):
        _recover(config)
        if state(config) == "open":
            return
        _change(look(config), open_files(config), lambda: None, lambda: None)
        log.info("sshd is open")


def rehearse(config: Config, *, is_in_force: bool = False) -> list[str]:
    """Verify that `engage` would work, and touch nothing that is in use.

    sshd runs on copies of the files, on loopback. `is_in_force` asks in addition that the
    gates have a policy to read. Returns warnings, raises LockError.
    """
    with _alone(config):
        scene = look(config)
        with locked_copies(scene) as prefix:
            return _verify(scene, prefix, is_in_force=is_in_force)


def prove(config: Config) -> list[str]:
    """Verify a lock that is engaged: by sshd's words, and by a login on the live port.

    Returns warnings. Raises LockError.
    """
    with _alone(config):
        scene = look(config)
        warnings = _verify(scene, (), is_in_force=True)
        _prove_locked(scene)
        return warnings


def recover(config: Config) -> bool:
    """Undo a change that was cut off, and say whether there was one. Raises LockError."""
    if not _change_of(config).is_pending():
        return False
    with _alone(config):
        return _recover(config)


def _verify(scene: Scene, prefix: Sequence[str], *, is_in_force: bool) -> list[str]:
    """Verify all but the running sshd; return the break-glass accounts that cannot log in."""
    program, text = scene.program, scene.text
    sshd.test_config(program, prefix)
    if not scene.usable:
        raise LockError(
            "break-glass login",
            f"no account has a usable key: {scene.problems(all_of_them=True)}",
        )
    verification.check_settings(program, text, scene.usable, scene.users, prefix)
    known = [user for user in scene.users if user != check_login.NOBODY]
    verification.check_get_keys(text.akc_user, text.command, known if is_in_force else ())
    verification.check_pam_gate()
    verification.check_pam_service(program, scene.listener.argv if scene.listener else ())
    failures = []
    for operator in scene.usable:
        with check_login.check_key(program, operator.user) as key:
            failure = check_login.login_through_own_sshd(program, operator.user, key, prefix)
        if failure:
            failures.append(f"{operator.user} cannot log in: {failure}")
    if len(failures) == len(scene.usable):
        raise LockError("break-glass login", "; ".join(failures))
    if problems := scene.problems():
        failures.append(problems)
    return [f"break-glass: {failure}" for failure in failures]


def _change(
    scene: Scene,
    files: Mapping[Path, str | None],
    check: Callable[[], None],
    prove: Callable[[], None],
) -> None:
    """Write the files, `check` them, have sshd read them, and `prove` it.

    Puts everything back where one of them fails. Raises LockError.
    """
    change = _change_of(scene.config)
    listener = scene.listener
    is_reloaded = False
    try:
        change.begin(files, sshd_listener.to_note(listener))
        for path, content in files.items():
            change.write(path, content)
        sshd.test_config(scene.program)
        check()
        if listener is not None:
            sshd_listener.check_before_reload(listener)
            is_reloaded = True
            sshd_listener.reload_sshd(listener)
        prove()
        change.keep()
    except BaseException as error:
        # Also for an interrupt: what is half done must not stay.
        step = error.step if isinstance(error, LockError) else "write"
        reason = error.reason if isinstance(error, LockError) else str(error)
        try:
            change.undo()
            if is_reloaded and listener is not None:
                sshd_listener.bring_back(scene.program, listener)
            change.forget()
        except AgentError as worse:
            reason = f"{reason}; and it is not as it was before: {worse}"
        if isinstance(error, AgentError):
            raise LockError(step, reason) from error
        raise


def _prove_locked(scene: Scene) -> None:
    """Log in on the live port, and see that a stranger is offered no other way in.

    Raises LockError.
    """
    if scene.listener is None:
        return
    ends = scene.listener.endpoints
    address, port = ends[0]
    failures = []
    for operator in scene.usable:
        failure = _login_live(scene, operator.user, ends)
        if not failure:
            break
        failures.append(f"{operator.user}: {failure}")
    else:
        raise LockError("live login", f"at {address} port {port}: {'; '.join(failures)}")
    methods, said = check_login.offered_methods(address, port)
    if methods != "publickey":
        raise LockError(
            "live refusal", f"at {address} port {port} a stranger may try "
            f"{methods or 'what is not known'}: {ascii(said)[1:-1][-200:]}",
        )  # fmt: skip


def _login_live(scene: Scene, user: str, ends: Sequence[tuple[str, int]]) -> str:
    """Return why the user cannot log in on the live port, empty when it worked."""
    failure = ""
    for pause_s in (0.0, *LOGIN_PAUSES_S):
        time.sleep(pause_s)
        with check_login.check_key(scene.program, user, check_login.own_addresses(ends)) as key:
            failure = check_login.login(user, key, *ends[0])
        if not failure:
            break
    return failure


def _recover(config: Config) -> bool:
    """Undo what was cut off, and have sshd read the files as they were."""
    check_login.forget_keys()
    change = _change_of(config)
    if not change.is_pending():
        return False
    try:
        noted = sshd_listener.from_note(change.note())
        change.undo()
        program = sshd.find_sshd()
        # Whether sshd had read the new files is not known.
        listener = find_listener(program) or noted
        if listener is not None:
            sshd_listener.bring_back(program, listener)
        change.forget()
    except StateError as error:
        raise LockError("undo", str(error)) from error
    log.warning("a change of the lock that was cut off is undone")
    return True


def _change_of(config: Config) -> Change:
    return Change(config.state_dir / "lock-change.json")


@contextlib.contextmanager
def _alone(config: Config) -> Iterator[None]:
    """Keep other processes from changing the lock at the same time. Raises LockError."""
    try:
        opened = os.open(
            config.state_dir / "lock-change.flock",
            os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600,
        )  # fmt: skip
    except OSError as error:
        raise LockError("begin", f"cannot use {config.state_dir}: {error.strerror}") from error
    try:
        deadline = time.monotonic() + BUSY_WAIT_S
        while True:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LockError("begin", "another process changes the lock") from None
                time.sleep(0.1)
        yield
    finally:
        os.close(opened)
