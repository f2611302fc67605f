"""Make TLS of its section of the web configuration, and shake hands. Judges no request."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import cast

from ..errors import ConfigError
from .config_file import CURVES, Tls

_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_VERIFY = {
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
# The first byte of each TLS connection: the record that carries the handshake (RFC 8446, 5.1).
_HANDSHAKE = b"\x16"


class NotTls(OSError):
    """The client speaks in clear, as HTTP does."""


class NotAllowed(OSError):
    """The client's certificate is good, and names nobody who may ask."""


def make_context(tls: Tls) -> ssl.SSLContext:
    """Return the server's side of TLS; raises ConfigError for files that are not usable."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS.get(tls.min_version, ssl.TLSVersion.TLSv1_2)
    context.maximum_version = _VERSIONS[tls.max_version]
    if tls.openssl_ciphers:
        context.set_ciphers(":".join(tls.openssl_ciphers))
    for curve in tls.curve_preferences:
        context.set_ecdh_curve(CURVES[curve])
    if tls.prefer_server_cipher_suites:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    try:
        # Without the password a key that has a passphrase would ask for it at the terminal.
        context.load_cert_chain(tls.cert_file, tls.key_file, password="")
    except OSError as error:
        pair = f"cert_file {tls.cert_file}, key_file {tls.key_file}"
        raise ConfigError(f"{pair}: {error}") from None
    if tls.client_ca_file is not None:
        context.verify_mode = _VERIFY[tls.client_auth_type]
        try:
            context.load_verify_locations(tls.client_ca_file)
        except OSError as error:
            raise ConfigError(f"client_ca_file {tls.client_ca_file}: {error}") from None
    return context


def encrypt(
    connection: socket.socket,
    context: ssl.SSLContext,
    allowed: Iterable[str],
    deadline: float,
    go_on_with: Callable[[ssl.SSLSocket], None],
) -> None:
    """Shake hands, all of it before `deadline` (monotonic).

    `allowed` are the subject alternative names of which a client's certificate must carry one;
    empty: any will do. `go_on_with` is called with the object that takes the place of
    `connection`, which is of no use from then on; it is to be closed by the caller. Raises
    NotTls before, and otherwise OSError, of which NotAllowed and ssl.SSLError are kinds.
    """
    connection.settimeout(max(0.001, deadline - time.monotonic()))
    first = connection.recv(1, socket.MSG_PEEK)
    if not first:
        raise ConnectionError("the client went away")
    if first != _HANDSHAKE:
        raise NotTls("no TLS")
    connection.settimeout(max(0.001, deadline - time.monotonic()))
    encrypted = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
    go_on_with(encrypted)
    # The timeout counts for the handshake as a whole, however many pieces it comes in.
    encrypted.do_handshake()
    names = set(map(_shortest, allowed))
    if names and names.isdisjoint(_names(encrypted.getpeercert() or {})):
        raise NotAllowed("the client's certificate has none of client_allowed_sans")


def _names(certificate: Mapping[str, object]) -> Iterator[str]:
    """Yield a certificate's alternative names, addresses in their shortest form."""
    pairs = certificate.get("subjectAltName", ())
    # The form is ssl's: ((kind, name), …).
    for kind, name in cast(Iterable[tuple[str, str]], pairs):
        if kind in ("DNS", "email", "URI", "IP Address"):
            yield _shortest(name.strip())


def _shortest(name: str) -> str:
    """Return an address in its shortest form, and any other name as it is."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name
