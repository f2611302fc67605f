"""What the booking server grants on this node: decoding, encoding, and which policy to hold.

Pure: no file, no network, no clock.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal, Never

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic import model_validator as _model_validator

from ..errors import PolicyRefused

# A server that sends more is broken, or broken into: to say what is wrong with millions of them
# would take the memory of those who work here.
GRANTS_MAX = 20_000
# Times are moved by warnings, tolerances and clocks: that must not lead out of what there is.
YEARS = range(1970, 9000)
# The contract's form of a time: policy.schema.json, $defs/time.
TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?Z", re.ASCII)


def parse_time(value: object) -> datetime:
    """Return the contract's time as an aware UTC datetime. Raises ValueError."""
    if not isinstance(value, str) or not TIME.fullmatch(value):
        raise ValueError("must be a time in UTC with Z")
    when = datetime.fromisoformat(value)
    if when.year not in YEARS:
        raise ValueError("must be a time of this age")
    return when


def format_time(when: datetime) -> str:
    """Return the contract's form of an aware datetime."""
    return when.astimezone(UTC).isoformat().replace("+00:00", "Z")


# Strict: a number is no text and true is no number; what JSON calls a list becomes a tuple.
_WIRE = ConfigDict(frozen=True, extra="forbid", strict=True)
Time = Annotated[datetime, BeforeValidator(parse_time)]
Key = Annotated[str, Field(pattern=r"^[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,2}$")]
EnvName = Annotated[str, Field(pattern=r"^(ASCEND|CUDA)_[A-Z_]+$")]
EnvValue = Annotated[str, Field(pattern=r"^[A-Za-z0-9,:._-]*$")]
Index = Annotated[int, Field(ge=0)]


class Device(BaseModel):
    """One accelerator of a grant."""

    model_config = _WIRE
    vendor: Literal["nvidia", "ascend"]
    uuid: Annotated[str, Field(min_length=1, max_length=96)]
    index: Index
    minor: Index | None


class Grant(BaseModel):
    """One user's access over [not_before, not_after)."""

    model_config = _WIRE
    reservation: Annotated[int, Field(ge=1)]
    user: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")]
    keys: Annotated[tuple[Key, ...], Field(strict=False)]
    not_before: Time
    not_after: Time
    whole_node: bool
    devices: Annotated[tuple[Device, ...], Field(strict=False)]
    env: dict[EnvName, EnvValue]

    @_model_validator(mode="after")
    def _makes_sense(self) -> Grant:
        if self.not_before >= self.not_after:
            raise ValueError("ends before it begins")
        if self.user == "root":
            raise ValueError("root cannot hold a reservation")
        return self


class Policy(BaseModel):
    """All grants of one node, as the server saw them at `generated_at`."""

    model_config = _WIRE
    version: Annotated[int, Field(ge=1)]
    node: Annotated[str, Field(min_length=1, max_length=63)]
    generated_at: Time
    # From here on the policy opens no session.
    expires_at: Time
    mode: Literal["observe", "enforce"]
    grants: tuple[Grant, ...]


def decode(document: object) -> tuple[Policy, list[str]]:
    """Return the policy, and one problem for each grant that was left out.

    A grant that breaks the contract grants nothing and takes nothing from the others.
    Raises PolicyRefused when the document around the grants breaks it.
    """
    if not isinstance(document, dict):
        raise PolicyRefused("the policy is not an object")
    listed = document.get("grants")
    if not isinstance(listed, list):
        raise PolicyRefused("grants: must be a list")
    if len(listed) > GRANTS_MAX:
        raise PolicyRefused(f"grants: {len(listed)}, more than {GRANTS_MAX}")
    grants: list[Grant] = []
    problems: list[str] = []
    for number, item in enumerate(listed):
        try:
            grants.append(Grant.model_validate(item))
        except ValidationError as error:
            name = _name_of(item, number)
            problems.append(f"{name} left out: {'; '.join(_reasons(error))}")
    try:
        policy = Policy.model_validate(document | {"grants": tuple(grants)})
    except ValidationError as error:
        raise PolicyRefused("; ".join(_reasons(error))) from None
    return policy, problems


def decode_text(text: bytes) -> tuple[Policy, dict[int, datetime], list[str]]:
    """Return what `encode` was given, and `decode`'s problems. Raises PolicyRefused."""
    opens: dict[int, datetime] = {}
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
        grants = document.get("grants") if isinstance(document, dict) else None
        for grant in grants if isinstance(grants, list) else ():
            if isinstance(grant, dict) and "opens_at" in grant:
                opens[int(grant["reservation"])] = parse_time(grant.pop("opens_at"))
    except (ValueError, LookupError, TypeError, RecursionError):
        raise PolicyRefused("the policy is not JSON, or an opens_at is odd") from None
    policy, problems = decode(document)
    return policy, opens, problems


def encode(policy: Policy, opens: Mapping[int, datetime] | None = None) -> bytes:
    """Return the policy as the contract's JSON text.

    `opens` has, by reservation, the time until which the agent holds a grant back. Those grants
    get `opens_at`, which only the cache has: a policy of the server's with it is refused.
    """
    document = policy.model_dump(mode="python")
    for name in ("generated_at", "expires_at"):
        document[name] = format_time(document[name])
    for grant in document["grants"]:
        for name in ("not_before", "not_after"):
            grant[name] = format_time(grant[name])
        if opens and grant["reservation"] in opens:
            grant["opens_at"] = format_time(opens[grant["reservation"]])
    return json.dumps(document, separators=(",", ":")).encode()


def check_replaces(new: Policy, held: Policy | None, node: str) -> None:
    """Raise PolicyRefused unless `new` is this node's and not older than the one held.

    An older one would open the door again to people whose reservation was released.
    """
    if new.node != node:
        raise PolicyRefused(f"the policy is for node {new.node!a}, this is {node!a}")
    if held is not None and new.version < held.version:
        raise PolicyRefused(
            f"the policy has version {new.version}, older than {held.version} that is held"
        )


def _reasons(error: ValidationError) -> list[str]:
    # Only where and why: the input may be a key.
    return [
        f"{'.'.join(str(part) for part in item['loc']) or 'value'}: {item['msg']}"
        for item in error.errors(include_input=False, include_context=False)
    ]


def _name_of(item: object, number: int) -> str:
    if isinstance(item, Mapping) and type(item.get("reservation")) is int:
        return f"grant of reservation {item['reservation']}"
    return f"grant number {number + 1}"


def _refuse_constant(name: str) -> Never:
    raise ValueError(f"{name} is not JSON")
