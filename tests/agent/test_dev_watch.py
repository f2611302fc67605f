"""What of /dev is noticed: everything that happens to a card's file, and nothing else."""

from __future__ import annotations

import os
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sentinel_agent.cards.dev_watch import DevWatch
from tests.lab.node import why_not
from tests.lab.wait import wait_for

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


class Watched:
    """A folder that is watched, with one card in it."""

    def __init__(self, dev: Path, pause_max_s: float = 0.1) -> None:
        self.dev = dev
        self.card = dev / "davinci0"
        os.mknod(self.card, stat.S_IFCHR | 0o600, os.makedev(1, 7))
        self.calls = 0
        self.is_noticed = threading.Event()
        DevWatch(self._count, dev, (0.01, pause_max_s)).start()
        wait_for("it watches", self.is_noticed.is_set)

    def _count(self) -> None:
        self.calls += 1
        self.is_noticed.set()

    def notices(self, change: Callable[[], object], timeout_s: float = 5) -> bool:
        self.is_noticed.clear()
        change()
        return self.is_noticed.wait(timeout_s)

    def is_quiet(self) -> bool:
        return not self.notices(lambda: None, timeout_s=0.3)


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    folder = tmp_path / "dev"
    folder.mkdir()
    return folder


def test_whatever_happens_to_a_card_is_noticed(dev: Path) -> None:
    watched = Watched(dev)
    card = watched.card
    setfacl = ["setfacl", "-m", "u:1001:rw", str(card)]
    for what, change in (
        ("chmod", lambda: card.chmod(0o666)),
        ("chown", lambda: os.chown(card, 1001, 0)),
        ("setfacl", lambda: subprocess.run(setfacl, check=True)),
        ("removed", card.unlink),
        ("made", lambda: os.mknod(card, stat.S_IFCHR | 0o666, os.makedev(1, 7))),
        ("moved away", lambda: card.rename(dev / "old")),
        ("a link in its place", lambda: card.symlink_to("old")),
        ("moved back", lambda: (dev / "old").replace(card)),
    ):
        wait_for("it is quiet", watched.is_quiet)
        assert watched.notices(change), what


def test_nothing_else_in_dev_is_noticed(dev: Path) -> None:
    watched = Watched(dev)

    def others() -> None:
        for name in ("nvidiactl", "nvidia-uvm", "loop0", "davinci_manager"):
            (dev / name).touch()
            (dev / name).chmod(0o666)

    assert not watched.notices(others, timeout_s=0.5)


def test_a_flood_of_changes_costs_few_looks_and_the_last_one_is_seen(dev: Path) -> None:
    watched = Watched(dev, pause_max_s=0.5)
    before = watched.calls
    for _ in range(5000):
        watched.card.chmod(0o666)
        watched.card.chmod(0o600)
    watched.is_noticed.clear()
    watched.card.chmod(0o640)
    assert watched.is_noticed.wait(5)
    wait_for("it is quiet", watched.is_quiet)
    assert watched.calls - before < 20


def test_a_folder_that_is_made_anew_is_watched_again(dev: Path) -> None:
    watched = Watched(dev)
    dev.rename(dev.with_name("old"))
    watched.is_noticed.clear()
    dev.mkdir()
    # A call says that the watch has begun: what came before was seen by nobody.
    assert watched.is_noticed.wait(10)
    wait_for("it is quiet", watched.is_quiet)
    card = dev / "nvidia0"
    assert watched.notices(lambda: os.mknod(card, stat.S_IFCHR, os.makedev(1, 7)))
