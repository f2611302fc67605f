"""Says in one screen whether a user can log in now, why, and what to do. It changes nothing.

Every topic stands alone: what cannot be found out about one is said, and takes nothing from the
others.
"""

from __future__ import annotations

import logging
import os
import pwd
import time
from collections.abc import Callable, Iterator, Sequence

from .. import commands
from ..config import Config
from ..errors import AgentError
from ..lock.drop_in import GET_KEYS
from ..sessions.plan import utc
from . import booking, door, keys, ports, refusals
from .case import Case
from .findings import Blocker, Explanation, Line, Section, when

log = logging.getLogger(__name__)

# From the door inwards, as a login meets them.
TOPICS: tuple[tuple[str, Callable[[Case], Section]], ...] = (
    ("account", door.find_account),
    ("ports", ports.find_ports),
    ("lock", door.find_lock),
    ("sshd", door.find_sshd),
    ("gates", door.find_gates),
    ("agent", door.find_agent),
    ("server", door.find_server),
    ("policy", booking.find_policy),
    ("reservations", booking.find_reservations),
    ("keys", keys.find_keys),
    ("environment", keys.find_environment),
    ("cards", booking.find_cards),
    ("sessions", booking.find_sessions),
    ("refused", refusals.find_refusals),
)
# Of the lock's: they keep nobody out who comes by another door.
BY_GET_KEYS = range(30, 50)


def explain(config: Config, user: str, config_problem: str = "") -> Explanation:
    """Return what is found about the user now; for root, since others cannot read it.

    `config_problem`: why `config` is not the node's own, when it could not be read.
    """
    case = Case(config, user, utc(time.time()))
    sections = list(_look(case, config_problem))
    blockers = sorted(
        (blocker for section in sections for blocker in section.blockers),
        key=lambda blocker: blocker.rank,
    )
    inside = [blocker for blocker in blockers if blocker.rank in BY_GET_KEYS]
    outside = [blocker for blocker in blockers if blocker.rank not in BY_GET_KEYS]
    if outside:
        return _explanation(case, sections, outside[0])
    if case.door == "unknown":
        return _explanation(case, sections)
    match case.door:
        case "break-glass":
            text = f"{user} is break-glass, which the lock never refuses; a key was found"
            return _explanation(case, sections, code="break-glass", verdict=text, then="")
        case "site":
            return _at_the_sites_door(case, sections, inside)
        case "get-keys" if not inside:
            return _ask_get_keys(case, sections)
    return _explanation(case, sections, *inside[:1])


def _look(case: Case, config_problem: str) -> Iterator[Section]:
    if config_problem:
        lines = [Line(text, is_bad=True) for text in config_problem.splitlines()]
        yield Section("config", (*lines, Line("the agent's defaults are taken instead")))
    for topic, find in TOPICS:
        try:
            section = find(case)
        except AgentError as error:
            section = Section(topic, (Line(str(error), is_bad=True),))
        except Exception as error:  # a node on which everything is broken is what this is for
            log.debug("topic not found topic=%s", topic, exc_info=error)
            section = Section(topic, (Line(f"cannot be told: {error!r:.200}", is_bad=True),))
        if section.lines:
            yield section


def _at_the_sites_door(
    case: Case, sections: Sequence[Section], inside: Sequence[Blocker]
) -> Explanation:
    """The lock is not in force for this user: the site's own ways in decide."""
    text = "the lock refuses nobody here; whether the site's own sshd lets"
    text += f" {case.user} in is not checked"
    in_enforce = door.refusals_in_enforce(case)
    if not case.is_breakglass:
        in_enforce += inside
    then = ""
    if in_enforce:
        first = min(in_enforce, key=lambda blocker: blocker.rank)
        then = f"in enforce it would refuse {case.user}: {first.why}; {first.then}"
    return _explanation(case, sections, code="not-enforced", verdict=text, then=then)


def _ask_get_keys(case: Case, sections: Sequence[Section]) -> Explanation:
    """Nothing is in the way; get-keys itself, run as sshd runs it, has the last word."""
    program, _, arguments = case.setting("authorizedkeyscommand").partition(" ")
    account = pwd.getpwnam(case.setting("authorizedkeyscommanduser"))
    done = commands.run(
        ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--init-groups",
         "--", program, "--check", *arguments.replace("%u", case.user).split()]
    )  # fmt: skip
    count = len(done.output.splitlines())
    if done.status != 0 or not count:
        why = f"{GET_KEYS} gives no key: {done.reason}"
        then = "run `sentinel-agent check`, and ask the operators"
        return _explanation(case, sections, Blocker(49, "get-keys", why, then))
    ends = max(grant.not_after for grant in case.opened)
    which = "the key" if count == 1 else f"any of {count} keys"
    text = f"{case.user} gets in with {which} below, until {when(ends, case.now)}"
    return _explanation(case, sections, code="let-in", verdict=text, then="")


def _explanation(
    case: Case,
    sections: Sequence[Section],
    blocker: Blocker | None = None,
    *,
    code: str = "unknown",
    verdict: str = "sshd does not say what it would do; one that runs may still let in",
    then: str = "have `sshd -t` say what is wrong, and mend that before sshd is reloaded",
) -> Explanation:
    try:
        node = case.registration.node
    except AgentError:
        node = os.uname().nodename
    if blocker is not None:
        code, verdict, then = blocker.code, blocker.why, blocker.then
    is_let_in = None if code in ("unknown", "not-enforced") else blocker is None
    return Explanation(case.user, node, case.now, is_let_in, code, verdict, then, sections)
