"""Which BMC a request means, and whether it may be asked. Sends nothing but name look-ups."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from .errors import IpmiError

RMCP_PORT = 623  # DSP0136, and IPMI 2.0, 13.1.2

_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Target:
    """A BMC as it was asked for: a lower-case host name or an IP address, and a UDP port."""

    host: str
    port: int = RMCP_PORT


@dataclass(frozen=True)
class Address:
    """Where a BMC's packets go."""

    ip: IpAddress
    port: int = RMCP_PORT

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if self.ip.version == 6 else f"{self.ip}:{self.port}"


def parse_target(text: str) -> Target:
    """Read `host`, `host:port`, `[v6]`, `[v6]:port` or a bare IPv6 address.

    Raises ValueError for anything else: no user, no path, no zone, no service name.
    """
    if len(text) > 260 or not text.isascii():
        raise ValueError("not a host name or an IP address")
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")) or ":" not in host:
            raise ValueError("an IPv6 address is written as [address]:port")
        port = rest.removeprefix(":") if rest else str(RMCP_PORT)
    elif text.count(":") > 1:
        host, port = text, str(RMCP_PORT)
    else:
        host, colon, port = text.partition(":")
        port = port if colon else str(RMCP_PORT)
    return Target(_check_host(host), _check_port(port))


def resolve(target: Target) -> Address:
    """Return the target's address: IPv4 where a name has both, as most BMCs speak only that.

    Raises IpmiError for an unknown name.
    """
    try:
        return Address(_unmapped(ipaddress.ip_address(target.host)), target.port)
    except ValueError:
        pass  # not an address, so a name
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise IpmiError(f"cannot resolve the name: {error.strerror or error}") from error
    addresses = [ipaddress.ip_address(str(item[4][0]).partition("%")[0]) for item in found]
    return Address(_unmapped(min(addresses, key=lambda ip: ip.version)), target.port)


@dataclass(frozen=True)
class AllowList:
    """Which targets may be asked; empty means any.

    Networks are held against the address that the packets go to, so a name that somebody else
    controls does not lead past them.
    """

    networks: tuple[IpNetwork, ...] = ()
    names: tuple[str, ...] = ()

    @classmethod
    def parse(cls, entries: Iterable[str]) -> AllowList:
        """Read addresses, networks (`10.1.0.0/16`), names and `*.suffix`; raises ValueError."""
        networks: list[IpNetwork] = []
        names: list[str] = []
        for entry in entries:
            try:
                networks.append(ipaddress.ip_network(entry))
                continue
            except ValueError as error:
                if "/" in entry:
                    raise ValueError(f"{entry!r}: not a network: {error}") from None
            bare = entry.removeprefix("*.")
            try:
                names.append(("*." if bare != entry else "") + _check_host(bare))
            except ValueError as error:
                raise ValueError(f"{entry!r}: {error}") from None
        return cls(tuple(networks), tuple(names))

    def admits(self, target: Target, address: Address) -> bool:
        """Whether `target`, which is at `address`, may be asked."""
        if not self.networks and not self.names:
            return True
        if any(
            target.host.endswith(name[1:]) if name.startswith("*.") else target.host == name
            for name in self.names
        ):
            return True
        return any(
            address.ip in network
            for network in self.networks
            if network.version == address.ip.version
        )


def _check_host(host: str) -> str:
    try:
        return str(_unmapped(ipaddress.ip_address(host)))
    except ValueError:
        pass
    labels = host.removesuffix(".").split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("not a host name or an IP address")
    # The resolver takes 0x7f.1 and 2130706433 for addresses, unlike whoever reads them.
    if _NUMBER.fullmatch(labels[-1]):
        raise ValueError("not an IP address in its usual form")
    return host.removesuffix(".").lower()


def _check_port(text: str) -> int:
    if not (text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise ValueError("the port is not a number from 1 to 65535")
    return int(text)


def _unmapped(ip: IpAddress) -> IpAddress:
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.scope_id:
            raise ValueError("an address with a zone is not served")
        return ip.ipv4_mapped or ip
    return ip
