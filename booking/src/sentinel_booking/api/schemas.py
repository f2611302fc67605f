"""Base classes and field types of what the interface takes and gives. No feature's schema."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

# As many digits as PostgreSQL's integer, which our ids are, holds in full.
MAX_ID_DIGITS = 9
MAX_ID = 10**MAX_ID_DIGITS - 1
MAX_LIMIT = 200


def _refuse_unstorable(value: object) -> None:
    """PostgreSQL stores no NUL, and UTF-8 no half of a surrogate pair."""
    if isinstance(value, str):
        if "\x00" in value:
            raise ValueError("holds a NUL character")
        if any("\ud800" <= char <= "\udfff" for char in value):
            raise ValueError("holds half of a surrogate pair")
    elif isinstance(value, dict):
        for key, item in value.items():
            _refuse_unstorable(key)
            _refuse_unstorable(item)
    elif isinstance(value, list):
        for item in value:
            _refuse_unstorable(item)


class _Input(BaseModel):
    # Afterwards: a validator before turns JSON into Python values, and then strict mode
    # takes no text for a time or an enum.
    @model_validator(mode="after")
    def _check_text(self) -> Self:
        _refuse_unstorable(vars(self))
        return self


class Body(_Input):
    """Base of JSON bodies: unknown fields are refused and nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True)

    def given(self) -> dict[str, Any]:  # Any: the values of every field's type
        """The fields that the caller sent, for PATCH: absent is not null."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class Query(_Input):
    """Base of query strings: unknown and repeated parameters are refused."""

    model_config = ConfigDict(extra="forbid")


class Page(Query):
    """Keyset paging: `cursor` is the last page's `next_cursor`."""

    cursor: str | None = Field(default=None, max_length=200)
    limit: int = Field(default=50, ge=1, le=MAX_LIMIT)


class Out(BaseModel):
    """Base of answers; takes dicts and any object with the fields as attributes."""

    model_config = ConfigDict(from_attributes=True)


def _check_year(value: dt.datetime) -> dt.datetime:
    # Far from the ends of datetime's range, so that no later arithmetic can overflow.
    if not 2000 <= value.year <= 2199:
        raise ValueError("the year must lie between 2000 and 2199")
    return value.astimezone(dt.UTC)


def rfc3339(value: dt.datetime) -> str:
    """Write an aware time in UTC with Z."""
    return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")


# A time from outside: RFC 3339 with an offset; becomes UTC.
AwareTime = Annotated[
    AwareDatetime,
    AfterValidator(_check_year),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]

# A time to the outside: UTC with Z.
OutTime = Annotated[
    dt.datetime,
    PlainSerializer(rfc3339, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
