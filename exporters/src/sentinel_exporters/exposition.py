"""Write samples as a page, in the form that the asker wants. Knows no HTTP but two headers.

The forms are Prometheus' text format 0.0.4
(prometheus.io/docs/instrumenting/exposition_formats) and OpenMetrics 1.0.0
(prometheus.io/docs/specs/om/open_metrics_spec).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

from .core import Metric, Sample, escape_label

TEXT = "text/plain; version=0.0.4; charset=utf-8"
_OPENMETRICS = "application/openmetrics-text; version={}; charset=utf-8"
# What Prometheus asks for; the two versions differ in nothing that we write.
_OPENMETRICS_VERSIONS = ("1.0.0", "0.0.1")


def write_text(samples: Iterable[Sample]) -> bytes:
    """Return the page in the text format: each family once, by name."""
    lines: list[str] = []
    for metric, family in _by_family(samples):
        lines.append(_text_head(metric))
        lines += [sample.line for sample in family]
    return _encode(lines)


@lru_cache(maxsize=4096)
def _text_head(metric: Metric) -> str:
    escaped = metric.help.replace("\\", "\\\\").replace("\n", "\\n")
    return f"# HELP {metric.name} {escaped}\n# TYPE {metric.name} {metric.type}\n"


def write_openmetrics(samples: Iterable[Sample]) -> bytes:
    """Return the page in OpenMetrics."""
    lines: list[str] = []
    for metric, family in _by_family(samples):
        # A counter's family is named without the _total of its samples, and a unit is permitted
        # only where the family's name ends with it.
        name = metric.name.removesuffix("_total") if metric.type == "counter" else metric.name
        lines.append(f"# HELP {name} {escape_label(metric.help)}\n")
        lines.append(f"# TYPE {name} {metric.type}\n")
        if metric.unit and name.endswith(f"_{metric.unit}"):
            lines.append(f"# UNIT {name} {metric.unit}\n")
        lines += [sample.line for sample in family]
    lines.append("# EOF\n")
    return _encode(lines)


def _by_family(samples: Iterable[Sample]) -> list[tuple[Metric, list[Sample]]]:
    families: dict[Metric, list[Sample]] = {}
    for sample in samples:
        families.setdefault(sample.metric, []).append(sample)
    return sorted(families.items(), key=lambda item: item[0].name)


def _encode(lines: Iterable[str]) -> bytes:
    # A name that is no UTF-8, such as a file's, must not take the whole page away.
    return "".join(lines).encode("utf-8", "replace")


def choose_form(accept: str) -> tuple[Callable[[Iterable[Sample]], bytes], str]:
    """Return the writer and the Content-Type for an Accept header.

    That of the greatest `q` (RFC 9110, 12.5.1), the first of equals; the text format where
    nothing fits, since an exporter's page is of use to every asker.
    """
    best, chosen = 0.0, ""
    for kind, options in _read_choices(accept):
        form = _form(kind, options.get("version", ""))
        if form and (quality := _quality(options)) > best:
            best, chosen = quality, form
    if chosen and chosen != TEXT:
        return write_openmetrics, chosen
    return write_text, TEXT


def _form(kind: str, version: str) -> str:
    """Return our Content-Type for what is asked, or "" where we have none."""
    if kind == "application/openmetrics-text":
        version = version or _OPENMETRICS_VERSIONS[0]
        return _OPENMETRICS.format(version) if version in _OPENMETRICS_VERSIONS else ""
    return TEXT if kind in ("text/plain", "text/*", "*/*") else ""


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header permits gzip."""
    wanted = {kind: _quality(options) for kind, options in _read_choices(accept_encoding)}
    return wanted.get("gzip", wanted.get("*", 0.0)) > 0


def _read_choices(header: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the parts of a header as `kind; name=value; …`, in lower case."""
    for part in header.lower().split(","):
        kind, *options = part.split(";")
        pairs = (option.partition("=") for option in options)
        yield kind.strip(), {name.strip(): value.strip(' "') for name, _, value in pairs}


def _quality(options: dict[str, str]) -> float:
    try:
        quality = float(options.get("q", "1"))
    except ValueError:
        return 0.0
    return quality if 0 <= quality <= 1 else 0.0
