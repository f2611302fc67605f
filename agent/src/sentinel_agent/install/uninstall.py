"""Takes away what `install` made, and leaves the node as it was. It makes nothing.

First sshd and PAM are opened; where that fails nothing else is touched, since a locked sshd
needs what would be taken away. What somebody changed since is kept and named.
"""

from __future__ import annotations

import base64
import grp
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from .. import commands
from ..cards.origins import Origins
from ..config import DEFAULT_PATH, Config, load_config
from ..errors import InstallError, StateError
from ..files import AGENT_LOCK, replace_file, sole_agent
from ..lock import check_login, switch
from ..lock.sshd_listener import is_systemd
from .farewell import tell_open
from .plan import UNIT
from .record import RECORD, UNFINISHED, Made, digest, load_record

Say = Callable[[str], None]
# The agent's own state, which it made while it ran.
STATE_FILES = (
    RECORD, UNFINISHED, "registration.json", "policy.json", "access", "granted.json",
    "cards.json", AGENT_LOCK, "lock-change.flock",
)  # fmt: skip

# What tempfile.mkstemp puts behind the prefix that files.replace_file gives it.
UNFINISHED_NAME = re.compile(r"\.[a-z0-9_]{8}")


def uninstall(say: Say) -> None:
    """Uninstall the node. Raises AgentError.

    Where it was not installed, or not wholly, what is there of it is taken away.
    """
    if os.geteuid() != 0:
        raise InstallError("only root can uninstall a node")
    config = load_config(DEFAULT_PATH if DEFAULT_PATH.exists() else None)
    record, _ = load_record(config.state_dir)
    if record is None:
        raise InstallError(
            f"{config.state_dir / RECORD} is missing: nothing was installed here"
        )
    if is_systemd():
        commands.run(["systemctl", "stop", UNIT])
    # One that runs would lock again.
    with sole_agent(config.state_dir) as is_alone:
        if not is_alone:
            raise InstallError("the agent runs: stop it first")
        switch.release(config)
        say("done  sshd and PAM are as they were")
        for problem in _give_cards_back(config):
            say(f"note  {problem}")
        failure = tell_open(config)
        told = f"note  booking was not told that this node is open: {failure}"
        say(told if failure else "done  tell booking that this node is open")
        for made in reversed(record.made):
            _take_away(made, config, say)
        _forget_state(config, say)
    if is_systemd():
        commands.run(["systemctl", "daemon-reload"])
    say("note  in booking the node keeps its token until it is revoked there")


def _take_away(made: Made, config: Config, say: Say) -> None:
    path = Path(made.name)
    kept = ""
    match made.kind:
        case "unit":
            commands.run(["systemctl", "disable", "--now", made.name])
        case "file":
            kept = _remove_file(path, made)
        case "mode":
            _restore_mode(path, made.digest)
        case "link":
            kept = _remove_link(path, made.digest)
        case "folder" if path == config.state_dir:
            return  # the record is in it: it comes last
        case "folder":
            kept = _remove_folder(path)
        case "member":
            commands.run(["gpasswd", "--delete", made.name, made.digest])
        case "user":
            commands.run(["userdel", made.name])
        case "group":
            kept = _remove_group(made.name)
    say(f"kept  {made.kind} {made.name}: {kept}" if kept else f"done  {made.kind} {made.name}")


def _remove_file(path: Path, made: Made) -> str:
    """Remove it, or put back what was there; return why not."""
    _remove_unfinished(path)
    if path.is_file() and digest(path.read_bytes()) != made.digest:
        return "it was changed since"
    if made.before is None:
        path.unlink(missing_ok=True)
    elif path.is_file():
        mode = path.stat().st_mode & 0o7777
        replace_file(path, base64.b64decode(made.before), mode=mode)
    return ""


def _remove_link(path: Path, target: str) -> str:
    if path.is_symlink() and str(path.readlink()) == target:
        path.unlink()
        return ""
    return "it was changed since" if os.path.lexists(path) else ""


def _restore_mode(path: Path, before: str) -> None:
    mode, gid = before.split()
    if path.is_dir():
        path.chmod(int(mode, 8))
        os.chown(path, -1, int(gid))


def _remove_unfinished(path: Path) -> None:
    """Remove what a kill left of a new file that had not got its name (files.replace_file)."""
    for left in path.parent.glob(f".{path.name}.*"):
        if UNFINISHED_NAME.fullmatch(left.name.removeprefix(f".{path.name}")):
            left.unlink()


def _remove_folder(path: Path) -> str:
    try:
        path.rmdir()
    except FileNotFoundError:
        return ""
    except OSError:
        return "there is something in it"
    return ""


def _remove_group(name: str) -> str:
    try:
        members = grp.getgrnam(name).gr_mem
    except KeyError:
        return ""  # it went with its user
    if members:
        return f"{', '.join(members)} joined it since"
    done = commands.run(["groupdel", name])
    return "" if done.status == 0 else done.reason


def _give_cards_back(config: Config) -> list[str]:
    origins = Origins(config.state_dir)
    try:
        origins.load()
        return origins.give_back()
    except StateError as error:
        return [str(error)]


def _forget_state(config: Config, say: Say) -> None:
    """Remove the agent's state, the token and the record; the folder if it is empty then."""
    for name in STATE_FILES:
        _remove_unfinished(config.state_dir / name)
        (config.state_dir / name).unlink(missing_ok=True)
    shutil.rmtree(check_login.RUN_FOLDER, ignore_errors=True)
    try:
        config.state_dir.rmdir()
    except OSError:
        left = ", ".join(sorted(path.name for path in config.state_dir.iterdir()))
        say(f"kept  {config.state_dir}: {left}")
        return
    say(f"done  take away {config.state_dir}")
