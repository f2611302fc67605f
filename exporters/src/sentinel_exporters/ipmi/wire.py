"""pyghmi's IPMI 2.0 login on our own waiting, sending and receiving. Knows no commands.

pyghmi does RAKP and the keys. Its `simplesession` gives each login a socket of its own and no
shared thread, but waits for ever for a lost packet. What an open session sends and hears is
framing.py's.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import struct
import time
from dataclasses import dataclass, field
from enum import IntEnum

from pyghmi.ipmi.private import constants, simplesession

from .errors import LoginError, NoAnswerError
from .framing import RMCP_PLUS, Channel, Keys, close_session, message_outside
from .loop import SILENCE_S
from .patience import RETRY_S
from .target import Address

log = logging.getLogger(__name__)

# A lost login message is not sent again, the login is begun anew instead; each beginning
# occupies one of the BMC's few slots. A BMC may take long over the keys.
LOGIN_RETRY_S = 0.8
_LOGIN_GROWTH = 1.15

_MAX_PACKET = 3000
_LEAST_PACKET = 16  # up to the payload (IPMI 2.0, table 13-8)
# How many are taken before a look at the time: a flood must not last beyond the deadline.
_MAX_PACKETS = 32
_LOGIN_STEPS = ("OPENSESSION", "EXPECTINGRAKP2", "EXPECTINGRAKP4")
# Where the BMC has begun a session, and where it may have opened it.
_IS_BEGUN = ("EXPECTINGRAKP2", "FAILED")
_MAY_BE_OPEN = ("EXPECTINGRAKP4", "ESTABLISHED")
_INVALID_INTEGRITY_CHECK = 0x0F  # RMCP+ status code (table 13-15)


class Privilege(IntEnum):
    """What a session may do, at most (IPMI 2.0, 22.18)."""

    USER = 2
    OPERATOR = 3
    ADMIN = 4


@dataclass(frozen=True)
class Credentials:
    """Who logs in. At most 16 bytes of user and 20 of password (IPMI 2.0, 22.28 and 22.30)."""

    user: str
    password: str = field(repr=False)
    privilege: Privilege = Privilege.USER


@dataclass(frozen=True)
class Opened:
    """What a login gives. Some BMCs have a `guid` of zeros."""

    channel: Channel
    session_id: int
    guid: bytes


def connect(address: Address) -> socket.socket:
    """Return a socket that does not block. Raises OSError.

    Connected, so that only this peer is heard, and an ICMP "unreachable" is an error.
    """
    family = socket.AF_INET6 if address.ip.version == 6 else socket.AF_INET
    udp = socket.socket(family, socket.SOCK_DGRAM)
    try:
        udp.setblocking(False)
        udp.connect((str(address.ip), address.port))
    except BaseException:
        udp.close()
        raise
    return udp


def log_in(
    udp: socket.socket,
    address: Address,
    credentials: Credentials,
    deadline: float,
) -> Opened:
    """Open a session over the connected socket, which the caller closes.

    Raises NoAnswerError, LoginError, OSError and pyghmi's own errors.
    """
    login = _Login(udp, address, credentials, deadline)
    return Opened(login.channel(), login.pendingsessionid, bytes(login.remoteguid))


class _Login(simplesession.Session):  # type: ignore[misc]  # pyghmi has no types
    """pyghmi's session until it is open."""

    def __init__(
        self,
        udp: socket.socket,
        address: Address,
        credentials: Credentials,
        deadline: float,
    ) -> None:
        self._udp = udp
        self._deadline = deadline
        self._peer = (str(address.ip), address.port)
        self._heard_at = time.monotonic()
        self._login_retry_s = LOGIN_RETRY_S
        self._resend_at = 0.0
        self.sessioncontext: str | None = None
        try:
            super().__init__(
                bmc=self._peer[0],
                port=address.port,
                # pyghmi compares and pads these with bytes.
                userid=credentials.user.encode(),
                password=credentials.password.encode(),
                privlevel=int(credentials.privilege),
            )
        except BaseException:
            self._leave()
            raise
        finally:
            # Every login is entered there, and only pyghmi's own log-out would take it off.
            simplesession.Session.keepalive_sessions.pop(self, None)

    def channel(self) -> Channel:
        """Return the packets of the session that is open, or will be when the BMC agrees."""
        keys = Keys(
            remote_id=self.pendingsessionid,
            local_id=self.localsid,
            digest=self.currhashlib().name,
            mac_length=self.currhashlen,
            integrity=bytes(self.k1),
            encryption=bytes(self.aeskey),
            sent=self.sequencenumber,
            heard=self.remseqnumber,
        )
        return Channel(keys)

    def _leave(self) -> None:
        """Tell the BMC that nothing comes of the login, not waiting for an answer.

        A session that was begun, or opened by an answer that was lost or comes too late, would
        else take one of its few slots for up to a minute.
        """
        with contextlib.suppress(OSError):  # the BMC is not there
            if self.sessioncontext in _MAY_BE_OPEN:
                self._udp.send(self.channel().ask(close_session(self.pendingsessionid)))
            elif self.sessioncontext in _IS_BEGUN:
                # RAKP message 3 without a proof: only what comes before it (table 13-13).
                self.rmcptag += 1
                refusal = bytes([self.rmcptag, _INVALID_INTEGRITY_CHECK, 0, 0])
                refusal += self.pendingsessionid.to_bytes(4, "little")
                self.lastpayload = None  # nothing else is outstanding
                self.send_payload(refusal, constants.payload_types["rakp3"], retry=False)

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
        is_login = self.sessioncontext in _LOGIN_STEPS
        wait_s = self._login_retry_s if is_login else RETRY_S
        self._resend_at = time.monotonic() + wait_s

    def awaitresponse(self, retry: bool) -> None:
        while retry and self.lastresponse is None and self.logged:
            self._step()

    def wait_for_rsp(self, *_unused: object, **_options: object) -> None:
        self._step()

    def process_pktqueue(self) -> None:
        for _ in range(_MAX_PACKETS):
            try:
                packet = self._udp.recv(_MAX_PACKET)
            except BlockingIOError:
                return
            if not self._is_of_this_step(packet):
                continue
            self._heard_at = time.monotonic()
            try:
                self._handle_ipmi_packet(bytearray(packet), sockaddr=self._peer)
            except (IndexError, KeyError, TypeError, ValueError, struct.error) as error:
                # pyghmi trusts lengths and padding; a damaged packet is a lost one.
                log.debug("bad packet peer=%s reason=%r", self._peer, error)

    def _is_of_this_step(self, packet: bytes) -> bool:
        """Whether the packet has the form that the BMC's next answer has.

        From others pyghmi takes over at least the sequence number, before it has looked at
        anything that only the BMC can know: the session would be deaf to lower ones.
        """
        if self.authtype:  # none until a session is asked for
            return packet.startswith(RMCP_PLUS) and len(packet) >= _LEAST_PACKET
        return bool(message_outside(packet))

    def _step(self) -> None:
        """Wait for a packet and handle it; resend or give up when none came in time."""
        now = time.monotonic()
        give_up_at = min(self._deadline, self._heard_at + SILENCE_S)
        if now >= give_up_at:
            why = "the time for it is over" if now >= self._deadline else "given up"
            raise NoAnswerError(f"no answer for {now - self._heard_at:.1f} s, {why}")
        if now >= self._resend_at:
            self._resend()
        poll = select.poll()  # select() cannot take descriptors above 1023
        poll.register(self._udp, select.POLLIN)
        if poll.poll(max(0.0, min(give_up_at, self._resend_at) - now) * 1000 + 1):
            self.process_pktqueue()

    def _resend(self) -> None:
        if self.sessioncontext in _LOGIN_STEPS:
            self._login_retry_s *= _LOGIN_GROWTH
            self._leave()
            # BMCs do not take kindly to RAKP messages that come twice: ask for a new session.
            # Its tags and id are new as well, so that a late answer to the old one is not
            # mistaken for a wrong password. What was agreed before, the cipher suite, stays.
            self.lastpayload = None
            self._open_rmcpplus_request()
        elif self.lastpayload is None:
            # There was an answer, and pyghmi could not make use of it.
            raise LoginError("the BMC's answer to the login is cut short")
        else:
            self.hasretried = 1
            self.send_payload()
