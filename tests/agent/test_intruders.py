"""Whose processes are made to stand still, and who counts as having a card open."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from sentinel_agent.accounts import Accounts
from sentinel_agent.cards.intruders import CardHolders
from sentinel_agent.cards.rules import Rights
from sentinel_agent.policy.access import Access
from sentinel_agent.policy.cache import Cache
from sentinel_agent.policy.held import HeldPolicy
from sentinel_agent.server.registration import Registration
from sentinel_agent.service.metrics import Metrics
from sentinel_agent.service.status import Status
from sentinel_agent.sessions.apply import signal_all
from sentinel_agent.sessions.granted import GrantedUsers
from sentinel_agent.sessions.plan import utc
from tests.agent.hanging_lab import hanging
from tests.lab.node import why_not
from tests.lab.wait import wait_for

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

# It has no account here: the agent knows mallory's uid from reservations before.
UID = 64322
# /dev/full stands for the card, which nobody is let to.
CARD = os.makedev(1, 7)
RIGHTS = Rights({"nvidia0": CARD}, {"nvidia0": ()}, ())
# Each of its processes is another one when it is looked at again.
BUSY = "while :; do sleep 0.002; done"


@pytest.fixture(autouse=True)
def _nobodys_uid() -> Iterator[None]:
    if _is_running():
        pytest.skip(f"uid {UID} is somebody's here")
    yield
    signal_all(UID, signal.SIGKILL)
    wait_for("nothing is left", lambda: not _is_running())


def _is_running() -> bool:
    # Those that have ended stay until whoever has inherited them looks.
    return os.system(f"pgrep -U {UID} --runstates R,S,D,T >/dev/null") == 0


class HeldBack(Accounts):
    """Accounts whose first answer waits until it is let go, for less than a search waits."""

    def __init__(self, ignored: frozenset[str]) -> None:
        super().__init__(min_uid=1000, breakglass_group="none-here", ignored_users=ignored)
        self.asked, self.go_on = threading.Event(), threading.Event()

    def name_of(self, uid: int, remembered: Mapping[str, int]) -> str | None:
        if not self.asked.is_set():
            self.asked.set()
            self.go_on.wait(0.5)
        return super().name_of(uid, remembered)


def make_holders(
    folder: Path, accounts: Accounts, exempt: frozenset[str] = frozenset()
) -> CardHolders:
    granted = GrantedUsers(folder)
    granted.users, granted.exempt = {"mallory": UID}, exempt
    registration = Registration("gpu-01", "token", "http://server", utc(0))
    files = Cache(folder / "policy.json", "nogroup"), Access(folder / "access")
    metrics = Metrics(HeldPolicy(*files, registration), Status())
    return CardHolders(accounts, granted, metrics, term_s=0.5)


@contextmanager
def mallorys(*argv: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(argv, user=UID, cwd="/") as child:
        try:
            yield child
        finally:
            child.kill()


def was_stopped(child: subprocess.Popen[bytes]) -> bool:
    """Say whether the process was made to stand still, and goes on."""
    pid, status = os.waitpid(child.pid, os.WCONTINUED | os.WNOHANG)
    return pid == child.pid and os.WIFCONTINUED(status)


IGNORED = frozenset({"mallory"})
NOBODY: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    ("ignored", "exempt", "is_stopped"),
    [(NOBODY, NOBODY, True), (IGNORED, NOBODY, False), (NOBODY, IGNORED, False)],
    ids=["any user", "ignored by the configuration", "of the break-glass group"],
)
def test_only_who_is_not_exempt_is_made_to_stand_still(
    tmp_path: Path, ignored: frozenset[str], exempt: frozenset[str], is_stopped: bool
) -> None:
    accounts = Accounts(min_uid=1000, breakglass_group="none-here", ignored_users=ignored)
    holders = make_holders(tmp_path, accounts, exempt)
    with mallorys("sleep", "600") as quiet, mallorys("sh", "-c", BUSY):
        for _ in range(5):
            # The first of these may be over before the shell has begun.
            time.sleep(0.05)
            holders.demand({UID})
            assert holders.end(RIGHTS) == []
            holders.join(30)
        assert was_stopped(quiet) is is_stopped
        assert not holders.has_open(UID, {CARD})


def test_nobody_is_made_to_stand_still_once_it_is_only_watched(tmp_path: Path) -> None:
    accounts = HeldBack(NOBODY)
    holders = make_holders(tmp_path, accounts)
    with mallorys("sleep", "600") as quiet, mallorys("sh", "-c", BUSY):
        holders.demand({UID})
        holders.end(RIGHTS)
        assert accounts.asked.wait(10)
        holders.observe(RIGHTS)
        accounts.go_on.set()
        holders.join(30)
        assert not was_stopped(quiet)


def test_who_has_a_process_that_cannot_be_seen_in_full_counts_as_having_the_card_open(
    tmp_path: Path,
) -> None:
    accounts = Accounts(min_uid=1000, breakglass_group="none-here", ignored_users=NOBODY)
    holders = make_holders(tmp_path, accounts)
    with hanging(tmp_path / "disk", UID) as (pid, go_on):
        # Also without its being known that a card was lost.
        assert holders.has_open(UID, {CARD})
        assert not holders.has_open(UID + 1, {CARD})
        holders.demand({UID})
        for _ in range(2):
            holders.demand()
            holders.end(RIGHTS)
            holders.join(30)
            problem = f"cannot see all that is open or mapped in process {pid}"
            assert holders.end(RIGHTS) == [problem]
            assert holders.has_open(UID, {CARD})
        go_on()

        def is_well() -> bool:
            holders.join(30)
            return holders.end(RIGHTS) == []

        wait_for("it is seen", is_well)
        assert not holders.has_open(UID, {CARD})


def test_what_a_round_could_not_see_is_looked_for_until_it_is_seen(tmp_path: Path) -> None:
    """Nothing was lost that the agent knew of, and then a process hangs."""
    accounts = Accounts(min_uid=1000, breakglass_group="none-here", ignored_users=NOBODY)
    holders = make_holders(tmp_path, accounts)
    is_done = threading.Event()
    holders.end(RIGHTS)
    holders.join(30)
    with hanging(tmp_path / "disk", UID) as (_, go_on):
        assert holders.has_open(UID, {CARD})
        holders.done = is_done.set
        holders.end(RIGHTS)
        holders.join(30)
        assert is_done.is_set()
        assert holders.has_open(UID, {CARD})
        go_on()
        wait_for("it is seen", lambda: holders.end(RIGHTS) == [])
        holders.join(30)
        assert not holders.has_open(UID, {CARD})
