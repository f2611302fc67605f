"""What is booked, for `explain`: the policy, reservations, cards and sessions.

Each function finds out about one topic and raises AgentError when it cannot.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta

from ..cards.acl import NotADevice, read_device
from ..cards.origins import DEV
from ..cards.rules import card_of, is_card
from ..errors import StateError
from ..files import read_file
from ..policy.access import ACCESS_BYTES_MAX
from ..policy.model import Grant
from ..sessions import table
from ..sessions.handover import Left, decide, doors_of_cache
from ..sessions.plan import access_end, grants_at
from .case import Case
from .findings import LISTED_MAX, Blocker, Line, Section, counted, how_long, when


def find_policy(case: Case) -> Section:
    """What the two gates read: the cache and the access file."""
    config, now = case.config, case.now
    ask = "start the agent (`systemctl start sentinel-agent`), which fetches it anew"
    if case.is_agent_running:
        ask = "see why the agent does not put it right: `journalctl -u sentinel-agent`"
    try:
        held = case.held
    except StateError as error:
        blocker = Blocker(35, "policy-damaged", str(error), ask)
        return Section("policy", (Line(str(error), is_bad=True),), (blocker,))
    if held is None:
        why = f"there is no policy: {config.cache_file} not found"
        return Section(
            "policy", (Line(why, is_bad=True),), (Blocker(35, "policy-missing", why, ask),)
        )
    policy = held[0]
    age_s = (now - policy.generated_at).total_seconds()
    lines = [
        Line(
            f"version {policy.version} for {policy.node}, made {how_long(age_s)} ago, "
            f"opens logins until {when(policy.expires_at, now)}"
        )
    ]
    blockers = []
    if now >= policy.expires_at:
        why = f"the policy has expired: no word from the server since {how_long(age_s)}"
        blockers.append(Blocker(36, "policy-expired", why, "ask the operators: booking server"))
    if case.is_pam_gate_asked:
        problem = _access_problem(case)
        if problem:
            blockers.append(Blocker(37, "access-file", problem, ask))
    return Section("policy", (*lines, *(Line(b.why, is_bad=True) for b in blockers)), blockers)


def find_reservations(case: Case) -> Section:
    """The user's reservations here, and what they still wait for."""
    if case.policy is None:
        return Section("reservations", (Line("not known without a policy"),))
    now, grants = case.now, [grant for grant in case.grants if grant.not_after > case.now]
    held_for = _held_for(case)
    lines = []
    for grant in grants[:LISTED_MAX]:
        what = "the whole node" if grant.whole_node else _cards_of(grant)
        if grant.not_before > now:
            text = f"from {when(grant.not_before, now)} to {when(grant.not_after, now)}"
        elif case.opens(grant) > now:
            text = f"held back until {when(case.opens(grant), now)} at the latest"
            text += f", for what {held_for.get(grant.reservation, 'a former holder')} left"
        else:
            text = f"running until {when(grant.not_after, now)}"
        lines.append(Line(f"#{grant.reservation}: {text}, {what}", is_bad=not case.opened))
    if len(grants) > LISTED_MAX:
        lines.append(Line(f"and {len(grants) - LISTED_MAX} more"))
    if not lines:
        needs_one = case.door == "get-keys"
        lines.append(Line("none now and none in the coming days", is_bad=needs_one))
    return Section("reservations", lines, _without_access(case, grants, held_for))


def find_cards(case: Case) -> Section:
    """The device files of the cards that the user holds now, and who may open them."""
    account = case.account
    if account is None or not case.opened:
        return Section("cards", ())
    if any(grant.whole_node for grant in case.opened):
        names = sorted(name for name in os.listdir(DEV) if is_card(name))  # noqa: PTH208
    else:
        devices = [device for grant in case.opened for device in grant.devices]
        names = [card for device in devices if (card := card_of(device))]
    lines = []
    for name in dict.fromkeys(names):
        try:
            file = read_device(DEV / name)
        except FileNotFoundError:
            lines.append(Line(f"{DEV / name}: not there", is_bad=True))
            continue
        except (OSError, NotADevice) as error:
            lines.append(Line(f"{DEV / name}: {error.strerror}", is_bad=True))
            continue
        mask = 7 if file.acl.mask is None else file.acl.mask
        bits = dict(file.acl.users).get(account.pw_uid, file.acl.other) & mask
        is_open = bits & 6 == 6
        lines.append(
            Line(f"{DEV / name}: {'open' if is_open else 'closed'} to {case.user}", not is_open)
        )
    if len(lines) > LISTED_MAX:
        closed = [line for line in lines if line.is_bad]
        text = f"{len(lines)} cards, {len(lines) - len(closed)} of them open to {case.user}"
        lines = [Line(text, bool(closed)), *closed[: LISTED_MAX - 1]]
    return Section("cards", lines)


def find_sessions(case: Case) -> Section:
    """What the user has running now, and what becomes of it."""
    if case.account is None:
        return Section("sessions", ())
    usage = table.scan().usage.get(case.account.pw_uid)
    if usage is None:
        return Section("sessions", (Line("nothing of this user's runs here"),))
    policy = case.policy
    if case.exemption:
        then = "never ended"
    elif policy is None:
        then = "nobody is ended without a policy"
    elif (ends := access_end(policy, case.user, case.now)) is not None:
        then = f"ended at {when(ends, case.now)}"
    elif usage.connections or case.user in case.granted.users:
        then = "ended as soon as the agent looks, within seconds"
    else:
        then = "left alone: no reservation here before, and not connected"
    if then.startswith("ended") and not (policy and case.is_enforcing):
        then = f"would be {then}, if the mode were enforce"
    connections = counted(usage.connections, "SSH connection")
    text = f"{connections}, {counted(usage.processes, 'process')}; {then}"
    return Section("sessions", (Line(text),))


def _without_access(
    case: Case, grants: Sequence[Grant], held_for: dict[int, str]
) -> list[Blocker]:
    """Return why the user has no access now, as far as reservations tell."""
    now, user = case.now, case.user
    if case.opened or (case.policy and now >= case.policy.expires_at):
        return []
    if case.running:
        opens = min(case.opens(grant) for grant in case.running)
        whose = " and ".join(sorted(set(held_for.values()))) or "a former holder"
        why = f"{user}'s reservation has begun, and waits for what {whose} left running"
        return [Blocker(41, "held-back", why, f"wait until {when(opens, now)} at the latest")]
    if not case.is_agent_running and (ahead_s := case.server_says.ahead_s) is not None:
        server_now = now + timedelta(seconds=ahead_s)
        if case.policy and any(g.user == user for g in grants_at(case.policy, server_now)):
            why = "by the server's clock the reservation runs, by this node's it does not"
            return [
                Blocker(40, "clock", why, "ask the operators: set the clock, run the agent")
            ]
    if grants:
        starts = when(grants[0].not_before, now)
        why = f"{user}'s next reservation here begins at {starts}"
        return [Blocker(42, "not-yet", why, f"wait until {starts}")]
    why = f"{user} has no running reservation on this node"
    return [Blocker(44, "no-reservation", why, f"book it{_at(case)}")]


def _held_for(case: Case) -> dict[int, str]:
    """Return whom each of the user's reservations is held back for, as the agent would say."""
    if case.held is None:
        return {}
    policy, opens = case.held
    left = Left(case.granted.touched, case.granted.users)
    limit = timedelta(seconds=case.config.handover_limit_s)
    doors = decide(policy, doors_of_cache(policy, opens), left, case.now, limit)
    return {number: ", ".join(users) for number, users in doors.waits.items()}


def _access_problem(case: Case) -> str:
    """Return what of the access file keeps pam-gate from seeing a reservation that runs."""
    path = case.config.cache_file.with_name("access")
    text = read_file(path, bytes_max=ACCESS_BYTES_MAX)
    if text is None:
        return f"{path} is missing: pam-gate refuses everybody"
    if not text.startswith(b"sentinel-access 1 "):
        return f"{path} is damaged: pam-gate refuses everybody"
    lines = [line.split() for line in text.decode(errors="replace").splitlines()[1:]]
    now = int(case.now.timestamp())
    is_open = any(
        len(parts) == 3 and parts[0] == case.user and int(parts[1]) <= now < int(parts[2])
        for parts in lines
        if parts[1:] and all(part.isdecimal() for part in parts[1:])
    )
    if any(grant.keys for grant in case.opened) and not is_open:
        return f"{path} is behind the policy: pam-gate refuses {case.user}"
    return ""


def _cards_of(grant: Grant) -> str:
    names = [card_of(device) or device.uuid for device in grant.devices]
    more = f" and {len(names) - LISTED_MAX} more" if len(names) > LISTED_MAX else ""
    return f"{', '.join(names[:LISTED_MAX])}{more}" if names else "no card"


def _at(case: Case) -> str:
    return f" at {case.booking_url}" if case.booking_url else ""
