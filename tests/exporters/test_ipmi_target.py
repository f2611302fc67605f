"""What may stand in `?target=`, and which targets a list permits."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from sentinel_exporters.ipmi.errors import IpmiError
from sentinel_exporters.ipmi.resolver import Resolver
from sentinel_exporters.ipmi.target import Address, AllowList, Target, parse_target, resolve


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("10.1.2.3", Target("10.1.2.3", 623)),
        ("10.1.2.3:6230", Target("10.1.2.3", 6230)),
        ("BMC-7.example.org", Target("bmc-7.example.org")),
        ("node_1.bmc:624", Target("node_1.bmc", 624)),
        ("bmc.example.", Target("bmc.example")),
        ("fd00::7", Target("fd00::7")),
        ("[fd00::7]", Target("fd00::7")),
        ("[FD00:0::7]:6230", Target("fd00::7", 6230)),
        ("::ffff:10.1.2.3", Target("10.1.2.3")),
    ],
)
def test_hosts_addresses_and_ports_are_read(text: str, target: Target) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "a b", "a/b", "http://a", "user@a", "user:pass@a", "a?b", "a#b", "a%00", "a\n",
        "-a", "a-", ".a", "a..b", "a" * 64, "bücher", ":623", "a:", "a:0", "a:65536", "a:+1",
        "a:ssh", "a:6 2", "a:٣", "[fd00::7", "[10.1.2.3]", "[fd00::7]x", "[fd00::7]:",
        "fe80::1%eth0", "[fe80::1%25eth0]:623", "1.2.3", "1.2.3.4.5", "127.1", "2130706433",
        "0x7f.1", "0x7f000001", "010.1.2.3", "1.2.3.0x4", "example.0x1",
    ],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_target(text)


def test_a_name_is_looked_up() -> None:
    assert resolve(Target("localhost", 624)) == Address(ip_address("127.0.0.1"), 624)


def test_an_address_needs_no_look_up() -> None:
    assert Resolver().known(Target("10.1.2.3", 624)) == Address(ip_address("10.1.2.3"), 624)


def test_a_name_that_was_looked_up_is_known_for_a_while() -> None:
    name, found = Target("localhost", 624), Address(ip_address("127.0.0.1"), 624)
    resolver, forgetful = Resolver(), Resolver(keep_s=0)

    assert resolver.known(name) is None
    assert resolver.resolve(name) == forgetful.resolve(name) == found
    assert resolver.known(name) == found
    assert forgetful.known(name) is None


def test_an_unknown_name_is_an_error_that_says_so() -> None:
    with pytest.raises(IpmiError, match="cannot resolve"):
        resolve(Target("no-such-host.invalid"))


@pytest.mark.parametrize(
    ("entries", "host", "ip", "is_admitted"),
    [
        ([], "anything", "192.0.2.1", True),
        (["10.1.0.0/16"], "10.1.2.3", "10.1.2.3", True),
        (["10.1.0.0/16"], "10.2.2.3", "10.2.2.3", False),
        (["10.1.2.3"], "10.1.2.3", "10.1.2.3", True),
        (["fd00::/8"], "fd00::7", "fd00::7", True),
        (["fd00::/8"], "10.1.2.3", "10.1.2.3", False),
        (["bmc-7.example"], "bmc-7.example", "10.1.2.3", True),
        (["BMC-7.Example."], "bmc-7.example", "10.1.2.3", True),
        (["bmc-7.example"], "bmc-8.example", "10.1.2.3", False),
        (["*.bmc.example"], "a.bmc.example", "10.1.2.3", True),
        (["*.bmc.example"], "bmc.example", "10.1.2.3", False),
        (["*.bmc.example"], "evilbmc.example", "10.1.2.3", False),
        # Networks are for where the packets go, whatever the name.
        (["10.1.0.0/16"], "evil.example", "192.0.2.1", False),
        (["10.1.0.0/16"], "bmc-7.example", "10.1.2.3", True),
    ],
)
def test_a_list_permits_what_it_names(
    entries: list[str], host: str, ip: str, is_admitted: bool
) -> None:
    permitted = AllowList.parse(entries)

    assert permitted.admits(Target(host), Address(ip_address(ip))) is is_admitted


@pytest.mark.parametrize("entry", ["10.1.2.3/8", "10.0.0.0/33", "a b", "*", "*.", "a.*.b", ""])
def test_a_list_with_an_unusable_entry_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        AllowList.parse([entry])
