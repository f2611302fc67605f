"""Turns every error into an answer: a problem document (RFC 9457), or a page for people.

It decides no refusal itself and shows nothing of an unexpected error.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from urllib.parse import urlencode

from flask import Flask, Response, jsonify, make_response, redirect, render_template, request
from sqlalchemy.exc import DataError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from werkzeug.exceptions import HTTPException
from werkzeug.http import HTTP_STATUS_CODES
from werkzeug.wrappers import Response as WerkzeugResponse

from ..errors import BookingError, NotSignedIn, PasswordChangeRequired, TooManyAttempts

log = logging.getLogger(__name__)

# Where people are sent to sign in, and to set a password of their own.
LOGIN_PAGE = "/login"
PASSWORD_PAGE = "/me/password"  # noqa: S105  an address

# What programs call; every other address is a page.
_PROGRAM_PATHS = ("/api/", "/sd/", "/metrics", "/healthz", "/readyz", "/openapi.json")


@dataclass(frozen=True)
class Problem:
    """A problem document's members; `headers` go with the answer."""

    status: int
    code: str
    title: str
    detail: str
    errors: list[dict[str, str]] = field(default_factory=list)
    extra: dict[str, object] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, object]:
        """The members as JSON; extension members never replace the standard ones."""
        document = {
            **self.extra,
            "type": f"/problems/{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            document["errors"] = self.errors
        return document


PROBLEM_SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "reason"],
                "properties": {"field": {"type": "string"}, "reason": {"type": "string"}},
            },
        },
    },
}


def init_problems(app: Flask) -> None:
    """Answer every error of the application."""
    app.register_error_handler(BookingError, _on_refusal)
    app.register_error_handler(HTTPException, _on_http_exception)
    app.register_error_handler(OperationalError, _on_database_failure)
    app.register_error_handler(PoolTimeoutError, _on_database_failure)
    app.register_error_handler(DataError, _on_unstorable_value)
    app.register_error_handler(Exception, _on_unexpected)


def is_for_program() -> bool:
    """True when the request's address is one that programs call, not a page."""
    return request.path.startswith(_PROGRAM_PATHS)


def _on_refusal(error: BookingError) -> WerkzeugResponse:
    headers: dict[str, str] = {}
    if isinstance(error, NotSignedIn):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, TooManyAttempts):
        headers["Retry-After"] = str(error.retry_after_s)
    if not is_for_program():
        if isinstance(error, NotSignedIn):
            return _send_to(_login_address())
        if isinstance(error, PasswordChangeRequired):
            return _send_to(PASSWORD_PAGE)
    return _answer(
        Problem(
            status=error.status,
            code=error.code,
            title=error.title,
            detail=error.detail,
            errors=[{"field": f.field, "reason": f.reason} for f in error.fields],
            extra=error.extra,
            headers=headers,
        )
    )


def _on_http_exception(error: HTTPException) -> WerkzeugResponse:
    # Redirects for a missing slash are HTTPExceptions too, and abort() may carry a response.
    if error.code is None or error.code < 400 or error.response is not None:
        return error.get_response()
    name = HTTP_STATUS_CODES.get(error.code, "Error")
    return _answer(
        Problem(
            status=error.code,
            code=name.lower().replace(" ", "-"),
            title=name,
            detail=error.description or name,
            # Allow of a 405, Retry-After of a 429: they must not be lost.
            headers={
                key: value
                for key, value in error.get_headers()
                if key.lower() not in ("content-type", "content-length")
            },
        )
    )


def _on_database_failure(error: Exception) -> WerkzeugResponse:
    # The class only: the message of a database error holds the statement's values.
    log.error("database failure path=%s error=%s", request.path, type(error).__name__)
    return _answer(
        Problem(
            status=503,
            code="unavailable",
            title="Not available at present",
            detail="The database does not answer; nothing was changed. Try again soon.",
            headers={"Retry-After": "5"},
        )
    )


def _on_unstorable_value(_: DataError) -> WerkzeugResponse:
    # The net behind the schemas: a number or text that the database cannot hold.
    log.warning("value refused by the database path=%s", request.path)
    return _answer(
        Problem(
            status=422,
            code="invalid-input",
            title="The input is not valid",
            detail="A value of the request cannot be stored.",
        )
    )


def _on_unexpected(_: Exception) -> WerkzeugResponse:
    # The last boundary: whatever a view did not foresee ends here, in the log.
    log.exception("unexpected error method=%s path=%s", request.method, request.path)
    return _answer(
        Problem(
            status=500,
            code="internal",
            title="Internal error",
            detail="The server failed to serve this; its log says why.",
        )
    )


def _answer(problem: Problem) -> Response:
    if is_for_program():
        response = jsonify(problem.document())
        response.mimetype = "application/problem+json"
    else:
        try:
            response = make_response(render_template("error.html", problem=problem))
        except Exception:
            # An error page that fails must not hide the error that it was to show.
            log.exception("error page failed path=%s", request.path)
            response = Response(f"{problem.title}\n\n{problem.detail}\n", mimetype="text/plain")
    response.status_code = problem.status
    response.headers.update(problem.headers)
    return response


def _login_address() -> str:
    # After a POST the form is lost anyway; sending people back to it would be a GET.
    if request.method != "GET":
        return LOGIN_PAGE
    wanted = request.full_path.rstrip("?")
    return LOGIN_PAGE if wanted == "/" else f"{LOGIN_PAGE}?{urlencode({'next': wanted})}"


def _send_to(address: str) -> WerkzeugResponse:
    if request.headers.get("HX-Request") == "true":
        # A script would follow a redirect and put the sign-in form into a page's corner.
        return Response(status=401, headers={"HX-Redirect": address})
    return redirect(address, 303)
