"""The packets of an open session, beside a BMC's side that shares nothing with ours."""

from __future__ import annotations

import os
import subprocess
import time
from ipaddress import ip_address

import pytest

from sentinel_exporters.ipmi.commands import read_chassis, read_device
from sentinel_exporters.ipmi.framing import Channel, Keys, Outside, Request, make_request
from sentinel_exporters.ipmi.session import Credentials, Session
from sentinel_exporters.ipmi.target import Address
from tests.exporters.bmc import PASSWORD, USER
from tests.exporters.rakp_bmc import RakpBmc, Sealer, answer_to

READ_SENSOR = make_request(0x04, 0x2D, b"\x05", 1)
READING = bytes.fromhex("55c00080")
LOCAL_ID, REMOTE_ID = 0x11223344, 0xA1B2C3D4


@pytest.fixture(params=[("sha1", 12), ("sha256", 16)], ids=["suite-3", "suite-17"])
def sides(request: pytest.FixtureRequest) -> tuple[Channel, Sealer]:
    """Our side and the BMC's of one session."""
    digest, mac_length = request.param
    integrity, encryption = os.urandom(20), os.urandom(16)
    keys = Keys(REMOTE_ID, LOCAL_ID, digest, mac_length, integrity, encryption, sent=6, heard=3)
    ours = Channel(keys)
    return ours, Sealer(digest, mac_length, integrity, encryption, LOCAL_ID, sequence=3)


def test_a_request_is_what_the_bmc_understands(sides: tuple[Channel, Sealer]) -> None:
    ours, bmc = sides
    packet = ours.ask(READ_SENSOR)
    message = bmc.open(packet)

    assert packet[6:10] == REMOTE_ID.to_bytes(4, "little")
    assert int.from_bytes(packet[10:14], "little") == 7
    assert len(packet[4 : len(packet) - bmc.mac_length]) % 4 == 0
    assert message[:2] == bytes([0x20, 0x04 << 2 | 1])
    assert message[3] == 0x81
    assert message[5:-1] == b"\x2d\x05"


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 24, 200])
def test_data_of_any_length_are_padded_as_they_must_be(
    sides: tuple[Channel, Sealer], size: int
) -> None:
    ours, bmc = sides
    data = os.urandom(size)
    message = bmc.open(ours.ask(Request(0x0A, 0x40, data, 0)))

    assert message[6:-1] == data
    assert ours.hear(bmc.seal(answer_to(message, 0, data))) == b"\0" + data


def test_an_answer_is_completion_code_and_data(sides: tuple[Channel, Sealer]) -> None:
    ours, bmc = sides
    for code in (0x00, 0xCB):
        message = bmc.open(ours.ask(READ_SENSOR))
        assert ours.hear(bmc.seal(answer_to(message, code, READING))) == bytes([code]) + READING


def test_each_packet_has_an_iv_of_its_own(sides: tuple[Channel, Sealer]) -> None:
    ours, bmc = sides
    packets = [ours.ask(READ_SENSOR) for _ in range(500)] + [
        ours.repeat(READ_SENSOR) for _ in range(500)
    ]

    assert len({packet[16:32] for packet in packets}) == 1000
    assert len({packet[32:48] for packet in packets}) == 1000
    assert {bmc.open(packet)[5:-1] for packet in packets} == {b"\x2d\x05"}


def test_a_repetition_has_the_same_number_in_a_packet_of_its_own(
    sides: tuple[Channel, Sealer],
) -> None:
    ours, bmc = sides
    first, second = ours.ask(READ_SENSOR), ours.repeat(READ_SENSOR)
    next_one = ours.ask(READ_SENSOR)

    assert bmc.open(first) == bmc.open(second)
    assert first[10:14] != second[10:14]
    assert bmc.open(next_one)[4] != bmc.open(first)[4]


def test_any_damaged_bit_makes_a_packet_no_answer(sides: tuple[Channel, Sealer]) -> None:
    ours, bmc = sides
    packet = bmc.seal(answer_to(bmc.open(ours.ask(READ_SENSOR)), 0, READING))
    for place in range(len(packet) * 8):
        damaged = bytearray(packet)
        damaged[place // 8] ^= 1 << place % 8
        # Reserved bits of the RMCP header are not covered by the code.
        if place // 8 not in (0, 1, 2, 3):
            assert ours.hear(bytes(damaged)) is None, place
    for length in range(len(packet)):
        assert ours.hear(packet[:length]) is None
    assert ours.hear(packet + b"\0") is None
    assert ours.hear(packet) == b"\0" + READING


def test_a_packet_is_heard_once(sides: tuple[Channel, Sealer]) -> None:
    ours, bmc = sides
    first = bmc.open(ours.ask(READ_SENSOR))
    packet = bmc.seal(answer_to(first, 0, READING))
    assert ours.hear(packet) is not None
    # The number of a request comes again after 64.
    for _ in range(63):
        message = bmc.open(ours.ask(READ_SENSOR))
        assert ours.hear(packet) is None
        assert ours.hear(bmc.seal(answer_to(message, 0, b"\x01"))) == b"\0\x01"
    assert bmc.open(ours.ask(READ_SENSOR)) == first
    assert ours.hear(packet) is None


def test_an_older_packet_is_no_answer(sides: tuple[Channel, Sealer]) -> None:
    ours, bmc = sides
    message = bmc.open(ours.ask(READ_SENSOR))
    assert ours.hear(bmc.seal(answer_to(message, 0, READING), 10)) is not None
    message = bmc.open(ours.ask(READ_SENSOR))
    for sequence in (10, 9, 3, 10 + (1 << 31)):
        assert ours.hear(bmc.seal(answer_to(message, 0, READING), sequence)) is None
    assert ours.hear(bmc.seal(answer_to(message, 0, READING), 11)) is not None


def test_sequence_numbers_begin_anew_after_the_last(sides: tuple[Channel, Sealer]) -> None:
    ours, bmc = sides
    keys = Keys(
        REMOTE_ID, LOCAL_ID, bmc.digest, bmc.mac_length, bmc.integrity, bmc.encryption,
        sent=0xFFFFFFFE, heard=0xFFFFFFFE,
    )  # fmt: skip
    ours = Channel(keys)
    # Zero is for packets outside of a session.
    for sent, heard in ((0xFFFFFFFF, 0xFFFFFFFF), (1, 0), (2, 1)):
        packet = ours.ask(READ_SENSOR)
        assert int.from_bytes(packet[10:14], "little") == sent
        assert ours.hear(bmc.seal(answer_to(bmc.open(packet), 0), heard)) == b"\0"


def test_the_answer_to_an_earlier_request_is_late_and_no_answer(
    sides: tuple[Channel, Sealer],
) -> None:
    ours, bmc = sides
    late = bmc.open(ours.ask(READ_SENSOR))
    message = bmc.open(ours.ask(READ_SENSOR))

    assert ours.hear(bmc.seal(answer_to(late, 0, b"\x01"))) is None
    assert ours.late_answers == 1
    assert ours.hear(bmc.seal(answer_to(message, 0, b"\x02"))) == b"\0\x02"


def test_the_answer_to_another_command_is_no_answer(sides: tuple[Channel, Sealer]) -> None:
    ours, bmc = sides
    message = bmc.open(ours.ask(READ_SENSOR))
    for place, value in ((5, 0x2E), (1, 0x06 << 2)):
        other = bytearray(message)
        other[place] = value
        assert ours.hear(bmc.seal(answer_to(bytes(other), 0, READING))) is None
    assert ours.hear(bmc.seal(answer_to(message, 0, READING))) is not None


def test_another_lun_in_the_answer_is_borne_with(sides: tuple[Channel, Sealer]) -> None:
    ours, bmc = sides
    message = bytearray(bmc.open(ours.ask(READ_SENSOR)))
    message[4] |= 1
    message[1] |= 2

    assert ours.hear(bmc.seal(answer_to(bytes(message), 0, READING))) == b"\0" + READING


def test_a_packet_without_encryption_or_integrity_is_no_answer(
    sides: tuple[Channel, Sealer],
) -> None:
    ours, bmc = sides
    message = bmc.open(ours.ask(READ_SENSOR))
    answer = answer_to(message, 0, READING)
    for kind in (0x00, 0x40, 0x80):
        plain = bytes([6, kind]) + LOCAL_ID.to_bytes(4, "little") + b"\x09\0\0\0"
        plain += len(answer).to_bytes(2, "little") + answer
        plain += b"\xff" * (-(len(plain) + 2) % 4) + b"\x00\x07"
        assert ours.hear(b"\x06\x00\xff\x07" + plain + bmc.mac(plain)) is None


@pytest.mark.parametrize(
    ("more", "size"),
    [
        (b"\x01\x02\x03\x04", None),  # no whole number of blocks
        (b"", 80),  # a size beyond the packet's end
        (b"", 16),  # an IV alone
    ],
)
def test_an_odd_size_makes_a_packet_no_answer_and_harms_no_later_one(
    sides: tuple[Channel, Sealer], more: bytes, size: int | None
) -> None:
    # It is from the BMC, as its code is right: one that is programmed so.
    ours, bmc = sides
    answer = answer_to(bmc.open(ours.ask(READ_SENSOR)), 0, READING)
    bmc.sequence += 1
    payload = bmc.encrypt(answer + bytes(range(1, 4)) + b"\x03")

    assert ours.hear(bmc.sign(payload + more, size)) is None
    assert ours.hear(bmc.seal(answer)) == b"\0" + READING


@pytest.mark.parametrize("fill", [0x10, 0x18, 0xFF])
def test_more_padding_than_there_can_be_makes_a_packet_no_answer(
    sides: tuple[Channel, Sealer], fill: int
) -> None:
    ours, bmc = sides
    answer = answer_to(bmc.open(ours.ask(READ_SENSOR)), 0, bytes(50))
    padded = answer + bytes(-(len(answer) + 1) % 16) + bytes([fill])
    bmc.sequence += 1

    assert ours.hear(bmc.sign(bmc.encrypt(padded))) is None


def test_outside_of_a_session_only_the_right_answer_counts() -> None:
    outside = Outside()
    request = outside.ask(make_request(0x06, 0x38, b"\x8e\x02"))
    message = request[14:]
    answer = answer_to(message, 0, b"\x01")
    packet = request[:13] + bytes([len(answer)]) + answer

    assert outside.hear(packet[:-1] + bytes([packet[-1] ^ 1])) is None
    assert outside.hear(b"\x06\x00\xff\x06" + packet[4:]) is None
    for size in range(len(packet)):
        assert outside.hear(packet[:size]) is None
    assert outside.hear(request[:13] + bytes([len(answer) + 1]) + answer) is None
    assert outside.hear(packet) == b"\0\x01"
    assert outside.hear(packet) is None


@pytest.mark.parametrize("suite", [3, 17])
def test_both_cipher_suites_are_spoken(suite: int) -> None:
    with RakpBmc((suite,), {(0, 0x01): b"\x01\x00\x00"}) as bmc:
        # That it is a BMC at all is for another program to say.
        shown = subprocess.run(
            ["ipmitool", "-I", "lanplus", "-C", str(suite), "-H", bmc.host, "-p", str(bmc.port),
             "-U", USER, "-P", PASSWORD, "mc", "info"],
            capture_output=True, text=True, check=True, timeout=30,
        ).stdout  # fmt: skip
        assert "Manufacturer ID           : 10876" in shown

        address = Address(ip_address(bmc.host), bmc.port)
        session = Session(address, Credentials(USER, PASSWORD), time.monotonic() + 10)
        assert read_device(session).manufacturer == 10876
        assert read_chassis(session).is_on
        session.close()
        assert bmc.opened == 2
