"""Leases, by which one process at a time does the due work. It does none of that work."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import or_, update
from sqlalchemy.exc import IntegrityError

from ..models import Lease, utc_now, write


def take_lease(name: str, owner: str, lasts: dt.timedelta) -> bool:
    """Take or renew the lease for `owner`; False while another one has it.

    Of two that ask at once one gets it: a conditional UPDATE, and the name is the key.
    """
    now = utc_now()
    try:
        with write() as session:
            taken = session.scalar(
                update(Lease)
                .where(Lease.name == name, or_(Lease.owner == owner, Lease.expires_at <= now))
                .values(owner=owner, expires_at=now + lasts)
                .returning(Lease.name)
            )
            if taken is None and session.get(Lease, name) is None:
                session.add(Lease(name=name, owner=owner, expires_at=now + lasts))
                taken = name
            return taken is not None
    except IntegrityError:
        # Somebody else has made the first lease of this name in this very moment.
        return False
