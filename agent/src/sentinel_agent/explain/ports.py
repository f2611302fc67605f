"""Where sshd listens, for `explain`, and whether the break-glass one greets. It starts none."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from ..errors import AgentError
from ..lock.breakglass import FOLDER, key_problem
from ..lock.sshd import PRIVSEP_FOLDER
from ..lock.sshd_listener import BREAKGLASS_CONFIG, Listener, find_listeners, is_answering
from .case import Case
from .findings import Blocker, Line, Section

UNIT_FOLDERS = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
USUAL = ("127.0.0.1", 22)


def find_ports(case: Case) -> Section:
    """Whether an sshd listens; for break-glass accounts whether the second one lets them in."""
    listeners = find_listeners()
    there = [(address, port) for one in listeners for _, address, port in one.sockets]
    ends = there or _configured(case)
    ports = " and ".join(str(port) for port in sorted({port for _, port in ends}))
    # Where nobody listens, systemd may: it starts sshd for whoever comes.
    is_there = bool(listeners) or _greets(ends)
    text = "sshd listens" if is_there else "no sshd listens"
    lines = [Line(f"port {ports}: {text}", is_bad=not is_there)]
    second, is_open = _second(case) if case.is_breakglass else (None, False)
    if second is not None:
        lines.append(second)
    if is_there:
        return Section("ports", lines)
    blocker = _down(case, ports, str(_breakglass_port()) if is_open else "")
    return Section("ports", lines, (blocker,))


def _down(case: Case, ports: str, second: str) -> Blocker:
    """Say that nobody listens, whether sshd could start, and how an operator gets in."""
    why = f"no sshd listens on port {ports}; its configuration is sound"
    then = f"see `systemctl status {_unit()}` for why it ended, and start it"
    try:
        _ = case.settings
    except AgentError as error:
        why = f"no sshd listens on port {ports}, and its configuration is not sound: {error}"
        then = f"mend the configuration, then `systemctl start {_unit()}`"
    if second:
        then = f"log in on port {second} (`ssh -p {second}`); {then}"
    elif not case.is_breakglass:
        then = f"ask the operators of this node: {then}"
    return Blocker(5, "sshd-down", why, then)


def _second(case: Case) -> tuple[Line, bool]:
    """Return what to say of the break-glass sshd, and whether the user gets in there."""
    port = _breakglass_port()
    if port is None:
        return Line("the break-glass sshd is not installed"), False
    if not _greets([("127.0.0.1", port)]):
        missing = "" if PRIVSEP_FOLDER.exists() else f": {PRIVSEP_FOLDER} is missing"
        return Line(f"port {port}: does not answer{missing}", is_bad=True), False
    problem = "the account is not known now"
    if case.account is not None:
        problem = key_problem(FOLDER / case.user, case.account.pw_uid)
        if not case.has_shell:
            problem = "the account's shell lets nobody in"
    if problem:
        return Line(f"port {port}: answers, and does not let in: {problem}", is_bad=True), False
    return Line(f"port {port}: gets in"), True


def _breakglass_port() -> int | None:
    """Return the port that the break-glass sshd is told; None where there is no such sshd."""
    try:
        lines = Path(BREAKGLASS_CONFIG).read_text(errors="replace").splitlines()
    except OSError:
        return None
    words = (line.split() for line in lines)
    return next((int(w[1]) for w in words if w[:1] == ["Port"] and w[1].isdecimal()), None)


def _configured(case: Case) -> list[tuple[str, int]]:
    """Return where sshd would listen; where everybody expects it when it cannot be asked."""
    try:
        texts = case.settings.get("listenaddress", ())
    except AgentError:
        texts = ()
    parted = [text.rpartition(":") for text in texts]
    return [(host.strip("[]"), int(port)) for host, _, port in parted] or [USUAL]


def _greets(ends: list[tuple[str, int]]) -> bool:
    sockets = tuple((0, str(ipaddress.ip_address(host)), port) for host, port in ends)
    return is_answering(Listener(0, (), sockets, ""))


def _unit() -> str:
    is_debian = any(Path(folder, "ssh.service").exists() for folder in UNIT_FOLDERS)
    return "ssh" if is_debian else "sshd"
