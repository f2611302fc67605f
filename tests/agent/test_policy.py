"""Decoding a policy: strict, grant by grant, and agreeing with the schema."""

from __future__ import annotations

import copy
import json

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel_agent.errors import PolicyRefused
from sentinel_agent.policy.model import (
    GRANTS_MAX,
    Policy,
    check_replaces,
    decode,
    decode_text,
    encode,
)
from tests.agent.booking_server import SCHEMA
from tests.agent.policies import KEYS, build_policy, grant_document, policies, policy_document

VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
DEVICE = {"vendor": "nvidia", "uuid": "GPU-1", "index": 0, "minor": None}
WHOLE = policy_document(
    grant_document("alice", 0, 60, devices=[DEVICE], env={"CUDA_VISIBLE_DEVICES": "GPU-1"}),
    grant_document("bob", 0, 60),
)

JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 10**12), st.floats(), st.text(max_size=12),
    st.sampled_from(["2026-03-01T12:00:00Z", "2026-03-01T12:00:00+00:00",
                     "2026-02-30T12:00:00Z", "2026-03-01 12:00:00Z",
                     "root", "alice\n", "observe", "A B"]),
    st.just([]), st.just({}), st.just([1]), st.just({"LD_PRELOAD": "x"}),
)  # fmt: skip


def paths(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Return the path of every value in the document."""
    found = [path] if path else []
    if isinstance(value, dict):
        for name, inner in value.items():
            found += paths(inner, (*path, name))
    if isinstance(value, list):
        for number, inner in enumerate(value):
            found += paths(inner, (*path, number))
    return found


@st.composite
def damaged_documents(draw: st.DrawFn) -> object:
    """The whole policy with one value replaced, taken out, or put in."""
    document = copy.deepcopy(WHOLE)
    path = draw(st.sampled_from(paths(document)))
    # Any: it walks through JSON of whatever shape.
    place: object = document
    for step in path[:-1]:
        place = place[step]  # type: ignore[index]
    match draw(st.sampled_from(["replace", "remove", "add"])):
        case "remove":
            del place[path[-1]]  # type: ignore[attr-defined]
        case "add" if isinstance(place, dict):
            place["extra"] = 1
        case _:
            place[path[-1]] = draw(JUNK)  # type: ignore[index]
    return document


@given(damaged_documents())
def test_what_is_taken_is_what_the_schema_allows(document: object) -> None:
    try:
        policy, problems = decode(document)
    except PolicyRefused:
        return
    if not problems:
        VALIDATOR.validate(document)
    # What was kept is whole, and what goes to the cache is too.
    VALIDATOR.validate(json.loads(encode(policy)))


@given(damaged_documents())
def test_damage_to_one_grant_costs_no_other(document: object) -> None:
    assert isinstance(document, dict)
    grants = document.get("grants")
    if not isinstance(grants, list) or len(grants) != 2:
        return
    # Compared as JSON: to Python 0 is False, and 3.0 is 3.
    if json.dumps({**document, "grants": None}) != json.dumps({**WHOLE, "grants": None}):
        return
    policy, problems = decode(document)
    sound = [
        grant
        for grant, was in zip(grants, WHOLE["grants"], strict=True)  # type: ignore[call-overload]
        if json.dumps(grant) == json.dumps(was)
    ]
    assert len(policy.grants) >= len(sound)
    assert len(policy.grants) + len(problems) == 2


@given(policies())
def test_the_cache_holds_what_was_decoded(policy: Policy) -> None:
    opens = {grant.reservation: grant.not_before for grant in policy.grants[:2]}
    assert decode_text(encode(policy, opens)) == (policy, opens, [])


def test_the_schema_s_own_example_is_taken_whole() -> None:
    VALIDATOR.validate(WHOLE)
    policy, problems = decode(WHOLE)
    assert problems == []
    assert [grant.user for grant in policy.grants] == ["alice", "bob"]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"not_after": "2026-03-01T12:00:00Z"}, "ends before it begins"),
        ({"not_after": "2026-02-30T12:00:00Z"}, "day is out of range"),
        ({"user": "root"}, "root cannot hold a reservation"),
        ({"extra": 1}, "extra: Extra inputs are not permitted"),
        ({"reservation": True}, "reservation: "),
    ],
)
def test_a_bad_grant_is_left_out_and_named(wrong: dict[str, object], why: str) -> None:
    bad = grant_document("alice", 0, 60) | wrong
    policy, problems = decode(policy_document(bad, grant_document("bob", 0, 60)))
    assert [grant.user for grant in policy.grants] == ["bob"]
    assert len(problems) == 1
    assert why in problems[0]


def test_a_problem_shows_no_key() -> None:
    bad = grant_document("alice", 0, 60, keys=[KEYS[0] + "\n"])
    _, problems = decode(policy_document(bad))
    assert KEYS[0].split()[1] not in problems[0]
    assert problems[0].startswith("grant of reservation 7 left out: keys.0: ")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"grants": NaN}', b"[" * 10**5, b"\xff"])
def test_what_is_no_policy_is_refused(text: bytes) -> None:
    with pytest.raises(PolicyRefused):
        decode_text(text)


def test_an_older_policy_or_another_nodes_is_refused() -> None:
    held = build_policy(version=5)
    check_replaces(build_policy(version=6), held, "gpu-01")
    check_replaces(build_policy(version=5), held, "gpu-01")
    check_replaces(build_policy(version=1), None, "gpu-01")
    with pytest.raises(PolicyRefused, match="older than 5"):
        check_replaces(build_policy(version=4), held, "gpu-01")
    with pytest.raises(PolicyRefused, match="for node 'gpu-02'"):
        check_replaces(build_policy(version=6, node="gpu-02"), held, "gpu-01")


def test_more_grants_than_a_node_can_have_are_refused_at_once() -> None:
    document = policy_document() | {"grants": [{}] * (GRANTS_MAX + 1)}
    with pytest.raises(PolicyRefused, match="more than 20000"):
        decode(document)


@pytest.mark.parametrize("year", ["0001", "1969", "9999"])
def test_a_grant_of_another_age_is_left_out(year: str) -> None:
    """To add a warning's minutes to its times would fail, in each round of the lock."""
    odd = grant_document("alice", 0, 60) | {
        "not_before": f"{year}-01-01T00:00:00Z", "not_after": f"{year}-12-31T23:59:59Z",
    }  # fmt: skip
    policy, problems = decode(policy_document(odd, grant_document("bob", 0, 60)))
    assert [grant.user for grant in policy.grants] == ["bob"]
    assert len(problems) == 1
