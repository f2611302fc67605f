"""Turn what BMCs tell into samples under ipmi_exporter's names. Pure; collectors/ipmi.py asks.

Names, labels and meanings are those of prometheus-community/ipmi_exporter, so that its
dashboards work. It exports NaN for what is missing; here that has no sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from .core import Metric, Sample, Scrape
from .ipmi.commands import Chassis, Device, EventLog
from .ipmi.names import name_manufacturer, name_sensor_type
from .ipmi.readings import Reading
from .ipmi.watchdog import ACTIONS, INTERRUPTS, USES, Watchdog
from .ipmi_events import Counts

UP = Metric("ipmi_up", "gauge", "1 when the collector read the BMC, else 0.", ("collector",))
DURATION = Metric(
    "ipmi_scrape_duration_seconds", "gauge", "How long the whole scrape took.", (), "seconds"
)
AGE = Metric(
    "ipmi_scrape_age_seconds",
    "gauge",
    "Time since the BMC was asked; only where ipmi.max_age_s permits to serve an answer again.",
    (),
    "seconds",
)
_ID = ("id", "name")
_STATE_HELP = "The sensor's state: 0 nominal, 1 warning, 2 critical."


def _state(kind: str) -> Metric:
    return Metric(f"ipmi_{kind}_state", "gauge", _STATE_HELP, _ID)


# By unit (IPMI 2.0, table 43-15): the family of the values, that of the states.
_TYPED = {
    1: (
        Metric("ipmi_temperature_celsius", "gauge", "Temperature.", _ID, "celsius"),
        _state("temperature"),
    ),
    4: (Metric("ipmi_voltage_volts", "gauge", "Voltage.", _ID, "volts"), _state("voltage")),
    5: (Metric("ipmi_current_amperes", "gauge", "Current.", _ID, "amperes"), _state("current")),
    6: (Metric("ipmi_power_watts", "gauge", "Power.", _ID, "watts"), _state("power")),
    18: (
        Metric("ipmi_fan_speed_rpm", "gauge", "Fan speed in revolutions per minute.", _ID),
        _state("fan_speed"),
    ),
}
FAN_RATIO = Metric(
    "ipmi_fan_speed_ratio", "gauge", "Fan speed as a part of its maximum, 0 to 1.", _ID, "ratio"
)
FAN_STATE = _TYPED[18][1]
SENSOR_VALUE = Metric(
    "ipmi_sensor_value",
    "gauge",
    "The reading of a sensor that has no family of its own, in the sensor's own unit.",
    ("id", "name", "type"),
)
SENSOR_STATE = Metric("ipmi_sensor_state", "gauge", _STATE_HELP, ("id", "name", "type"))
POWER_STATE = Metric("ipmi_chassis_power_state", "gauge", "1 when the host is on, 0 when off.")
DRIVE_STATE = Metric(
    "ipmi_chassis_drive_fault_state", "gauge", "1 without a drive fault, 0 with one."
)
COOLING_STATE = Metric(
    "ipmi_chassis_cooling_fault_state", "gauge", "1 without a fan fault, 0 with one."
)
BMC_INFO = Metric(
    "ipmi_bmc_info",
    "gauge",
    "Always 1; what the BMC is.",
    ("firmware_revision", "manufacturer_id", "system_firmware_version", "bmc_url"),
)
SEL_COUNT = Metric("ipmi_sel_logs_count", "gauge", "Entries in the System Event Log.")
SEL_FREE = Metric(
    "ipmi_sel_free_space_bytes",
    "gauge",
    "Free space of the System Event Log; 65535 means that or more.",
    (),
    "bytes",
)
SEL_BY_STATE = Metric(
    "ipmi_sel_events_count_by_state",
    "gauge",
    "Entries in the System Event Log by what they mean: Nominal, Warning, Critical or N/A.",
    ("state",),
)
SEL_BY_NAME = Metric(
    "ipmi_sel_events_count_by_name",
    "gauge",
    "Entries in the System Event Log that sel_events looks for.",
    ("name",),
)
SEL_LATEST = Metric(
    "ipmi_sel_events_latest_timestamp",
    "gauge",
    "When the last of these entries was logged, in Unix time by the BMC's clock; 0: never.",
    ("name",),
)
DCMI_POWER = Metric(
    "ipmi_dcmi_power_consumption_watts",
    "gauge",
    "The power that the host draws; absent while the BMC does not measure it.",
    (),
    "watts",
)
LAN_MODE = Metric(
    "ipmi_config_lan_mode",
    "gauge",
    "LAN mode of a Supermicro BMC: 0 dedicated, 1 shared, 2 failover.",
)
WATCHDOG_RUNS = Metric(
    "ipmi_bmc_watchdog_timer_state", "gauge", "1 while the watchdog timer runs, else 0."
)
WATCHDOG_USE = Metric(
    "ipmi_bmc_watchdog_timer_use_state",
    "gauge",
    "1 for what the timer is used for, else 0.",
    ("name",),
)
WATCHDOG_LOGS = Metric(
    "ipmi_bmc_watchdog_logging_state", "gauge", "1 when the timer's end is logged, else 0."
)
WATCHDOG_ACTION = Metric(
    "ipmi_bmc_watchdog_timeout_action_state",
    "gauge",
    "1 for what is done at the timer's end, else 0.",
    ("action",),
)
WATCHDOG_INTERRUPT = Metric(
    "ipmi_bmc_watchdog_pretimeout_interrupt_state",
    "gauge",
    "1 for the interrupt before the timer's end, else 0.",
    ("interrupt",),
)
WATCHDOG_PRETIMEOUT = Metric(
    "ipmi_bmc_watchdog_pretimeout_interval_seconds",
    "gauge",
    "How long before the timer's end the interrupt comes.",
    (),
    "seconds",
)
WATCHDOG_INITIAL = Metric(
    "ipmi_bmc_watchdog_initial_countdown_seconds",
    "gauge",
    "What the timer starts from.",
    (),
    "seconds",
)
WATCHDOG_PRESENT = Metric(
    "ipmi_bmc_watchdog_current_countdown_seconds",
    "gauge",
    "What is left of the timer.",
    (),
    "seconds",
)
METRICS = (
    UP,
    DURATION,
    AGE,
    *(metric for pair in _TYPED.values() for metric in pair),
    FAN_RATIO,
    SENSOR_VALUE,
    SENSOR_STATE,
    POWER_STATE,
    DRIVE_STATE,
    COOLING_STATE,
    BMC_INFO,
    SEL_COUNT,
    SEL_FREE,
    SEL_BY_STATE,
    SEL_BY_NAME,
    SEL_LATEST,
    DCMI_POWER,
    LAN_MODE,
    WATCHDOG_RUNS,
    WATCHDOG_USE,
    WATCHDOG_LOGS,
    WATCHDOG_ACTION,
    WATCHDOG_INTERRUPT,
    WATCHDOG_PRETIMEOUT,
    WATCHDOG_INITIAL,
    WATCHDOG_PRESENT,
)


@dataclass
class Answers:
    """What one BMC told. None: not asked for, or not told."""

    duration_s: float = 0.0
    # Since when the BMC was asked; None where answers are not kept.
    age_s: float | None = None
    readings: Sequence[Reading] | None = None
    chassis: Chassis | None = None
    event_log: EventLog | None = None
    event_counts: Counts | None = None
    power_watts: int | None = None
    device: Device | None = None
    system_firmware: str | None = None
    bmc_url: str | None = None
    lan_mode: int | None = None
    watchdog: Watchdog | None = None
    # By collector: whether it was told what it asked for.
    is_up: dict[str, bool] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def make_scrape(answers: Answers) -> Scrape:
    """Turn a BMC's answers into samples; what it did not tell has none."""
    samples = [DURATION.sample(answers.duration_s)]
    if answers.age_s is not None:
        samples.append(AGE.sample(answers.age_s))
    samples += sample_up(answers.is_up)
    for reading in answers.readings or ():
        samples += sample_reading(reading)
    if answers.chassis is not None:
        samples += [
            POWER_STATE.sample(float(answers.chassis.is_on)),
            # The other way round, as ipmi_exporter has them.
            DRIVE_STATE.sample(float(not answers.chassis.has_drive_fault)),
            COOLING_STATE.sample(float(not answers.chassis.has_cooling_fault)),
        ]
    if answers.event_log is not None:
        samples += [
            SEL_COUNT.sample(answers.event_log.entries),
            SEL_FREE.sample(answers.event_log.free_bytes),
        ]
    if answers.event_counts is not None:
        counts = answers.event_counts
        samples += [SEL_BY_STATE.sample(count, one) for one, count in counts.by_state.items()]
        samples += [SEL_BY_NAME.sample(count, one) for one, count in counts.by_name.items()]
        samples += [SEL_LATEST.sample(at, one) for one, at in counts.latest.items()]
    if answers.power_watts is not None:
        samples.append(DCMI_POWER.sample(answers.power_watts))
    if answers.lan_mode is not None:
        samples.append(LAN_MODE.sample(answers.lan_mode))
    if answers.watchdog is not None:
        samples += _sample_watchdog(answers.watchdog)
    if answers.device is not None and answers.is_up.get("bmc"):
        samples.append(
            BMC_INFO.sample(
                1,
                answers.device.firmware,
                name_manufacturer(answers.device.manufacturer),
                answers.system_firmware or "N/A",
                answers.bmc_url or "N/A",
            )
        )
    return Scrape(samples, answers.problems)


def _sample_watchdog(watchdog: Watchdog) -> list[Sample]:
    """Return the timer; each use, action and interrupt has a sample, one of them 1."""
    return [
        WATCHDOG_RUNS.sample(float(watchdog.is_running)),
        *(WATCHDOG_USE.sample(float(one == watchdog.use), one) for one in USES.values()),
        WATCHDOG_LOGS.sample(float(watchdog.is_logged)),
        *(
            WATCHDOG_ACTION.sample(float(one == watchdog.action), one)
            for one in ACTIONS.values()
        ),
        *(
            WATCHDOG_INTERRUPT.sample(float(one == watchdog.interrupt), one)
            for one in INTERRUPTS.values()
        ),
        WATCHDOG_PRETIMEOUT.sample(watchdog.pretimeout_s),
        WATCHDOG_INITIAL.sample(watchdog.initial_s),
        WATCHDOG_PRESENT.sample(watchdog.present_s),
    ]


def sample_up(is_up: Mapping[str, bool]) -> list[Sample]:
    """Return, by collector, whether the BMC told what it is for."""
    return [UP.sample(float(is_told), name) for name, is_told in is_up.items()]


@lru_cache(maxsize=32768)
def sample_reading(reading: Reading) -> tuple[Sample, ...]:
    """Return the sensor's value and state, each only where there is one."""
    record, unit = reading.record, reading.record.unit
    labels: tuple[str, ...] = (str(record.id), record.name)
    scale = 1.0
    is_simple = record.has_number and unit is not None and unit.is_plain
    if unit is not None and is_simple and not unit.is_percent and unit.code in _TYPED:
        value_metric, state_metric = _TYPED[unit.code]
    elif unit is not None and is_simple and _is_fan_duty(reading):
        value_metric, state_metric, scale = FAN_RATIO, FAN_STATE, 0.01
    else:
        value_metric, state_metric = SENSOR_VALUE, SENSOR_STATE
        labels += (name_sensor_type(record.sensor_type),)
    samples = []
    if reading.value is not None:
        value = float(f"{reading.value * scale:.9g}")  # 0.35, not 0.35000000000000003
        samples.append(value_metric.sample(value, *labels))
    if reading.state is not None:
        samples.append(state_metric.sample(float(reading.state), *labels))
    return tuple(samples)


def _is_fan_duty(reading: Reading) -> bool:
    unit = reading.record.unit
    is_fan = name_sensor_type(reading.record.sensor_type) == "Fan"
    return unit is not None and unit.is_percent and unit.code == 0 and is_fan
