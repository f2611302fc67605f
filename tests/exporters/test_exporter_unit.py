"""The systemd units: systemd understands them, and each may do little but what it needs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.exporters.running import REPOSITORY

PACKAGING = REPOSITORY / "exporters" / "packaging"
NODE = PACKAGING / "sentinel-exporter.service"
IPMI = PACKAGING / "sentinel-ipmi-exporter.service"
UNITS = [NODE, IPMI]

needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze"
)


def settings(unit: Path) -> dict[str, str]:
    lines = (line for line in unit.read_text().splitlines() if line and line[0] not in "#[")
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def analyze(unit: Path, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # The program is not installed here; everything else is as it is shipped.
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/usr/bin/sentinel-exporter", "/bin/true"))
    return subprocess.run(
        ["systemd-analyze", *arguments, copy], capture_output=True, text=True, check=False
    )


@needs_analyze
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_understands_every_line(unit: Path, tmp_path: Path) -> None:
    done = analyze(unit, tmp_path, "verify")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_analyze
@pytest.mark.parametrize(("unit", "tenths"), [(NODE, 26), (IPMI, 14)])
def test_systemd_finds_it_exposed_no_more_than_it_must_be(
    unit: Path, tenths: int, tmp_path: Path
) -> None:
    # systemd-analyze(1), security: from 0 to 100; a service without any protection has 96.
    done = analyze(unit, tmp_path, "security", "--offline=yes", f"--threshold={tenths}")
    assert done.returncode == 0, done.stdout[-200:]


def test_no_setting_hides_the_accelerators_or_the_processes() -> None:
    # systemd.exec(5): these hide device files, or other users' processes.
    hiding = {"PrivateDevices", "ProtectClock", "DevicePolicy", "DeviceAllow", "ProtectProc",
              "PrivateUsers", "ProcSubset"}  # fmt: skip
    assert not set(settings(NODE)) & hiding
    assert "DynamicUser" in settings(NODE)


def test_the_one_for_bmcs_sees_no_device_and_no_process() -> None:
    wanted = {"PrivateDevices": "yes", "ProtectProc": "invisible", "PrivateUsers": "yes",
              "CapabilityBoundingSet": "", "DynamicUser": "yes"}  # fmt: skip
    assert wanted.items() <= settings(IPMI).items()


def test_the_passwords_file_is_the_one_that_systemd_hands_over() -> None:
    identity = settings(IPMI)["LoadCredential"].partition(":")[0]
    # systemd.exec(5): where a service's credentials are.
    assert f"/run/credentials/{IPMI.name}/{identity}" in IPMI.read_text()


def test_the_one_for_bmcs_has_files_enough_for_the_most_that_can_be_set() -> None:
    # Sessions, the BMCs that are being asked, clients: 4096 each in the configuration.
    assert int(settings(IPMI)["LimitNOFILE"]) >= 3 * 4096
