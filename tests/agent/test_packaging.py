"""What is installed on a node besides the program."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sentinel_agent.config import Config
from sentinel_agent.gates import get_keys
from sentinel_agent.install import breakglass_sshd
from sentinel_agent.lock.drop_in import LockText, render_drop_in
from sentinel_agent.lock.sshd import Sshd
from tests.lab.node import NODE_FILES, REPOSITORY, Node, why_not


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    text = (NODE_FILES / "sentinel-agent.service").read_text()
    unit = tmp_path / "sentinel-agent.service"
    # Only the program's place differs here.
    unit.write_text(text.replace("/usr/local/bin/sentinel-agent", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_paths_and_names_agree_wherever_they_are_written() -> None:
    config = Config()
    drop_in = render_drop_in(LockText((9, 2), config.cache_group, config.breakglass_group))
    assert "AuthorizedKeysCommand /usr/lib/sentinel/get-keys %u\n" in drop_in
    assert f"AuthorizedKeysCommandUser {config.cache_group}\n" in drop_in
    assert f"Match Group {config.breakglass_group}\n" in drop_in
    assert str(config.cache_file) == get_keys.CACHE
    sysusers = (NODE_FILES / "sysusers.conf").read_text()
    assert f"u {config.cache_group} " in sysusers
    assert f"g {config.breakglass_group} " in sysusers
    readme = (REPOSITORY / "agent" / "README.md").read_text()
    for path in re.findall(r"agent/(?:packaging|src)/\S+", readme):
        assert (REPOSITORY / path).is_file(), path


def test_the_readme_has_every_option_of_install() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "sentinel_agent", "install", "--help"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    options = set(re.findall(r"--[a-z][a-z-]+", shown)) - {"--help"}
    readme = (REPOSITORY / "agent" / "README.md").read_text()
    assert len(options) > 8
    assert {option for option in options if f"`{option}" not in readme} == set()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_breakglass_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    text = breakglass_sshd.render_unit(Sshd(Path("/usr/sbin/sshd"), (9, 2)))
    unit = tmp_path / breakglass_sshd.UNIT
    # Only the program's place differs here.
    unit.write_text(text.replace(str(breakglass_sshd.PROGRAM), "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_sshd_reads_the_drop_in_as_it_is_meant(tmp_path: Path) -> None:
    """By sshd's own words, for a booked user, an operator and root."""
    with Node("gpu-01", tmp_path) as node:
        node.install_lock()
        node.add_user("alice")
        node.add_user("ops", groups=["breakglass"])
        node.start_sshd()

        def settings(user: str) -> set[str]:
            where = f"user={user},host=x,addr=192.0.2.1"
            return set(node.run(["/usr/sbin/sshd", "-T", "-C", where]).stdout.splitlines())

        locked = {
            "authorizedkeyscommand /usr/lib/sentinel/get-keys %u",
            "authorizedkeyscommanduser sentinel-akc",
            "authorizedkeysfile none",
            "authenticationmethods publickey",
            "passwordauthentication no",
            "kbdinteractiveauthentication no",
            "trustedusercakeys none",
            "permituserrc no",
            "permituserenvironment ASCEND_*,CUDA_*",
            "maxstartups 100:30:200",
            "logingracetime 30",
        }
        assert locked - settings("alice") == set()
        operator = {
            "authorizedkeyscommand none",
            "authorizedkeysfile /etc/sentinel/breakglass/%u /run/sentinel/check/%u",
            "authenticationmethods publickey",
            "passwordauthentication no",
        }
        for user in ("ops", "root"):
            assert operator - settings(user) == set(), user
