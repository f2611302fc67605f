"""Looks whether the lock, as sshd and PAM would see it, is the one that was meant.

Each function raises LockError for the first thing that is not. Nothing is changed; a `prefix`
runs sshd where it sees a rehearsal's files in place of the live ones.
"""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from .. import commands
from ..errors import LockError
from . import sshd
from .breakglass import Operator
from .check_login import NOBODY
from .drop_in import BANNER, BREAKGLASS_KEY_FILES, GET_KEYS, LockText
from .pam import PAM_GATE
from .sshd import Sshd

# What the drop-in says for the break-glass accounts.
FREE: Mapping[str, set[str]] = {
    "authorizedkeyscommand": {"none"},
    "authorizedkeysfile": {BREAKGLASS_KEY_FILES},
    "authenticationmethods": {"publickey"},
    "pubkeyauthentication": {"yes"},
    "trustedusercakeys": {"none"},
    "usepam": {"yes"},
}
# What sshd itself asks of an AuthorizedKeysCommand and all folders above it.
OTHERS_WRITE = 0o022
SERVICE = "sshd"


def check_settings(
    program: Sshd,
    text: LockText,
    operators: Sequence[Operator],
    users: Sequence[str],
    prefix: Sequence[str] = (),
) -> None:
    """Have sshd say what it would do for these people. Raises LockError.

    `operators` are break-glass accounts, `users` ordinary ones.
    """
    for user in users:
        _compare(user, _locked(text), sshd.effective(program, user, prefix))
    for operator in operators:
        wanted = dict(FREE)
        if operator.user == "root":
            wanted["permitrootlogin"] = {"prohibit-password", "without-password"}
        _compare(operator.user, wanted, sshd.effective(program, operator.user, prefix))


def check_get_keys(akc_user: str, command: str, users: Collection[str]) -> None:
    """Make sure that sshd would run get-keys, and that it answers. Raises LockError.

    `command` is the drop-in's. sshd is content with one that is missing or unsafe, and then
    refuses everybody.
    """
    step = "get-keys"
    check_program(Path(GET_KEYS), step)
    try:
        account = pwd.getpwnam(akc_user)
    except KeyError:
        raise LockError(step, f"no account {akc_user} to run it with") from None
    if account.pw_uid == 0:
        raise LockError(step, f"{akc_user} is root")
    as_user = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}",
               "--init-groups", "--"]  # fmt: skip
    for user in (NOBODY, *users):
        # Who is only asked about has not tried to log in: it is not logged or counted as such.
        program, *arguments = command.split()
        argv = [program, "--check", *(word.replace("%u", user) for word in arguments)]
        done = commands.run([*as_user, *argv])
        if done.status != 0:
            raise LockError(step, f"as {akc_user}, for {user}: {done.reason}")
        if user == NOBODY and done.output:
            raise LockError(step, "it prints keys for somebody who does not exist")


def check_pam_gate() -> None:
    """Make sure that PAM can run pam-gate, and that it refuses a stranger. Raises LockError."""
    step = "pam-gate"
    check_program(Path(PAM_GATE), step)
    asked = [f"PAM_USER={NOBODY}", "PAM_TYPE=account", "PAM_SERVICE=sshd"]
    if commands.run(["env", *asked, PAM_GATE]).status == 0:
        raise LockError(step, "it lets somebody in who does not exist")


def check_pam_service(program: Sshd, listener_argv: Sequence[str]) -> None:
    """Make sure that sshd asks PAM for the service in which our block is. Raises LockError."""
    if not any(Path(folder, "pam_exec.so").exists() for folder in _pam_folders()):
        raise LockError("pam", "pam_exec.so is not installed")
    named = sshd.effective(program, NOBODY).get("pamservicename")
    if named is None and listener_argv:
        # Before 9.8 it is the name that sshd was started by.
        named = (Path(listener_argv[0]).name,)
    if named is not None and named != (SERVICE,):
        raise LockError("pam", f"sshd asks PAM for the service {named[-1]}, not {SERVICE}")


def check_program(path: Path, step: str) -> None:
    """Make sure that only root can change a program. Raises LockError."""
    for entry in (path.resolve(), *path.resolve().parents):
        try:
            found = entry.stat()
        except OSError as error:
            raise LockError(step, f"{path}: {error.strerror}") from error
        if found.st_uid != 0 or found.st_mode & OTHERS_WRITE:
            raise LockError(step, f"{entry} can be written by others than root")
    if not path.is_file() or not os.access(path, os.X_OK):
        raise LockError(step, f"{path} cannot be executed")
    interpreter = path.read_bytes()[:256].partition(b"\n")[0]
    if interpreter.startswith(b"#!"):
        program = interpreter[2:].split()[0].decode(errors="replace")
        if shutil.which(program) is None:
            raise LockError(step, f"{path} needs {program}, which is not installed")


def _locked(text: LockText) -> dict[str, set[str]]:
    no = ("passwordauthentication", "kbdinteractiveauthentication", "permituserrc",
          "hostbasedauthentication", "gssapiauthentication")  # fmt: skip
    none = ("authorizedkeysfile", "trustedusercakeys", "authorizedprincipalsfile",
            "authorizedprincipalscommand")  # fmt: skip
    return {
        "authorizedkeyscommand": {text.command},
        "authorizedkeyscommanduser": {text.akc_user},
        "authenticationmethods": {"publickey"},
        "pubkeyauthentication": {"yes"},
        "usepam": {"yes"},
        "permituserenvironment": {"ASCEND_*,CUDA_*"},
        "banner": {BANNER},
        "maxstartups": {"100:30:200"},
        "logingracetime": {"30"},
        **{keyword: {"no"} for keyword in no},
        **{keyword: {"none"} for keyword in none},
    }


def _compare(
    user: str, wanted: Mapping[str, set[str]], settings: Mapping[str, tuple[str, ...]]
) -> None:
    for keyword, values in wanted.items():
        # sshd does not print what it was built without.
        found = settings.get(keyword)
        if found is not None and not set(found) <= values:
            raise LockError(
                "sshd -T", f"for {user}, {keyword} is {' '.join(found)!a}: something is read "
                "before the lock, or against it",
            )  # fmt: skip
        if found is None and keyword in ("authorizedkeyscommand", "authorizedkeysfile"):
            raise LockError("sshd -T", f"for {user}, sshd does not say {keyword}")


def _pam_folders() -> list[str]:
    roots = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
    found = [str(path) for root in roots for path in Path(root).glob("*/security")]
    return [*(f"{root}/security" for root in roots), *found]
