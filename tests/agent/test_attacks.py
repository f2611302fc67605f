"""Ways round the lock, on a real sshd: each works on a careless site, and not with the lock."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.agent.booking_server import make_grant, make_policy, public_key
from tests.agent.site import CARELESS, Site
from tests.lab.node import Node, why_not
from tests.lab.wait import wait_for

CACHE = "/var/lib/sentinel/policy.json"


@dataclass
class Sites:
    """The same site twice: without the lock, and with it and Bob's reservation."""

    open: Site
    locked: Site

    def each(self) -> tuple[Site, Site]:
        return self.open, self.locked


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("attacks")
    with Node("open-01", folder) as first, Node("gpu-01", folder) as second:
        found = Sites(Site(first), Site(second))
        second.install_lock()
        book_bob(found.locked)
        for site in found.each():
            site.node.start_sshd(CARELESS)
        yield found


def book_bob(site: Site, *more: dict[str, object]) -> None:
    site.node.write_policy(make_policy(make_grant("bob", site.keys["bob"]), *more))


@pytest.fixture(autouse=True)
def booked(sites: Sites) -> Iterator[None]:
    """Bob gets in by his reservation after each: the lock is not simply shut."""
    yield
    book_bob(sites.locked)
    assert sites.locked.log_in("bob", "bob") == "in\n"


def by_authorized_keys(site: Site) -> str:
    site.put_home("mallory", ".ssh/authorized_keys", site.public("mallory"))
    return site.log_in("mallory", "mallory")


def by_a_match_block(site: Site) -> str:
    site.node.write("/etc/ssh/site_keys", site.public("mallory"))
    return site.log_in("mallory", "mallory")


def by_password(site: Site) -> str:
    return site.log_in_by_password("mallory", "password")


def by_keyboard_interactive(site: Site) -> str:
    return site.log_in_by_password("mallory", "keyboard-interactive")


def by_certificate(site: Site) -> str:
    return site.log_in("mallory", site.sign("mallory", "mallory"))


def as_bob_by_certificate(site: Site) -> str:
    return site.log_in("bob", site.sign("mallory", "bob"))


def as_bob_with_his_consent(site: Site) -> str:
    """Bob lends his account: he puts Mallory's key beside his own."""
    site.put_home("bob", ".ssh/authorized_keys", site.public("mallory"))
    return site.log_in("bob", "mallory")


def as_root_by_password(site: Site) -> str:
    return site.log_in_by_password("root", "password")


def as_root_by_key(site: Site) -> str:
    site.node.write("/etc/ssh/site_keys", site.public("mallory"))
    return site.log_in("root", "mallory")


def as_root_by_certificate(site: Site) -> str:
    return site.log_in("root", site.sign("mallory", "root"))


def as_a_user_named_like_a_path(site: Site) -> str:
    """An account `../x`, which sshd puts into paths (%u). Debian's sshd cuts it to `..`."""
    for path in ("etc/passwd", "etc/shadow"):
        table = site.node.root / path
        (hers,) = (line for line in table.read_text().splitlines() if "mallory:" in line)
        more = [hers.replace("mallory:", name + ":", 1) for name in ("../x", "..")]
        table.write_text("\n".join([table.read_text().rstrip("\n"), *more, ""]))
    # Where %u would lead in the break-glass accounts' folder.
    site.node.write("/etc/sentinel/x", site.public("mallory"))
    keys = [site.log_in("../x", "mallory"), site.log_in("..", "mallory")]
    return site.log_in_by_password("../x", "password", "mallory") or "".join(keys)


def by_forwarding_only(site: Site) -> str:
    """-W opens no session: only a connection through the node to elsewhere."""
    site.put_home("mallory", ".ssh/authorized_keys", site.public("mallory"))
    argv = site.node.ssh_argv("mallory", site.keys["mallory"], "-W", "127.0.0.1:22")
    through = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    return "in\n" if through.stdout.startswith("SSH-2.0-") else ""


def by_a_jump_through_the_node(site: Site) -> str:
    """ProxyCommand by way of the node to a second sshd, here on the same machine."""
    site.put_home("mallory", ".ssh/authorized_keys", site.public("mallory"))
    jump = " ".join(site.node.ssh_argv("mallory", site.keys["mallory"], "-W", "%h:%p"))
    return site.log_in("mallory", "mallory", "-o", f"ProxyCommand={jump}")


WAYS_IN: list[Callable[[Site], str]] = [
    by_authorized_keys, by_a_match_block, by_password, by_keyboard_interactive, by_certificate,
    as_bob_by_certificate, as_bob_with_his_consent, as_root_by_password, as_root_by_key,
    as_root_by_certificate, as_a_user_named_like_a_path, by_forwarding_only,
    by_a_jump_through_the_node,
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS_IN, ids=lambda way: way.__name__)
def test_a_way_in_is_open_without_the_lock_and_closed_with_it(
    sites: Sites, way: Callable[[Site], str]
) -> None:
    assert way(sites.open) == "in\n"
    assert way(sites.locked) == ""


def test_a_booked_user_is_no_door_for_others(sites: Sites) -> None:
    """From the node itself, by Bob's own jump, others get no further than from outside."""
    locked = sites.locked
    jump = " ".join(locked.node.ssh_argv("bob", locked.keys["bob"], "-W", "127.0.0.1:22"))
    by_jump = ("-o", f"ProxyCommand={jump}")
    assert locked.log_in("bob", "bob", *by_jump) == "in\n"
    locked.put_home("mallory", ".ssh/authorized_keys", locked.public("mallory"))
    assert locked.log_in("mallory", "mallory", *by_jump) == ""
    assert locked.log_in("root", "bob", *by_jump) == ""


def test_a_key_opens_its_owners_account_only(sites: Sites) -> None:
    locked = sites.locked
    book_bob(locked, make_grant("mallory", locked.keys["mallory"], reservation=2))
    assert locked.log_in("mallory", "mallory") == "in\n"
    assert locked.log_in("mallory", "bob") == ""
    assert locked.log_in("bob", "mallory") == ""


# The policy as the way in: what a booking server that was broken into might send, past the
# agent, which would leave such grants out.


def put_raw_cache(site: Site, *grants: dict[str, object]) -> None:
    """Write grants as they are; pam-gate lets all of their users pass."""
    lines = "".join(f"{grant['user']} 0 9999999999\n" for grant in grants)
    header = "sentinel-access 1 9999999999 -\n"
    site.node.write("/var/lib/sentinel/access", header + lines, mode=0o600)
    site.node.write(CACHE, json.dumps(make_policy(*grants)), mode=0o640)
    site.node.run(["chgrp", "sentinel-akc", CACHE])


def as_authorized_keys(line: str) -> Callable[[Site], None]:
    return lambda site: site.put_home("bob", ".ssh/authorized_keys", f"{line}\n")


SMUGGLED = {
    "options before the key": 'environment="LD_PRELOAD=/tmp/x" {bob}',
    "options that lift the restrictions": 'no-touch-required,tunnel="0" {bob}',
    "a comment": "{bob} bob@home",
    "a comment like options": '{bob} ,command="id",no-restrict',
    "a second key behind a line end": "{bob}\n{mallory}",
    "a second key behind a carriage return": "{bob}\r{mallory}",
    "a line end": "{bob}\n",
    "a certificate authority": "cert-authority {ca}",
    "an end of text": "{bob}\0",
}


@pytest.mark.parametrize("smuggled", SMUGGLED.values(), ids=SMUGGLED)
def test_a_key_that_is_more_than_a_key_opens_nothing(sites: Sites, smuggled: str) -> None:
    locked = sites.locked
    keys = {name: public_key(path) for name, path in locked.keys.items()}
    text = smuggled.format(**keys)
    # The same text in a file of sshd's own lets somebody in.
    line = text.replace("\r", "\n").replace("\0", "")
    sites.open.put_home("bob", ".ssh/authorized_keys", f"{line}\n")
    by = [locked.keys["bob"], locked.keys["mallory"], locked.sign("mallory", "bob")]
    assert "in\n" in (sites.open.log_in("bob", path) for path in by)
    put_raw_cache(locked, make_grant("bob", text), make_grant("mallory", keys["mallory"]))
    assert [locked.log_in("bob", path) for path in by] == ["", "", ""]
    # One odd grant keeps nobody else out.
    assert locked.log_in("mallory", "mallory") == "in\n"


def test_a_grant_for_somebody_odd_opens_nothing(sites: Sites) -> None:
    locked = sites.locked
    odd = ("root", "../x", "..", "daemon", "*", "bob\nmallory", "")
    put_raw_cache(locked, *(make_grant(name, locked.keys["mallory"]) for name in odd),
                  make_grant("bob", locked.keys["bob"]))  # fmt: skip
    # pam-gate takes such a file for a damaged one.
    access = locked.node.root / "var/lib/sentinel/access"
    access.write_text(
        "sentinel-access 1 9999999999 -\nbob 0 9999999999\nmallory 0 9999999999\n"
    )
    assert locked.log_in("bob", "bob") == "in\n"
    for name in ("root", "../x", "..", "daemon", "mallory", "bob"):
        assert locked.log_in(name, "mallory") == "", name


@pytest.mark.parametrize(
    "place",
    ["ln -sf /home/mallory/policy.json {0}",
     "mkdir -p /var/lib/real && mv {0} /var/lib/real/ && ln -s /var/lib/real/policy.json {0}",
     "rmdir /var/lib/moved; mv /var/lib/sentinel /var/lib/moved &&"
     " ln -s /home/mallory /var/lib/sentinel"],
    ids=["a file of hers", "a file of root's", "a folder of hers"],
)  # fmt: skip
def test_a_link_in_the_caches_path_opens_nothing(sites: Sites, place: str) -> None:
    locked = sites.locked
    hers = json.dumps(make_policy(make_grant("mallory", locked.keys["mallory"])))
    book_bob(locked, make_grant("mallory", locked.keys["mallory"]))
    assert locked.log_in("mallory", "mallory") == "in\n"
    locked.node.write("/home/mallory/policy.json", hers, owner="mallory")
    locked.node.write(
        "/home/mallory/access", "sentinel-access 1 9999999999 -\n", owner="mallory"
    )
    locked.node.run(["mkdir", "-p", "/var/lib/moved"])
    locked.node.run(["sh", "-c", place.format(CACHE)])
    try:
        assert locked.log_in("mallory", "mallory") == ""
    finally:
        locked.node.run(
            ["sh", "-c", "test ! -L /var/lib/sentinel || "
             "{ rm /var/lib/sentinel; mv /var/lib/moved /var/lib/sentinel; }; rm -f $0", CACHE]
        )  # fmt: skip


# Whoever got past sshd's own checks.


def test_the_second_gate_refuses_and_says_where_to_book(sites: Sites) -> None:
    """As when somebody puts sshd's configuration back: only PAM's block is left."""
    locked = sites.locked
    drop_in = "/etc/ssh/sshd_config.d/00-sentinel.conf"
    locked.put_home("mallory", ".ssh/authorized_keys", locked.public("mallory"))
    locked.node.run(["mv", drop_in, "/etc/ssh/away"])
    locked.node.write(
        "/var/lib/sentinel/access",
        "sentinel-access 1 9999999999 https://booking.example/\nbob 0 9999999999\n", mode=0o600,
    )  # fmt: skip
    locked.node.reload_sshd()
    try:
        seen = locked.seen_before_login("mallory", "mallory")
        assert "no running reservation on this node. Book it: https://booking.example/" in seen
        assert "您在本节点没有正在进行的预约。" in seen
        for way in (by_password, by_keyboard_interactive, by_certificate, by_forwarding_only):
            assert way(locked) == "", way.__name__
        why = "refused user=mallory reason=no running reservation"
        wait_for("it is logged", lambda: why in locked.node.syslog())
    finally:
        locked.node.run(["mv", "/etc/ssh/away", drop_in])
        locked.node.reload_sshd()


# The environment of a session.

BOOKED = "echo $ASCEND_RT_VISIBLE_DEVICES"


def test_the_client_cannot_set_what_was_booked(
    sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SetEnv and SendEnv of the client, with a site that accepts every name."""
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "7")
    sites.open.put_home("bob", ".ssh/authorized_keys", sites.open.public("bob"))
    for option in ("SetEnv=ASCEND_RT_VISIBLE_DEVICES=7", "SendEnv=ASCEND_RT_VISIBLE_DEVICES"):
        assert sites.open.log_in("bob", "bob", "-o", option, command=BOOKED) == "7\n"
        assert sites.locked.log_in("bob", "bob", "-o", option, command=BOOKED) == "0\n"


def test_a_file_of_the_users_sets_no_other_variables_than_the_devices(sites: Sites) -> None:
    """The booked value is advice, which a user can change; what loads code is not."""
    wanted = "LD_PRELOAD=/nowhere.so\nBASH_ENV=/tmp/x\nASCEND_RT_VISIBLE_DEVICES=7\n"
    seen = f"{BOOKED} $BASH_ENV $LD_PRELOAD"
    sites.open.put_home("bob", ".ssh/authorized_keys", sites.open.public("bob"))
    for site in sites.each():
        site.put_home("bob", ".ssh/environment", wanted)
    try:
        assert sites.open.log_in("bob", "bob", command=seen) == "7 /tmp/x /nowhere.so\n"
        # docs/architecture.md, Cards: the device files are what enforces.
        assert sites.locked.log_in("bob", "bob", command=seen) == "7\n"
    finally:
        for site in sites.each():
            site.node.run(["rm", "/home/bob/.ssh/environment"])


def test_a_program_of_the_users_does_not_run_before_the_login(sites: Sites) -> None:
    """~/.ssh/rc runs as the user, and would survive where only the session is refused."""
    sites.open.put_home("bob", ".ssh/authorized_keys", sites.open.public("bob"))
    for site in sites.each():
        site.put_home("bob", ".ssh/rc", "echo it-ran\n")
    assert "it-ran" in sites.open.log_in("bob", "bob")
    assert sites.locked.log_in("bob", "bob") == "in\n"
