"""Read Prometheus' web configuration file, and refuse what it must not say. Opens no socket.

The form is that of the exporters of Prometheus: github.com/prometheus/exporter-toolkit,
docs/web-configuration.md. What Python's TLS cannot do is refused by name, so that nobody
believes in a protection that is not there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Literal, Self

import bcrypt
import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from ..errors import ConfigError
from ..setting_errors import describe_setting_error
from ..yaml_errors import describe_yaml_error

# The suites up to TLS 1.2 that Go's crypto/tls has, under OpenSSL's names (ciphers(1)).
CIPHERS = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
}
# Those of TLS 1.3 may be named too; as in Go, all of them are always on.
_CIPHERS_13 = {
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
}
CURVES = {
    "CurveP256": "prime256v1",
    "CurveP384": "secp384r1",
    "CurveP521": "secp521r1",
    "X25519": "X25519",
}
# The headers that may be set, and their values where the toolkit names them.
_HEADERS = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}
_BCRYPT = re.compile(r"\$2[abxy]\$(0[4-9]|[12][0-9]|3[01])(\$[./A-Za-z0-9]{53})")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tls(_Section):
    """The section `tls_server_config`; the paths are absolute once the file is read."""

    cert_file: Path
    key_file: Path
    client_auth_type: Literal[
        "", "NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"
    ] = ""
    client_ca_file: Path | None = None
    client_allowed_sans: tuple[str, ...] = ()
    min_version: Literal["TLS10", "TLS11", "TLS12", "TLS13"] = "TLS12"
    max_version: Literal["TLS12", "TLS13"] = "TLS13"
    cipher_suites: tuple[str, ...] = ()
    curve_preferences: tuple[str, ...] = ()
    prefer_server_cipher_suites: bool = True

    @field_validator("cert_file", "key_file", "client_ca_file")
    @classmethod
    def _check_path(cls, value: Path | None) -> Path | None:
        if value is not None and b"\0" in os.fsencode(value):
            raise ValueError("a path has no NUL")
        return value

    @field_validator("client_auth_type", mode="before")
    @classmethod
    def _refuse_unverified(cls, value: object) -> object:
        if value in ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert"):
            raise ValueError(
                f"{value} would take certificates of anybody, which is not supported; use "
                "VerifyClientCertIfGiven or RequireAndVerifyClientCert"
            )
        return value

    @field_validator("cipher_suites")
    @classmethod
    def _check_suites(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in value if name not in {*CIPHERS, *_CIPHERS_13}]:
            raise ValueError(f"unknown: {', '.join(unknown)}")
        return value

    @field_validator("curve_preferences")
    @classmethod
    def _check_curves(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in value if name not in CURVES]:
            raise ValueError(f"unknown: {', '.join(unknown)} (of {', '.join(CURVES)})")
        if len(value) > 1:
            raise ValueError("one curve can be named and no more; or none, for the usual ones")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        wants_certificate = self.client_auth_type not in ("", "NoClientCert")
        if wants_certificate != (self.client_ca_file is not None):
            raise ValueError(
                "client_ca_file and a client_auth_type that verifies belong together"
            )
        if self.client_allowed_sans and self.client_auth_type != "RequireAndVerifyClientCert":
            raise ValueError(
                "client_allowed_sans needs client_auth_type RequireAndVerifyClientCert"
            )
        if self.min_version == "TLS13" and self.max_version == "TLS12":
            raise ValueError("max_version is below min_version")
        if self.cipher_suites and self.min_version != "TLS13" and not self.openssl_ciphers:
            raise ValueError("cipher_suites has none for TLS 1.2; say min_version: TLS13")
        return self

    @property
    def openssl_ciphers(self) -> list[str]:
        """The suites up to TLS 1.2 that are named, under OpenSSL's names."""
        return [CIPHERS[name] for name in self.cipher_suites if name in CIPHERS]


class Http(_Section):
    """The section `http_server_config`."""

    http2: bool | None = None
    headers: dict[str, str] = {}

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if name not in _HEADERS:
                raise ValueError(f"{name} cannot be set (only {', '.join(_HEADERS)})")
            if _HEADERS[name] and text not in _HEADERS[name]:
                raise ValueError(f"{name} must be {' or '.join(_HEADERS[name])}")
            # A line's end would begin another header.
            if not text.isprintable() or not text.isascii():
                raise ValueError(f"{name} must be printable ASCII")
        return value


class WebFile(_Section):
    """The whole file. Without `tls_server_config` it is plain HTTP; without users, for all."""

    tls: Tls | None = Field(default=None, alias="tls_server_config")
    http: Http = Field(default=Http(), alias="http_server_config")
    users: dict[str, str] = Field(default={}, alias="basic_auth_users")

    @field_validator("users")
    @classmethod
    def _check_users(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not _is_bcrypt(text):
                # Not the text itself: it may be a password that somebody wrote in clear.
                raise ValueError(f"the password of {name} is not hashed by bcrypt")
            if ":" in name:
                raise ValueError(f"{name}: a name has no colon")
        return value

    @property
    def warnings(self) -> Iterator[str]:
        """What is accepted for the sake of files that others share, and has no effect."""
        if self.http.http2:
            yield "http_server_config.http2: HTTP/1 is served"
        if self.tls is not None and self.tls.min_version in ("TLS10", "TLS11"):
            yield "tls_server_config.min_version: TLS 1.2 is the oldest that is served"


def _is_bcrypt(text: str) -> bool:
    found = _BCRYPT.fullmatch(text)
    if found is None:
        return False
    try:
        # At the least cost: only the salt's form is in question.
        bcrypt.checkpw(b"", f"$2b$04{found[2]}".encode())
    except ValueError:
        return False
    return True


class _Loader(yaml.SafeLoader):
    """YAML, in which a name that is there twice is an error: one of the two would be lost."""

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, object]:
        names = [key.value for key, _ in node.value]
        if twice := [name for name in names if names.count(name) > 1]:
            raise yaml.constructor.ConstructorError(
                problem=f"{twice[0]} is there twice", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


def parse_web_file(content: bytes, folder: Path) -> WebFile:
    """Return what the file says; relative paths are relative to `folder`, which is its own.

    Raises ConfigError with every problem, one on a line, and without what may be secret.
    """
    try:
        # The loader is a SafeLoader; it makes nothing but plain values.
        document = yaml.load(content, Loader=_Loader)  # noqa: S506
    except yaml.MarkedYAMLError as error:
        raise ConfigError(describe_yaml_error(error)) from None
    except Exception:  # PyYAML lets out what its own code meets: ValueError, KeyError, …
        raise ConfigError("not a YAML file") from None
    try:
        file = WebFile.model_validate(_without_empty(document))
    except ValidationError as error:
        problems = [
            describe_setting_error(one, whole="the file", unknown="not supported")
            for one in error.errors()
        ]
        raise ConfigError("\n".join(problems)) from None
    if file.tls is None:
        return file
    paths = {
        name: folder / path
        for name in ("cert_file", "key_file", "client_ca_file")
        if (path := getattr(file.tls, name)) is not None
    }
    return file.model_copy(update={"tls": file.tls.model_copy(update=paths)})


def _without_empty(document: object) -> object:
    """Leave out sections without content: they say nothing."""
    if document is None:
        return {}
    if not isinstance(document, dict):
        return document
    sections = {info.alias for info in WebFile.model_fields.values()}
    return {
        name: value
        for name, value in document.items()
        if name not in sections or value not in (None, {})
    }
