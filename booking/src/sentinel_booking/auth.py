"""Who may call what: every view carries a guard, and one without is never called.

Guards run before the view and before its input is read. What a person may do with one
object (their own reservation) is decided in services.
"""

from __future__ import annotations

import datetime as dt
import hmac
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from flask import Flask, current_app, g, request

from .config import Config, current_config, read_secret
from .errors import NotAllowed, NotSignedIn, PasswordChangeRequired
from .models import Role
from .rate_limits import count_attempt
from .services.audit import Actor
from .services.sign_ins import SignedIn, open_sign_in
from .tokens import (
    Tokens,
    csrf_value,
    make_tokens,
    read_access_token,
    read_any_token,
    read_refresh_token,
)

log = logging.getLogger(__name__)

View = TypeVar("View", bound=Callable[..., object])

# From the most to the least powerful.
_RANKS = (Role.ADMIN, Role.OPERATOR, Role.USER, Role.READONLY)
_GUARD = "_sentinel_guard"


@dataclass(frozen=True)
class Guard:
    """A check that raises a BookingError, and the OpenAPI security scheme it stands for."""

    check: Callable[[], None]
    scheme: str | None


def guarded_by(check: Callable[[], None], scheme: str | None) -> Callable[[View], View]:
    """Make a view decorator of a check; its place among the other decorators is free.

    The check raises NotSignedIn or NotAllowed, and calls set_actor() for whoever it knows.
    """

    def mark(view: View) -> View:
        # functools.wraps copies the attribute on, so wrappers around the view show it too.
        setattr(view, _GUARD, Guard(check, scheme))
        return view

    return mark


def guard_of(view: Callable[..., object]) -> Guard | None:
    """Return the view's guard; None means that nobody may call it."""
    return getattr(view, _GUARD, None)


# For anybody, signed in or not. Nothing about the caller is known in such a view.
public = guarded_by(lambda: None, scheme=None)


def require_role(role: Role, *, before_password_change: bool = False) -> Callable[[View], View]:
    """Let in a signed-in person who has at least this role.

    `before_password_change` also lets in those who must change their password first.
    """

    def check() -> None:
        signed_in = _enter(read_access_token())
        if signed_in.must_change_password and not before_password_change:
            raise PasswordChangeRequired(
                "Somebody else has set your password: set one of your own first."
            )
        if _RANKS.index(signed_in.role) > _RANKS.index(role):
            raise NotAllowed(f"This needs the role {role} or above; yours is {signed_in.role}.")

    return guarded_by(check, scheme="person")


# For the holder of a refresh token, and of either of the two.
require_refresh_token = guarded_by(lambda: _enter_quietly(read_refresh_token), "refresh")
require_any_token = guarded_by(lambda: _enter_quietly(read_any_token), "person")


def require_bearer(name: str) -> Callable[[View], View]:
    """Let in the program that holds the configured secret: "scrape" or "webhook"."""

    def check() -> None:
        secret: str = current_app.extensions["sentinel_secrets"][name]
        # As bytes: comparing strings fails for characters outside ASCII.
        if not hmac.compare_digest(bearer_token().encode(), secret.encode()):
            raise NotSignedIn(f"This is not the {name} token.")
        set_actor(Actor(kind="system", name=name, ip=client_ip()))

    return guarded_by(check, scheme=name)


def bearer_token() -> str:
    """Return the token of the Authorization header. Raises NotSignedIn without one."""
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise NotSignedIn("An Authorization header with a bearer token is needed.")
    return token.strip()


def client_ip() -> str:
    """The caller's address; behind `trusted_proxies`, the one that they report."""
    return (request.remote_addr or "")[:45]


def sign_in(name: str, password: str) -> tuple[SignedIn, Tokens]:
    """Open a sign-in for name and password.

    Raises NotSignedIn when they are wrong, TooManyAttempts when tried too often.
    """
    count_attempt("sign-in", client_ip(), name)
    lifetime = dt.timedelta(days=current_config().refresh_token_days)
    signed_in = open_sign_in(name, password, client_ip(), lifetime)
    return signed_in, make_tokens(signed_in)


def set_actor(actor: Actor) -> None:
    """Say who calls; for guards only."""
    g.sentinel_actor = actor


def current_actor() -> Actor:
    """Return who calls. Raises NotSignedIn in a public view."""
    actor: Actor | None = g.get("sentinel_actor")
    if actor is None:
        raise NotSignedIn("There is no sign-in with this request.")
    return actor


def current_sign_in() -> SignedIn | None:
    """Return the signed-in person; None in public views and for programs."""
    signed_in: SignedIn | None = g.get("sentinel_sign_in")
    return signed_in


def require_sign_in() -> SignedIn:
    """Return the signed-in person. Raises NotSignedIn when there is none."""
    signed_in = current_sign_in()
    if signed_in is None:
        raise NotSignedIn("There is no sign-in with this request.")
    return signed_in


def csrf_token() -> str:
    """For templates: what forms send as csrf_token and scripts as X-CSRF-TOKEN."""
    signed_in = current_sign_in()
    return "" if signed_in is None else csrf_value(signed_in.sid)


def init_auth(app: Flask, config: Config) -> None:
    """Deny by default. Raises ConfigError for an unusable secret file."""
    app.extensions["sentinel_secrets"] = {
        "scrape": read_secret(config.scrape_token_file),
        "webhook": read_secret(config.webhook_token_file),
    }
    app.before_request(_check_guard)
    app.context_processor(
        lambda: {"csrf_token": csrf_token, "current_sign_in": current_sign_in}
    )


def _check_guard() -> None:
    # No such address or method: Flask answers 404 or 405, or redirects.
    if request.routing_exception is not None or request.endpoint is None:
        return
    # Flask itself answers OPTIONS with Allow, unless a view asked to.
    if request.method == "OPTIONS" and getattr(
        request.url_rule, "provide_automatic_options", False
    ):
        return
    guard = guard_of(current_app.view_functions[request.endpoint])
    if guard is None:
        log.error("endpoint without a guard refused endpoint=%s", request.endpoint)
        raise NotAllowed("This address is not open to anybody.")
    guard.check()


def _enter(signed_in: SignedIn) -> SignedIn:
    g.sentinel_sign_in = signed_in
    set_actor(
        Actor(
            kind="user",
            name=signed_in.name,
            ip=client_ip(),
            user_id=signed_in.user_id,
            role=signed_in.role,
        )
    )
    return signed_in


def _enter_quietly(read: Callable[[], SignedIn]) -> None:
    _enter(read())
