"""Find the collectors and hold them to the contract in core.py. Runs none of them."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import ModuleType
from typing import Any

from pydantic import ConfigDict

from . import collectors
from .core import CollectorSettings, Compat, DeviceReport, Metric, Sample, Scrape, Target
from .errors import CollectorError, ContractError

# https://prometheus.io/docs/concepts/data_model/ and the naming page beside it.
_METRIC_NAME = re.compile(r"[a-z][a-z0-9_]*")
_LABEL_NAME = re.compile(r"[a-z][a-z0-9_]*")
# What Prometheus itself takes, less the colons of recording rules and its own labels.
_ANY_NAME = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")
# How the families of the exporter itself begin.
OWN_PREFIXES = ("sentinel_", "process_")


# Any: each collector has its own settings and reading, which only its own functions know.
@dataclass(frozen=True)
class Collector:
    """One collector's module, checked. `is_probe`: `read` takes settings and a Target."""

    name: str
    metrics: tuple[Metric, ...]
    settings: type[CollectorSettings]
    is_present: Callable[[Any], bool]
    read: Callable[..., Any]
    parse: Callable[[Any], Scrape]
    read_devices: Callable[[Any], DeviceReport] | None
    is_probe: bool = False
    compat: Mapping[str, Compat] = field(default_factory=dict)
    begin: Callable[[Any, Target, Callable[[Callable[[], Any]], None]], bool] | None = None
    unread: Callable[[Any, Target], Sequence[Sample]] = lambda _settings, _target: ()

    @cached_property
    def families(self) -> Mapping[Metric, int]:
        """Every family that it may emit, those of other exporters last; and its place."""
        compat = (metric for one in self.compat.values() for metric in one.metrics)
        return {metric: place for place, metric in enumerate((*self.metrics, *compat))}


def find_collectors() -> dict[str, Collector]:
    """Return every collector by name.

    One that cannot be imported or breaks the contract is there too: its runs fail with the
    reason, so that it neither hides the others nor is missed.
    """
    found: dict[str, Collector] = {}
    families: dict[str, Metric] = {}
    for module in pkgutil.iter_modules(collectors.__path__):
        try:
            collector = load_collector(module.name)
            _check_families(collector, families)
        except Exception as error:  # whatever a broken module raises while it is imported
            collector = _broken(module.name, f"{type(error).__name__}: {error}")
        found[module.name] = collector
        families.update((metric.name, metric) for metric in collector.families)
    return found


def load_collector(name: str) -> Collector:
    """Import `collectors.<name>` and check it.

    Raises ContractError for a module that is no collector, and what its import raises.
    """
    return check_module(name, importlib.import_module(f"{collectors.__name__}.{name}"))


def check_module(name: str, module: ModuleType) -> Collector:
    """Return the module as a Collector; raises ContractError when it breaks the contract."""
    entries = [entry for entry in ("read", "probe") if callable(getattr(module, entry, None))]
    if len(entries) != 1:
        raise ContractError(f"{name}: needs either read() or probe()")
    settings = getattr(module, "Settings", CollectorSettings)
    if not (isinstance(settings, type) and issubclass(settings, CollectorSettings)):
        raise ContractError(f"{name}: Settings is not a CollectorSettings")
    metrics = getattr(module, "METRICS", None)
    if not isinstance(metrics, tuple) or not all(isinstance(one, Metric) for one in metrics):
        raise ContractError(f"{name}: METRICS is not a tuple of Metric")
    for metric in metrics:
        check_metric(metric)
    _check_names(f"{name}: METRICS", metrics)
    if not callable(getattr(module, "parse", None)):
        raise ContractError(f"{name}: needs parse()")
    return Collector(
        name=name,
        metrics=metrics,
        settings=settings,
        is_present=getattr(module, "is_present", lambda _settings: True),
        read=getattr(module, entries[0]),
        parse=module.parse,
        read_devices=getattr(module, "read_devices", None),
        is_probe=entries == ["probe"],
        compat=_read_compat(name, getattr(module, "COMPAT", {})),
        begin=getattr(module, "begin", None),
        unread=getattr(module, "unread", lambda _settings, _target: ()),
    )


def _read_compat(name: str, declared: object) -> dict[str, Compat]:
    if not isinstance(declared, Mapping):
        raise ContractError(f"{name}: COMPAT is not a mapping")
    for key, compat in declared.items():
        where = f"{name}: COMPAT {key}"
        if not isinstance(key, str) or not isinstance(compat, Compat):
            raise ContractError(f"{where}: not a name and a Compat")
        for metric in compat.metrics:
            check_compat_metric(metric)
        _check_names(where, compat.metrics)
    return dict(declared)


def _check_names(where: str, metrics: Iterable[Metric]) -> None:
    names = [metric.name for metric in metrics]
    if len(set(names)) != len(names):
        raise ContractError(f"{where} names a family twice")


def check_metric(metric: Metric) -> None:
    """Raise ContractError when the family's names are not what Prometheus' rules want."""
    if not _METRIC_NAME.fullmatch(metric.name):
        raise ContractError(f"{metric.name}: not a metric name")
    if (metric.type == "counter") != metric.name.endswith("_total"):
        raise ContractError(f"{metric.name}: a counter, and only a counter, ends in _total")
    _check_text(metric, _LABEL_NAME)


def check_compat_metric(metric: Metric) -> None:
    """Raise ContractError when Prometheus would not take another exporter's family."""
    if not _ANY_NAME.fullmatch(metric.name):
        raise ContractError(f"{metric.name}: not a metric name")
    if metric.type != "gauge":
        raise ContractError(f"{metric.name}: another exporter's family is a gauge")
    _check_text(metric, _ANY_NAME)


def _check_text(metric: Metric, label_name: re.Pattern[str]) -> None:
    # Two type lines for one name make Prometheus refuse the whole page.
    if metric.name.startswith(OWN_PREFIXES):
        begins = "… and ".join(OWN_PREFIXES)
        raise ContractError(f"{metric.name}: {begins}… are the exporter's own families")
    if not metric.help:
        raise ContractError(f"{metric.name}: has no help text")
    for label in metric.labels:
        if not label_name.fullmatch(label):
            raise ContractError(f"{metric.name}: {label!r} is not a label name")
    if len(set(metric.labels)) != len(metric.labels):
        raise ContractError(f"{metric.name}: a label is there twice")


def _check_families(collector: Collector, known: Mapping[str, Metric]) -> None:
    # A copy: two sets of families of the collector itself may not disagree either, and those
    # of a collector that is refused do not count.
    families = dict(known)
    # Collectors may share a family, as gpu and npu do, but only the very same Metric: two type
    # lines for one name make Prometheus refuse the whole page.
    for metric in collector.families:
        if families.setdefault(metric.name, metric) is not metric:
            raise ContractError(f"{collector.name}: {metric.name} is declared a second time")


class _AnySettings(CollectorSettings):
    """A broken collector's section is not judged: its own fields are not known."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def _broken(name: str, reason: str) -> Collector:
    def fail(*_arguments: object) -> Scrape:
        raise CollectorError(f"the collector cannot be loaded: {reason}")

    return Collector(
        name=name,
        metrics=(),
        settings=_AnySettings,
        is_present=lambda _settings: True,
        read=fail,
        parse=fail,
        read_devices=None,
    )
