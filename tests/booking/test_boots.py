"""Two machines with one token: what is a copied disk and what is not."""

from __future__ import annotations

import datetime as dt

import pytest
from apiflask import APIFlask
from sqlalchemy import select

from sentinel_booking.domain.boots import (
    MAX_BOOTS,
    Boot,
    boots_from_json,
    boots_to_json,
    hear_boot,
)
from sentinel_booking.models import AuditEntry, Node, write
from tests.booking.lab import AgentOf, add_agent, heartbeat, now, register

NOON = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)


def hear(
    *messages: tuple[str, float] | tuple[str, float, float],
) -> tuple[tuple[Boot, ...], list[bool]]:
    """Hear (boot id, seconds after noon at the server[, seconds after noon by the node])."""
    boots: tuple[Boot, ...] = ()
    backs = []
    for boot_id, heard_s, *sent_s in messages:
        sent_at = NOON + dt.timedelta(seconds=sent_s[0] if sent_s else heard_s)
        boots, is_back = hear_boot(
            boots, boot_id, sent_at, NOON + dt.timedelta(seconds=heard_s)
        )
        backs.append(is_back)
    return boots, backs


def test_a_boot_that_returns_after_another_one_is_a_second_machine() -> None:
    boots, backs = hear(("a", 0), ("b", 10), ("a", 20), ("b", 30))
    assert backs == [False, False, True, True]
    assert [boot.boot_id for boot in boots] == ["a", "b"]


def test_reboots_and_restarted_agents_are_one_machine() -> None:
    # A virtual machine that is set back boots too, and has a new id then.
    boots, backs = hear(("a", 0), ("a", 10), ("b", 200), ("b", 210), ("c", 400), ("c", 410))
    assert backs == [False] * 6
    assert [boot.boot_id for boot in boots] == ["a", "b", "c"]


def test_it_returns_after_many_others() -> None:
    _, backs = hear(("a", 0), ("b", 10), ("c", 20), ("a", 30))
    assert backs == [False, False, False, True]


@pytest.mark.parametrize("off_s", [0, 3600, -3600])
def test_a_message_that_was_held_up_during_a_reboot_is_no_return(off_s: float) -> None:
    boots, backs = hear(("a", 0, off_s), ("b", 100, 100 + off_s), ("a", 101, 9 + off_s))
    assert backs == [False, False, False]
    assert boots[-1].boot_id == "b"


@pytest.mark.parametrize("off_s", [3600, -3600])
def test_two_machines_with_different_clocks_are_found(off_s: float) -> None:
    _, backs = hear(("a", 0), ("b", 10, 10 + off_s), ("a", 20), ("b", 30, 30 + off_s))
    assert backs == [False, False, True, True]


def test_the_list_is_bounded_and_survives_storing() -> None:
    boots, backs = hear(*((f"boot-{number}", number) for number in range(MAX_BOOTS + 5)))
    assert len(boots) == MAX_BOOTS
    assert boots[-1].boot_id == f"boot-{MAX_BOOTS + 4}"
    assert not any(backs)
    assert boots_from_json(boots_to_json(boots)) == boots


def say(agent: AgentOf, boot_id: str) -> None:
    answer = agent.call(
        "POST", "/heartbeat", json=heartbeat(boot_id=boot_id, sent_at=now().isoformat())
    )
    assert answer.status_code == 200


def clonings(app: APIFlask) -> list[dict[str, object] | None]:
    with app.app_context(), write() as session:
        query = select(AuditEntry.after).where(AuditEntry.action == "node.token_cloned")
        return list(session.scalars(query))


def cloned_at(app: APIFlask) -> dt.datetime | None:
    with app.app_context(), write() as session:
        return session.scalars(select(Node.cloned_at)).one()


def test_a_copied_disk_is_written_down_once(app: APIFlask) -> None:
    agent = add_agent(app)
    for boot_id in ("a", "a", "b"):
        say(agent, boot_id)
    assert cloned_at(app) is None
    for boot_id in ("a", "b", "a", "b"):
        say(agent, boot_id)
    assert clonings(app) == [{"boot_id": "a", "other_boot_id": "b"}]
    # Nothing is cut off: which of the two is the copy cannot be known here.
    assert agent.call("GET", "/policy").status_code == 200


def test_registering_anew_ends_it_and_begins_a_new_list(app: APIFlask) -> None:
    agent = add_agent(app)
    for boot_id in ("a", "b", "a"):
        say(agent, boot_id)
    agent = register(app)
    assert cloned_at(app) is None
    for boot_id in ("b", "c"):
        say(agent, boot_id)
    assert cloned_at(app) is None
    say(agent, "b")
    assert cloned_at(app) is not None
    assert len(clonings(app)) == 2
