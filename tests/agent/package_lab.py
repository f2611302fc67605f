"""The Debian package in tests: how it is built and installed, and what it changed on a node."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.lab.node import REPOSITORY, Node

PROGRAM = "/usr/bin/sentinel-agent"
EXPORTER = "/usr/bin/sentinel-exporter"
FOLDER = "/usr/lib/sentinel-agent"


@pytest.fixture(scope="session")
def package() -> Path:
    """The package, built unless it is up to date: half a minute when it is not."""
    done = subprocess.run(
        [str(REPOSITORY / "script" / "package")], stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = re.search(r"dist/\S+\.deb", done.stderr)
    assert found, done.stderr
    return REPOSITORY / found[0]


@pytest.fixture(scope="session")
def unpacked(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's files, with `DEBIAN` among them."""
    folder = tmp_path_factory.mktemp("package") / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", str(package), str(folder)], check=True)
    return folder


def dpkg(node: Node, *arguments: str, check: bool = True) -> str:
    """Run the node's dpkg, whose database is the node's own, and return what it said."""
    # What is lost by a crash of the machine is of no interest here.
    command = ["dpkg", "--force-unsafe-io", *arguments]
    done = node.run(command, env={"DEBIAN_FRONTEND": "noninteractive"}, check=check)
    return done.stdout + done.stderr


def install(node: Node, package: Path) -> None:
    """Bring the package into the node and install it."""
    (node.root / "var/tmp/package.deb").write_bytes(package.read_bytes())
    dpkg(node, "--install", "/var/tmp/package.deb")


# dpkg's own notes, and the copies that useradd and its like make of what they change.
NOTES = re.compile(r"/var/lib/dpkg/.*|/var/log/.*|/var/tmp/.*|/etc/(passwd|group|g?shadow)-")


def changes(node: Node) -> dict[str, tuple[int, int, int, str]]:
    """Return what differs from the host in /etc, /usr and /var: mode, owner and content.

    By the upper layers of the node's file system, which hold nothing else.
    """
    found = {}
    for part in ("etc", "usr", "var"):
        layer = node.root / "run/node/upper" / part
        for path in layer.rglob("*"):
            name = f"/{part}/{path.relative_to(layer)}"
            seen = describe(path)
            if seen != describe(Path(name)) and not NOTES.fullmatch(name):
                found[name] = seen
    return found


def describe(path: Path) -> tuple[int, int, int, str]:
    """Return a file's mode, owner, group and content; a folder's content is not looked at."""
    if not os.path.lexists(path):
        return 0, 0, 0, ""
    status = path.lstat()
    content = ""
    if path.is_symlink():
        content = str(path.readlink())
    elif path.is_file():
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    return status.st_mode, status.st_uid, status.st_gid, content
