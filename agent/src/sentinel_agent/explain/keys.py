"""The keys that open the door, for `explain`, and what a user's own files change of a booking.

It shows fingerprints only, and reads what is a user's with that user's rights.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from .. import commands
from ..lock.breakglass import FOLDER
from .case import Case
from .findings import LISTED_MAX, Blocker, Line, Section

# OpenSSH takes a key of type ssh-rsa by these.
RSA_ALGORITHMS = {"rsa-sha2-256", "rsa-sha2-512", "ssh-rsa"}
ENVIRONMENT_BYTES_MAX = 65536
# A home may be on a server that does not answer.
READ_WAIT_S = 3.0


def find_keys(case: Case) -> Section:
    """A break-glass account's own keys; others' are those of a reservation, now or next."""
    if case.is_breakglass:
        return Section("keys", _breakglass_keys(case.user))
    grants = case.running or case.grants
    keys = list(dict.fromkeys(key for grant in grants for key in grant.keys))
    lines = _listed([fingerprint(key) for key in keys])
    if not grants:
        known = "none here: keys come with a reservation"
        lines.append(Line(known if case.policy else "not known without a policy"))
    elif not keys:
        why = f"{case.user} has no SSH key in booking"
        then = f"add a key at {case.booking_url or 'the booking server'}"
        return Section(
            "keys", (Line("none", is_bad=True),), (Blocker(45, "no-key", why, then),)
        )
    elif case.door in ("get-keys", "site"):
        taken = set(case.setting("pubkeyacceptedalgorithms").split(","))
        if taken != {""} and not any(_is_accepted(key, taken) for key in keys):
            why = "sshd here takes no key of these types"
            blocker = Blocker(46, "key-type", why, "add a key of type ssh-ed25519")
            return Section("keys", (*lines, Line(why, is_bad=True)), (blocker,))
    return Section("keys", lines)


def find_environment(case: Case) -> Section:
    """What the user's ~/.ssh/environment, which sshd reads last, puts over what is booked."""
    account = case.account
    if account is None or not case.opened or case.door != "get-keys":
        return Section("environment", ())
    if case.setting("permituserenvironment") == "no":
        return Section("environment", ())
    path = Path(account.pw_dir) / ".ssh/environment"
    done = commands.run(
        ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--init-groups",
         "--", "head", "-c", str(ENVIRONMENT_BYTES_MAX), str(path)], timeout_s=READ_WAIT_S,
    )  # fmt: skip
    booked = {name for grant in case.opened for name in grant.env}
    own = {
        line.lstrip(" \t").partition("=")[0] for line in done.output.split("\n") if "=" in line
    }
    names = sorted(booked & own)
    if not names:
        return Section("environment", ())
    text = f"{path} overrides {', '.join(names)} of the reservation"
    return Section("environment", (Line(text, is_bad=True),))


def fingerprint(key: str) -> str:
    """Return a key's type and SHA256 fingerprint, as `ssh-keygen -l` prints it."""
    kind, _, blob = key.partition(" ")
    try:
        digest = hashlib.sha256(base64.b64decode(blob, validate=True)).digest()
    except ValueError:
        return f"{kind} (not base64)"
    return f"{kind} SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def _breakglass_keys(user: str) -> list[Line]:
    """Return the keys of the account's file; a comment says whose each is."""
    path = FOLDER / user
    if not path.exists():
        return [Line(f"none: {path} not found")]
    done = commands.run(["ssh-keygen", "-l", "-f", str(path)])
    # A key's length in bits tells nobody which it is.
    found = [ascii(line.partition(" ")[2])[1:-1] for line in done.output.splitlines()]
    return _listed(found) if done.status == 0 else [Line(f"none in {path}", is_bad=True)]


def _listed(texts: list[str]) -> list[Line]:
    lines = [Line(text) for text in texts[:LISTED_MAX]]
    if len(texts) > LISTED_MAX:
        lines.append(Line(f"and {len(texts) - LISTED_MAX} more"))
    return lines


def _is_accepted(key: str, taken: set[str]) -> bool:
    kind = key.partition(" ")[0]
    return bool(taken & (RSA_ALGORITHMS if kind == "ssh-rsa" else {kind}))
