"""Lays out the files of the Debian package around PyInstaller's folder. Builds neither.

Usage: package_tree.py FROZEN ORIGINS TREE VERSION EPOCH; for script/package.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

from script.licences import UnknownLicence, find_parts, render

ROOT = Path(__file__).resolve().parents[1]
DEBIAN = ROOT / "agent/packaging/debian"
NODE_FILES = ROOT / "agent/src/sentinel_agent/install/node_files"
NAME = "sentinel-agent"
FOLDER = f"usr/lib/{NAME}"
PROGRAMS = ("sentinel-agent", "sentinel-exporter")
# sshd and PAM start the two gates: they are plain scripts for the system's Python and sh.
GATES = {
    "get-keys": ROOT / "agent/src/sentinel_agent/gates/get_keys.py",
    "pam-gate": ROOT / "agent/src/sentinel_agent/gates/pam_gate",
}
DATA = {
    "usr/lib/sysusers.d/sentinel-agent.conf": NODE_FILES / "sysusers.conf",
}
UNITS = (
    NODE_FILES / "sentinel-agent.service",
    ROOT / "exporters/packaging/sentinel-exporter.service",
)
OWN_TERMS = """\
ServerSentinel: the lock of a shared GPU or NPU node, and its exporter.
Copyright: the authors of ServerSentinel.
License: Apache-2.0; its text is in /usr/share/common-licenses/Apache-2.0.
"""


def main(arguments: list[str]) -> int:
    """Write the tree; return 1 when a part's licence is not known."""
    frozen, origins, tree = (Path(text) for text in arguments[:3])
    version, epoch = arguments[3], int(arguments[4])
    shutil.rmtree(tree, ignore_errors=True)
    try:
        terms = render(find_parts(json.loads(origins.read_text())), OWN_TERMS)
    except UnknownLicence as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    lay_out(frozen, tree)
    drop_search_paths(tree)
    write_documents(tree, terms, version, epoch)
    set_modes(tree)
    write_control(tree, version)
    return 0


def lay_out(frozen: Path, tree: Path) -> None:
    """Copy everything to where it is installed."""
    shutil.copytree(frozen, tree / FOLDER, symlinks=True)
    for name in PROGRAMS:
        link = tree / "usr/bin" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        # Relative, as Debian's policy has it (10.5).
        link.symlink_to(f"../lib/{NAME}/{name}")
    gates = {f"usr/lib/sentinel/{name}": path for name, path in GATES.items()}
    for target, source in (gates | DATA).items():
        (tree / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, tree / target)
    for source in UNITS:
        unit = tree / "usr/lib/systemd/system" / source.name
        unit.parent.mkdir(parents=True, exist_ok=True)
        # By hand the programs are installed elsewhere.
        unit.write_text(source.read_text().replace("/usr/local/bin/", "/usr/bin/"))


def drop_search_paths(tree: Path) -> None:
    """Keep the libraries from looking for others where the build machine had its own.

    A Python that was built by its user names its folder in each library (RUNPATH). On a node
    others than root may be able to write there, and root's programs would load what they put.
    """
    for path in tree.rglob("*"):
        if _is_elf(path) and not _output("patchelf", "--print-rpath", str(path)).startswith(
            ("$ORIGIN", "\n")
        ):
            _output("patchelf", "--remove-rpath", str(path))


def write_documents(tree: Path, terms: str, version: str, epoch: int) -> None:
    """Write what Debian's policy wants of every package (12.5, 12.7)."""
    folder = tree / "usr/share/doc" / NAME
    folder.mkdir(parents=True)
    (folder / "copyright").write_text(terms)
    when = format_datetime(datetime.fromtimestamp(epoch, UTC))
    fields = dict(
        line.split(": ", 1)
        for line in (DEBIAN / "control").read_text().splitlines()
        if ": " in line
    )
    log = (
        f"{NAME} ({version}) unstable; urgency=medium\n\n"
        "  * Built from the source tree; its history has the changes.\n\n"
        f" -- {fields['Maintainer']}  {when}\n"
    )
    compressed = gzip.compress(log.encode(), compresslevel=9, mtime=0)
    (folder / "changelog.Debian.gz").write_bytes(compressed)


def set_modes(tree: Path) -> None:
    """Nobody but the owner writes; only programs can be run."""
    runnable = {tree / FOLDER / name for name in PROGRAMS}
    runnable |= {tree / "usr/lib/sentinel" / name for name in GATES}
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path in runnable else 0o644)


def write_control(tree: Path, version: str) -> None:
    """Write DEBIAN/: what dpkg knows of the package, and the scripts that it runs."""
    files = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    folder = tree / "DEBIAN"
    folder.mkdir(mode=0o755)
    # dpkg-gencontrol's way: whole KiB for each file, and one for everything else.
    kibibytes = sum(-(-path.stat().st_size // 1024) for path in files)
    kibibytes += sum(1 for path in tree.rglob("*") if path.is_symlink() or path.is_dir())
    values = {
        "VERSION": version,
        "ARCHITECTURE": _output("dpkg", "--print-architecture").strip(),
        "INSTALLED_SIZE": str(kibibytes),
        "GLIBC": needed_glibc(files),
    }
    control = (DEBIAN / "control").read_text()
    for name, value in values.items():
        control = control.replace(f"@{name}@", value)
    (folder / "control").write_text(control)
    sums = [f"{_md5(path)}  {path.relative_to(tree)}\n" for path in files]
    (folder / "md5sums").write_text("".join(sums))
    for name in ("control", "md5sums"):
        (folder / name).chmod(0o644)
    for name in ("postinst", "prerm", "postrm"):
        shutil.copyfile(DEBIAN / name, folder / name)
        (folder / name).chmod(0o755)


def needed_glibc(files: list[Path]) -> str:
    """Return the newest version of glibc's symbols that a program or library asks for."""
    newest: tuple[int, ...] = (0,)
    for path in files:
        if not _is_elf(path):
            continue
        symbols = _output("objdump", "--dynamic-syms", str(path))
        for text in re.findall(r"\(?GLIBC_([0-9.]+)\)? ", symbols):
            newest = max(newest, tuple(int(part) for part in text.split(".")))
    return ".".join(str(part) for part in newest)


def _is_elf(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _output(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main(sys.argv[1:]))
