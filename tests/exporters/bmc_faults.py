"""What can go wrong with a BMC and the way to it, each for as long as a block. Asks nothing."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tests.exporters.bmc_site import Site
from tests.exporters.links import CLEAR, CUT, Weather

Happens = Callable[[Site, random.Random], AbstractContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """One kind."""

    name: str
    happens: Happens
    # Whether a page is complete meanwhile, if there is time; None: it may be, and whatever is
    # missing is said.
    is_up: bool | None
    # A part of the reason in the log.
    reason: str = ""
    module: str = "default"
    scrapes: int = 1
    # How many sessions may stay open at the BMC because nothing gets there, at most.
    loses: int = 0
    is_restart: bool = False
    # A client goes away before it is answered.
    is_impatient: bool = False


@contextlib.contextmanager
def _nothing(_site: Site, _chance: random.Random) -> Iterator[None]:
    yield


def _under(weather: Weather) -> Happens:
    @contextlib.contextmanager
    def happens(site: Site, _chance: random.Random) -> Iterator[None]:
        site.link.weather = weather
        try:
            yield
        finally:
            site.link.weather = CLEAR

    return happens


@contextlib.contextmanager
def _hang(site: Site, _chance: random.Random) -> Iterator[None]:
    site.bmc.pause()
    try:
        yield
    finally:
        site.bmc.resume()


@contextlib.contextmanager
def _restart(site: Site, _chance: random.Random) -> Iterator[None]:
    site.bmc.stop()
    site.bmc.start()
    yield


@contextlib.contextmanager
def _restart_in_the_middle(site: Site, chance: random.Random) -> Iterator[None]:
    def restart() -> None:
        site.bmc.stop()
        site.bmc.start()

    site.link.weather = Weather(delay_s=(0.005, 0.015))
    timer = threading.Timer(chance.uniform(0.0, 0.2), restart)
    timer.start()
    try:
        yield
    finally:
        timer.join()
        site.link.weather = CLEAR


@contextlib.contextmanager
def _refuse(site: Site, _chance: random.Random) -> Iterator[None]:
    site.link.close()
    try:
        yield
    finally:
        site.link.open()


@contextlib.contextmanager
def _unavailable(site: Site, chance: random.Random) -> Iterator[None]:
    names = [sensor.name for sensor in site.sensors]
    site.change(unavailable=chance.sample(names, chance.randrange(1, len(names))))
    yield


@contextlib.contextmanager
def _other_sensors(site: Site, chance: random.Random) -> Iterator[None]:
    before = site.sensors
    site.change(before[chance.randrange(1, len(before)) :])
    try:
        yield
    finally:
        site.change(before)


_LATE_AND_TWICE = Weather(late=0.1, late_s=0.4, twice=0.3, delay_s=(0.0, 0.02))

FAULTS = (
    Fault("wrong password", _nothing, False, module="wrong", reason="login refused"),
    # Two scrapes: the second one finds the BMC known as silent, if there was time to learn it.
    Fault("dead host", _under(CUT), False, scrapes=2, loses=1),
    Fault("hangs", _hang, False, loses=1),
    Fault("port closed", _refuse, False, reason="Connection refused", loses=1),
    Fault("restarted", _restart, True, is_restart=True),
    Fault("restarted in the middle", _restart_in_the_middle, None, is_restart=True),
    Fault("1% loss", _under(Weather(lost=0.01)), True, loses=1),
    Fault("5% loss", _under(Weather(lost=0.05)), True, loses=1),
    Fault("20% loss", _under(Weather(lost=0.2)), True, loses=3),
    Fault("slow", _under(Weather(delay_s=(0.02, 0.25))), True),
    Fault("rubbish", _under(Weather(rubbish=0.3)), True),
    Fault("late and twice", _under(_LATE_AND_TWICE), True),
    Fault("damaged", _under(Weather(damaged=0.1)), None, loses=3),
    Fault("sensors unavailable", _unavailable, True),
    Fault("other SDR records", _other_sensors, True),
    Fault("client goes away", _nothing, None, is_impatient=True),
)
