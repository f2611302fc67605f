"""The lock's block in PAM's account phase of sshd. Text in, text out, save for `read_service`.

It is put before the first line of the account phase, so that nothing there can end the phase
with success before the gate was asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

PAM_GATE = "/usr/lib/sentinel/pam-gate"
BEGIN = "# BEGIN ServerSentinel: sentinel-agent makes this block and takes it away."
END = "# END ServerSentinel"
# Accounts below are the system's; as get_keys.MIN_UID.
MIN_UID = 1000
# What pam_succeed_if's list can hold without being read as something else.
USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*\$?")
INCLUDES_MAX = 10

_BLOCK = re.compile(
    rf"^{re.escape(BEGIN)}\n.*?^{re.escape(END)}(?:\n|\Z)", re.MULTILINE | re.DOTALL
)
_TEST = re.compile(
    r"account \[success=\d default=ignore\] pam_succeed_if\.so quiet "
    r"(uid < 1000|user ingroup \S+|user in \S+)"
)

# Returns the text of another service's file, None when there is none.
Read = Callable[[str], str | None]


def render_block(breakglass_group: str, ignored_users: Iterable[str]) -> str:
    """Return the block. Raises ValueError for a name that cannot be written in it.

    `success=N` passes over the next N modules, so whoever is exempt goes on to what the site
    asks of everybody.
    """
    tests = [f"uid < {MIN_UID}", f"user ingroup {breakglass_group}"]
    users = sorted(ignored_users)
    for name in (breakglass_group, *users):
        if not USER.fullmatch(name):
            raise ValueError(f"{name!a} cannot be named in PAM's configuration")
    if users:
        tests.append(f"user in {':'.join(users)}")
    lines = [
        f"account [success={len(tests) - number} default=ignore] pam_succeed_if.so quiet {test}"
        for number, test in enumerate(tests)
    ]
    gate = f"account required pam_exec.so quiet stdout {PAM_GATE}"
    return "\n".join((BEGIN, *lines, gate, END, ""))


def has_block(text: str, block: str, read: Read) -> bool:
    """Say whether this block, and no other of ours, begins the account phase."""
    try:
        return insert(text, block, read) == text
    except ValueError:
        return False


def remove(text: str) -> str:
    """Return the file without our block, whatever was changed in it."""
    text = _BLOCK.sub("", text)
    if not any(sign in text for sign in (BEGIN, END, PAM_GATE)):
        return text
    # A mark is gone. A test that stayed without the gate would pass over the site's modules.
    return "".join(line for line in text.splitlines(keepends=True) if not _is_ours(line))


def insert(text: str, block: str, read: Read) -> str:
    """Return the file with the block before its account phase.

    Raises ValueError when there is none: PAM then takes the phase from the service `other`, and
    with our block in it, it no longer would.
    """
    lines = remove(text).splitlines(keepends=True)
    is_continued = False
    for number, line in enumerate(lines):
        if not is_continued and _is_account(line, read, 0):
            return "".join((*lines[:number], block, *lines[number:]))
        is_continued = line.rstrip("\n").endswith("\\")
    raise ValueError("no account phase in it")


def read_service(name: str, folder: Path = Path("/etc/pam.d")) -> str | None:
    """Return the text of a service's file."""
    try:
        return (folder / name).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None


def _is_ours(line: str) -> bool:
    text = line.strip()
    return text in (BEGIN, END) or PAM_GATE in text or _TEST.fullmatch(text) is not None


def _is_account(line: str, read: Read, depth: int) -> bool:
    words = line.split()
    if not words or words[0].startswith("#"):
        return False
    if words[0].lstrip("-").lower() == "account":
        return True
    # pam.d(5): @include takes all phases of another file.
    if words[0] != "@include" or len(words) < 2 or depth >= INCLUDES_MAX:
        return False
    included = read(words[1])
    return included is not None and any(
        _is_account(inner, read, depth + 1) for inner in included.splitlines()
    )
