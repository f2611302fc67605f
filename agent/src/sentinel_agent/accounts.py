"""Which Unix accounts are subject to the lock. It looks accounts up and changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .names import Group, NameService
from .subuids import LentUids

# nobody: NFS and containers show all sorts of processes under it.
NOBODY_UID = 65534


class Accounts:
    """The accounts of this node, as the system's name service knows them.

    A directory that is down finds nobody: what it said before is remembered, so that it neither
    costs an operator the session nor lets anybody off.
    """

    def __init__(
        self,
        *,
        min_uid: int,
        breakglass_group: str,
        ignored_users: Collection[str],
        names: NameService | None = None,
    ) -> None:
        self._min_uid = min_uid
        self._breakglass_group = breakglass_group
        self._ignored_users = ignored_users
        self._names = names or NameService()
        self._lent = LentUids()
        self._group: Group | None = None
        self._in_group: set[str] = set()

    @property
    def seen_in_group(self) -> frozenset[str]:
        """The users who were in the break-glass group when it was looked up last."""
        return frozenset(self._in_group)

    def remember_in_group(self, users: Collection[str]) -> None:
        """Take these for members until the name service says what they are."""
        self._in_group |= set(users)

    def problems(self) -> list[str]:
        """Return what is wrong with the name service and the break-glass group."""
        found = []
        if self._names.is_hanging:
            found.append("the name service does not answer: accounts are taken as known before")
        elif not self.has_breakglass_group():
            seen = f", and {', '.join(sorted(self._in_group))} as before" * bool(self._in_group)
            found.append(f"no group {self._breakglass_group}: only root is exempt{seen}")
        return found

    def uid_of(self, user: str) -> int | None:
        """Return the account's uid, None when there is no such account."""
        found = self._names.user(user).value
        return found.uid if found else None

    def name_of(self, uid: int, remembered: Mapping[str, int]) -> str | None:
        """Return the account's name; one that was deleted is known by what is `remembered`."""
        found = self._names.uid(uid).value
        if found is not None:
            return found.name
        return next((user for user, known in remembered.items() if known == uid), None)

    def account_of(self, uid: int) -> int:
        """Return whose the uid is: its own, or the account's that it was lent to.

        A uid that has a name is nobody else's, whatever was lent.
        """
        lender = None if self._names.uid(uid).value else self._lent.lender_of(uid)
        if lender is None:
            return uid
        account = int(lender) if lender.isdecimal() else self.uid_of(lender)
        return uid if account is None else account

    def is_gone(self, user: str, uid: int) -> bool:
        """Say whether there is no account `user`, and its uid is somebody else's now.

        Only both together prove that it was deleted, or renamed.
        """
        owner = self._names.uid(uid)
        by_name = self._names.user(user)
        return (
            owner.is_fresh
            and by_name.is_fresh
            and by_name.value is None
            and owner.value is not None
            and owner.value.name != user
        )

    def has_breakglass_group(self) -> bool:
        """Say whether the group of those who must never be locked out exists."""
        return self._names.group(self._breakglass_group).value is not None

    def breakglass_gid(self) -> int | None:
        """Return the break-glass group's number, as it was found last; None for no group."""
        self._group = self._names.group(self._breakglass_group).value or self._group
        return self._group.gid if self._group else None

    def has_changed(self, user: str, uid: int) -> bool:
        """Ask the name service anew, and say whether it answers otherwise than a moment ago."""
        before = self._names.user(user).value, self._names.uid(uid).value
        now = self._names.user(user, anew=True).value, self._names.uid(uid, anew=True).value
        return before != now

    def is_system(self, uid: int) -> bool:
        """Say whether the uid belongs to the system rather than to a person."""
        return uid < self._min_uid or uid == NOBODY_UID

    def exemption(self, user: str, uid: int, *, anew: bool = False) -> str | None:
        """Return why the lock never touches this account, None when it may.

        `anew`: ask the name service, whatever it said a moment ago.
        """
        if self.is_system(uid):
            return "system account"
        if user in self._ignored_users:
            return "ignored by the configuration"
        if self._is_in_group(user, anew=anew):
            return f"member of {self._breakglass_group}"
        return None

    def refresh(self) -> None:
        """Look the break-glass group up: who is put into it is exempt from then on."""
        self._names.group(self._breakglass_group, anew=True)

    def _is_in_group(self, user: str, *, anew: bool) -> bool:
        group = self._names.group(self._breakglass_group, anew=anew).value
        self._group = group or self._group
        if self._group is None:
            return user in self._in_group
        if user in self._group.members:
            self._in_group.add(user)
            return True
        account = self._names.user(user, anew=anew).value
        if account is None:
            # Whether it is the account's first group is not known.
            return user in self._in_group
        is_member = account.gid == self._group.gid
        if is_member:
            self._in_group.add(user)
        elif group is not None:
            self._in_group.discard(user)
        return is_member or user in self._in_group
