"""An agent's tokens: exchanging them, and ending them."""

from __future__ import annotations

import threading
from dataclasses import replace

from apiflask import APIFlask
from sqlalchemy import select

from sentinel_booking.models import AuditEntry, Node, Role, write
from tests.booking.lab import AgentOf, add_agent, register
from tests.booking.people import add_person


def ask_token(agent: AgentOf) -> AgentOf:
    """The same agent with the token that it is given."""
    answer = agent.call("POST", "/token")
    assert answer.status_code == 201, answer.text
    return replace(agent, token=answer.get_json()["token"])


def is_known(agent: AgentOf) -> bool:
    status = agent.call("GET", "/policy").status_code
    assert status in (200, 401)
    return status == 200


def actions(app: APIFlask) -> list[str]:
    with app.app_context(), write() as session:
        query = select(AuditEntry.action).where(AuditEntry.action.contains("token"))
        return list(session.scalars(query.order_by(AuditEntry.id)))


def test_the_old_token_is_good_until_the_new_one_is_used(app: APIFlask) -> None:
    old = add_agent(app)
    new = ask_token(old)
    assert new.token != old.token
    assert is_known(old)
    assert actions(app) == ["node.issue_token"]
    assert is_known(new)
    assert not is_known(old)
    assert is_known(new)
    assert actions(app) == ["node.issue_token", "node.rotate_token"]


def test_asked_again_the_one_that_was_never_used_is_replaced(app: APIFlask) -> None:
    # The agent may have been killed before it could store the first.
    old = add_agent(app)
    lost, kept = ask_token(old), ask_token(old)
    assert not is_known(lost)
    assert is_known(old)
    assert is_known(kept)
    assert not is_known(old)


def test_a_token_that_was_exchanged_gets_no_other(app: APIFlask) -> None:
    old = add_agent(app)
    new = ask_token(old)
    assert is_known(new)
    assert old.call("POST", "/token").status_code == 401
    assert is_known(ask_token(new))


def test_asking_with_the_new_token_is_its_first_use(app: APIFlask) -> None:
    old = add_agent(app)
    second = ask_token(old)
    third = ask_token(second)
    assert not is_known(old)
    assert is_known(second)
    assert is_known(third)
    assert not is_known(second)


def test_many_first_uses_at_once_are_one_exchange(app: APIFlask) -> None:
    new = ask_token(add_agent(app))
    barrier = threading.Barrier(6)
    known: list[bool] = []

    def use() -> None:
        barrier.wait()
        known.append(is_known(new))

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert known == [True] * 6
    assert actions(app).count("node.rotate_token") == 1


def test_revoking_registering_and_removing_end_both(app: APIFlask) -> None:
    olga = add_person(app, "olga", Role.OPERATOR)
    old = add_agent(app)
    new = ask_token(old)
    assert olga.call("DELETE", "/api/nodes/gpu1/token").status_code == 204
    assert not is_known(new)
    assert not is_known(old)
    old = register(app)
    new = ask_token(old)
    last = register(app)
    assert not is_known(new)
    assert not is_known(old)
    new = ask_token(last)
    assert olga.call("DELETE", "/api/nodes/gpu1").status_code == 204
    assert not is_known(new)
    assert not is_known(last)


def test_no_token_is_stored_and_the_hash_of_the_new_one_moves(app: APIFlask) -> None:
    old = add_agent(app)
    new = ask_token(old)

    def row() -> tuple[str | None, str | None]:
        with app.app_context(), write() as session:
            node = session.scalars(select(Node)).one()
            return node.token_hash, node.next_token_hash

    first, following = row()
    assert following is not None
    assert new.token not in (first, following)
    assert is_known(new)
    assert row() == (following, None)
