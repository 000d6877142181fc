"""How a dashboard is read, and how its values are written, without Prometheus or Grafana."""

import pytest

from monitoring.reading import Chosen, Series, chosen, filled, panels, selectors, variables, without_fallback
from monitoring.tables import rows_of
from monitoring.written import number, written


def test_the_fallback_of_a_query_goes_and_nothing_else() -> None:
    assert without_fallback("count(up == 0) or vector(0)") == "count(up == 0)"
    assert without_fallback("(sum(a) or vector(0)) / sum(b or c)") == "(sum(a)) / sum(b or c)"


def test_every_series_of_a_query_is_found_with_its_labels_once() -> None:
    expr = (
        'sum by (site) (rate(fed_a_total{site="$site",kind=~"u|offer"}[5m])) / fed:b:ratio1h + fed_c'
        ' * count(ALERTS{alertstate="firing"}) - up - fed_c + process_open_fds{job="x"} + time()'
    )
    assert selectors(expr) == [
        'fed_a_total{site="$site",kind=~"u|offer"}',
        "fed:b:ratio1h",
        "fed_c",
        'ALERTS{alertstate="firing"}',
        "up",
        'process_open_fds{job="x"}',
    ]


def test_variables_are_filled_however_they_are_written_and_an_unknown_one_is_an_error() -> None:
    text = 'a{job="$job"}[$__range] ${site} ${job:queryparam} ${__data.fields.site}'
    assert variables(text) == {"job", "__range", "site"}
    values = {"job": "j", "__range": "5s", "site": "s"}
    assert filled(text, values) == 'a{job="j"}[5s] s j ${__data.fields.site}'
    with pytest.raises(KeyError, match="__range"):
        filled(text, {"job": "j"})


def test_the_panels_of_a_closed_row_count_and_variables_are_those_that_ask() -> None:
    inside = {"type": "stat", "title": "in", "targets": [{"refId": "A", "expr": "up", "instant": True}]}
    board = {
        "panels": [{"type": "row", "title": "closed", "panels": [inside]}],
        "templating": {
            "list": [
                {"type": "datasource", "name": "datasource", "query": "prometheus"},
                {"type": "query", "name": "site", "query": 'label_values(fed_a{job="$job",x!="y"}, site)'},
            ]
        },
    }
    assert [(panel.title, [one.expr for one in panel.asked]) for panel in panels(board)] == [
        ("closed", []),
        ("in", ["up"]),
    ]
    assert chosen(board) == [Chosen("site", 'fed_a{job="$job",x!="y"}', "site")]


def test_a_variable_of_another_form_is_an_error() -> None:
    board = {"templating": {"list": [{"type": "query", "name": "site", "query": "query_result(up)"}]}}
    with pytest.raises(ValueError, match="label_values"):
        chosen(board)


LOOKS = {
    "mappings": [
        {"type": "value", "options": {"0": {"text": "None", "color": "green"}, "idle": {"text": "Idle"}}},
        {"type": "range", "options": {"from": None, "to": -1, "result": {"text": "Lost", "color": "red"}}},
        {"type": "special", "options": {"match": "null+nan", "result": {"text": "Nothing", "color": "blue"}}},
    ],
    "thresholds": {"steps": [{"value": None, "color": "green"}, {"value": 5, "color": "red"}]},
    "unit": "s",
}


@pytest.mark.parametrize(
    ("value", "text", "colour"),
    [
        (0.0, "None", "green"),
        (-2.0, "Lost", "red"),
        (None, "Nothing", "blue"),
        ("idle", "Idle", None),
        (4.0, "4 s", "green"),
        (5.0, "5 s", "red"),
    ],
)
def test_a_word_goes_before_a_number_and_a_threshold_counts_from_its_value_on(
    value: float | str | None, text: str, colour: str | None
) -> None:
    assert written(value, LOOKS) == (text, colour)


def test_what_has_no_value_is_said_in_the_panels_words() -> None:
    assert written(None, {"noValue": "Never run"}) == ("Never run", None)
    assert written(None, {}) == ("No data", None)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.987, "percentunit", "98.7%"),
        (90.0, "s", "1.5 min"),
        (-0.0021, "s", "-2.1 ms"),
        (3 * 2**20, "bytes", "3 MiB"),
        (1.5e6, "Bps", "1.5 MB/s"),
        (0.0, "Bps", "0 B/s"),
        (12.0, "ops", "12 /s"),
        (2.0, "suffix: to spare", "2 to spare"),
        (123456.0, "none", "123456"),
        (0.4567, "none", "0.457"),
    ],
)
def test_a_number_has_its_unit_and_three_digits(value: float, unit: str, text: str) -> None:
    assert number(value, unit) == text


def series(value: float, **labels: str) -> Series:
    return Series(labels, (0.0,), (value,))


def test_answers_are_joined_to_one_row_a_hospital_and_arranged() -> None:
    panel = {
        "transformations": [
            {"id": "joinByField", "options": {"byField": "site", "mode": "outer"}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": {"Value #A": True, "Time": True},
                    "renameByName": {"site": "Hospital", "phase": "Phase", "Value #B": "Weight"},
                    "indexByName": {"Value #B": 2, "site": 0, "phase": 1},
                },
            },
        ]
    }
    answers = {
        "A": [series(1, site="b", phase="idle"), series(1, site="a", phase="full")],
        "B": [series(0.5, site="b")],
    }
    headings, rows = rows_of(panel, answers)
    assert headings == ["Hospital", "Phase", "Weight"]
    assert rows == [
        {"Hospital": "a", "Phase": "full", "Weight": None},
        {"Hospital": "b", "Phase": "idle", "Weight": 0.5},
    ]


def test_a_matrix_has_a_column_a_kind_and_zero_where_there_is_nothing() -> None:
    options = {"columnField": "kind", "rowField": "site", "valueField": "Value", "emptyValue": "zero"}
    naming = {"renameByName": {"site\\kind": "Hospital"}, "excludeByName": {}, "indexByName": {}}
    panel = {
        "transformations": [
            {"id": "groupingToMatrix", "options": options},
            {"id": "organize", "options": naming},
        ]
    }
    found = [series(2, site="b", kind="get"), series(3, site="a", kind="offer")]
    headings, rows = rows_of(panel, {"A": found})
    assert headings == ["Hospital", "get", "offer"]
    assert [list(row.values()) for row in rows] == [["a", 0.0, 3.0], ["b", 2.0, 0.0]]
