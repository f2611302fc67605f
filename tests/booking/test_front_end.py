"""What the pages load in the browser: pinned, named by hash, and installed once."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WEB = ROOT / "booking" / "src" / "sentinel_booking" / "web"
VENDOR = WEB / "static" / "vendor"


def test_packages_are_pinned_exactly_and_accepted_by_their_hash_alone() -> None:
    package = json.loads((ROOT / "booking" / "package.json").read_text())
    text = (ROOT / "booking" / "package-lock.json").read_text()
    lock = json.loads(text)
    # No registry is written down: whoever installs uses their own.
    assert "http" not in text
    assert "resolved" not in text
    assert lock["packages"][""]["dependencies"] == package["dependencies"]
    for name, version in package["dependencies"].items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version), name
        locked = lock["packages"][f"node_modules/{name}"]
        assert locked["version"] == version
        assert locked["integrity"].startswith("sha512-")
    # Nothing else comes along with them.
    assert len(lock["packages"]) == 1 + len(package["dependencies"])


def test_installing_again_changes_nothing() -> None:
    def state() -> dict[Path, int]:
        files = [*VENDOR.iterdir(), *WEB.glob("translations/*/LC_MESSAGES/*")]
        return {path: path.stat().st_mtime_ns for path in files}

    subprocess.run([ROOT / "script" / "front-end"], check=True, timeout=120)
    before = state()
    assert {path.name for path in before} >= {
        "htmx.min.js", "uPlot.iife.min.js", "uPlot.min.css", "messages.mo",
    }  # fmt: skip
    done = subprocess.run(
        [ROOT / "script" / "front-end"], check=True, timeout=20, capture_output=True
    )
    assert state() == before
    assert done.stderr == done.stdout == b""


def test_what_is_installed_is_not_committed() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    tracked = subprocess.run(
        ["git", "ls-files", "booking"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    assert not [path for path in tracked if "/vendor/" in path or path.endswith(".mo")]
    assert "booking/package-lock.json" in tracked
