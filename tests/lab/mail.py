"""A real SMTP server that keeps what it receives. It relays nothing."""

from __future__ import annotations

import email
import email.policy
import threading
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller


class MailBox:
    """Listens on `host`:`port` between start() and stop()."""

    def __init__(self, host: str, port: int) -> None:
        self._messages: list[EmailMessage] = []
        self._lock = threading.Lock()
        self.port = port
        self._controller = Controller(self, hostname=host, port=port)

    def start(self) -> None:
        """Accept mail from now on."""
        self._controller.start()

    def stop(self) -> None:
        """Close the port."""
        self._controller.stop()

    async def handle_DATA(  # noqa: N802  aiosmtpd names it
        self,
        server: Any,  # noqa: ARG002  aiosmtpd names it and has no types
        session: Any,  # noqa: ARG002
        envelope: Any,
    ) -> str:
        """Keep one message."""
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        message["X-Envelope-To"] = ", ".join(envelope.rcpt_tos)
        assert isinstance(message, EmailMessage)
        with self._lock:
            self._messages.append(message)
        return "250 kept"

    @staticmethod
    def text(message: EmailMessage) -> str:
        """Return the plain text of a message."""
        body = message.get_body(("plain",))
        return "" if body is None else str(body.get_content())

    def find(self, *words: str) -> list[EmailMessage]:
        """Return the messages whose subject holds all these words, oldest first."""
        with self._lock:
            return [
                message
                for message in self._messages
                if all(word in str(message["Subject"]) for word in words)
            ]
