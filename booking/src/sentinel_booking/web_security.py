"""Headers that bind browsers, and the refusal of changes asked for by other sites."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Flask, Response, request
from werkzeug.exceptions import BadRequest, LengthRequired, RequestEntityTooLarge

from .config import Config
from .errors import RequestForged

MAX_BODY_BYTES = 1024 * 1024
_CHANGES = ("POST", "PUT", "PATCH", "DELETE")


def init_web_security(app: Flask, config: Config) -> None:
    """Check every request before its guard, and mark every answer."""
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    public = urlsplit(config.public_url)
    grafana = urlsplit(config.grafana_url)
    frames = f"{grafana.scheme}://{grafana.netloc}" if grafana.netloc else "'none'"
    policy = "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data:",
            "font-src 'self'",
            "connect-src 'self'",
            "manifest-src 'self'",
            f"frame-src {frames}",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'self'",
        )
    )

    @app.before_request
    def refuse_malformed() -> None:
        # Werkzeug cuts a chunked body at the limit in silence; no client of ours sends one.
        if "Transfer-Encoding" in request.headers:
            raise LengthRequired("Send the body with a Content-Length.")
        # Views that read no body would otherwise let any size through.
        if (request.content_length or 0) > MAX_BODY_BYTES:
            raise RequestEntityTooLarge
        # No database text can hold it, and no name of ours does.
        if "\x00" in request.path or any(
            "\x00" in text for item in request.args.items(multi=True) for text in item
        ):
            raise BadRequest("The address holds a NUL character.")

    @app.before_request
    def refuse_other_sites() -> None:
        # Besides the CSRF token: covers signing in itself, where there is no token yet.
        # Browsers leave Sec-Fetch-Site out on plain http, but send Origin with a POST.
        if request.method not in _CHANGES:
            return
        site = request.headers.get("Sec-Fetch-Site")
        origin = request.headers.get("Origin")
        if site is not None:
            is_ours = site in ("same-origin", "none")
        else:
            is_ours = origin is None or urlsplit(origin).netloc in (request.host, public.netloc)
        if not is_ours:
            raise RequestForged("The request was sent by a page of another site.")

    @app.after_request
    def mark(response: Response) -> Response:
        headers = response.headers
        headers.setdefault("Content-Security-Policy", policy)
        headers.setdefault("X-Content-Type-Options", "nosniff")
        headers.setdefault("X-Frame-Options", "DENY")
        headers.setdefault("Referrer-Policy", "same-origin")
        headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
        if request.endpoint != "static":
            headers.setdefault("Cache-Control", "no-store")
        if public.scheme == "https":
            headers.setdefault("Strict-Transport-Security", "max-age=31536000")
        return response
