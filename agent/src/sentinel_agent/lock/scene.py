"""What a change of the lock works with: the node's sshd, its accounts, and copies to try on.

It changes none of the files that are in use.
"""

from __future__ import annotations

import contextlib
import itertools
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..accounts import Accounts
from ..config import Config
from ..errors import AgentError, LockError
from ..policy.cache import Cache
from . import check_login, sshd, sshd_listener
from .breakglass import Operator, find_operators
from .drop_in import LockText
from .files import PAM_FILE, lock_text, locked_files
from .sshd import Sshd
from .sshd_listener import Listener

# So many ordinary users are looked at: a site's Match block may be for one of them.
USERS_MAX = 12
# A directory may list all of a company.
ACCOUNTS_MAX = 200
# Mounts copies over the live files, for its own process alone, and becomes that command.
SHOW_COPIES = (
    'mount --bind "$1" "$2" && mount --bind "$3" "$4" && mount --bind "$5" "$6" '
    '&& shift 6 && exec "$@"'
)


@dataclass(frozen=True)
class Scene:
    """The node as it is before the change; `listener` is None when no sshd runs."""

    config: Config
    program: Sshd
    listener: Listener | None
    text: LockText
    operators: tuple[Operator, ...]
    users: tuple[str, ...]

    @property
    def usable(self) -> list[Operator]:
        """The break-glass accounts that could log in, as far as their files tell."""
        return [operator for operator in self.operators if not operator.problem]

    def problems(self, *, all_of_them: bool = False) -> str:
        """Say why the others could not; root, who has no key, only with `all_of_them`."""
        return "; ".join(
            f"{one.user}: {one.problem}"
            for one in self.operators
            if one.problem and (one.is_expected or all_of_them)
        )


def look(config: Config) -> Scene:
    """Return the scene. Raises LockError."""
    program = sshd.find_sshd()
    text = lock_text(config, program)
    listener = find_listener(program)
    if listener is not None and listener.config not in (None, sshd.MAIN_CONFIG):
        raise LockError("sshd", f"the running sshd reads {listener.config}")
    operators = tuple(find_operators(config.breakglass_group))
    return Scene(config, program, listener, text, operators, tuple(ordinary_users(config)))


def find_listener(program: Sshd) -> Listener | None:
    """Return the running sshd. Raises LockError."""
    try:
        named = sshd.effective(program, check_login.NOBODY).get("pidfile", ("",))[-1]
    except LockError:
        named = ""  # a mistake in the site's files, which `sshd -t` tells in its turn
    return sshd_listener.find_listener(named)


def ordinary_users(config: Config) -> list[str]:
    """Return accounts that the lock is for, who holds a reservation first; and a stranger."""
    accounts = Accounts(
        min_uid=config.min_uid, breakglass_group=config.breakglass_group,
        ignored_users=config.ignored_users,
    )  # fmt: skip
    booked: list[str] = []
    with contextlib.suppress(AgentError):
        policy = Cache(config.cache_file, config.cache_group).load()
        booked = [grant.user for grant in policy.grants] if policy else []
    everybody = itertools.islice((entry.pw_name for entry in pwd.getpwall()), ACCOUNTS_MAX)
    found = []
    for user in dict.fromkeys((*booked, *everybody)):
        uid = accounts.uid_of(user)
        if uid is not None and accounts.exemption(user, uid) is None:
            found.append(user)
    return [*found[:USERS_MAX], check_login.NOBODY]


@contextlib.contextmanager
def locked_copies(scene: Scene) -> Iterator[list[str]]:
    """Yield the command that runs another with copies, locked, in place of the live files.

    The copies are mounted over them for that command alone, so everything is found under its
    own name, and nothing stays when it is killed. Raises LockError.
    """
    wanted = locked_files(scene.config, scene.text)
    live = (scene.config.sshd_drop_in.parent, sshd.MAIN_CONFIG, PAM_FILE)
    check_login.RUN_FOLDER.mkdir(mode=0o755, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="rehearsal-", dir=check_login.RUN_FOLDER))
    copies = (folder / "drop-ins", folder / "main", folder / "pam")
    places = {scene.config.sshd_drop_in: copies[0] / scene.config.sshd_drop_in.name,
              sshd.MAIN_CONFIG: copies[1], PAM_FILE: copies[2]}  # fmt: skip
    try:
        try:
            shutil.copytree(live[0], copies[0])
            for source, copy in zip(live[1:], copies[1:], strict=True):
                shutil.copy2(source, copy)
            for path, content in wanted.items():
                places[path].write_text(content, encoding="utf-8", errors="surrogateescape")
        except (OSError, shutil.Error) as error:
            raise LockError("rehearsal", f"the files cannot be copied: {error}") from error
        pairs = [str(path) for pair in zip(copies, live, strict=True) for path in pair]
        yield ["unshare", "--mount", "--", "sh", "-c", SHOW_COPIES, "sh", *pairs]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
