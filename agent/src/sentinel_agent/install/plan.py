"""Which steps install the node. It looks at the node and changes nothing.

The steps that need a key, a code or a login come after these: see install.py.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..config import DEFAULT_PATH, Config
from ..errors import InstallError
from ..lock import breakglass, drop_in, pam
from ..lock.sshd import PRIVSEP_FOLDER, Sshd
from . import breakglass_sshd, sshd_folder
from .record import Record, digest
from .steps import (
    AddMember,
    MakeAccounts,
    MakeFolder,
    MakeLink,
    StartUnit,
    Step,
    WriteFile,
)

# Around this module, also in a frozen program.
PACKAGE = Path(__file__).parents[1]
NODE_FILES = PACKAGE / "install/node_files"
UNIT = "sentinel-agent.service"
UNIT_FOLDER = Path("/etc/systemd/system")
# A package brings its units there; ours would hide them.
PACKAGED_UNITS = (Path("/usr/lib/systemd/system"), Path("/lib/systemd/system"))
CONFIG_FOLDER = Path("/etc/sentinel")
CA_FILE = CONFIG_FOLDER / "server-ca.pem"
MODPROBE = Path("/etc/modprobe.d/sentinel-nvidia.conf")
# NVIDIA's driver is loaded, or its library is there, which comes with the driver.
NVIDIA_LOADED = Path("/proc/driver/nvidia/version")
NVIDIA_LIBRARIES = ("lib*/libnvidia-ml.so.1", "lib/*/libnvidia-ml.so.1")


@dataclass(frozen=True)
class Options:
    """What the operator said. `breakglass` maps accounts to files with public keys."""

    server: str
    ca_file: Path | None = None
    address: str = ""
    breakglass: Mapping[str, Path] = field(default_factory=dict)
    breakglass_port: int = 2222
    replace_akc: bool = False
    plain_http: bool = False


def plan_files(options: Options, config: Config, sshd: Sshd, record: Record) -> list[Step]:
    """Return the steps up to the break-glass sshd, in order. Raises InstallError."""
    folder = config.sshd_drop_in.parent
    steps: list[Step] = [
        MakeAccounts(
            config.cache_group, config.breakglass_group, NODE_FILES / "sysusers.conf"
        ),
        MakeFolder(config.state_dir, 0o750, config.cache_group),
        MakeFolder(Path(drop_in.GET_KEYS).parent, 0o755),
        MakeFolder(CONFIG_FOLDER, 0o755),
        MakeFolder(breakglass.FOLDER, 0o755),
        WriteFile(
            Path(drop_in.GET_KEYS), _shipped("gates/get_keys.py", drop_in.GET_KEYS), 0o755,
            "answers sshd",
        ),
        WriteFile(
            Path(pam.PAM_GATE), _shipped("gates/pam_gate", pam.PAM_GATE), 0o755, "answers PAM"
        ),
        WriteFile(
            Path(drop_in.BANNER), drop_in.render_banner(options.server).encode(), 0o644,
            "says where to book",
        ),
    ]  # fmt: skip
    if not folder.is_dir():
        steps.append(MakeFolder(folder, 0o755))
    steps += _config_files(options)
    if _has_nvidia():
        if not MODPROBE.parent.is_dir():
            steps.append(MakeFolder(MODPROBE.parent, 0o755))
        text = _shipped(f"install/node_files/{MODPROBE.name}", str(MODPROBE))
        steps.append(
            WriteFile(MODPROBE, text, 0o644, "leaves the cards' device files to the agent")
        )
    for user, source in options.breakglass.items():
        if user != "root":
            steps.append(AddMember(user, config.breakglass_group))
        steps.append(_keys(user, source, record))
    if options.breakglass_port:
        steps += _breakglass_sshd(options, config, sshd)
    if UNIT_FOLDER.is_dir() and not _is_packaged(UNIT):
        unit = _shipped(f"install/node_files/{UNIT}", str(UNIT_FOLDER / UNIT)).replace(
            b"/usr/local/bin/sentinel-agent", shlex.join(program()).encode()
        )
        steps.append(WriteFile(UNIT_FOLDER / UNIT, unit, 0o644, "runs the agent"))
    return steps


def start_breakglass() -> StartUnit:
    """Return the step that starts the break-glass sshd."""
    command = f"{breakglass_sshd.PROGRAM} -f {breakglass_sshd.CONFIG}"
    return StartUnit(breakglass_sshd.UNIT, command)


def start_agent() -> StartUnit:
    """Return the step that starts the agent."""
    return StartUnit(UNIT, shlex.join([*program(), "run"]))


def program() -> list[str]:
    """Return the command that this program was started by, without its arguments."""
    if getattr(sys, "frozen", False):
        return [shutil.which("sentinel-agent") or sys.executable]
    started = Path(sys.argv[0])
    if started.name == "sentinel-agent" and started.is_file():
        return [str(started.absolute())]
    return [sys.executable, "-m", "sentinel_agent"]


def _config_files(options: Options) -> list[Step]:
    """Return the agent's configuration where there is none; one that is there is kept."""
    steps: list[Step] = []
    ca_file = options.ca_file
    if ca_file is not None and not ca_file.is_relative_to("/etc"):
        # It may lie where the agent will not see it, or be gone tomorrow.
        content = _read(ca_file)
        steps.append(WriteFile(CA_FILE, content, 0o644, "signs the server's certificate"))
        ca_file = CA_FILE
    if not DEFAULT_PATH.exists():
        settings = {"server": options.server, "address": options.address,
                    "ca_file": str(ca_file or "")}  # fmt: skip
        # JSON's texts are TOML's.
        lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items() if value]
        text = "\n".join(("# Settings: docs/config.md of ServerSentinel.", *lines, ""))
        steps.append(WriteFile(DEFAULT_PATH, text.encode(), 0o644, "the agent's settings"))
    return steps


def _keys(user: str, source: Path, record: Record) -> WriteFile:
    """Return the step that lets an operator in. What is there already stays in the file."""
    target = breakglass.FOLDER / user
    given = _read(source).decode(errors="replace")
    if "PRIVATE KEY" in given:
        raise InstallError(f"{source} is a private key; give its .pub file")
    lines = [line.strip() for line in given.splitlines() if line.strip()]
    there = target.read_text(errors="replace").splitlines() if target.is_file() else []
    made = record.find("file", str(target))
    if made is not None and target.is_file() and digest(target.read_bytes()) == made.digest:
        there = [line for line in there if line in lines]
    content = "\n".join([*there, *(line for line in lines if line not in there), ""])
    return WriteFile(target, content.encode(), 0o644, f"break-glass keys of {user}")


def _breakglass_sshd(options: Options, config: Config, sshd: Sshd) -> list[Step]:
    text = breakglass_sshd.render_config(sshd, config.breakglass_group, options.breakglass_port)
    steps: list[Step] = [
        WriteFile(breakglass_sshd.CONFIG, text.encode(), 0o644, "the break-glass sshd"),
        WriteFile(
            breakglass_sshd.PAM_SERVICE, breakglass_sshd.PAM_TEXT.encode(), 0o644,
            "its PAM service",
        ),
        MakeLink(breakglass_sshd.PROGRAM, sshd.binary),
    ]  # fmt: skip
    if UNIT_FOLDER.is_dir() and not _is_packaged(breakglass_sshd.UNIT):
        unit = breakglass_sshd.render_unit(sshd).encode()
        path = UNIT_FOLDER / breakglass_sshd.UNIT
        steps.append(WriteFile(path, unit, 0o644, "runs the break-glass sshd"))
    return steps + _keep_sshd_folder()


def _keep_sshd_folder() -> list[Step]:
    """Return the steps after which the break-glass sshd outlives a stop of the other one."""
    steps: list[Step] = []
    for name in sshd_folder.find_units() if UNIT_FOLDER.is_dir() else ():
        folder = UNIT_FOLDER / f"{name}.d"
        if not folder.is_dir():
            steps.append(MakeFolder(folder, 0o755))
        steps.append(
            WriteFile(
                folder / sshd_folder.DROP_IN, sshd_folder.DROP_IN_TEXT.encode(), 0o644,
                f"stopping {name} leaves {PRIVSEP_FOLDER} to the break-glass sshd",
            )
        )  # fmt: skip
    return steps


def _has_nvidia() -> bool:
    return NVIDIA_LOADED.exists() or any(
        any(Path("/usr").glob(pattern)) for pattern in NVIDIA_LIBRARIES
    )


def _is_packaged(unit: str) -> bool:
    return any((folder / unit).is_file() for folder in PACKAGED_UNITS)


def _shipped(name: str, installed: str) -> bytes:
    """Return a file that comes with this program, or with its package, which installed it."""
    for path in (PACKAGE / name, Path(installed)):
        if path.is_file():
            return path.read_bytes()
    raise InstallError(f"{PACKAGE / name} is missing: this program is not complete")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InstallError(f"{path}: {error.strerror}") from error
