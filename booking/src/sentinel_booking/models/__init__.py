"""The tables. What may be done with them is decided in services."""

from .alert import Alert
from .audit import AuditEntry
from .database import WRITE_OPTION, Base, UtcDateTime, db, prepare_engine, utc_now, write
from .guards import check_guards, guard_problems
from .lease import Lease
from .node import Device, Invite, Mode, Node, Target
from .reservation import SLOT_END, Claim, IdempotencyKey, Kind, Reservation
from .schema import downgrade_schema, init_migrations, schema_problems, upgrade_schema
from .user import Role, SignIn, SshKey, User

__all__ = [
    "SLOT_END",
    "WRITE_OPTION",
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
    "check_guards",
    "db",
    "downgrade_schema",
    "guard_problems",
    "init_migrations",
    "prepare_engine",
    "schema_problems",
    "upgrade_schema",
    "utc_now",
    "write",
]
