"""Hashing, checking and making passwords. Who may change which is decided elsewhere."""

from __future__ import annotations

import secrets

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

MIN_CHARS = 10
MAX_CHARS = 128

# OWASP Password Storage Cheat Sheet: argon2id, 19 MiB, t=2, p=1. The library's default of
# 64 MiB would let thirty simultaneous sign-ins take 2 GiB.
_hasher = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)
# Letters and digits that nobody mistakes for one another on paper.
_ALPHABET = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"


def hash_password(password: str) -> str:
    """Return the argon2id hash in PHC form, with its own salt."""
    return _hasher.hash(password)


# Checked when there is no such user, so that a name's existence does not show in the time.
_NOBODYS_HASH = hash_password(secrets.token_hex(16))


def is_password(password: str, password_hash: str | None) -> bool:
    """Check a password; None (no such user) takes as long and is never right."""
    try:
        _hasher.verify(password_hash or _NOBODYS_HASH, password)
    except (VerificationError, InvalidHashError):
        return False
    return password_hash is not None


def is_hash_outdated(password_hash: str) -> bool:
    """True when the hash was made with other parameters than today's."""
    return _hasher.check_needs_rehash(password_hash)


def generate_password() -> str:
    """Return 20 random characters, about 115 bits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(20))
