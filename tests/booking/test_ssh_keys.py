"""Reading SSH public keys, compared with the installed ssh-keygen."""

from __future__ import annotations

import base64
import contextlib
import struct
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from sentinel_booking.domain.ssh_keys import PrivateKeyGiven, clean_label, read_public_key
from sentinel_booking.errors import InvalidInput

SK_ED25519 = "sk-ssh-ed25519@openssh.com"
SK_ECDSA = "sk-ecdsa-sha2-nistp256@openssh.com"


def wire(*strings: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(text)) + text for text in strings)


def line(key_type: str, blob: bytes, comment: str = "") -> str:
    return f"{key_type} {base64.b64encode(blob).decode()} {comment}".rstrip()


def ed25519_point() -> bytes:
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def p256_point(public_format: PublicFormat = PublicFormat.UncompressedPoint) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return key.public_bytes(Encoding.X962, public_format)


def mpint(number: int) -> bytes:
    return number.to_bytes(number.bit_length() // 8 + 1, "big")


# Security keys need hardware to be generated; their public half is a plain encoding.
SECURITY_KEYS = {
    SK_ED25519: lambda: wire(SK_ED25519.encode(), ed25519_point(), b"ssh:"),
    SK_ECDSA: lambda: wire(SK_ECDSA.encode(), b"nistp256", p256_point(), b"ssh:lab"),
}


def generate(folder: Path, kind: str, bits: int | None = None) -> Path:
    path = folder / "id"
    size = [] if bits is None else ["-b", str(bits)]
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-C", "alice@lab", "-f", str(path)],
        check=True,
    )
    return path


def ssh_keygen_list(public: Path) -> tuple[int, str]:
    """Bits and fingerprint as the real program sees them."""
    done = subprocess.run(
        ["ssh-keygen", "-lf", str(public)], check=True, capture_output=True, text=True
    )
    bits, fingerprint = done.stdout.split()[:2]
    return int(bits), fingerprint


@pytest.mark.parametrize(
    ("kind", "bits"),
    [
        ("ed25519", None),
        ("rsa", 2048),
        ("rsa", 3072),
        ("ecdsa", 256),
        ("ecdsa", 384),
        ("ecdsa", 521),
    ],
)
def test_bits_and_fingerprint_are_those_of_ssh_keygen(
    tmp_path: Path, kind: str, bits: int | None
) -> None:
    public = generate(tmp_path, kind, bits).with_suffix(".pub")
    key = read_public_key(public.read_text())
    assert (key.bits, key.fingerprint) == ssh_keygen_list(public)
    assert key.comment == "alice@lab"
    assert key.text == " ".join(public.read_text().split()[:2])


@pytest.mark.parametrize("key_type", SECURITY_KEYS)
def test_security_keys_are_read_as_ssh_keygen_reads_them(tmp_path: Path, key_type: str) -> None:
    public = tmp_path / "sk.pub"
    public.write_text(line(key_type, SECURITY_KEYS[key_type](), "yubi") + "\n")
    key = read_public_key(public.read_text())
    assert (key.bits, key.fingerprint) == ssh_keygen_list(public)
    assert key.key_type == key_type


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
@pytest.mark.parametrize("form", ["RFC4716", "PEM", "PKCS8"])
def test_a_private_key_is_refused_and_never_repeated(
    tmp_path: Path, kind: str, form: str
) -> None:
    private = generate(tmp_path, kind)
    subprocess.run(
        ["ssh-keygen", "-q", "-p", "-N", "", "-m", form, "-f", str(private)], check=True
    )
    text = private.read_text()
    with pytest.raises(PrivateKeyGiven) as refused:
        read_public_key(text)
    assert "compromised" in refused.value.detail
    assert not any(len(part) > 20 and part in refused.value.detail for part in text.split())


@pytest.mark.parametrize(
    "text",
    [
        "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n",
        "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ",
        "ssh-ed25519 AAAA\n-----begin openssh private key-----",
    ],
)
def test_other_shapes_of_private_keys_are_known_too(text: str) -> None:
    with pytest.raises(PrivateKeyGiven):
        read_public_key(text)


def _rsa_line(bits: int) -> str:
    numbers = rsa.generate_private_key(65537, bits).public_key().public_numbers()
    return line("ssh-rsa", wire(b"ssh-rsa", mpint(numbers.e), mpint(numbers.n)))


def _dsa_line() -> str:
    key = dsa.generate_private_key(1024).public_key()
    numbers, parameters = key.public_numbers(), key.public_numbers().parameter_numbers
    blob = wire(
        b"ssh-dss", *(mpint(n) for n in (parameters.p, parameters.q, parameters.g, numbers.y))
    )
    return line("ssh-dss", blob)


def _off_the_curve() -> bytes:
    point = p256_point()
    return point[:-1] + bytes([point[-1] ^ 1])


GOOD = line("ssh-ed25519", wire(b"ssh-ed25519", ed25519_point()))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("   \n", "empty"),
        ("hello world", "not an SSH public key"),
        ("ssh-ed25519", "missing"),
        ("ssh-ed25519 %%%%", "base64"),
        (GOOD[:-8], "not of the type"),
        (GOOD + "\n" + GOOD, "one key at a time"),
        (GOOD + "\u2028" + GOOD, "one key at a time"),
        ('command="/bin/sh" ' + GOOD, "options"),
        ("restrict,pty " + GOOD, "options"),
        (GOOD.replace("ssh-ed25519 ", "ssh-rsa "), "not of the type"),
        (line("ssh-ed25519", wire(b"ssh-ed25519", ed25519_point(), b"x")), "too much"),
        (line("ssh-ed25519", wire(b"ssh-ed25519", ed25519_point()) + b"\0"), "not of the type"),
        (line("ssh-ed25519", wire(b"ssh-ed25519", ed25519_point()[:31])), "damaged"),
        ("ssh-ed25519-cert-v01@openssh.com AAAA", "certificate"),
        (_dsa_line(), "DSA"),
        (_rsa_line(1024), "1024 bits"),
        (
            line(
                "ecdsa-sha2-nistp256", wire(b"ecdsa-sha2-nistp256", b"nistp384", p256_point())
            ),
            "damaged",
        ),
        (
            line(
                "ecdsa-sha2-nistp256",
                wire(b"ecdsa-sha2-nistp256", b"nistp256", _off_the_curve()),
            ),
            "damaged",
        ),
        (
            line(
                "ecdsa-sha2-nistp256",
                wire(
                    b"ecdsa-sha2-nistp256",
                    b"nistp256",
                    p256_point(PublicFormat.CompressedPoint),
                ),
            ),
            "damaged",
        ),
        (
            line(SK_ECDSA, wire(SK_ECDSA.encode(), b"nistp256", _off_the_curve(), b"ssh:")),
            "damaged",
        ),
        (line(SK_ED25519, wire(SK_ED25519.encode(), ed25519_point())), "too little"),
        (line(SK_ED25519, wire(SK_ED25519.encode(), ed25519_point(), b"a\nb")), "application"),
        ("---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END SSH2 PUBLIC KEY ----", "SSH2"),
    ],
    # The keys are new each time; the names of tests may not be.
    ids=lambda value: value if len(value) < 40 else "key",
)
def test_what_sshd_must_not_take_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_public_key(text)
    assert [problem.field for problem in refused.value.fields] == ["public_key"]
    assert reason in refused.value.detail


def test_another_spelling_of_an_rsa_number_is_refused() -> None:
    numbers = rsa.generate_private_key(65537, 2048).public_key().public_numbers()
    padded = wire(b"ssh-rsa", mpint(numbers.e), b"\0" + mpint(numbers.n))
    with pytest.raises(InvalidInput):
        read_public_key(line("ssh-rsa", padded))


def test_the_comment_never_becomes_part_of_the_key() -> None:
    key = read_public_key(GOOD + ' x" command="/bin/sh')
    assert key.text == GOOD
    assert key.comment == 'x" command="/bin/sh'


def test_base64_spelt_in_another_way_is_the_same_key() -> None:
    blob = wire(SK_ED25519.encode(), ed25519_point(), b"ssh:")
    text = line(SK_ED25519, blob)
    assert text.endswith("="), "the blob's length leaves spare bits in the last character"
    spare = text.rstrip("=")
    other = spare[:-1] + chr(ord(spare[-1]) + 1) + "=" * (len(text) - len(spare))
    assert read_public_key(other) == read_public_key(text)


@given(st.text(max_size=200))
def test_a_label_is_one_line_without_hidden_characters(text: str) -> None:
    label = clean_label(text)
    assert len(label) <= 100
    assert label == label.strip()
    assert all(char.isprintable() or not char.isascii() for char in label)
    assert "\u202e" not in label
    assert "\n" not in label
    assert clean_label(label) == label


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidInput):
        read_public_key(text)
