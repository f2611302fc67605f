"""pyghmi's IPMI 2.0 session on our own waiting, sending and receiving. Knows no commands.

pyghmi does the protocol: login, keys, encryption, framing. Its `simplesession` gives each
session a socket of its own and no shared thread, but waits for ever for a lost packet.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import struct
import time
from typing import Any

from pyghmi.exceptions import PyghmiException
from pyghmi.ipmi.private import simplesession

from .errors import LoginError, NoAnswerError
from .target import Address

log = logging.getLogger(__name__)

# A request that got no answer is sent again after this time, and then ever later: a BMC that
# is merely slow must not drown in repetitions.
RETRY_S = 0.3
# The login is begun anew instead, and each beginning occupies one of the BMC's few slots.
LOGIN_RETRY_S = 1.0
RETRY_GROWTH = 1.5
# A BMC that has sent nothing for so long is given up, whatever time is left.
SILENCE_S = 5.0

_MAX_PACKET = 3000
_LOGIN_STEPS = ("OPENSESSION", "EXPECTINGRAKP2", "EXPECTINGRAKP4")


class Wire(simplesession.Session):  # type: ignore[misc]  # pyghmi has no types
    """pyghmi's session on our waiting, sending and receiving."""

    def __init__(
        self, address: Address, user: bytes, password: bytes, privilege: int, deadline: float
    ) -> None:
        """Log in. Raises NoAnswerError, LoginError, OSError and pyghmi's own errors."""
        self.deadline = deadline
        self.silence_s = SILENCE_S
        self._peer = (str(address.ip), address.port)
        self._heard_at = time.monotonic()
        self._retry_s = LOGIN_RETRY_S
        self._resend_at = 0.0
        self.sessioncontext: str | None = None
        family = socket.AF_INET6 if address.ip.version == 6 else socket.AF_INET
        self._udp = socket.socket(family, socket.SOCK_DGRAM)
        try:
            # Connected, so that only this peer is heard, and an ICMP "unreachable" is an error.
            self._udp.connect(self._peer)
            super().__init__(
                bmc=self._peer[0],
                port=address.port,
                # pyghmi compares and pads these with bytes.
                userid=user,
                password=password,
                privlevel=int(privilege),
            )
        except BaseException:
            self.hang_up()
            raise
        self._retry_s = RETRY_S

    def ask(self, **request: Any) -> Any:
        """Send one request and return pyghmi's answer to it."""
        self._heard_at, self._retry_s = time.monotonic(), RETRY_S
        return self.raw_command(**request)

    def hang_up(self) -> None:
        """Close the session at the BMC and the socket here."""
        if self.sessioncontext == "ESTABLISHED":
            # pyghmi would wait for an answer that is still due, or hold the message back.
            self.logged, self.incommand, self.lastpayload = 1, False, None
            with contextlib.suppress(OSError, PyghmiException):
                self.logout()
        self.sessioncontext = None
        # Every login is entered there, and only an orderly log-out would take it off.
        simplesession.Session.keepalive_sessions.pop(self, None)
        self._udp.close()

    # What follows replaces parts of pyghmi's class.

    def _assignsocket(self, *_unused: object) -> socket.socket:
        return self._udp

    def _get_session_challenge(self) -> None:
        # IPMI 1.5 shows whoever answers a digest of the password before it has proved anything;
        # in RAKP the BMC proves first that it knows the password.
        raise LoginError("the BMC offers IPMI 1.5 only, which is not served")

    def _xmit_packet(self, *_unused: object, **_options: object) -> None:
        if self.sequencenumber:  # zero stays zero until the session is open
            self.sequencenumber += 1
        self._udp.send(self.netpacket)
        self._resend_at = time.monotonic() + self._retry_s

    def awaitresponse(self, retry: bool) -> None:
        while retry and self.lastresponse is None and self.logged:
            self._step()

    def wait_for_rsp(self, *_unused: object, **_options: object) -> None:
        self._step()

    def process_pktqueue(self) -> None:
        while True:
            try:
                packet = bytearray(self._udp.recv(_MAX_PACKET, socket.MSG_DONTWAIT))
            except BlockingIOError:
                return
            self._heard_at = time.monotonic()
            if packet[:1] != b"\x06" or packet[2:4] != b"\xff\x07" or len(packet) < 16:
                continue  # not RMCP of class IPMI
            try:
                self._handle_ipmi_packet(packet, sockaddr=self._peer)
            except (IndexError, KeyError, TypeError, ValueError, struct.error) as error:
                # pyghmi trusts lengths and padding; a damaged packet is a lost one.
                log.debug("bad packet peer=%s reason=%r", self._peer, error)

    def _step(self) -> None:
        """Wait for a packet and handle it; resend or give up when none came in time."""
        now = time.monotonic()
        give_up_at = min(self.deadline, self._heard_at + self.silence_s)
        if now >= give_up_at:
            why = "the time for it is over" if now >= self.deadline else "given up"
            raise NoAnswerError(f"no answer for {now - self._heard_at:.1f} s, {why}")
        if now >= self._resend_at:
            self._resend()
        poll = select.poll()  # select() cannot take descriptors above 1023
        poll.register(self._udp, select.POLLIN)
        if poll.poll(max(0.0, min(give_up_at, self._resend_at) - now) * 1000 + 1):
            self.process_pktqueue()

    def _resend(self) -> None:
        self._retry_s *= RETRY_GROWTH
        if self.sessioncontext in _LOGIN_STEPS:
            # BMCs do not take kindly to RAKP messages that come twice: ask for a new session.
            # Its tags and id are new as well, so that a late answer to the old one is not
            # mistaken for a wrong password. What was agreed before, the cipher suite, stays.
            self.lastpayload = None
            self._open_rmcpplus_request()
        else:
            self.hasretried = 1
            self.send_payload()
