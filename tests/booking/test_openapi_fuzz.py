"""Schemathesis sends what the OpenAPI document allows, and what it forbids.

Whatever is sent, the server never fails, and answers as the document says.
"""

from __future__ import annotations

import datetime as dt
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from apiflask import APIFlask
from schemathesis import AuthContext
from schemathesis.engine import Status, from_schema
from schemathesis.engine.events import FatalError, NonFatalError, ScenarioFinished
from schemathesis.engine.recorder import ScenarioRecorder
from schemathesis.schemas import BaseSchema
from werkzeug.serving import make_server

from sentinel_booking.app import create_app
from sentinel_booking.config import Config
from sentinel_booking.models import Role, SignIn, User, db, write
from sentinel_booking.services.sign_ins import find_sign_in
from sentinel_booking.tokens import Tokens, make_tokens
from tests.booking.lab import SCRAPE, WEBHOOK, add_agent, register
from tests.booking.people import add_user

ADMIN = "ada"
CONFIG = schemathesis.Config.from_dict(
    {
        "seed": 1,
        "continue-on-failure": True,
        "generation": {"max-examples": 5, "deterministic": True, "database": "none"},
        # What one operation made is of no use to another here: the caller is made anew.
        "phases": {"stateful": {"enabled": False}},
        # A schema cannot tell which names and keys are refused for what they say.
        "checks": {"positive_data_acceptance": {"enabled": False}},
    }
)


class Caller:
    """Whoever the operation is for: an admin, the node's agent, Prometheus, Alertmanager.

    What is sent may sign the admin out, demote them or revoke the agent's token: before each
    request that is made good again, so that the next one is not refused for it.
    """

    def __init__(self, app: APIFlask) -> None:
        self.app = app
        self.user_id = add_user(app, ADMIN, Role.ADMIN)
        self.agent = add_agent(app)
        self.sid = ""

    def tokens(self) -> Tokens:
        """Tokens of a sign-in that is open, of somebody who is an active admin."""
        with self.app.app_context():
            signed_in = find_sign_in(self.sid)
            if signed_in is None or signed_in.role != Role.ADMIN:
                self._sign_in()
                signed_in = find_sign_in(self.sid)
            assert signed_in is not None
            with self.app.test_request_context():
                return make_tokens(signed_in)

    def _sign_in(self) -> None:
        self.sid = uuid.uuid4().hex
        lifetime = dt.timedelta(days=1)
        with write() as session:
            user = session.get_one(User, self.user_id)
            user.role, user.is_active, user.must_change_password = Role.ADMIN, True, False
            session.add(
                SignIn(
                    sid=self.sid,
                    user_id=user.id,
                    expires_at=dt.datetime.now(dt.UTC) + lifetime,
                )
            )

    def headers(self, path: str) -> dict[str, str]:
        """What the right caller of this path sends."""
        if path.startswith("/api/agent/"):
            if self.agent.call("GET", "/policy").status_code == 401:
                self.agent = register(self.app)
            return self.agent.headers
        if path.startswith(("/sd/", "/metrics")):
            return SCRAPE
        if path == "/api/alerts/webhook":
            return WEBHOOK
        tokens = self.tokens()
        token = tokens.refresh if path == "/api/auth/refresh" else tokens.access
        return {"Authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseSchema]:
    """The OpenAPI document of an application with an admin and a node."""
    folder = tmp_path_factory.mktemp("fuzz")
    for name in ("secret", "scrape", "webhook"):
        (folder / name).write_text(f"{name}-for-tests-0123456789abcdef0123456789\n")
    app = create_app(
        Config(
            database_url=f"sqlite:///{folder / 'booking.db'}",
            secret_key_file=folder / "secret",
            scrape_token_file=folder / "scrape",
            webhook_token_file=folder / "webhook",
        )
    )
    with app.app_context():
        db.create_all()
    caller = Caller(app)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    loaded = schemathesis.openapi.from_url(
        f"http://127.0.0.1:{server.server_port}/openapi.json", config=CONFIG
    )

    @loaded.auth(refresh_interval=None)
    class Right:
        def get(self, _: object, context: AuthContext) -> dict[str, str]:
            return caller.headers(context.operation.path)

        def set(self, case: Any, data: dict[str, str], _: object) -> None:
            case.headers.update(data)

    yield loaded
    server.shutdown()


def test_every_operation_answers_as_documented_whatever_is_sent(document: BaseSchema) -> None:
    problems: list[str] = []
    requests = 0
    for event in from_schema(document).execute():
        if isinstance(event, NonFatalError):
            problems.append(f"{event.label}: {event.value!r}")
        if isinstance(event, FatalError):
            problems.append(repr(event.exception))
        if isinstance(event, ScenarioFinished):
            requests += len(event.recorder.interactions)
            problems += failures_of(event.recorder)
    assert problems == [], f"{len(problems)} problems\n" + "\n\n".join(problems[:40])
    assert requests > 1000, "the document lists operations, and they were called"


def failures_of(recorder: ScenarioRecorder) -> list[str]:
    """Each failed check, with the request that caused it and the answer."""
    found = []
    for case_id, checks in recorder.checks.items():
        for check in checks:
            if check.status == Status.FAILURE:
                exchange, info = recorder.interactions[case_id], check.failure_info
                request, answer = exchange.request, exchange.response
                found.append(
                    f"{check.name}: {request.method} {request.uri}\n"
                    f"  sent {request.body!r:.300}\n"
                    f"  {info.failure if info else ''}\n"
                    f"  got {answer and (answer.status_code, answer.text[:300])}"
                )
    return found
