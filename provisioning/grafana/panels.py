"""The pieces that every dashboard is made of. Knows no query of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATASOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")

# The grid of Grafana is 24 columns wide.
WIDTH = 24

GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"


@dataclass(frozen=True)
class Head:
    """What every panel has; `number` is its id, by which pages embed it."""

    number: int
    title: str
    description: str
    at: dashboard.GridPos


class _Panel(Protocol):
    """What the builders of all kinds of panels share; the SDK gives them no base for it."""

    def id(self, id_val: int, /) -> Self: ...
    def title(self, title: str, /) -> Self: ...
    def description(self, description: str, /) -> Self: ...
    def datasource(self, datasource: common.DataSourceRef, /) -> Self: ...
    def grid_pos(self, grid_pos: dashboard.GridPos, /) -> Self: ...


_Kind = TypeVar("_Kind", bound=_Panel)


def headed(panel: _Kind, head: Head) -> _Kind:
    """Return the panel with its head and the data source that the reader chose."""
    panel = panel.id(head.number).title(head.title).description(head.description)
    return panel.datasource(DATASOURCE).grid_pos(head.at)


def query(expr: str, legend: str = "", ref: str = "A") -> prometheus.Dataquery:
    """Return a query over the dashboard's time range."""
    return prometheus.Dataquery().expr(expr).legend_format(legend).ref_id(ref).range()


def query_now(expr: str, ref: str = "A") -> prometheus.Dataquery:
    """Return a query for this moment, as a table."""
    asked = prometheus.Dataquery().expr(expr).ref_id(ref).instant()
    return asked.format(PromQueryFormat.TABLE).legend_format("")


def thresholds(*steps: tuple[float | None, str]) -> builders.ThresholdsConfig:
    """Return absolute thresholds; the first step's value is None, for everything below."""
    return (
        builders.ThresholdsConfig()
        .mode(dashboard.ThresholdsMode.ABSOLUTE)
        .steps([dashboard.Threshold(value=value, color=color) for value, color in steps])
    )


def number(
    head: Head,
    expr: str,
    unit: str = "short",
    steps: tuple[tuple[float | None, str], ...] = ((None, BLUE),),
) -> stat.Panel:
    """Return one large number."""
    return (
        headed(stat.Panel(), head)
        .unit(unit)
        .with_target(query(expr))
        .thresholds(thresholds(*steps))
        .graph_mode(common.BigValueGraphMode.NONE)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
    )


def lines(
    head: Head,
    targets: list[prometheus.Dataquery],
    unit: str,
) -> timeseries.Panel:
    """Return curves over time, with a legend that sorts by the latest value."""
    panel = (
        headed(timeseries.Panel(), head)
        .unit(unit)
        .min(0)
        .fill_opacity(8)
        .legend(
            common_builders.VizLegendOptions()
            .show_legend(True)
            .display_mode(common.LegendDisplayMode.TABLE)
            .placement(common.LegendPlacement.RIGHT)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(
            common_builders.VizTooltipOptions()
            .mode(common.TooltipDisplayMode.MULTI)
            .sort(common.SortOrder.DESCENDING)
        )
    )
    for target in targets:
        panel = panel.with_target(target)
    # A share has a natural end; without it idle devices fill the whole panel.
    return panel.max(1) if unit == "percentunit" else panel


def states(
    head: Head,
    target: prometheus.Dataquery,
    names: dict[str, tuple[str, str]],
) -> statetimeline.Panel:
    """Return a bar for each series; `names` gives each value its word and colour."""
    mapping = dashboard.ValueMap(
        options={
            value: dashboard.ValueMappingResult(text=text, color=color, index=index)
            for index, (value, (text, color)) in enumerate(names.items())
        }
    )
    return (
        headed(statetimeline.Panel(), head)
        .unit("short")
        .with_target(target)
        .mappings([mapping])
        .show_value(common.VisibilityMode.NEVER)
        .row_height(0.8)
        .legend(
            common_builders.VizLegendOptions()
            .show_legend(True)
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
        )
    )


def rows(
    head: Head,
    targets: list[prometheus.Dataquery],
    columns: dict[str, str],
    hidden: list[str],
) -> table.Panel:
    """Return a table of this moment; `columns` maps field to heading, in their order."""
    panel = (
        headed(table.Panel(), head)
        .unit("short")
        .filterable(True)
        .with_transformation(dashboard.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            dashboard.DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": dict.fromkeys(hidden, True),
                    "indexByName": {field: i for i, field in enumerate(columns)},
                    "renameByName": columns,
                },
            )
        )
    )
    for target in targets:
        panel = panel.with_target(target)
    return panel


def column(
    unit: str | None = None, link: tuple[str, str] | None = None
) -> list[dashboard.DynamicConfigValue]:
    """Return what a table's column differs in: its unit, and a link (title, URL)."""
    found = []
    if unit is not None:
        found.append(dashboard.DynamicConfigValue(id_val="unit", value=unit))
    if link is not None:
        title, url = link
        value = [{"title": title, "url": url}]
        found.append(dashboard.DynamicConfigValue(id_val="links", value=value))
    return found


def variable(
    name: str, label: str, values: str, *, is_optional: bool = False
) -> builders.QueryVariable:
    """Return a variable with several values and "All"; `values` is label_values(…).

    `is_optional`: series may lack the label, and "All" means them too.
    """
    made = (
        builders.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .definition(values)
        .query({"qryType": 1, "query": values, "refId": "PrometheusVariableQueryEditor"})
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.NATURAL_ASC)
        .multi(True)
        .include_all(True)
        .current(dashboard.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )
    return made.all_value(".*") if is_optional else made
