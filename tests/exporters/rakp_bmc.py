"""A BMC in the test's own process, for what ipmi_sim lacks: cipher suite 17. Knows no client.

Written from the specification (IPMI 2.0, 13.17 to 13.29) with the standard library's HMAC and
an ordinary CBC, so that it shares nothing with the client; ipmitool reads it as well.
"""

from __future__ import annotations

import hmac
import os
import select
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tests.exporters.bmc import PASSWORD, USER

_RMCP = b"\x06\x00\xff\x07"
_DIGESTS = {3: ("sha1", 1, 1, 12), 17: ("sha256", 3, 4, 16)}
GUID = bytes(range(16))
DEVICE = bytes.fromhex("2083024502 9f7c2a00 6909".replace(" ", ""))  # Get Device ID, 20.1


def checksum(data: bytes) -> int:
    """Return the byte that makes the sum zero."""
    return -sum(data) & 0xFF


def answer_to(request: bytes, code: int, data: bytes = b"") -> bytes:
    """Return the message that answers the message `request` (figure 13-4)."""
    head = bytes([request[3], request[1] | 4])
    body = bytes([0x20, request[4], request[5], code]) + data
    return head + bytes([checksum(head)]) + body + bytes([checksum(body)])


def answer_outside(packet: bytes) -> bytes:
    """Return the answer to a packet outside of any session."""
    message = answer_to(packet[14:], 0, b"\x01")
    return packet[:13] + bytes([len(message)]) + message


@dataclass
class Sealer:
    """The BMC's side of an open session: packets that only it can make."""

    digest: str
    mac_length: int
    integrity: bytes  # K1
    encryption: bytes  # the first 16 bytes of K2
    peer_id: int
    sequence: int = 0

    def seal(self, message: bytes, sequence: int | None = None) -> bytes:
        """Return the packet with the message, with the next sequence number or that one."""
        self.sequence = self.sequence + 1 if sequence is None else sequence
        fill = -(len(message) + 1) % 16
        return self.sign(self.encrypt(message + bytes(range(1, fill + 1)) + bytes([fill])))

    def encrypt(self, padded: bytes) -> bytes:
        """Return a packet's payload: the IV, and the message with its padding encrypted."""
        iv = os.urandom(16)
        cipher = Cipher(algorithms.AES(self.encryption), modes.CBC(iv)).encryptor()
        return iv + cipher.update(padded) + cipher.finalize()

    def sign(self, payload: bytes, size: int | None = None) -> bytes:
        """Return the packet with the payload, and what it says of its size, as it is or odd."""
        size = len(payload) if size is None else size
        signed = b"\x06\xc0" + self.peer_id.to_bytes(4, "little")
        signed += self.sequence.to_bytes(4, "little") + size.to_bytes(2, "little")
        signed += payload
        pad = -(len(signed) + 2) % 4
        signed += b"\xff" * pad + bytes([pad, 7])
        return _RMCP + signed + self.mac(signed)

    def mac(self, signed: bytes) -> bytes:
        """Return the integrity code."""
        return hmac.digest(self.integrity, signed, self.digest)[: self.mac_length]

    def open(self, packet: bytes) -> bytes:
        """Return the message in a client's packet; raises ValueError when it is not right."""
        end = len(packet) - self.mac_length
        if self.mac(packet[4:end]) != packet[end:] or packet[5] != 0xC0:
            raise ValueError("not authentic")
        size = int.from_bytes(packet[14:16], "little")
        iv, data = packet[16:32], packet[32 : 16 + size]
        cipher = Cipher(algorithms.AES(self.encryption), modes.CBC(iv)).decryptor()
        padded = cipher.update(data) + cipher.finalize()
        fill = padded[-1]
        if padded[-1 - fill : -1] != bytes(range(1, fill + 1)):
            raise ValueError("wrong padding")
        message = padded[: -1 - fill]
        if checksum(message[:3]) or checksum(message[3:]):
            raise ValueError("wrong checksum")
        return message


@dataclass
class RakpBmc:
    """Listens on loopback and knows one user, some cipher suites and a few commands."""

    suites: tuple[int, ...]
    commands: dict[tuple[int, int], bytes] = field(default_factory=dict)
    # Of each login: the privilege that was asked for (13.20), and the cipher suite.
    roles: list[int] = field(default_factory=list)
    used: list[int] = field(default_factory=list)
    opened: int = 0
    closed: int = 0
    port: int = 0
    host: str = "127.0.0.1"

    def __enter__(self) -> RakpBmc:
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind((self.host, 0))
        self.port = self._udp.getsockname()[1]
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rakp-bmc")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._udp.close()

    def _run(self) -> None:
        self._sealer: Sealer | None = None
        steps: dict[int, Callable[[bytes], bytes]] = {
            0x10: self._open_session, 0x12: self._rakp_1, 0x14: self._rakp_3,
        }  # fmt: skip
        while not self._is_over.is_set():
            if not select.select([self._udp], [], [], 0.02)[0]:
                continue
            packet, client = self._udp.recvfrom(1024)
            kind = packet[5] & 0x3F
            if packet[4] != 6:
                answer = self._outside(packet)
            elif kind in steps:
                payload = steps[kind](packet[16:])
                answer = _RMCP + bytes([6, kind + 1]) + bytes(8)
                answer += len(payload).to_bytes(2, "little") + payload
            else:
                assert self._sealer is not None
                request = self._sealer.open(packet)
                answer = self._sealer.seal(self._command(request))
            self._udp.sendto(answer, client)

    def _outside(self, packet: bytes) -> bytes:
        request = packet[14 : 14 + packet[13]]
        if request[5] == 0x54:  # Get Channel Cipher Suites (22.15): a record for each
            digests = {3: (1, 0x41, 0x81), 17: (3, 0x44, 0x81)}
            data = b"\x01" + b"".join(bytes([0xC0, one, *digests[one]]) for one in self.suites)
        else:  # Get Channel Authentication Capabilities (22.13): IPMI 2.0 only
            data = bytes([1, 0x80, 0x04, 0x02, 0, 0, 0, 0])
        answer = answer_to(request, 0, data)
        return packet[:13] + bytes([len(answer)]) + answer

    def _open_session(self, payload: bytes) -> bytes:
        self._peer_id = payload[4:8]
        asked = payload[12], payload[20], payload[28]
        for suite in self.suites:
            self._digest, authentication, integrity, self._mac_length = _DIGESTS[suite]
            if asked == (authentication, integrity, 1):
                self.used.append(suite)
                break
        else:
            return payload[:1] + b"\x11\x00\x00" + self._peer_id  # no such cipher suite
        self._own_id = os.urandom(4)
        return payload[:1] + b"\x00\x04\x00" + self._peer_id + self._own_id + payload[8:32]

    def _keyed(self, key: bytes, data: bytes) -> bytes:
        return hmac.digest(key, data, self._digest)

    def _rakp_1(self, payload: bytes) -> bytes:
        self._their_random, self._role_and_name = payload[8:24], payload[24:25] + payload[27:]
        self.roles.append(payload[24] & 0x0F)
        self._random = os.urandom(16)
        self._key = PASSWORD.encode().ljust(20, b"\0")
        proof = self._keyed(
            self._key,
            self._peer_id + self._own_id + self._their_random + self._random + GUID
            + self._role_and_name,
        )  # fmt: skip
        return payload[:1] + bytes(3) + self._peer_id + self._random + GUID + proof

    def _rakp_3(self, payload: bytes) -> bytes:
        expected = self._keyed(self._key, self._random + self._peer_id + self._role_and_name)
        name = self._role_and_name[2:].decode()
        if payload[8:] != expected or name != USER:
            return payload[:1] + b"\x0f\x00\x00" + self._peer_id
        secret = self._keyed(self._key, self._their_random + self._random + self._role_and_name)
        self._sealer = Sealer(
            self._digest,
            self._mac_length,
            self._keyed(secret, b"\x01" * 20),
            self._keyed(secret, b"\x02" * 20)[:16],
            int.from_bytes(self._peer_id, "little"),
        )
        self.opened += 1
        proof = self._keyed(secret, self._their_random + self._own_id + GUID)
        return payload[:1] + bytes(3) + self._peer_id + proof[: self._mac_length]

    def _command(self, request: bytes) -> bytes:
        netfn, number = request[1] >> 2, request[5]
        if (netfn, number) == (6, 0x3C):
            self.closed += 1
        known = {(6, 0x01): DEVICE, (6, 0x3B): b"\x04", (6, 0x3C): b"", **self.commands}
        if (netfn, number) in known:
            return answer_to(request, 0, known[netfn, number])
        return answer_to(request, 0xC1)
