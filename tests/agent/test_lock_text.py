"""The text of sshd's and PAM's files, for each OpenSSH: no program runs here."""

from __future__ import annotations

import pytest

from sentinel_agent.install import breakglass_sshd
from sentinel_agent.lock import drop_in, pam
from sentinel_agent.lock.drop_in import (
    LockText,
    is_read_first,
    put_first,
    render_drop_in,
    take_out,
)
from sentinel_agent.lock.sshd import Sshd

DROP_IN = "/etc/ssh/sshd_config.d/00-sentinel.conf"
INCLUDE = "Include /etc/ssh/sshd_config.d/*.conf\n"
BLOCK = pam.render_block("breakglass", ("monitoring", "backup"))
DEBIAN = """\
# PAM configuration for the Secure Shell service
@include common-auth
account    required     pam_nologin.so
@include common-account
session    optional     pam_motd.so
"""


def render(version: tuple[int, int], *networks: str) -> str:
    return render_drop_in(LockText(version, "sentinel-akc", "breakglass", networks))


@pytest.mark.parametrize("version", [(8, 2), (8, 9), (9, 0)])
def test_before_9_1_get_keys_is_asked_for_local_times(version: tuple[int, int]) -> None:
    assert "AuthorizedKeysCommand /usr/lib/sentinel/get-keys --local-expiry %u\n" in render(
        version
    )


@pytest.mark.parametrize("version", [(9, 1), (9, 2), (10, 0), (10, 5)])
def test_from_9_1_times_are_in_utc(version: tuple[int, int]) -> None:
    assert "AuthorizedKeysCommand /usr/lib/sentinel/get-keys %u\n" in render(version)


def test_penalties_exempt_operators_from_9_8_and_are_not_known_before() -> None:
    listed = "PerSourcePenaltyExemptList 127.0.0.1,::1,192.0.2.0/24,2001:db8::/32\n"
    for version in ((9, 8), (9, 9), (10, 2)):
        assert listed in render(version, "192.0.2.0/24", "2001:db8::/32")
    for version in ((9, 7), (8, 2)):
        assert "Penalty" not in render(version, "192.0.2.0/24")


def test_the_breakglass_sshd_names_its_pam_service_from_9_8() -> None:
    def config(version: tuple[int, int]) -> str:
        return breakglass_sshd.render_config(
            Sshd(breakglass_sshd.PROGRAM, version), "breakglass", 2222
        )

    assert "PAMServiceName sentinel-breakglass\n" in config((9, 8))
    assert "PerSourcePenalties no\n" in config((10, 0))
    assert "PAMServiceName" not in config((9, 7))
    assert "PerSourcePenalties" not in config((9, 7))


@pytest.mark.parametrize(
    ("main", "names", "is_first"),
    [
        (f"# A comment.\n\n{INCLUDE}Port 22\n", ["00-sentinel.conf", "50-cloud.conf"], True),
        ("include sshd_config.d/*.conf\n", ["00-sentinel.conf"], True),
        ("Include=/etc/ssh/sshd_config.d/*.conf\n", ["50-cloud.conf"], True),
        (f"Include {DROP_IN}\nPort 22\n", ["00-other.conf"], True),
        ("Include /etc/ssh/sshd_config.d/[0-4]*.conf\n", ["50-cloud.conf"], True),
        (INCLUDE, ["00-other.conf"], False),
        (INCLUDE, ["00-other.conf.disabled", ".00-a.conf"], True),
        (f"Port 22\n{INCLUDE}", [], False),
        ("Port 22\n", [], False),
        (f"Include /etc/ssh/other.d/*.conf\n{INCLUDE}", [], False),
        ("Include /etc/ssh/sshd_config.d/*.local\n", [], False),
        (f"Match all\n{INCLUDE}", [], False),
        ("", [], False),
    ],
)
def test_what_sshd_reads_first(main: str, names: list[str], is_first: bool) -> None:
    assert is_read_first(main, DROP_IN, names) is is_first
    # However it was, one line makes it the first, and is taken out again without a trace.
    changed = put_first(main, DROP_IN)
    assert is_read_first(changed, DROP_IN, names)
    assert put_first(changed, DROP_IN) == changed
    assert take_out(changed, DROP_IN) == main


def test_another_packages_command_is_found_wherever_it_is_named() -> None:
    files = [
        ("a.conf", "AuthorizedKeysCommand /usr/share/ec2/keys %u %f\n"),
        ("b.conf", "Match User x\n  authorizedkeyscommand=/opt/keys\n"),
        ("c.conf", "# AuthorizedKeysCommand /not/this\nAuthorizedKeysCommand none\n"),
        ("d.conf", "AuthorizedKeysCommand /usr/lib/sentinel/get-keys %u\n"),
    ]
    assert drop_in.foreign_commands(files) == [
        "a.conf: /usr/share/ec2/keys %u %f",
        "b.conf: /opt/keys",
    ]


def test_the_banner_says_where_to_book_in_both_languages() -> None:
    english, chinese = drop_in.render_banner("https://booking.example").splitlines()
    assert "https://booking.example" in english
    assert "https://booking.example" in chinese
    assert "预约" in chinese


def read_nothing(name: str) -> str | None:
    return None


def test_pams_block_comes_before_the_account_phase_and_goes_without_a_trace() -> None:
    changed = pam.insert(DEBIAN, BLOCK, read_nothing)
    assert changed.index(BLOCK) < changed.index("pam_nologin")
    assert pam.has_block(changed, BLOCK, read_nothing)
    assert pam.insert(changed, BLOCK, read_nothing) == changed
    assert pam.remove(changed) == DEBIAN
    assert not pam.has_block(DEBIAN, BLOCK, read_nothing)


def test_the_account_phase_is_found_in_all_its_forms() -> None:
    files = {"common-account": "account required pam_unix.so\n", "common-auth": "auth x\n",
             "loop": "@include loop\n"}  # fmt: skip
    for first in ("@include common-account\n", "-account required pam_x.so\n",
                  "account include password-auth\n", "ACCOUNT required x.so\n"):  # fmt: skip
        text = f"@include common-auth\n{first}"
        assert pam.insert(text, BLOCK, files.get) == f"@include common-auth\n{BLOCK}{first}"
    for text in ("", "@include common-auth\n", "# account\n", "@include loop\n",
                 "auth x \\\naccount y\n"):  # fmt: skip
        with pytest.raises(ValueError, match="no account phase"):
            pam.insert(text, BLOCK, files.get)


def test_each_exempt_account_passes_over_the_gate_alone() -> None:
    lines = [line for line in BLOCK.splitlines() if not line.startswith("#")]
    assert lines[-1] == "account required pam_exec.so quiet stdout /usr/lib/sentinel/pam-gate"
    tests = lines[:-1]
    assert [line.partition("quiet ")[2] for line in tests] == [
        "uid < 1000", "user ingroup breakglass", "user in backup:monitoring",
    ]  # fmt: skip
    for number, line in enumerate(tests):
        # From this line over those that follow it, the gate included.
        assert f"[success={len(lines) - 1 - number} default=ignore]" in line


@pytest.mark.parametrize("name", ["a b", "x:y", "", "#c", "a\nauth sufficient pam_permit.so"])
def test_a_name_that_pam_would_read_otherwise_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be named"):
        pam.render_block("breakglass", [name])


@pytest.mark.parametrize("gone", [pam.BEGIN, pam.END, "uid < 1000", pam.PAM_GATE])
def test_a_block_that_somebody_cut_is_removed_whole(gone: str) -> None:
    """A test without the gate behind it would pass over the site's own modules."""
    changed = pam.insert(DEBIAN, BLOCK, read_nothing)
    cut = "".join(line for line in changed.splitlines(keepends=True) if gone not in line)
    assert cut != changed
    assert not pam.has_block(cut, BLOCK, read_nothing)
    assert pam.remove(cut) == DEBIAN
    assert pam.insert(cut, BLOCK, read_nothing) == changed
