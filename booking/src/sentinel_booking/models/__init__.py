"""The tables. What may be done with them is decided in services."""

from .alert import Alert
from .audit import AuditEntry
from .database import Base, UtcDateTime, db, prepare_engine, utc_now, write
from .lease import Lease
from .node import Device, Invite, Mode, Node, Target
from .reservation import SLOT_END, Claim, IdempotencyKey, Kind, Reservation
from .user import Role, SignIn, SshKey, User

__all__ = [
    "SLOT_END",
    "Alert",
    "AuditEntry",
    "Base",
    "Claim",
    "Device",
    "IdempotencyKey",
    "Invite",
    "Kind",
    "Lease",
    "Mode",
    "Node",
    "Reservation",
    "Role",
    "SignIn",
    "SshKey",
    "Target",
    "User",
    "UtcDateTime",
    "db",
    "prepare_engine",
    "utc_now",
    "write",
]
