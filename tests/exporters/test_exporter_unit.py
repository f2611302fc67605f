"""The systemd unit: systemd understands it, and it leaves the accelerators in sight."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.exporters.running import REPOSITORY

UNIT = REPOSITORY / "exporters" / "packaging" / "sentinel-exporter.service"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    # The program is not installed here; everything else is as it is shipped.
    text = UNIT.read_text().replace("/usr/bin/sentinel-exporter", "/bin/true")
    copy = tmp_path / UNIT.name
    copy.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_no_setting_hides_the_accelerators_or_the_processes() -> None:
    lines = UNIT.read_text().splitlines()
    settings = {line.partition("=")[0] for line in lines if line and line[0] not in "#["}
    # systemd.exec(5): these hide device files, or other users' processes.
    hiding = {"PrivateDevices", "ProtectClock", "DevicePolicy", "DeviceAllow", "ProtectProc",
              "PrivateUsers", "ProcSubset"}  # fmt: skip
    assert not settings & hiding
    assert "DynamicUser" in settings
