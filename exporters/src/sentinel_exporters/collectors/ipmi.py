"""Export what BMCs read, under ipmi_exporter's names. The IPMI itself is in `ipmi/`."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from ..core import CollectorSettings, Sample, Scrape, Target
from ..errors import BadTarget, ConfigError
from ..ipmi.commands import (
    read_bmc_url,
    read_chassis,
    read_device,
    read_event_log,
    read_lan_mode,
    read_power_watts,
    read_system_firmware,
)
from ..ipmi.errors import CompletionError, IpmiError, NoAnswerError, WouldWaitError
from ..ipmi.pool import Pool
from ..ipmi.readings import read_sensors
from ..ipmi.resolver import Resolver
from ..ipmi.sdr import RecordCache
from ..ipmi.session import Session
from ..ipmi.target import Address, AllowList, parse_target
from ..ipmi.watchdog import read_watchdog
from ..ipmi_events import EventCounter
from ..ipmi_latest import Latest
from ..ipmi_module import BaseModule, Module
from ..ipmi_modules_file import modules_file
from ..ipmi_samples import METRICS, Answers, make_scrape, sample_up

__all__ = ["METRICS", "Settings", "begin", "parse", "probe", "unread"]

log = logging.getLogger(__name__)

# An answer that comes when the runner has given up is lost, and with it `ipmi_up 0`.
_MARGIN_S = 0.3


class Settings(CollectorSettings):
    """The section `[ipmi]`."""

    # What Prometheus' own limit is where it says none.
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 30.0
    # Addresses, networks, names and *.suffixes that may be asked; empty: any.
    targets: tuple[str, ...] = ()
    # How old answers may be that are served again; 0: each scrape asks.
    max_age_s: Annotated[float, Field(ge=0, le=3600)] = 0.0
    # Logins, and readings of SDR repositories, at the same time; further ones wait their turn.
    max_logins: Annotated[int, Field(ge=1, le=1024)] = 50
    # Sessions that are open at the same time, those kept for the next scrape included.
    max_sessions: Annotated[int, Field(ge=1, le=4096)] = 1024
    modules: dict[str, Module] = Field(default_factory=dict)
    # More modules, in a configuration file of ipmi_exporter; it is read again when it changes.
    config_file: Path | None = None

    @field_validator("targets")
    @classmethod
    def _check_targets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        AllowList.parse(value)
        return value

    @field_validator("config_file")
    @classmethod
    def _check_config_file(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is None:
            return None
        try:
            names = modules_file(value).modules().keys()
        except ConfigError as error:
            raise ValueError(str(error).replace("\n", "; ")) from None
        if twice := sorted(names & info.data.get("modules", {}).keys()):
            raise ValueError(f"{', '.join(twice)}: in ipmi.modules, too")
        return value

    def module(self, name: str) -> BaseModule | None:
        """Return the module of this name, of whichever file."""
        if name in self.modules or self.config_file is None:
            return self.modules.get(name)
        return modules_file(self.config_file).modules().get(name)


# Targets come again and again, the settings stay.
_parse_target = lru_cache(maxsize=4096)(parse_target)
_allow_list = lru_cache(maxsize=16)(AllowList.parse)
_resolver = Resolver()
_latest = Latest()
_records = RecordCache()
_events = EventCounter(_records)
_pools: dict[tuple[int, int], Pool] = {}
_pools_lock = threading.Lock()


def _pool(settings: Settings) -> Pool:
    """Return the process' pool; sessions outlive a scrape, and the settings do not change."""
    key = settings.max_logins, settings.max_sessions
    with _pools_lock:
        if key not in _pools:
            _pools[key] = Pool(*key)
            # A session that is not ended occupies one of the BMC's few slots for a minute.
            atexit.register(_pools[key].close)
        return _pools[key]


def probe(settings: Settings, target: Target) -> Answers:
    """Ask one BMC. Raises BadTarget; a BMC that fails is an answer with `is_up` False."""
    return _probe(settings, target, time.monotonic())


def _probe(
    settings: Settings, target: Target, started: float, address: Address | None = None
) -> Answers:
    """Ask one BMC in a scrape that `started` (monotonic), which all its limits count from.

    `address` is the target's where that is known already.
    """
    module = settings.module(target.module)
    if module is None:
        raise BadTarget(f"module: there is none named {target.module!r} in the configuration")
    try:
        wanted = _parse_target(target.address)
    except ValueError as error:
        raise BadTarget(f"target: {error}") from error
    if settings.max_age_s and (latest := _latest.find(target, module, settings.max_age_s)):
        return latest
    answers = Answers(is_up=dict.fromkeys(module.collectors, False))
    deadline = started + min(module.timeout_s, target.timeout_s - _MARGIN_S)
    try:
        address = address or _resolver.resolve(wanted)
        if not _allow_list(settings.targets).admits(wanted, address):
            raise BadTarget("target: not permitted by ipmi.targets")
        if time.monotonic() >= deadline:
            # A question without an answer would cost the session.
            raise NoAnswerError("the scrape leaves no time to ask the BMC")
        pool = _pool(settings)
        with pool.session(address, module.credentials(), deadline, target.module) as session:
            _ask(session, module, answers, deadline)
    except IpmiError as error:
        answers.problems.append(str(error))
    return _complete(answers, settings, target, module, started)


def begin(
    settings: Settings, target: Target, done: Callable[[Callable[[], Answers]], None]
) -> bool:
    """Ask one BMC without waiting, where a session is kept and nothing unusual is to be done.

    That is so for nearly every scrape, and hundreds come at once: a thread for each would cost
    more than the IPMI. See core.py for `done`.
    """
    started = time.monotonic()
    module = settings.module(target.module)
    try:
        wanted = _parse_target(target.address)
    except ValueError:
        return False  # probe() says what is wrong
    address = _resolver.known(wanted)
    if (
        module is None
        or address is None
        or not _allow_list(settings.targets).admits(wanted, address)
    ):
        return False
    if settings.max_age_s and (latest := _latest.find(target, module, settings.max_age_s)):
        done(lambda: latest)
        return True
    try:
        credentials = module.credentials()
    except IpmiError:
        return False
    deadline = started + min(module.timeout_s, target.timeout_s - _MARGIN_S)
    if deadline <= started:
        return False

    def ready(found: Session | IpmiError | None) -> None:
        answers = Answers(is_up=dict.fromkeys(module.collectors, False))
        if isinstance(found, IpmiError):
            answers.problems.append(str(found))
        elif found is not None:
            try:
                _ask(found, module, answers, deadline)
            except WouldWaitError:
                found = None
            except Exception as error:  # the loop's thread is not to be troubled with it
                done(partial(_fail, error))
                return
        if found is None:
            # A restart of the BMC, other sensors: that takes its time, and a thread.
            work = partial(_probe, settings, target, started, address)
            thread = threading.Thread(target=done, args=(work,), name="probe-ipmi", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the system has no thread left
                done(partial(_fail, IpmiError(str(error))))
            return
        complete = _complete(answers, settings, target, module, started)
        done(lambda: complete)

    pool = _pool(settings)
    return pool.begin_session(address, credentials, deadline, target.module, ready)


def unread(settings: Settings, target: Target) -> list[Sample]:
    """Return what is said of a BMC whose answers came too late, as when a name server hangs."""
    module = settings.module(target.module)
    return [] if module is None else sample_up(dict.fromkeys(module.collectors, False))


def _complete(
    answers: Answers, settings: Settings, target: Target, module: BaseModule, started: float
) -> Answers:
    answers.duration_s = time.monotonic() - started
    return _latest.keep(target, module, answers, started) if settings.max_age_s else answers


def _fail(error: Exception) -> Answers:
    raise error


def _ask(session: Session, module: BaseModule, answers: Answers, deadline: float) -> None:
    def read_ipmi() -> None:
        records = [
            record
            for record in _records.records(session)
            if record.id not in module.exclude_sensor_ids
        ]
        answers.readings = read_sensors(session, records)

    def read_dcmi() -> None:
        answers.power_watts = read_power_watts(session)

    def read_bmc() -> None:
        answers.device = read_device(session)
        answers.system_firmware = read_system_firmware(session)
        answers.bmc_url = read_bmc_url(session)

    def read_chassis_state() -> None:
        answers.chassis = read_chassis(session)

    def read_sel() -> None:
        answers.event_log = read_event_log(session)

    def read_lan_mode_setting() -> None:
        answers.lan_mode = read_lan_mode(session)

    def read_watchdog_timer() -> None:
        answers.watchdog = read_watchdog(session)

    def read_sel_events() -> None:
        # Not to the very end: a request that is cut off there would cost the session.
        now = time.monotonic()
        until = now + 0.8 * (deadline - now)
        answers.event_counts = _events.count(session, module.sel_events, until)

    # The sensors late: they are the many, and what was told before them is not lost with them.
    # The first reading of an event log takes whatever time is left.
    readers: dict[str, Callable[[], None]] = {
        "chassis": read_chassis_state,
        "bmc": read_bmc,
        "dcmi": read_dcmi,
        "sel": read_sel,
        "sm-lan-mode": read_lan_mode_setting,
        "bmc-watchdog": read_watchdog_timer,
        "ipmi": read_ipmi,
        "sel-events": read_sel_events,
    }
    for name, read in readers.items():
        if name not in module.collectors or session.is_lost:
            continue
        try:
            read()
        except CompletionError as error:
            if name != "dcmi":
                answers.problems.append(f"{name}: {error}")
            elif not session.facts.get("dcmi refused"):
                # Many BMCs have no DCMI: that is worth a line once, not at each scrape.
                session.facts["dcmi refused"] = True
                log.info("ipmi no dcmi bmc=%s reason=%s", session.address, error)
        except IpmiError as error:
            answers.problems.append(f"{name}: {error}")
        else:
            answers.is_up[name] = True


def parse(answers: Answers) -> Scrape:
    """Turn a BMC's answers into samples; what it did not tell has none."""
    return make_scrape(answers)
