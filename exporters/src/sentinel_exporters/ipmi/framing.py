"""The packets of an IPMI 2.0 session that is open: requests out, answers in. Pure: no IO.

pyghmi logs in; what follows is the same few packets thousands of times a minute, and is done
here with the session's keys. Integrity and encryption are always on. The form of the packets is
in IPMI 2.0, tables 13-8 (RMCP+) and 13-20 (AES-CBC-128), figure 13-4 (the message within).
"""

from __future__ import annotations

import hashlib
import hmac
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import lru_cache

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

# Version, reserved, no acknowledgement, class IPMI (table 13-1).
_RMCP = b"\x06\x00\xff\x07"
_FORMAT_RMCP_PLUS = b"\x06"
# How every packet of IPMI 2.0 begins that is not outside of a session.
RMCP_PLUS = _RMCP + _FORMAT_RMCP_PLUS
_ENCRYPTED_AND_AUTHENTICATED = b"\xc0"  # payload type 0, an IPMI message
# No authentication, sequence number 0, session id 0 (table 13-8); then a byte of length.
_OUTSIDE = _RMCP + bytes(9)
_BMC, _US = 0x20, 0x81
_BLOCK = 16
_HEADER = 16
# From the authentication type on, 12 bytes go before the payload, whose length is a multiple of
# 16, and pad length and next header behind it: two more bytes make that a multiple of 4.
_TRAILER = b"\xff\xff\x02\x07"
_LAST_SEQUENCE = 0xFFFFFFFF


def _checksum(data: bytes) -> int:
    return -sum(data) & 0xFF


class Request:
    """One command for a BMC, ready to be numbered and sent in any session. See make_request."""

    __slots__ = ("_body", "_head", "_padded", "command", "kind", "netfn", "reply")

    def __init__(self, netfn: int, command: int, data: bytes, lun: int) -> None:
        self.netfn = netfn
        self.command = command
        self.kind = netfn, command
        head = bytes([_BMC, netfn << 2 | lun])
        self._head = head + bytes([_checksum(head)])
        self._body = bytes([command]) + data
        # The beginning of the answer, before its number.
        reply = bytes([_US, (netfn | 1) << 2])
        self.reply = reply + bytes([_checksum(reply), _BMC])
        # The messages by number, once they were needed: all BMCs are sent the same ones.
        self._padded: list[bytes] = [b""] * 64

    def message(self, number: int) -> bytes:
        """Return the message with its sequence number, 0 to 63, shifted by 2."""
        body = bytes([_US, number]) + self._body
        return self._head + body + bytes([_checksum(body)])

    def padded(self, number: int) -> bytes:
        """Return the message as it is encrypted, behind a block that makes room for the IV."""
        padded = self._padded[number >> 2]
        if not padded:
            message = self.message(number)
            # 1, 2, 3 … and their count, up to a whole block (table 13-20).
            fill = -(len(message) + 1) % _BLOCK
            padded = bytes(_BLOCK) + message + bytes([*range(1, fill + 1), fill])
            self._padded[number >> 2] = padded
        return padded

    def answer_in(self, message: bytes, number: int) -> bytes | None:
        """Return completion code and data when the message answers this request."""
        if (
            len(message) < 8
            # The LUNs are not compared, as BMCs differ in what they put there.
            or (message[4] ^ number) & 0xFC
            or message[5] != self.command
            or (message[:4] != self.reply and message[1] >> 2 != self.netfn | 1)
        ):
            return None
        return message[6:-1]


@lru_cache(maxsize=8192)
def make_request(netfn: int, command: int, data: bytes = b"", lun: int = 0) -> Request:
    """Return the one Request with these contents; they are few, and asked for ever."""
    return Request(netfn, command, data, lun)


def close_session(session_id: int) -> Request:
    """Return Close Session (IPMI 2.0, 22.19); not the one Request, as no number comes again."""
    return Request(0x06, 0x3C, session_id.to_bytes(4, "little"), 0)


class Codec(ABC):
    """Makes packets of requests, one outstanding at a time, and finds their answers.

    Not safe to use from two threads.
    """

    def __init__(self) -> None:
        # Answers that were heard when another request was outstanding.
        self.late_answers = 0
        self._request: Request | None = None
        self._number = 0

    def ask(self, request: Request) -> bytes:
        """Return the packet of a new request; an answer to the one before comes too late."""
        self._request = request
        self._number = (self._number + 4) & 0xFC
        return self.repeat(request)

    @abstractmethod
    def repeat(self, request: Request) -> bytes:
        """Return another packet of the request that is outstanding."""

    @abstractmethod
    def hear(self, packet: bytes) -> bytes | None:
        """Return completion code and data, or None for a packet that does not answer.

        Damaged packets, those of others and late answers to earlier requests are all no answer;
        the last are counted in `late_answers`.
        """

    def _take(self, message: bytes) -> bytes | None:
        """Return what the message answers, after which nothing is outstanding any more."""
        if self._request is None:
            return None
        answer = self._request.answer_in(message, self._number)
        if answer is None:
            self.late_answers += 1
        else:
            self._request = None
        return answer


@dataclass(frozen=True)
class Keys:
    """What a login has agreed on. `digest` is sha1 or sha256: cipher suites 3 and 17."""

    remote_id: int  # the session's number at the BMC
    local_id: int
    digest: str
    mac_length: int
    integrity: bytes = field(repr=False)  # K1
    encryption: bytes = field(repr=False)  # the first 16 bytes of K2
    # The sequence numbers of the last packets in each direction.
    sent: int = 0
    heard: int = 0


class Channel(Codec):
    """One session's packets, each with a sequence number of its own, repetitions too.

    A packet that comes twice is heard once.
    """

    def __init__(self, keys: Keys) -> None:
        super().__init__()
        self._mac_length = keys.mac_length
        # RFC 2104, with the key hashed once and not for each packet; the standard library's
        # one-shot function takes three times as long, as OpenSSL looks the digest up anew.
        key = keys.integrity.ljust(hashlib.new(keys.digest).block_size, b"\0")
        self._inner = hashlib.new(keys.digest, bytes(byte ^ 0x36 for byte in key))
        self._outer = hashlib.new(keys.digest, bytes(byte ^ 0x5C for byte in key))
        cipher = Cipher(algorithms.AES(keys.encryption), modes.CBC(bytes(_BLOCK)))
        # Both go on for ever. A block of zeros in front of each message is encrypted to the
        # message's IV: nobody can foretell it, as the block before it is one of ciphertext.
        # In the other direction the first block, the IV, is decrypted to rubbish.
        self._encrypt = cipher.encryptor().update
        self._decrypt = cipher.decryptor().update
        self._sent = keys.sent
        self._heard = keys.heard
        head = _FORMAT_RMCP_PLUS + _ENCRYPTED_AND_AUTHENTICATED
        self._sent_head = head + keys.remote_id.to_bytes(4, "little")
        self._heard_head = _RMCP + head + keys.local_id.to_bytes(4, "little")

    def repeat(self, request: Request) -> bytes:
        padded = request.padded(self._number)
        self._sent = self._sent + 1 if self._sent < _LAST_SEQUENCE else 1
        signed = b"".join(
            (
                self._sent_head,
                self._sent.to_bytes(4, "little"),
                len(padded).to_bytes(2, "little"),
                self._encrypt(padded),
                _TRAILER,
            )
        )
        return _RMCP + signed + self._mac(signed)

    def hear(self, packet: bytes) -> bytes | None:
        end = len(packet) - self._mac_length
        if packet[:10] != self._heard_head or end < _HEADER + 2 * _BLOCK + 2:
            return None
        size = packet[14] | packet[15] << 8
        if size < 2 * _BLOCK or size % _BLOCK or _HEADER + size + 2 > end:
            return None
        if not hmac.compare_digest(self._mac(packet[4:end]), packet[end:]):
            return None
        # One request is outstanding at a time: what is older than the newest comes too late.
        sequence = int.from_bytes(packet[10:14], "little")
        if not 0 < (sequence - self._heard) & _LAST_SEQUENCE < 1 << 31:
            return None
        self._heard = sequence
        padded = self._decrypt(packet[_HEADER : _HEADER + size])
        fill = padded[-1]
        return self._take(padded[_BLOCK : -1 - fill]) if fill < _BLOCK else None

    def _mac(self, signed: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(signed)
        outer.update(inner.digest())
        return outer.digest()[: self._mac_length]


class Outside(Codec):
    """Packets outside of any session: for the few commands that a BMC answers to anybody."""

    def repeat(self, request: Request) -> bytes:
        message = request.message(self._number)
        return _OUTSIDE + bytes([len(message)]) + message

    def hear(self, packet: bytes) -> bytes | None:
        message = message_outside(packet)
        return self._take(message) if message else None


def message_outside(packet: bytes) -> bytes:
    """Return the message of a packet outside of any session; empty unless that is whole."""
    head = len(_OUTSIDE)
    if packet[:head] != _OUTSIDE or len(packet) == head:
        return b""
    size = packet[head]
    message = packet[head + 1 : head + 1 + size]
    return message if len(message) == size and not _checksum(message[3:]) else b""
