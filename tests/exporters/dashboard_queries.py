"""The queries of other exporters' public dashboards, from the lists in dashboards/*.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "dashboards"


@dataclass(frozen=True)
class Join:
    """A family that the query joins: on which labels, and which it takes from there."""

    family: str
    on: tuple[str, ...]
    take: tuple[str, ...]


@dataclass(frozen=True)
class Query:
    """One family that one panel or variable asks for; dcgm.toml says what the rest is."""

    name: str
    family: str
    match: tuple[str, ...] = ()
    shows: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    over: str = ""
    join: Join | None = None
    is_rate: bool = False
    needs: str = ""

    def expression(self) -> str:
        """Return PromQL that has data if the panel's has: the same series, labels and joins."""
        series = self._select(self.family)
        if self.is_rate:
            series = f"rate({series}[1m])"
        if self.over:
            series = f"{series} / {self._select(self.over)}"
        if self.join is None:
            return series
        on, take = self.join.on, self.join.take
        labels = ", ".join((*on, *take))
        return (
            f"({series}) * on ({', '.join(on)}) group_left ({', '.join(take)}) "
            f"max by ({labels}) ({self._select(self.join.family)})"
        )

    def shown(self) -> frozenset[str]:
        """Return the labels that a row of the answer must have."""
        return frozenset((*self.shows, *self.match, *(self.join.take if self.join else ())))

    def _select(self, family: str) -> str:
        selectors = ",".join(f'{label}=~".+"' for label in self.match)
        return f"{family}{{{selectors}}}"


def load_queries(exporter: str) -> list[Query]:
    """Return what the dashboards of one exporter ask for, family by family."""
    content = tomllib.loads((FOLDER / f"{exporter}.toml").read_text(encoding="utf-8"))
    return [
        query
        for dashboard in content["dashboards"]
        for listed in dashboard["queries"]
        for query in _read_queries(dashboard, listed)
    ]


# Any: TOML, which the tests that use it check.
def _read_queries(dashboard: dict[str, Any], listed: dict[str, Any]) -> Iterator[Query]:
    unknown = listed.keys() - {
        "panel", "variable", "names", "match", "shows", "groups", "over", "join", "rate",
        "needs",
    }  # fmt: skip
    assert not unknown, unknown
    title = listed.get("panel") or f"${listed['variable']}"
    join = listed.get("join", dashboard.get("join"))
    for family in listed["names"]:
        yield Query(
            name=f"{dashboard['id']}: {title}: {family}",
            family=family,
            match=_words(listed.get("match", dashboard.get("match", ()))),
            shows=_words(listed.get("shows", ())),
            groups=_words(listed.get("groups", ())),
            over=listed.get("over", ""),
            join=Join(join["with"], _words(join["on"]), _words(join["take"])) if join else None,
            is_rate=listed.get("rate", False),
            needs=listed.get("needs", ""),
        )


def _words(listed: Sequence[str]) -> tuple[str, ...]:
    return tuple(listed)
