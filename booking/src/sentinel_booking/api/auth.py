"""`/api/auth`: signing in with a password, renewing, signing out."""

from __future__ import annotations

from apiflask import APIBlueprint
from flask import Response
from pydantic import Field

from ..auth import (
    current_actor,
    public,
    require_any_token,
    require_refresh_token,
    require_sign_in,
    sign_in,
)
from ..services.sign_ins import end_sign_in
from ..tokens import access_lifetime_s, clear_cookies, make_access_token
from .schemas import Body, Out

bp = APIBlueprint("auth", __name__, url_prefix="/api/auth")


class Credentials(Body):
    """Longer input than any name or password could be is refused before it is hashed."""

    name: str = Field(min_length=1, max_length=64)
    password: str = Field(min_length=1, max_length=256)


class SignInOut(Out):
    """`expires_in` is the access token's lifetime in seconds."""

    access_token: str
    refresh_token: str
    expires_in: int
    must_change_password: bool


class AccessTokenOut(Out):
    """`expires_in` is the access token's lifetime in seconds."""

    access_token: str
    expires_in: int


@bp.post("/login")
@public
@bp.input(Credentials)
@bp.output(SignInOut)
@bp.doc(responses={401: "The name or the password is wrong", 429: "Too many attempts"})
def login(json_data: Credentials) -> dict[str, object]:
    """Sign in with name and password. Anybody; rate-limited."""
    signed_in, tokens = sign_in(json_data.name, json_data.password)
    return {
        "access_token": tokens.access,
        "refresh_token": tokens.refresh,
        "expires_in": tokens.expires_in_s,
        "must_change_password": signed_in.must_change_password,
    }


@bp.post("/refresh")
@require_refresh_token
@bp.output(AccessTokenOut)
def refresh() -> dict[str, object]:
    """Get a new access token for a refresh token. The token's holder."""
    return {
        "access_token": make_access_token(require_sign_in()),
        "expires_in": access_lifetime_s(),
    }


@bp.post("/logout")
@require_any_token
@bp.output({}, status_code=204)
def logout() -> Response:
    """Revoke the access and the refresh token at once. The holder of either."""
    end_sign_in(require_sign_in().sid, current_actor())
    response = Response(status=204)
    clear_cookies(response)
    return response
