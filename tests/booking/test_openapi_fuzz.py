"""Schemathesis sends what the OpenAPI document allows, and what it forbids.

Whatever is sent, the server never fails, and answers as the document says.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from schemathesis import AuthContext
from schemathesis.engine import Status, from_schema
from schemathesis.engine.events import FatalError, NonFatalError, ScenarioFinished
from schemathesis.engine.recorder import ScenarioRecorder
from schemathesis.schemas import BaseSchema
from werkzeug.serving import make_server

from sentinel_booking.app import create_app
from sentinel_booking.models import db
from tests.booking.callers import Caller
from tests.booking.page_lab import lab_config

CONFIG = schemathesis.Config.from_dict(
    {
        "seed": 1,
        "continue-on-failure": True,
        "generation": {"max-examples": 5, "deterministic": True, "database": "none"},
        # What one operation made is of no use to another here: the caller is made anew.
        "phases": {"stateful": {"enabled": False}},
        # A schema cannot tell which names and keys are refused for what they say.
        "checks": {
            "positive_data_acceptance": {"enabled": False},
            # Schemathesis' own list, and what is refused for the body's length alone.
            "negative_data_rejection": {
                "expected-statuses": [
                    "400",
                    "401",
                    "403",
                    "404",
                    "405",
                    "406",
                    "409",
                    "411",
                    "413",
                    "415",
                    "422",
                    "428",
                    "429",
                ]
            },
        },
    }
)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseSchema]:
    """The OpenAPI document of an application with an admin and a node."""
    app = create_app(lab_config(tmp_path_factory.mktemp("fuzz")))
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
    statuses: dict[str, set[int]] = {}
    for event in from_schema(document).execute():
        if isinstance(event, NonFatalError):
            problems.append(f"{event.label}: {event.value!r}")
        if isinstance(event, FatalError):
            problems.append(repr(event.exception))
        if isinstance(event, ScenarioFinished):
            answers = [sent.response for sent in event.recorder.interactions.values()]
            seen = statuses.setdefault(event.recorder.label, set())
            seen.update(answer.status_code for answer in answers if answer)
            problems += failures_of(event.recorder)
    assert problems == [], f"{len(problems)} problems\n" + "\n\n".join(problems[:40])
    assert "POST /api/users" in statuses
    unreached = [label for label, seen in statuses.items() if seen <= {401, 403}]
    assert unreached == [], "the right caller gets past the guard"


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
