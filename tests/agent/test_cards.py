"""Who may open which card, and what has to be set for it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_agent.cards.acl import Acl, DeviceFile
from sentinel_agent.cards.rules import (
    Rights,
    SetCard,
    Why,
    card_of,
    is_card,
    kept_grants,
    opened_grants,
    plan_cards,
    unknown_cards,
    users_of_cards,
    wanted_acls,
)
from sentinel_agent.policy.model import Device, Policy, format_time
from tests.agent.policies import NOON, build_policy, grant_document, minutes

UIDS = {"alice": 1001, "bob": 1002}
CARDS = ("davinci0", "davinci1", "nvidia0", "nvidia1", "nvidia2")
OPEN = Acl.of_mode(0o666)


def device(vendor: str, index: int, minor: int | None) -> dict[str, object]:
    return {"vendor": vendor, "uuid": f"{vendor}-{index}", "index": index, "minor": minor}


@st.composite
def devices(draw: st.DrawFn) -> dict[str, object]:
    """The minor numbers run against the indexes here; some are not known."""
    vendor, last = draw(st.sampled_from([("ascend", 1), ("nvidia", 2)]))
    index = draw(st.integers(0, last))
    return device(vendor, index, draw(st.sampled_from([last - index, None])))


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    grants = []
    for number in range(draw(st.integers(0, 5))):
        start = draw(st.integers(-60, 60))
        grants.append(
            grant_document(
                draw(st.sampled_from(["alice", "bob", "nobody-here"])),
                start,
                start + draw(st.integers(1, 60)),
                reservation=number + 1,
                whole_node=draw(st.integers(0, 5)) == 0,
                devices=draw(st.lists(devices(), max_size=3)),
            )
        )
    expires = format_time(minutes(draw(st.integers(-30, 200))))
    return build_policy(*grants, expires_at=expires)


def acls_at(policy: Policy, now: datetime, opens: Mapping[int, datetime]) -> Mapping[str, Acl]:
    grants = opened_grants(policy, now, opens)
    return wanted_acls(users_of_cards(grants, CARDS, UIDS), [901], 990)


@given(
    policies(), st.integers(-90, 90), st.dictionaries(st.integers(1, 5), st.integers(-60, 90))
)
def test_a_card_opens_to_those_and_only_those_who_hold_it_now(
    policy: Policy, at: int, held_back: Mapping[int, int]
) -> None:
    now = minutes(at)
    opens = {number: minutes(until) for number, until in held_back.items()}
    for card, acl in acls_at(policy, now, opens).items():
        entitled = {
            UIDS[grant.user]
            for grant in policy.grants
            if grant.user in UIDS
            and grant.not_before <= now < grant.not_after
            and opens.get(grant.reservation, now) <= now
            and grant.not_before < policy.expires_at
            and (
                grant.whole_node
                or any(
                    card
                    == (
                        f"davinci{found.minor}"
                        if found.vendor == "ascend"
                        else f"nvidia{found.minor}"
                    )
                    for found in grant.devices
                )
            )
        }
        assert acl.users == tuple((uid, 6) for uid in sorted({*entitled, 901}))
        assert (acl.owner, acl.group, acl.other, acl.groups) == (6, 0, 0, ((990, 6),))


@given(policies(), st.integers(-90, 90))
def test_whoever_may_open_a_card_is_not_ended_for_it(policy: Policy, at: int) -> None:
    now = minutes(at)
    kept = users_of_cards(kept_grants(policy, now), CARDS, UIDS)
    opened = users_of_cards(opened_grants(policy, now, {}), CARDS, UIDS)
    assert all(opened[card] <= kept[card] for card in CARDS)


@given(policies(), st.integers(-90, 90))
def test_nobody_keeps_a_card_after_the_end(policy: Policy, at: int) -> None:
    now = minutes(at)
    running = {grant.user for grant in policy.grants if now < grant.not_after}
    for uids in users_of_cards(kept_grants(policy, now), CARDS, UIDS).values():
        assert uids <= {UIDS[user] for user in running if user in UIDS}


def test_a_clock_that_is_put_back_ends_nobody_and_closes_the_card() -> None:
    policy = build_policy(grant_document("alice", 0, 60))
    before = NOON - timedelta(seconds=20)
    assert opened_grants(policy, before, {}) == []
    assert kept_grants(policy, before) == list(policy.grants)


def test_an_expired_policy_takes_no_card_from_who_has_it() -> None:
    policy = build_policy(
        grant_document("alice", 0, 60), grant_document("bob", 31, 60, reservation=8),
        expires_at=format_time(minutes(30)),
    )  # fmt: skip
    assert [grant.user for grant in opened_grants(policy, minutes(40), {})] == ["alice"]


def test_a_card_is_known_by_its_minor_number_alone() -> None:
    assert card_of(Device.model_validate(device("nvidia", 0, 3))) == "nvidia3"
    assert card_of(Device.model_validate(device("nvidia", 0, None))) is None
    assert card_of(Device.model_validate(device("ascend", 0, 3))) == "davinci3"
    assert card_of(Device.model_validate(device("ascend", 4, None))) is None
    grant = grant_document(
        "alice", 0, 60, whole_node=False, devices=[device("nvidia", 0, None)]
    )
    policy = build_policy(grant)
    assert unknown_cards(policy.grants) == [
        "nvidia-0 of reservation 7 has no minor number: its device file is not known and is "
        "opened to nobody"
    ]
    assert not any(users_of_cards(policy.grants, CARDS, UIDS).values())


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("nvidia0", True), ("nvidia10", True), ("davinci7", True), ("nvidiactl", False),
     ("nvidia-uvm", False), ("nvidia-caps", False), ("davinci_manager", False),
     ("vdavinci100", False), ("nvidia0 ", False), ("nvidia", False), ("nvidia٣", False),
     ("devmm_svm", False), ("hisi_hdc", False)],
)  # fmt: skip
def test_only_the_cards_own_files_are_managed(name: str, is_one: bool) -> None:
    assert is_card(name) is is_one


CLOSED = Acl.closed_but_for([1001])


def build_file(
    *, acl: Acl = CLOSED, uid: int = 0, gid: int = 44, file: tuple[int, int] = (5, 10)
) -> DeviceFile:
    return DeviceFile(file, 261, uid, gid, 0o660, acl)


FILE = build_file()


@pytest.mark.parametrize(
    ("found", "left", "why"),
    [
        (build_file(), FILE, None),
        (build_file(acl=OPEN), None, Why.TAKEN),
        (build_file(acl=OPEN), FILE, Why.TAMPERED),
        (build_file(acl=Acl(6, 0, 0, ((1001, 6),), (), 0)), FILE, Why.TAMPERED),
        (build_file(uid=1002), FILE, Why.TAMPERED),
        (build_file(gid=0), FILE, Why.TAMPERED),
        (build_file(acl=OPEN, file=(5, 11)), FILE, Why.MADE_ANEW),
        (build_file(acl=OPEN), build_file(acl=OPEN), Why.CHANGED),
    ],
)
def test_what_differs_is_set_and_why_is_known(
    found: DeviceFile, left: DeviceFile | None, why: Why | None
) -> None:
    before = {"nvidia0": left} if left else {}
    planned = plan_cards({"nvidia0": CLOSED}, {"nvidia0": found}, before, {"nvidia0": 44})
    assert planned == ([SetCard("nvidia0", 44, CLOSED, why, found)] if why else [])


@given(st.lists(st.sampled_from([OPEN, CLOSED, Acl.closed_but_for()]), max_size=4), st.data())
def test_after_the_plan_nothing_is_left_to_do(acls: list[Acl], data: st.DataObject) -> None:
    files = {f"nvidia{n}": build_file(acl=acl, file=(5, n)) for n, acl in enumerate(acls)}
    wanted = {
        card: data.draw(st.sampled_from([CLOSED, Acl.closed_but_for([7])])) for card in files
    }
    planned = plan_cards(wanted, files, {}, {})
    for action in planned:
        files[action.card] = build_file(
            acl=action.acl, gid=action.gid, file=files[action.card].file
        )
    assert plan_cards(wanted, files, files, {}) == []
    assert {card: file.acl for card, file in files.items()} == wanted


NUMBERS = {"nvidia0": 50, "nvidia1": 51, "davinci0": 60}
SOME = st.frozensets(st.sampled_from(sorted(NUMBERS.values())))


@given(
    st.dictionaries(st.sampled_from(sorted(NUMBERS)), st.frozensets(st.integers(1000, 1003))),
    st.integers(1000, 1003),
    SOME,
)
def test_a_process_is_refused_the_devices_that_its_user_is_not_let_to(
    keepers: Mapping[str, frozenset[int]], uid: int, held: frozenset[int]
) -> None:
    rights = Rights(NUMBERS, keepers, always=[1003])
    own = {NUMBERS[card] for card, uids in keepers.items() if uid in uids}
    assert rights.refused(uid, held) == (frozenset() if uid == 1003 else held - own)


def test_devices_are_named_by_their_cards() -> None:
    rights = Rights(NUMBERS, {}, ())
    assert rights.names([60, 50, 99]) == "davinci0 nvidia0"
