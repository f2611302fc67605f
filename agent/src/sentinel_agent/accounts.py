"""Which Unix accounts are subject to the lock. It looks accounts up and changes nothing."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Collection, Mapping

# nobody: NFS and containers show all sorts of processes under it.
NOBODY_UID = 65534


class Accounts:
    """The accounts of this node, as the system's name service knows them."""

    def __init__(
        self, *, min_uid: int, breakglass_group: str, ignored_users: Collection[str]
    ) -> None:
        self._min_uid = min_uid
        self._breakglass_group = breakglass_group
        self._ignored_users = ignored_users

    def uid_of(self, user: str) -> int | None:
        """Return the account's uid, None when there is no such account."""
        try:
            return pwd.getpwnam(user).pw_uid
        except KeyError:
            return None

    def name_of(self, uid: int, remembered: Mapping[str, int]) -> str | None:
        """Return the account's name; one that was deleted is known by what is `remembered`."""
        try:
            return pwd.getpwuid(uid).pw_name
        except KeyError:
            names = (user for user, known in remembered.items() if known == uid)
            return next(names, None)

    def has_breakglass_group(self) -> bool:
        """Say whether the group of those who must never be locked out exists."""
        try:
            grp.getgrnam(self._breakglass_group)
        except KeyError:
            return False
        return True

    def is_system(self, uid: int) -> bool:
        """Say whether the uid belongs to the system rather than to a person."""
        return uid < self._min_uid or uid == NOBODY_UID

    def exemption(self, user: str, uid: int) -> str | None:
        """Return why the lock never touches this account, None when it may."""
        if self.is_system(uid):
            return "system account"
        if user in self._ignored_users:
            return "ignored by the configuration"
        try:
            group = grp.getgrnam(self._breakglass_group)
        except KeyError:
            return None
        if user in group.gr_mem or self._primary_gid(uid) == group.gr_gid:
            return f"member of {self._breakglass_group}"
        return None

    @staticmethod
    def _primary_gid(uid: int) -> int | None:
        try:
            return pwd.getpwuid(uid).pw_gid
        except KeyError:
            return None
