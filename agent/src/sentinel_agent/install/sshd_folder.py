"""Which units would take sshd's folder from the break-glass sshd. It reads unit files only.

systemd removes a unit's RuntimeDirectory when the unit stops: without /run/sshd no sshd lets
anybody in (sshd.8), so stopping ssh.service, as Debian has it, would shut the second sshd too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..lock.sshd import PRIVSEP_FOLDER
from .breakglass_sshd import UNIT

# systemd.unit(5), the first that has a unit wins.
UNIT_FOLDERS = (
    Path("/etc/systemd/system"), Path("/run/systemd/system"),
    Path("/usr/local/lib/systemd/system"), Path("/usr/lib/systemd/system"),
    Path("/lib/systemd/system"),
)  # fmt: skip
DROP_IN = "sentinel.conf"
DROP_IN_TEXT = """\
# ServerSentinel: the break-glass sshd needs the folder too, also while this unit is stopped.
[Service]
RuntimeDirectoryPreserve=yes
"""
_SETTING = re.compile(r"^\s*(RuntimeDirectory|RuntimeDirectoryPreserve)\s*=(.*)$", re.MULTILINE)
# systemd.syntax(7): how a boolean may be written.
_YES = ("yes", "true", "on", "1")


def find_units(folders: Sequence[Path] = UNIT_FOLDERS) -> list[str]:
    """Return the names of the services that remove sshd's folder when they stop.

    Our own drop-in is passed over, so that the answer stays the same once it is there.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.service")):
            found.setdefault(path.name, path)
    return sorted(
        name
        for name, path in found.items()
        # A link is another name of a unit, or masks it.
        if name != UNIT and not path.is_symlink() and _removes(name, path, folders)
    )


def _removes(name: str, path: Path, folders: Sequence[Path]) -> bool:
    settings: dict[str, str] = {}
    directories: list[str] = []
    for text in _texts(name, path, folders):
        for key, value in _SETTING.findall(text):
            settings[key] = value.strip().lower()
            if key == "RuntimeDirectory":
                # Each line adds; an empty one begins anew.
                directories = [*directories, *value.split()] if value.strip() else []
    # systemd.exec(5): `sshd:link` makes a link to it besides.
    names = {directory.partition(":")[0] for directory in directories}
    keeps = settings.get("RuntimeDirectoryPreserve", "no") in _YES
    return PRIVSEP_FOLDER.name in names and not keeps


def _texts(name: str, path: Path, folders: Sequence[Path]) -> Iterator[str]:
    """Yield the unit and its drop-ins, in the order in which systemd reads them."""
    drop_ins: dict[str, Path] = {}
    for folder in folders:
        for drop_in in (folder / f"{name}.d").glob("*.conf"):
            drop_ins.setdefault(drop_in.name, drop_in)
    drop_ins.pop(DROP_IN, None)
    for file in (path, *(drop_ins[key] for key in sorted(drop_ins))):
        try:
            yield file.read_text(errors="replace")
        except OSError:
            continue
