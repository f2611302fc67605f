"""Schemas of people and their keys, shared by /api/me and /api/users."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ..domain.ssh_keys import clean_label
from ..models import Role
from .schemas import Out, OutTime


def _one_line(text: str) -> str:
    # The same cleaning as of a key's label: shown on pages and in mails.
    cleaned = clean_label(text)
    if cleaned != text:
        raise ValueError("must be one line without control characters or outer spaces")
    return text


DisplayName = Annotated[str, Field(max_length=100), AfterValidator(_one_line)]
# Only what could not be an address is refused; whether mail arrives, no pattern can say.
Email = Annotated[
    str, Field(max_length=254, pattern=r"^[!-?A-~]+@[0-9A-Za-z]([0-9A-Za-z.-]*[0-9A-Za-z])?$")
]
Locale = Literal["zh", "en"]


class UserOut(Out):
    """A person, without anything secret."""

    name: str
    display_name: str
    email: str | None
    role: Role
    is_active: bool
    must_change_password: bool
    locale: str | None
    created_at: OutTime


class KeyOut(Out):
    """An SSH public key; `fingerprint` as `ssh-keygen -l` prints it."""

    id: int
    public_key: str
    key_type: str
    bits: int
    fingerprint: str
    label: str
    created_at: OutTime
