"""Reads one SSH public key as people paste it. Stores nothing and knows no owner.

Formats: RFC 4253 section 6.6 (ssh-rsa), RFC 5656 section 3.1 (ecdsa), RFC 8709 section 4
(ed25519), OpenSSH PROTOCOL.u2f (sk- kinds). The curve and number checks are cryptography's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
import unicodedata
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from ..errors import InvalidInput

RSA_MIN_BITS = 2048
# OpenSSH's own upper limit (SSHBUF_MAX_BIGNUM); its blob is 2.8 kB in base64.
RSA_MAX_BITS = 16384
LABEL_MAX_CHARS = 100

# Type → how many strings its blob holds, and its bits (None: told by the key).
_TYPES: dict[str, tuple[int, int | None]] = {
    "ssh-ed25519": (2, 256),
    "ssh-rsa": (3, None),
    "ecdsa-sha2-nistp256": (3, 256),
    "ecdsa-sha2-nistp384": (3, 384),
    "ecdsa-sha2-nistp521": (3, 521),
    "sk-ssh-ed25519@openssh.com": (3, 256),
    "sk-ecdsa-sha2-nistp256@openssh.com": (4, 256),
}

# How private keys look: PEM of any kind, PuTTY's file, and OpenSSH's blob without its frame.
_PRIVATE_MARKS = ("PRIVATE KEY", "PuTTY-User-Key-File", "b3BlbnNzaC1rZXktdjE")


class PrivateKeyGiven(InvalidInput):
    """A private key was sent where a public one belongs. It is never shown, kept or logged."""

    code = "private-key"
    title = "This is a private key"

    def __init__(self) -> None:
        super().__init__(
            "This is a private key, which must never leave your computer. It was not stored, "
            "but treat it as compromised: make a new pair with ssh-keygen, remove this one "
            "wherever it is used, and send only the new public half (the file that ends in "
            ".pub)."
        )


@dataclass(frozen=True)
class PublicKey:
    """A key that sshd will take.

    `text` is "type base64" and nothing else; `fingerprint` is as `ssh-keygen -l` prints it.
    """

    key_type: str
    text: str
    bits: int
    fingerprint: str
    comment: str


def read_public_key(pasted: str) -> PublicKey:
    """Read one line of a .pub file.

    Raises PrivateKeyGiven, or InvalidInput for the field `public_key`. The reason never
    repeats what was pasted.
    """
    if any(mark.lower() in pasted.lower() for mark in _PRIVATE_MARKS):
        raise PrivateKeyGiven
    line = pasted.strip()
    if "BEGIN SSH2 PUBLIC KEY" in line:
        raise _refuse("in the SSH2 format; convert it with: ssh-keygen -i -f FILE")
    if len(line.splitlines()) > 1:
        raise _refuse("more than one line; send one key at a time")
    words = line.split(None, 2)
    if not words:
        raise _refuse("empty")
    if words[0] not in _TYPES:
        raise _refuse(_why_not(line.split()))
    if len(words) == 1:
        raise _refuse("only the key's type; the key itself is missing")
    key_type, encoded = words[0], words[1]
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refuse("not valid base64; was it cut or wrapped?") from error
    bits = _check_blob(key_type, blob)
    # Encoded anew: the same blob has several base64 spellings.
    text = f"{key_type} {base64.b64encode(blob).decode()}"
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    comment = clean_label(words[2]) if len(words) == 3 else ""
    return PublicKey(key_type, text, bits, f"SHA256:{digest}", comment)


def clean_label(text: str) -> str:
    """Keep what can be shown on one line: no control, formatting or direction characters."""
    shown = "".join(
        " " if unicodedata.category(char)[0] in "CZ" else char
        for char in unicodedata.normalize("NFC", text)
    )
    return " ".join(shown.split())[:LABEL_MAX_CHARS].rstrip()


def _check_blob(key_type: str, blob: bytes) -> int:
    """Return the key's bits. Raises InvalidInput unless the blob is a key of this type."""
    n_strings, bits = _TYPES[key_type]
    strings = _split(blob)
    if not strings or strings[0] != key_type.encode():
        raise _refuse(f"the key inside is not of the type {key_type} that its line says")
    if len(strings) != n_strings:
        raise _refuse("damaged: it holds too little or too much")
    if key_type.startswith("sk-") and not _is_application(strings[-1]):
        raise _refuse("damaged: the security key's application is not plain text")
    try:
        key = load_ssh_public_key(key_type.encode() + b" " + base64.b64encode(blob))
    # cryptography raises ValueError for damaged keys, the others for compressed points and
    # for what its OpenSSL was built without.
    except (ValueError, NotImplementedError, UnsupportedAlgorithm) as error:
        raise _refuse("damaged: its numbers are not a key of this type") from error
    if isinstance(key, RSAPublicKey):
        bits = key.key_size
        if bits < RSA_MIN_BITS:
            raise _refuse(f"an RSA key of {bits} bits; at least {RSA_MIN_BITS} are needed")
        if bits > RSA_MAX_BITS:
            raise _refuse(f"an RSA key of {bits} bits; sshd takes at most {RSA_MAX_BITS}")
        numbers = key.public_numbers()
        # Another spelling of the same number would be another fingerprint for the same key.
        if strings[1:] != [_mpint(numbers.e), _mpint(numbers.n)]:
            raise _refuse("damaged: its numbers are not in their shortest form")
    if bits is None:
        raise AssertionError("only RSA keys say their size themselves")
    return bits


def _split(blob: bytes) -> list[bytes]:
    """Split into length-prefixed strings (RFC 4251, section 5); [] when it does not fit."""
    strings: list[bytes] = []
    at = 0
    while at < len(blob):
        if at + 4 > len(blob):
            return []
        (length,) = struct.unpack_from(">I", blob, at)
        at += 4
        if at + length > len(blob):
            return []
        strings.append(blob[at : at + length])
        at += length
    return strings


def _mpint(number: int) -> bytes:
    """The shortest two's complement form of a positive number (RFC 4251, section 5)."""
    return number.to_bytes(number.bit_length() // 8 + 1, "big")


def _is_application(text: bytes) -> bool:
    return 0 < len(text) <= 255 and all(0x21 <= byte <= 0x7E for byte in text)


def _why_not(words: list[str]) -> str:
    first = words[0].lower()
    if first == "ssh-dss":
        return "a DSA key; sshd no longer takes them. Make one with: ssh-keygen -t ed25519"
    if "-cert-v" in first:
        return "a certificate; send the public key that it was made for"
    if any(word in _TYPES for word in words[1:]):
        return "options before the key's type; send the key only"
    return "not an SSH public key; one begins with a type such as ssh-ed25519"


def _refuse(reason: str) -> InvalidInput:
    return InvalidInput.field("public_key", reason)
