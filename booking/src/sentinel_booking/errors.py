"""The expected refusals of the booking server. Turning them into HTTP is api's job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class FieldProblem:
    """One field of the input and what is wrong with it; `field` is a dotted path."""

    field: str
    reason: str


class BookingError(Exception):
    """A refusal that the caller can understand and act on.

    `status` is the HTTP status, `code` the stable last part of the problem's type,
    `extra` becomes further members of the problem document (RFC 9457, section 3.2).
    """

    status = 400
    code = "bad-request"
    title = "The request cannot be served"

    def __init__(
        self,
        detail: str,
        *,
        fields: Sequence[FieldProblem] = (),
        extra: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fields = tuple(fields)
        self.extra = dict(extra or {})


class InvalidInput(BookingError):
    """Well-formed, but a field's value is refused."""

    status = 422
    code = "invalid-input"
    title = "The input is not valid"

    @classmethod
    def field(cls, field: str, reason: str) -> InvalidInput:
        """Refuse a single field."""
        return cls(f"{field}: {reason}", fields=[FieldProblem(field, reason)])


class NotSignedIn(BookingError):
    """No credentials, or credentials that are not valid (any more)."""

    status = 401
    code = "not-signed-in"
    title = "Sign in first"


class NotAllowed(BookingError):
    """Known, but the role does not permit it."""

    status = 403
    code = "not-allowed"
    title = "Your role does not permit this"


class PasswordChangeRequired(NotAllowed):
    """Signed in with a password that somebody else knows; only changing it is allowed."""

    code = "password-change-required"
    title = "Change your password first"


class RequestForged(NotAllowed):
    """A change asked for with cookies, but without the CSRF token or from another site."""

    code = "csrf"
    title = "The request does not come from our own page"


class NotFound(BookingError):
    """The object does not exist, or the caller may not know that it does."""

    status = 404
    code = "not-found"
    title = "No such object"


class Conflict(BookingError):
    """The object's state forbids it: a booked slot, a name that is taken."""

    status = 409
    code = "conflict"
    title = "In conflict with what is there"


class PreconditionFailed(BookingError):
    """If-Match names a version that is no longer the current one."""

    status = 412
    code = "precondition-failed"
    title = "Changed by somebody else in the meantime"


class PreconditionRequired(BookingError):
    """A change of this object must carry If-Match."""

    status = 428
    code = "precondition-required"
    title = "If-Match is required"


class TooManyAttempts(BookingError):
    """Slow down; `retry_after_s` says for how long."""

    status = 429
    code = "too-many-attempts"
    title = "Too many attempts"

    def __init__(self, detail: str, retry_after_s: int) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class Unavailable(BookingError):
    """A part that we depend on does not answer; nothing was changed."""

    status = 503
    code = "unavailable"
    title = "Not available at present"


class ConfigError(Exception):
    """The configuration cannot be used; the message names every problem."""


class SchemaError(Exception):
    """The database is not the one that this version needs; the message names every problem."""
