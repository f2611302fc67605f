"""For each path of the API, whoever it is for: used where all endpoints are tested alike."""

from __future__ import annotations

import datetime as dt
import uuid

from apiflask import APIFlask

from sentinel_booking.models import Role, SignIn, User, write
from sentinel_booking.services.sign_ins import find_sign_in
from sentinel_booking.tokens import Tokens, make_tokens
from tests.booking.lab import SCRAPE, WEBHOOK, add_agent, register
from tests.booking.people import add_user

ADMIN = "ada"


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
