"""The way in, for `explain`: the account, the lock, sshd, the two gates, the agent, the server.

Each function finds out about one topic and raises AgentError when it cannot.
"""

from __future__ import annotations

import fnmatch
import grp
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path

from ..errors import AgentError
from ..gates.get_keys import MIN_UID, is_user
from ..gates.integrity import SHIPPED, find_fault
from ..install.record import RECORD
from ..lock import switch
from ..lock.breakglass import FOLDER, key_problem
from ..lock.check_login import NOBODY
from ..lock.drop_in import PENALTIES
from ..lock.pam import PAM_GATE
from ..lock.verification import check_get_keys
from .case import Case
from .findings import Blocker, Line, Section, how_long

DAY_S = 86400
# pam_nologin(8).
NO_LOGINS = (Path("/run/nologin"), Path("/etc/nologin"))
# What the lock has sshd say for everybody but the break-glass accounts.
CLOSED = {
    "authorizedkeysfile": "none",
    "passwordauthentication": "no",
    "kbdinteractiveauthentication": "no",
    "hostbasedauthentication": "no",
    "gssapiauthentication": "no",
    "trustedusercakeys": "none",
}
# The server's answer carries whole seconds only, cut off, and takes a moment to come.
CLOCKS_AGREE_S = 2
ASK_OPERATOR = "ask the operators of this node"


def find_account(case: Case) -> Section:
    """The Unix account, and what of it keeps the user out whatever is booked."""
    user, account = case.user, case.account
    if account is None and case.names.is_hanging:
        why = "the name service does not answer, and sshd has to ask it too"
        blocker = Blocker(9, "name-service", why, "have the directory (LDAP, say) looked at")
        return Section("account", (Line(why, is_bad=True),), (blocker,))
    if account is None:
        why = f"there is no account {user} on this node"
        then = f"have the account made; its name must be the one in booking, {user}"
        return Section(
            "account", (Line("none", is_bad=True),), (Blocker(10, "no-account", why, then),)
        )
    lines = [Line(f"{user}, uid {account.pw_uid}, {case.shell}")]
    blockers = []
    if case.exemption:
        lines.append(Line(f"{case.exemption}: nothing of this account's is ever ended"))
    if case.door == "get-keys":
        blockers += _unfit_for_get_keys(case, account.pw_uid)
    if not case.has_shell:
        why, then = f"the shell {case.shell} lets nobody in", "have the account's shell changed"
        blockers.append(Blocker(15, "shell", why, then))
    # sshd's own words: `usepam no` takes no account whose password is locked.
    has_pam = case.setting("usepam") != "no"
    blockers += _aged(_shadow(user), case.now, has_pam=has_pam)
    if has_pam and account.pw_uid != 0:
        blockers += [
            Blocker(15, "nologin", f"{path} keeps everybody out", "wait, or ask the operators")
            for path in NO_LOGINS
            if path.exists()
        ]
    return Section("account", (*lines, *_bad(blockers)), blockers)


def find_lock(case: Case) -> Section:
    """Which mode is asked for, and whether sshd and PAM are as it wants them."""
    policy = case.policy
    text = f"booking asks for {policy.mode}" if policy else "no policy: the mode is not known"
    if policy and policy.mode == "enforce" and not case.config.enforce:
        text += ", this node's configuration for observe"
    lines = [Line(text)]
    found = switch.state(case.config)
    is_odd = found == "partial" or (
        policy is not None and (found == "locked") != case.is_enforcing
    )
    lines.append(Line(f"sshd and PAM are {found}", is_bad=is_odd))
    if found == "partial" or (case.is_enforcing and found == "open"):
        lines += [Line(text, is_bad=True) for text in switch.drift(case.config)]
    if is_odd and not (case.config.state_dir / RECORD).exists():
        lines.append(Line("`sentinel-agent install` was not run here: the agent leaves both"))
    return Section("lock", lines)


def find_sshd(case: Case) -> Section:
    """What sshd says it would do for this user."""
    program, settings, door = case.program, case.settings, case.door
    text = {
        "get-keys": "asks get-keys for this user's keys",
        "break-glass": "takes this user's keys from the break-glass folder",
        "site": "goes by the site's own settings, and asks for no reservation",
    }[door]
    lines = [Line(f"OpenSSH {program.version_text} {text}")]
    blockers = []
    if door == "get-keys":
        lines += [
            Line(f"another way in is open: {keyword} {' '.join(found)}", is_bad=True)
            for keyword, closed in CLOSED.items()
            if (found := settings.get(keyword)) is not None and found != (closed,)
        ]
    if door == "break-glass" and case.account is not None:
        keys = FOLDER / case.user
        problem = key_problem(keys, case.account.pw_uid)
        if problem:
            why = f"the lock never refuses {case.user}, but sshd finds no key: {problem}"
            blockers.append(
                Blocker(
                    50, "break-glass-key", why, f"put the public key into {keys}, mode 0644"
                )
            )
        else:
            lines.append(Line(f"found in {keys}"))
    blockers += _shut_out(case)
    if case.user == "root" and settings.get("permitrootlogin") == ("no",):
        then = "change PermitRootLogin"
        blockers.append(Blocker(20, "sshd-root", "sshd lets root in by no way", then))
    if program.version >= PENALTIES:
        exempt = " ".join(settings.get("persourcepenaltyexemptlist", ("nobody",)))
        lines.append(
            Line(f"an address with failed logins is shut out for a while; exempt: {exempt}")
        )
    return Section("sshd", (*lines, *_bad(blockers)), blockers)


def refusals_in_enforce(case: Case) -> list[Blocker]:
    """Return what of the account and its files would keep a user out who now is let in."""
    if case.account is None:
        return []
    if not case.is_breakglass:
        return _unfit_for_get_keys(case, case.account.pw_uid)
    keys = FOLDER / case.user
    problem = key_problem(keys, case.account.pw_uid)
    then = f"put the public key into {keys}, mode 0644"
    return [Blocker(50, "break-glass-key", problem, then)] if problem else []


def find_gates(case: Case) -> Section:
    """Whether get-keys and pam-gate are those that came with the agent, and can run."""
    blockers = []
    lines = []
    for gate, shipped in SHIPPED.items():
        fault = find_fault(gate, shipped.read_bytes())
        if fault is not None:
            lines.append(Line(str(fault), is_bad=True))
    if case.door == "get-keys":
        try:
            command = case.setting("authorizedkeyscommand")
            check_get_keys(case.config.cache_group, command, ())
        except AgentError as error:
            then = f"{ASK_OPERATOR}: `sentinel-agent check` looks at all of it"
            # Whom it was tried for is nobody.
            why = str(error).replace(f", for {NOBODY}", "")
            blockers.append(Blocker(30, "get-keys", why, then))
    if case.is_pam_gate_asked and not os.access(PAM_GATE, os.X_OK):
        why = f"PAM cannot run {PAM_GATE}"
        blockers.append(Blocker(31, "pam-gate", why, ASK_OPERATOR))
    if not lines:
        lines.append(Line("get-keys and pam-gate are as they came with the agent"))
    return Section("gates", (*lines, *_bad(blockers)), blockers)


def find_agent(case: Case) -> Section:
    """Whether the agent runs, and what it says of the server."""
    if not case.is_agent_running:
        text = "does not run: sessions are not ended, and nothing new is heard"
        return Section("agent", (Line(text, is_bad=True),))
    says = case.agent_says
    last = says.get("last_heartbeat_timestamp_seconds")
    if not says:
        return Section("agent", (Line("runs; its series cannot be read"),))
    if last is None:
        text = "runs; the server has taken no heartbeat since it started"
        return Section("agent", (Line(text, is_bad=True),))
    age_s = max(0.0, case.now.timestamp() - last)
    text = f"runs; last heartbeat {how_long(age_s)} ago"
    return Section("agent", (Line(text, is_bad=age_s > 3 * case.config.heartbeat_s + 60),))


def find_server(case: Case) -> Section:
    """Whether the node is registered and the server is there, and how the clocks compare."""
    lines = []
    try:
        known = case.registration
        lines.append(Line(f"{case.booking_url} knows this node as {known.node}"))
    except AgentError as error:
        lines.append(Line(str(error), is_bad=True))
    says = case.server_says
    if says.problem:
        lines.append(Line(says.problem, is_bad=True))
    elif says.ahead_s is None:
        lines.append(Line("answers"))
    elif abs(says.ahead_s) < CLOCKS_AGREE_S:
        off = f"{abs(says.ahead_s):.1f} s"
        lines.append(Line(f"answers; its clock differs by {off}, give or take half a second"))
    else:
        off = f"{how_long(abs(says.ahead_s))} {'slow' if says.ahead_s > 0 else 'fast'}"
        lines.append(Line(f"answers; this node's clock is {off}", is_bad=True))
        if case.is_agent_running:
            lines.append(Line("the agent allows for it: reservations go by the server's clock"))
    return Section("server", lines)


def _unfit_for_get_keys(case: Case, uid: int) -> list[Blocker]:
    if not is_user(case.user):
        why = f"{case.user} is not a name that can hold a reservation: a-z, 0-9, _ and - only"
        return [Blocker(12, "name", why, "have the account renamed")]
    if uid < MIN_UID:
        why = f"{case.user} is a system account: no reservation lets it in"
        then = f"operators are in the group {case.config.breakglass_group}"
        return [Blocker(12, "system-account", why, then)]
    return []


def _shadow(user: str) -> list[str]:
    """Return the account's fields of shadow(5), none where another directory has it."""
    try:
        lines = Path("/etc/shadow").read_text(errors="replace").splitlines()
    except OSError:
        return []
    return next((line.split(":") for line in lines if line.startswith(f"{user}:")), [])


def _aged(fields: Sequence[str], now: datetime, *, has_pam: bool) -> list[Blocker]:
    """Return what pam_unix, or sshd without it, makes of an account's age and password."""
    if len(fields) < 8:
        return []
    changed, _, most, _, _, expires = (
        int(text) if text.lstrip("-").isdigit() else None for text in fields[2:8]
    )
    day = now.timestamp() // DAY_S
    found = []
    if expires is not None and expires >= 0 and day >= expires:
        then = "have it renewed (`chage -E`)"
        found.append(Blocker(15, "expired", "the account has expired", then))
    is_old = changed is not None and most is not None and 0 <= most < day - changed
    if changed == 0 or is_old:
        text = "the password has expired: sshd wants a new one before anything else"
        then = "log in with a terminal and set it, or have it changed (`chage -M`)"
        found.append(Blocker(16, "password-expired", text, then))
    if not has_pam and fields[1].startswith("!"):
        text = "the account is locked, and sshd takes none without PAM"
        found.append(Blocker(15, "locked", text, "have it unlocked (`usermod -U`)"))
    return found


def _shut_out(case: Case) -> list[Blocker]:
    """Return what AllowUsers and the like say: auth.c, allowed_user()."""
    if case.account is None:
        return []
    user = case.user
    numbers = os.getgrouplist(user, case.account.pw_gid)
    groups = [name for number in numbers if (name := _group_name(number))]
    rules: tuple[tuple[str, bool, Callable[[str], bool]], ...] = (
        ("denyusers", False, lambda pattern: _is_user(user, pattern, unknown_host=False)),
        ("allowusers", True, lambda pattern: _is_user(user, pattern, unknown_host=True)),
        ("denygroups", False, lambda pattern: _is_one_of(groups, pattern)),
        ("allowgroups", True, lambda pattern: _is_one_of(groups, pattern)),
    )
    found = []
    for keyword, must_match, is_match in rules:
        patterns = case.setting(keyword).split()
        if patterns and any(map(is_match, patterns)) != must_match:
            why = f"sshd's {keyword} {' '.join(patterns)} shuts {user} out"
            found.append(
                Blocker(20, f"sshd-{keyword}", why, "have sshd's configuration changed")
            )
    return found


def _is_user(user: str, pattern: str, *, unknown_host: bool) -> bool:
    """`unknown_host`: what to say where the pattern names hosts too."""
    name, at, _ = pattern.partition("@")
    return fnmatch.fnmatchcase(user, name) and (not at or unknown_host)


def _is_one_of(groups: Iterable[str], pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(group, pattern) for group in groups)


def _group_name(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return ""


def _bad(blockers: Iterable[Blocker]) -> list[Line]:
    return [Line(blocker.why, is_bad=True) for blocker in blockers]
