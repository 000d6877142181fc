"""The looks of a dashboard: one way to make a tile, a chart, a timeline, a table. What they show is said elsewhere."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import TypeVar

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as boards
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
TAG = "fedward"
WIDTH = 24
"""Columns of Grafana's grid."""

GOOD, POOR, BAD, PLAIN = "green", "orange", "red", "blue"
"""What holds; PLAIN says neither good nor bad."""
SITE_LINK = (
    "/d/fedward-hospitals?var-site=${__value.text}&${datasource:queryparam}&${job:queryparam}&${__url_time_range}"
)
"""From the cell with its name to a hospital."""

Panel = stat.Panel | timeseries.Panel | statetimeline.Panel | table.Panel
AnyPanel = TypeVar("AnyPanel", stat.Panel, timeseries.Panel, statetimeline.Panel, table.Panel)
Words = Mapping[str, tuple[str, str]]
"""Of values, as text, the word and its colour."""


@dataclass(frozen=True)
class Query:
    """PromQL, and what its series are called: text in which `{{label}}` stands for a label's value."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table: a query with one series a row, its heading, and the unit of its values.

    `label` names the label that is shown in place of the value.
    """

    heading: str
    expr: str
    unit: str = "none"
    label: str = ""
    words: Words | None = None


def tile(title: str, description: str, unit: str, *queries: Query, width: int = 3) -> stat.Panel:
    """One value as it is now, in the colour of its state."""
    panel = _framed(stat.Panel(), title, description, (width, 4)).unit(unit)
    for target in _targets(queries, instant=True):
        panel = panel.with_target(target)
    reduced = common_builders.ReduceDataOptions().calcs(["lastNotNull"])
    return (
        panel.reduce_options(reduced)
        .color_mode(common.BigValueColorMode.BACKGROUND_SOLID)
        .graph_mode(common.BigValueGraphMode.NONE)
        .thresholds(steps(PLAIN))
    )


def chart(title: str, description: str, unit: str, *queries: Query, width: int = 8) -> timeseries.Panel:
    """Lines over time."""
    panel = _framed(timeseries.Panel(), title, description, (width, 8)).unit(unit)
    for target in _targets(queries, instant=False):
        panel = panel.with_target(target)
    legend = common_builders.VizLegendOptions().show_legend(True).placement(common.LegendPlacement.BOTTOM)
    many = common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
    return (
        panel.legend(legend.display_mode(common.LegendDisplayMode.LIST))
        .tooltip(many)
        .line_width(1)
        .fill_opacity(8)
        .show_points(common.VisibilityMode.NEVER)
        .axis_soft_min(0)
    )


def close_up(panel: timeseries.Panel) -> timeseries.Panel:
    """The same without the way down to 0: for what moves within a few per cent."""
    return panel.axis_soft_min(1)


def stacked(panel: timeseries.Panel) -> timeseries.Panel:
    """The same with each line above the one before, so that the upper edge is the sum."""
    stacking = common_builders.StackingConfig().mode(common.StackingMode.NORMAL)
    return panel.stacking(stacking).fill_opacity(40)


def timeline(title: str, description: str, named: Words, *queries: Query) -> statetimeline.Panel:
    """A bar over time whose colour says what holds."""
    panel = _framed(statetimeline.Panel(), title, description, (WIDTH, 5)).unit("none")
    for target in _targets(queries, instant=False):
        panel = panel.with_target(target)
    legend = common_builders.VizLegendOptions().show_legend(True).placement(common.LegendPlacement.BOTTOM)
    return (
        panel.mappings(words(named))
        .thresholds(steps(PLAIN))
        .merge_values(True)
        .show_value(common.VisibilityMode.AUTO)
        .legend(legend.display_mode(common.LegendDisplayMode.LIST))
    )


def table_of_sites(title: str, description: str, columns: Sequence[Column]) -> table.Panel:
    """A row a hospital; its name leads to it."""
    panel = _framed(table.Panel(), title, description, (WIDTH, 9)).unit("none").thresholds(steps(PLAIN))
    hidden, headings, order = {"Time": True}, {"site": "Hospital"}, {"site": 0}
    for number, column in enumerate(columns):
        ref = ascii_uppercase[number]
        panel = panel.with_target(_target(ref, Query(column.expr), instant=True).format(PromQueryFormat.TABLE))
        hidden[f"Time {number + 1}"] = True
        value, shown = f"Value #{ref}", column.label or f"Value #{ref}"
        if column.label:
            hidden[value] = True
        headings[shown], order[shown] = column.heading, number + 1
        panel = panel.override_by_name(column.heading, _looks_of(column))
    joined = models.DataTransformerConfig(id_val="joinByField", options={"byField": "site", "mode": "outer"})
    options = {"excludeByName": hidden, "renameByName": headings, "indexByName": order}
    arranged = models.DataTransformerConfig(id_val="organize", options=options)
    return panel.with_transformation(joined).with_transformation(arranged).override_by_name("Hospital", [site_link()])


def matrix_of_sites(title: str, description: str, unit: str, query: Query, label: str) -> table.Panel:
    """A row a hospital, a column a value of `label`; the name leads to the hospital."""
    panel = _framed(table.Panel(), title, description, (WIDTH, 9)).unit(unit).thresholds(steps(PLAIN))
    options = {"columnField": label, "rowField": "site", "valueField": "Value", "emptyValue": "zero"}
    matrix = models.DataTransformerConfig(id_val="groupingToMatrix", options=options)
    corner = {"excludeByName": {}, "renameByName": {f"site\\{label}": "Hospital"}, "indexByName": {}}
    named = models.DataTransformerConfig(id_val="organize", options=corner)
    panel = panel.with_target(_target("A", query, instant=True).format(PromQueryFormat.TABLE))
    return panel.with_transformation(matrix).with_transformation(named).override_by_name("Hospital", [site_link()])


def steps(lowest: str, *above: tuple[float, str]) -> boards.ThresholdsConfig:
    """Colours by value: `lowest` below the first of `above`, each of which holds from its value on."""
    all_steps = [models.Threshold(value=None, color=lowest)]
    all_steps += [models.Threshold(value=value, color=colour) for value, colour in above]
    return boards.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(all_steps)


def words(named: Words) -> list[models.ValueMap | models.RangeMap | models.RegexMap | models.SpecialValueMap]:
    """Values as words in colours."""
    options = {
        value: models.ValueMappingResult(text=text, color=colour, index=index)
        for index, (value, (text, colour)) in enumerate(named.items())
    }
    return [models.ValueMap(options=options)]


def below(limit: float, text: str, colour: str) -> models.RangeMap:
    """A word for every value up to the limit."""
    result = models.ValueMappingResult(text=text, color=colour, index=0)
    return models.RangeMap(options=models.DashboardRangeMapOptions(from_val=None, to=limit, result=result))


def undefined(text: str) -> models.SpecialValueMap:
    """A word for what has no value, as nothing divided by nothing."""
    result = models.ValueMappingResult(text=text, color=PLAIN, index=0)
    match = models.SpecialValueMatch.NULL_AND_NAN
    return models.SpecialValueMap(options=models.DashboardSpecialValueMapOptions(match=match, result=result))


def site_link() -> models.DynamicConfigValue:
    """What makes of a table's cell the way to its hospital."""
    return models.DynamicConfigValue(id_val="links", value=[{"title": "this hospital", "url": SITE_LINK}])


def board(uid: str, title: str, description: str, *variables: boards.QueryVariable) -> boards.Dashboard:
    """An empty dashboard of the house: which Prometheus, which coordinator, then what is asked for."""
    source = (
        boards.DatasourceVariable("datasource")
        .label("Prometheus")
        .type("prometheus")
        .current(models.VariableOption(text="default", value="default"))
    )
    found = (
        boards.Dashboard(f"Fedward / {title}")
        .uid(uid)
        .description(description)
        .tags([TAG])
        .time("now-6h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            boards.DashboardLink("Fedward")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(source)
    )
    for one in (variable("job", "Coordinator", "label_values(fed_coordinator_leads, job)"), *variables):
        found = found.with_variable(one)
    return found


def variable(name: str, label: str, query: str) -> boards.QueryVariable:
    """One value of what Prometheus knows, asked for when the dashboard opens."""
    return (
        boards.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )


Section = tuple[str, list[Panel]]
"""A heading and what stands below it."""


def filled(found: boards.Dashboard, sections: Iterable[Section]) -> boards.Dashboard:
    """The dashboard with these sections, one below the other."""
    for title, panels in sections:
        found = found.with_row(boards.Row(title))
        for panel in panels:
            found = found.with_panel(panel)
    return found


def numbered(named: Sequence[tuple[str, str]]) -> Words:
    """Words and colours for the numbers that `coded` gives."""
    return {str(number): one for number, one in enumerate(named)}


def coded(metric: str, label: str, values: Sequence[str], where: str = "") -> str:
    """Of a metric that is 1 for the value of `label` that holds: the number of that value, counted from 0."""
    more = f",{where}" if where else ""
    terms = [f'{metric}{{job="$job",{label}="{value}"{more}}} * {number}' for number, value in enumerate(values)]
    return f"sum({' or '.join(terms)})"


def _framed(panel: AnyPanel, title: str, description: str, size: tuple[int, int]) -> AnyPanel:
    width, height = size
    position = models.GridPos(w=width, h=height)
    return panel.title(title).description(description).datasource(DATASOURCE).grid_pos(position)


def _targets(queries: Sequence[Query], *, instant: bool) -> list[prometheus.Dataquery]:
    return [_target(ref, query, instant=instant) for ref, query in zip(ascii_uppercase, queries, strict=False)]


def _target(ref: str, query: Query, *, instant: bool) -> prometheus.Dataquery:
    target = prometheus.Dataquery().ref_id(ref).datasource(DATASOURCE).expr(query.expr).legend_format(query.legend)
    return target.instant() if instant else target.range()


def _looks_of(column: Column) -> list[models.DynamicConfigValue]:
    looks = [models.DynamicConfigValue(id_val="unit", value=column.unit)]
    if column.words:
        looks += [
            models.DynamicConfigValue(id_val="mappings", value=words(column.words)),
            models.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-background"}),
        ]
    return looks
