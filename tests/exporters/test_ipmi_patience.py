"""How long a BMC's answer is waited for, and whose turn it is."""

from __future__ import annotations

import threading
import time

import pytest

from sentinel_exporters.ipmi.patience import (
    LEAST_RETRY_S,
    MAX_RETRY_S,
    RETRY_S,
    Patience,
)
from sentinel_exporters.ipmi.turns import Turns
from tests.lab.wait import wait_for


def test_a_quick_bmc_is_asked_again_soon_and_not_at_once() -> None:
    patience = Patience()
    assert patience.wait_s(0) == RETRY_S
    for _ in range(100):
        patience.answered(0.005)

    assert patience.wait_s(0) == pytest.approx(LEAST_RETRY_S + 0.01)


def test_a_slow_bmc_gets_more_time_than_it_takes() -> None:
    patience = Patience()
    patience.answered(0.4)

    assert 0.4 < patience.wait_s(0) <= MAX_RETRY_S


def test_a_repetition_in_vain_makes_the_next_one_later() -> None:
    patience = Patience()
    patience.repeated_in_vain()

    assert patience.wait_s(0) > RETRY_S
    patience.answered(0.005)
    assert patience.wait_s(0) > RETRY_S
    for _ in range(10):
        patience.repeated_in_vain()
    assert patience.wait_s(0) == MAX_RETRY_S


def test_a_bmc_that_is_quick_again_is_asked_as_before() -> None:
    patience = Patience()
    patience.answered(0.9)
    for _ in range(100):
        patience.answered(0.005)

    assert patience.wait_s(0) < RETRY_S


def test_lost_packets_do_not_make_the_next_ones_later_at_once() -> None:
    # With every fifth packet lost, a sweep would else take ever longer.
    patience = Patience()
    waits = [patience.wait_s(repeats) for repeats in range(12)]

    assert waits[:6] == [RETRY_S] * 6
    assert waits == sorted(waits)
    assert waits[-1] == MAX_RETRY_S


@pytest.mark.parametrize("places", [1, 3])
def test_places_are_given_in_the_order_in_which_they_are_asked_for(places: int) -> None:
    turns = Turns(places)
    served: list[int] = []
    assert all(turns.take(time.monotonic()) for _ in range(places))

    def wait(number: int) -> None:
        assert turns.take(time.monotonic() + 20)
        served.append(number)
        turns.give_back()

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(8)]
    for count, thread in enumerate(threads, 1):
        thread.start()
        wait_for("it waits", lambda: turns.waiting == count)  # noqa: B023  within the round
    turns.give_back()
    for thread in threads:
        thread.join()

    assert served == list(range(8))


def test_who_does_not_wait_any_more_takes_no_place() -> None:
    turns = Turns(1)
    assert turns.try_take()
    assert not turns.try_take()
    assert not turns.take(time.monotonic() + 0.01)

    turns.give_back()

    assert turns.try_take()
