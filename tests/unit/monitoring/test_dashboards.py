"""The dashboards as they are shipped: complete, on the grid, and made of what the catalogue of metrics has."""

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest

from monitoring.dashboards.__main__ import text_of
from monitoring.reading import Asked, Panel, chosen, defined, panels, selectors, variables
from monitoring.shown import FOLDER, NAMES, load

ROOT = Path(__file__).parents[3]
GRAFANAS_OWN = {"__rate_interval", "__range", "__url_time_range"}
CATALOGUE = re.compile(r"^\| `(fed_\w+)` \| (\w+) \| ([\w, ]*) \|", re.MULTILINE)
RECORD = re.compile(r"^\s*- record: ([\w:]+)", re.MULTILINE)
LABELS = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")
WINDOW = re.compile(r"\[([^\]]+)\]")
GROUPED = re.compile(r"\bby \(([^)]*)\)")
AGGREGATED = re.compile(r"\b(?:sum|max|min|avg|count)(?: by \([^)]*\))? ?\(")


def documented() -> dict[str, set[str]]:
    """Of each series that there may be, its labels; those of a histogram are three series each."""
    found: dict[str, set[str]] = {}
    for name, kind, labels in CATALOGUE.findall((ROOT / "docs" / "metrics.md").read_text()):
        own = {label for label in labels.split(", ") if label}
        for series in [name] if kind != "histogram" else [f"{name}_bucket", f"{name}_count", f"{name}_sum"]:
            found[series] = own | {"le"} if series.endswith("_bucket") else own
    return found


def records() -> set[str]:
    rules = (ROOT / "monitoring" / "rules").glob("*.rules.yml")
    return {name for path in rules for name in RECORD.findall(path.read_text())}


def shown(name: str) -> list[Panel]:
    """A dashboard's panels without its headings."""
    return [panel for panel in panels(load(name)) if panel.kind != "row"]


def asked(name: str) -> Iterator[tuple[str, Panel, Asked]]:
    """Every query of a dashboard, with the place where it stands."""
    for panel in shown(name):
        for one in panel.asked:
            yield f"{panel.title} / {one.ref}", panel, one


def test_every_file_is_as_its_program_writes_it_and_there_is_no_other() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(NAMES)
    assert [name for name in NAMES if (FOLDER / f"{name}.json").read_text() != text_of(name)] == []


def test_addresses_and_titles_stay_for_people_have_bookmarks() -> None:
    assert {load(name)["uid"]: load(name)["title"] for name in NAMES} == {
        "fedward-federation": "Fedward / Federation",
        "fedward-hospitals": "Fedward / Hospitals",
        "fedward-coordinator": "Fedward / Coordinator and broker",
        "fedward-egress": "Fedward / Egress",
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_panel_says_what_it_is_in_which_unit_and_asks_the_chosen_prometheus(name: str) -> None:
    titles = [panel.title for panel in shown(name)]
    assert len(set(titles)) == len(titles), "two panels of one title can't be told apart"
    for panel in shown(name):
        assert panel.json["description"].endswith((".", "?")), panel.title
        assert panel.json["fieldConfig"]["defaults"]["unit"], panel.title
        assert panel.asked, panel.title
        sources = [panel.json["datasource"], *(target["datasource"] for target in panel.json["targets"])]
        assert {(source["type"], source["uid"]) for source in sources} == {("prometheus", "${datasource}")}


@pytest.mark.parametrize("name", NAMES)
def test_panels_stand_on_the_grid_and_none_on_another(name: str) -> None:
    places = [panel.place for panel in panels(load(name))]
    assert all(x + width <= 24 for x, _, width, _ in places)
    for (x, y, width, height), (other_x, other_y, other_width, other_height) in combinations(places, 2):
        beside = x + width <= other_x or other_x + other_width <= x
        assert beside or y + height <= other_y or other_y + other_height <= y
    numbers = [panel.json["id"] for panel in panels(load(name))]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("name", NAMES)
def test_every_variable_is_defined_before_it_is_used(name: str) -> None:
    board = load(name)
    assert variables(json.dumps(board["panels"])) <= defined(board) | GRAFANAS_OWN
    known = {"datasource"}
    for one in chosen(board):
        assert variables(one.series) <= known
        known.add(one.name)
    assert defined(board) == known


def test_every_link_leads_to_a_dashboard_that_has_its_variables() -> None:
    boards = {board["uid"]: board for board in map(load, NAMES)}
    links = [link for name in NAMES for link in re.findall(r'"(/d/[^"]+)"', json.dumps(load(name)))]
    assert links
    for link in links:
        board = boards[link.removeprefix("/d/").split("?")[0]]
        passed = set(re.findall(r"var-(\w+)=", link)) | set(re.findall(r"\$\{(\w+):queryparam\}", link))
        assert passed <= defined(board)


@pytest.mark.parametrize("name", NAMES)
def test_every_series_and_label_of_a_query_is_in_the_catalogue(name: str) -> None:
    known, recorded = documented(), records()
    for place, _, one in asked(name):
        found = selectors(one.expr)
        assert ours(one.expr) <= {selector.partition("{")[0] for selector in found}, place
        for selector in found:
            series, _, labels = selector.partition("{")
            if series in {"up", "ALERTS"} | recorded or series.startswith("process_"):
                continue
            assert series in known, f"{place}: {series} is not in docs/metrics.md"
            assert set(LABELS.findall(labels)) <= known[series] | {"job"}, place


def ours(expr: str) -> set[str]:
    """Whatever looks like the name of one of our series, label values aside."""
    return set(re.findall(r"\b(?:fed|site|process)[_:]\w[\w:]*", re.sub(r'"[^"]*"', "", expr)))


@pytest.mark.parametrize("name", NAMES)
def test_a_chart_takes_its_windows_from_what_it_shows(name: str) -> None:
    for place, _, one in asked(name):
        windows = WINDOW.findall(one.expr)
        assert set(windows) <= ({"$__range", "5m", "1h"} if one.instant else {"$__rate_interval"}), place
        assert len(windows) == len(re.findall(r"\b(?:rate|increase)\(", one.expr)), place


@pytest.mark.parametrize("name", NAMES)
def test_no_chart_has_a_line_for_each_of_five_hundred_hospitals(name: str) -> None:
    for place, panel, one in asked(name):
        groups = {label.strip() for found in GROUPED.findall(one.expr) for label in found.split(",")}
        assert AGGREGATED.search(one.expr), f"{place}: a line for each process"
        if panel.kind != "table" and "site" in groups:
            assert re.match(r"(topk|bottomk)\(10, ", one.expr), place


def test_a_table_has_one_series_a_row_and_a_matrix_one_a_cell() -> None:
    columns = [one for name in NAMES for _, panel, one in asked(name) if panel.kind == "table"]
    assert columns
    for one in columns:
        assert {found.split(",")[0] for found in GROUPED.findall(one.expr)} == {"site"}, one.expr
