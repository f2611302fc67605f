"""The page for people: how each collector and each target fares. Collects nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from html import escape

from .outcome import Outcome
from .probed import LastProbe
from .runner import LastResult

# No script, and nothing from elsewhere: a node may have no way to the internet.
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --link: #0b6bcb;
  --good: #1a7f37; --bad: #cf222e; --quiet: #6e7781 }
@media (prefers-color-scheme: dark) {
  :root { --link: #6cb6ff; --good: #57ab5a; --bad: #f47067; --quiet: #909dab } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
header p, .quiet { color: var(--quiet); margin: 0 }
a { color: var(--link) }
ul { list-style: none; padding: 0 } li { margin: .4rem 0 }
li a, li label { display: inline-block; min-width: 6rem; font-family: ui-monospace, monospace }
.table { overflow-x: auto }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .4rem 1.2rem .4rem 0; white-space: nowrap }
th { font-weight: 600; border-bottom: 2px solid var(--line) }
tbody { border-bottom: 1px solid var(--line) }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
.state { font-weight: 600 } .ok { color: var(--good) } .failed { color: var(--bad) }
.reason td { white-space: normal; overflow-wrap: anywhere; padding: 0 0 .6rem }
.reason code { background: var(--soft); display: block; padding: .4rem .6rem;
  border-radius: .3rem; font-size: .875rem }
input, button { font: inherit; padding: .2rem .5rem }
"""
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>sentinel-exporter on {host}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{host}</h1><p>sentinel-exporter {version}</p></header>
<h2>Pages</h2>
<ul>
<li><a href="metrics">metrics</a> <span class="quiet">what Prometheus scrapes</span></li>
{probes}<li><a href="healthz">healthz</a>
<span class="quiet">answers while the exporter serves</span></li>
</ul>
{collectors}{probed}</body>
</html>
"""
_PROBE = """<li><form action="{name}"><label for="{name}-target">{name}</label>
<input id="{name}-target" name="target" placeholder="target" required>
<input name="module" placeholder="module" value="default" aria-label="module">
<button>Ask</button></form></li>
"""
_COLLECTORS = """<h2>Collectors</h2>
<div class="table"><table>
<thead><tr><th>collector</th><th>last result</th><th class="number">series</th>
<th class="number">took</th><th class="number">age of the data</th>
<th>last success</th><th>is read</th></tr></thead>
{rows}</table></div>
"""
_TARGETS = """<h2>Targets</h2>
<p class="quiet">{count} in the last hour, {failed} failed{left_out}</p>
<div class="table"><table>
<thead><tr><th>probe</th><th>target</th><th>module</th><th>last result</th>
<th class="number">series</th><th class="number">took</th>
<th class="number">asked</th></tr></thead>
{rows}</table></div>
"""
# So many rows a browser can show.
_MAX_TARGETS = 1000


def write_page(
    version: str,
    host: str,
    results: Iterable[LastResult],
    probes: Iterable[str],
    targets: Sequence[LastProbe],
) -> bytes:
    """Return the page; `probes` are the names of those that ask other machines.

    The first of the `targets` are shown.
    """
    rows = "".join(_row(result) for result in results)
    return _PAGE.format(
        style=_STYLE,
        host=escape(host),
        version=escape(version),
        probes="".join(_PROBE.format(name=escape(name)) for name in probes),
        collectors=_COLLECTORS.format(rows=rows) if rows else "",
        probed=_targets(targets) if targets else "",
    ).encode()


def _row(result: LastResult) -> str:
    how = f"every {result.interval_s:g} s" if result.interval_s else "at each scrape"
    outcome = result.outcome
    if outcome is None or outcome.is_absent:
        state = "not read yet" if outcome is None else "not on this machine"
        cells = _cell(state, "state quiet") + _cell("", "number") * 3 + _cell("")
        reason = ""
    else:
        cells, reason = _cells(outcome, result.seen_s), outcome.reason
    return _body(_cell(result.collector) + cells + _cell(how), reason)


def _targets(targets: Sequence[LastProbe]) -> str:
    shown = targets[:_MAX_TARGETS]
    left_out = len(targets) - len(shown)
    return _TARGETS.format(
        count=len(targets),
        failed=sum(bool(one.reason) for one in targets),
        left_out=f"; {left_out} more are not shown" if left_out else "",
        rows="".join(_target_row(one) for one in shown),
    )


def _target_row(last: LastProbe) -> str:
    state = "failed" if last.reason else "ok"
    cells = (
        "".join(_cell(word) for word in last.asked)
        + _cell(state, f"state {state}")
        + _cell(f"{last.series}", "number")
        + _cell(_say_duration(last.duration_s), "number")
        + _cell(f"{_say_duration(last.ago_s)} ago", "number")
    )
    return _body(cells, last.reason)


def _body(cells: str, reason: str) -> str:
    """Return a row of seven cells, and one below it for the reason if there is one."""
    row = f"<tr>{cells}</tr>\n"
    if reason:
        row += f'<tr class="reason"><td colspan="7"><code>{escape(reason)}</code></td></tr>\n'
    return f"<tbody>{row}</tbody>\n"


def _cells(outcome: Outcome, seen_s: float) -> str:
    state = "ok" if outcome.is_success else "failed"
    age = "" if outcome.age_s is None else _say_duration(outcome.age_s + seen_s)
    last = "never" if outcome.last_success is None else _say_time(outcome.last_success)
    return (
        _cell(state, f"state {state}")
        + _cell(f"{len(outcome.samples)}", "number")
        + _cell(_say_duration(outcome.duration_s), "number")
        + _cell(age, "number")
        + _cell(last)
    )


def _cell(text: str, kind: str = "") -> str:
    return f'<td class="{kind}">{escape(text)}</td>' if kind else f"<td>{escape(text)}</td>"


def _say_duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


def _say_time(unix: float) -> str:
    # In UTC, which the log of another machine can be compared with.
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(unix))
