"""Which boots of a node were heard, and whether one came back. It stores nothing.

A machine that boots has a new boot id and never has an old one again. One that returns after
another was heard means that two machines speak with one token: a copied disk.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

# More than a machine boots between two looks at its page.
MAX_BOOTS = 20


@dataclass(frozen=True)
class Boot:
    """One boot of a node; times are the server's.

    `since`: when it was first heard, or first again after another one. `skew_s`: how far the
    server's clock was ahead of the node's then, the message's way included.
    """

    boot_id: str
    since: dt.datetime
    skew_s: float


def hear_boot(
    boots: Sequence[Boot], boot_id: str, sent_at: dt.datetime, now: dt.datetime
) -> tuple[tuple[Boot, ...], bool]:
    """Return the boots with this one as the last, and whether it came back.

    `boots`: the earliest first, none twice. `sent_at`: when the node sent the message, by its
    own clock.
    """
    if boots and boots[-1].boot_id == boot_id:
        return tuple(boots), False
    heard = Boot(boot_id, now, (now - sent_at).total_seconds())
    earlier = next((boot for boot in boots if boot.boot_id == boot_id), None)
    if earlier is None:
        return (*boots, heard)[-MAX_BOOTS:], False
    # A message that was held up on its way, while the machine booted, was sent before: by the
    # node's clock as the server knew it then.
    sent = sent_at + dt.timedelta(seconds=earlier.skew_s)
    if sent <= boots[-1].since:
        return tuple(boots), False
    others = tuple(boot for boot in boots if boot.boot_id != boot_id)
    return (*others, heard), True


def boots_from_json(stored: object) -> tuple[Boot, ...]:
    """Return what `boots_to_json` made."""
    items = stored if isinstance(stored, list) else []
    return tuple(
        Boot(item["boot_id"], dt.datetime.fromisoformat(item["since"]), item["skew_s"])
        for item in items
    )


def boots_to_json(boots: Sequence[Boot]) -> list[dict[str, object]]:
    """Return the boots as the database keeps them."""
    return [
        {"boot_id": boot.boot_id, "since": boot.since.isoformat(), "skew_s": boot.skew_s}
        for boot in boots
    ]
