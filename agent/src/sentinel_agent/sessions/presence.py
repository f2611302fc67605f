"""Who is on the node now: what runs, put to the people whose it is. It ends nobody."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ..accounts import Accounts
from .namespaces import owner_of
from .plan import Presence
from .table import Scan, Usage

# An sshd that stays between login and session for longer hangs, or is a session of root's.
LOGIN_S = 10.0

NO_USAGE = Usage(0, ())


@dataclass(frozen=True)
class People:
    """Who is here.

    `present` are subject to the lock. `uids`: the accounts of the users that were asked for.
    `running`: names with a process. `exempt`: names that the lock does not touch. `gone`: names
    of accounts that were deleted or renamed. `connected`: SSH connections of everybody.
    """

    present: tuple[Presence, ...]
    uids: Mapping[str, int]
    running: frozenset[str]
    exempt: frozenset[str]
    gone: frozenset[str]
    connected: Mapping[str, int]
    problems: tuple[str, ...]


def find_people(
    scan: Scan, accounts: Accounts, users: Collection[str], remembered: Mapping[str, int]
) -> People:
    """Return who is here.

    `users`: those whom a policy or an earlier reservation names; `remembered`: their uids. An
    account can have several names, and processes under uids of its containers besides its own.
    """
    accounts.refresh()
    uids, gone = _look_up({*users, *remembered}, accounts, remembered)
    names: dict[int, set[str]] = {}
    for user, uid in uids.items():
        names.setdefault(uid, set()).add(user)
    there = [uid for uid in sorted(scan.usage) if not accounts.is_system(uid)]
    main = _main_names(there, accounts, names)
    nameless = {uid: scan.usage[uid] for uid in there if uid not in main}
    lent = _containers(nameless, accounts)
    main |= _main_names(
        [uid for uid in sorted(lent) if not accounts.is_system(uid)], accounts, names
    )
    present: list[Presence] = []
    exempt: set[str] = set()
    for uid, name in sorted(main.items()):
        all_names = names[uid]
        if any(accounts.exemption(one, uid) is not None for one in sorted(all_names)):
            exempt |= all_names
            continue
        usage = scan.usage.get(uid, NO_USAGE)
        more = lent.get(uid, {})
        present.append(
            Presence(
                name, uid, usage.connections, usage.processes + sum(more.values()),
                frozenset(all_names - {name}), tuple(sorted(more)),
            )
        )  # fmt: skip
    connected = {name: scan.usage.get(uid, NO_USAGE).connections for uid, name in main.items()}
    return People(
        present=tuple(present),
        uids=uids,
        running=frozenset(name for uid in main for name in names[uid]),
        exempt=frozenset(exempt),
        gone=gone,
        connected={name: count for name, count in connected.items() if count},
        # Perhaps the directory is down, and this is an operator.
        problems=tuple(
            f"uid {uid} is connected and has no name: left alone"
            for uid, usage in nameless.items()
            if usage.connections
        ),
    )


def _look_up(
    users: Collection[str], accounts: Accounts, remembered: Mapping[str, int]
) -> tuple[dict[str, int], frozenset[str]]:
    """Return the users' uids, and those whose account is gone.

    What is remembered helps while nobody else is known to have the uid.
    """
    uids: dict[str, int] = {}
    gone: set[str] = set()
    for user in users:
        uid, known = accounts.uid_of(user), remembered.get(user)
        if uid is not None:
            uids[user] = uid
        elif known is not None and accounts.is_gone(user, known):
            gone.add(user)
        elif known is not None and accounts.name_of(known, {}) is None:
            uids[user] = known
    return uids, frozenset(gone)


def _main_names(
    uids: Collection[int], accounts: Accounts, names: dict[int, set[str]]
) -> dict[int, str]:
    """Return the name by which each account is shown, and add it to its `names`."""
    found: dict[int, str] = {}
    for uid in uids:
        name = accounts.name_of(uid, {}) or min(names.get(uid, ()), default=None)
        if name is not None:
            found[uid] = name
            names.setdefault(uid, set()).add(name)
    return found


def _containers(nameless: Mapping[int, Usage], accounts: Accounts) -> dict[int, dict[int, int]]:
    """Return, by the uid whose containers they are, how many processes each uid has in them.

    A program that was made setuid in a container can be started outside, and makes containers
    of its own: its uid is still one that was lent.
    """
    lent: dict[int, dict[int, int]] = {}
    for uid, usage in nameless.items():
        for pid in usage.pids:
            maker = owner_of(pid)
            owner = accounts.account_of(uid if maker is None else maker)
            if owner != uid:
                found = lent.setdefault(owner, {})
                found[uid] = found.get(uid, 0) + 1
    return lent


class LoginWatch:
    """Tells logins that are under way from sshds that hang."""

    def __init__(self) -> None:
        self._since: dict[int, float] = {}

    def has_one(self, scan: Scan, monotonic_s: float) -> bool:
        """Say whether somebody may be about to get a session, by this scan and those before."""
        self._since = {pid: self._since.get(pid, monotonic_s) for pid in scan.logins_under_way}
        return any(monotonic_s - since < LOGIN_S for since in self._since.values())
