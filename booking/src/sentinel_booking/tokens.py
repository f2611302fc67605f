"""Access and refresh tokens: making, reading and renewing them. Roles are auth.py's job.

Both tokens of a sign-in carry its `sid`, by which it is looked up at every request, and the
same CSRF value, so that a form stays valid when the access token is renewed beneath it.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
from dataclasses import dataclass

from flask import Flask, Response, current_app, g, request
from flask_jwt_extended import (
    JWTManager,
    create_access_token,
    create_refresh_token,
    get_jwt,
    set_access_cookies,
    set_refresh_cookies,
    unset_jwt_cookies,
    verify_jwt_in_request,
)
from flask_jwt_extended.exceptions import CSRFError, JWTExtendedException
from jwt.exceptions import ExpiredSignatureError, PyJWTError

from .config import SECRET_KEY_MIN_CHARS, Config, current_config, read_secret
from .errors import NotSignedIn, RequestForged
from .services.sign_ins import SignedIn, find_sign_in

_ACCESS_COOKIE = "sentinel_access"
_REFRESH_COOKIE = "sentinel_refresh"


@dataclass(frozen=True)
class Tokens:
    """What a sign-in gives: two tokens, and the access token's lifetime in seconds."""

    access: str
    refresh: str
    expires_in_s: int


def init_tokens(app: Flask, config: Config) -> None:
    """Configure tokens and cookies. Raises ConfigError for an unusable secret."""
    secret = read_secret(config.secret_key_file, SECRET_KEY_MIN_CHARS)
    is_https = config.public_url.startswith("https:")
    app.config.update(
        # Flask's own session gets a key of its own.
        SECRET_KEY=hmac.digest(secret.encode(), b"flask session", hashlib.sha256),
        SESSION_COOKIE_NAME="sentinel_session",
        SESSION_COOKIE_SECURE=is_https,
        SESSION_COOKIE_SAMESITE="Lax",
        JWT_SECRET_KEY=secret,
        JWT_TOKEN_LOCATION=["headers", "cookies"],
        JWT_ACCESS_TOKEN_EXPIRES=dt.timedelta(minutes=config.access_token_minutes),
        JWT_REFRESH_TOKEN_EXPIRES=dt.timedelta(days=config.refresh_token_days),
        JWT_ACCESS_COOKIE_NAME=_ACCESS_COOKIE,
        JWT_REFRESH_COOKIE_NAME=_REFRESH_COOKIE,
        JWT_COOKIE_SECURE=is_https,
        JWT_COOKIE_SAMESITE="Lax",
        # Pages embed the CSRF value; a cookie that scripts can read is not needed.
        JWT_CSRF_IN_COOKIES=False,
        JWT_CSRF_CHECK_FORM=True,
    )
    JWTManager(app)
    app.after_request(_send_renewed_cookie)


def make_tokens(signed_in: SignedIn) -> Tokens:
    """Make both tokens of a sign-in that has just been opened."""
    refresh: str = create_refresh_token(
        str(signed_in.user_id), additional_claims=_claims(signed_in.sid)
    )
    return Tokens(make_access_token(signed_in), refresh, access_lifetime_s())


def make_access_token(signed_in: SignedIn) -> str:
    """Make a new access token for a sign-in that is open."""
    token: str = create_access_token(
        str(signed_in.user_id), additional_claims=_claims(signed_in.sid)
    )
    return token


def access_lifetime_s() -> int:
    """How long an access token is good, in seconds."""
    return current_config().access_token_minutes * 60


def csrf_value(sid: str) -> str:
    """The value that a change by cookie must repeat in X-CSRF-TOKEN or field csrf_token."""
    key: str = current_app.config["JWT_SECRET_KEY"]
    return hmac.new(key.encode(), f"csrf {sid}".encode(), hashlib.sha256).hexdigest()


def set_cookies(response: Response, tokens: Tokens) -> None:
    """Sign the browser in. Both cookies last as long as the refresh token."""
    lifetime_s = current_config().refresh_token_days * 86400
    set_access_cookies(response, tokens.access, max_age=lifetime_s)
    set_refresh_cookies(response, tokens.refresh, max_age=lifetime_s)


def clear_cookies(response: Response) -> None:
    """Sign the browser out."""
    # A renewal in the same request must not put the cookie back.
    g.pop("renewed_access_token", None)
    unset_jwt_cookies(response)


def read_access_token() -> SignedIn:
    """Return who the request's access token belongs to: header first, then cookie.

    A missing or expired access cookie is renewed by the refresh cookie without asking.
    Raises NotSignedIn, or RequestForged for a change by cookie without its CSRF value.
    """
    if "Authorization" in request.headers:
        return _read("headers")
    if _ACCESS_COOKIE in request.cookies:
        try:
            return _read("cookies")
        except _Expired:
            if _REFRESH_COOKIE not in request.cookies:
                raise
    elif _REFRESH_COOKIE not in request.cookies:
        raise NotSignedIn("There is no sign-in with this request.")
    signed_in = _read("cookies", refresh=True)
    g.renewed_access_token = make_access_token(signed_in)
    return signed_in


def read_refresh_token() -> SignedIn:
    """Return who the request's refresh token belongs to. Raises as read_access_token."""
    return _read("headers" if "Authorization" in request.headers else "cookies", refresh=True)


def read_any_token() -> SignedIn:
    """Return who the request's token belongs to, access or refresh. Raises likewise."""
    if "Authorization" in request.headers:
        return _read("headers", refresh=None)
    return read_access_token()


class _Expired(NotSignedIn):
    """The token was ours once; a refresh token may help."""


def _read(location: str, refresh: bool | None = False) -> SignedIn:
    try:
        found = verify_jwt_in_request(
            locations=[location], refresh=bool(refresh), verify_type=refresh is not None
        )
        sid = get_jwt().get("sid") if found else None
    except ExpiredSignatureError as error:
        raise _Expired("The sign-in's token has expired.") from error
    except CSRFError as error:
        raise RequestForged(
            "The CSRF token is missing or wrong; load the page again."
        ) from error
    # ValueError and TypeError: the libraries raise them for some malformed tokens and for
    # CSRF values outside ASCII.
    except (JWTExtendedException, PyJWTError, ValueError, TypeError) as error:
        raise NotSignedIn("The request's token is not valid.") from error
    signed_in = find_sign_in(sid) if isinstance(sid, str) else None
    if signed_in is None:
        raise NotSignedIn("The sign-in has ended.")
    return signed_in


def _claims(sid: str) -> dict[str, str]:
    return {"sid": sid, "csrf": csrf_value(sid)}


def _send_renewed_cookie(response: Response) -> Response:
    token = g.pop("renewed_access_token", None)
    if token is not None:
        lifetime_s = current_config().refresh_token_days * 86400
        set_access_cookies(response, token, max_age=lifetime_s)
    return response
