"""The Debian package, unpacked: its files, their owners, and what it says of itself."""

from __future__ import annotations

import hashlib
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from sentinel_agent import __version__
from tests.agent.package_lab import FOLDER, package, unpacked
from tests.lab.node import REPOSITORY

__all__ = ["package", "unpacked"]  # fixtures


def members(package: Path) -> Iterator[tarfile.TarInfo]:
    listing = subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE
    )
    with listing, tarfile.open(fileobj=listing.stdout, mode="r|") as archive:
        yield from archive


def test_root_owns_every_file_and_nobody_else_can_write_one(package: Path) -> None:
    runnable = set()
    for member in members(package):
        assert (member.uid, member.gid) == (0, 0), member.name
        if not member.issym():
            assert member.mode & 0o7022 == 0, (member.name, oct(member.mode))
        if member.isfile() and member.mode & 0o111:
            runnable.add(member.name.removeprefix("."))
    assert runnable == {
        f"{FOLDER}/sentinel-agent",
        f"{FOLDER}/sentinel-exporter",
        "/usr/lib/sentinel/get-keys",
        "/usr/lib/sentinel/pam-gate",
    }


def test_the_package_keeps_nothing_in_etc_that_dpkg_would_ask_about(unpacked: Path) -> None:
    """All of /etc/sentinel is the operator's, or made when the node is locked."""
    assert not (unpacked / "etc").exists()
    assert not (unpacked / "DEBIAN" / "conffiles").exists()


def test_the_gates_are_the_plain_scripts_of_the_source_tree(unpacked: Path) -> None:
    source = REPOSITORY / "agent/src/sentinel_agent"
    for name, origin in (("get-keys", "gates/get_keys.py"), ("pam-gate", "gates/pam_gate")):
        text = (source / origin).read_bytes()
        assert (unpacked / "usr/lib/sentinel" / name).read_bytes() == text
        assert (
            unpacked / FOLDER[1:] / "_internal/sentinel_agent" / origin
        ).read_bytes() == text
        assert text.startswith(b"#!/")


def test_dpkg_knows_the_sum_of_every_file(unpacked: Path) -> None:
    lines = (unpacked / "DEBIAN" / "md5sums").read_text().splitlines()
    listed = {path: sum_ for sum_, _, path in (line.partition("  ") for line in lines)}
    files = [
        path
        for path in unpacked.rglob("*")
        if path.is_file() and not path.is_symlink() and "DEBIAN" not in path.parts
    ]
    assert listed == {
        str(path.relative_to(unpacked)): hashlib.md5(path.read_bytes()).hexdigest()
        for path in files
    }


def test_the_package_says_what_it_needs(package: Path) -> None:
    done = subprocess.run(
        ["dpkg-deb", "--field", str(package)], capture_output=True, text=True, check=True
    )
    fields = dict(re.findall(r"^(\S+): (.*)$", done.stdout, re.M))
    assert fields["Version"] == f"{__version__}-1"
    assert "@" not in fields.pop("Maintainer").replace("@serversentinel", "")
    assert not [value for value in fields.values() if "@" in value]
    needs = fields["Depends"]
    assert re.search(r"libc6 \(>= 2\.\d+\), ", needs)
    assert "openssh-server" in needs
    assert "python3 " in needs


def test_no_library_looks_for_others_outside_the_package(unpacked: Path) -> None:
    """Whoever can write in a folder of that name on a node would be root there."""
    seen = 0
    for path in (unpacked / FOLDER[1:]).rglob("*"):
        if path.is_file() and path.read_bytes()[:4] == b"\x7fELF":
            seen += 1
            shown = subprocess.run(
                ["objdump", "--private-headers", str(path)],
                capture_output=True, text=True, check=True,
            ).stdout  # fmt: skip
            for folders in re.findall(r"^  R(?:UN)?PATH +(\S+)$", shown, re.M):
                outside = [one for one in folders.split(":") if not one.startswith("$ORIGIN")]
                assert not outside, path
    assert seen > 20


def test_the_terms_of_everything_bundled_are_in_the_package(unpacked: Path) -> None:
    """By the lock, and by a look at the libraries: not by the list that the build made."""
    terms = (unpacked / "usr/share/doc/sentinel-agent/copyright").read_text()
    locked = (REPOSITORY / "requirements/package.txt").read_text()
    versions = dict(re.findall(r"^([\w.-]+)==(\S+)", locked, re.M))
    titles = dict(re.findall(r"^  (\S+) (\S+): \S", terms, re.M))
    titles = {name.replace("_", "-"): version for name, version in titles.items()}
    for name in (
        "certifi", "cryptography", "nvidia-ml-py", "prometheus-client", "pydantic",
        "pydantic-core", "pyghmi", "pyinstaller", "requests", "urllib3",
    ):  # fmt: skip
        assert titles[name] == versions[name]
        assert f"\n{name} {versions[name]}\n---" in terms.replace("_", "-"), name
    assert "Python" in titles
    internal = unpacked / FOLDER[1:] / "_internal"
    packages = {"libcrypto": "libssl", "libgcc_s": "libgcc-s", "libz": "zlib"}
    for path in internal.glob("lib*.so*"):
        stem = path.name.partition(".so")[0]
        if not stem.startswith("libpython"):
            wanted = packages.get(stem, stem)
            assert [title for title in titles if title.startswith(wanted)], path
    # Its terms would not fit this package's.
    assert not list(internal.glob("libreadline*"))
