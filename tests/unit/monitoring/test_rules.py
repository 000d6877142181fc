"""What the rules refer to exists: metrics, records, reasons, pages; and each alert has the tests that it needs."""

import re
from pathlib import Path

import pytest

from fedward.errors import RejectReason
from tests.support.rules import CASES, PAGES, ROOT, alerts, cases, rules

CATALOGUE = ROOT / "docs" / "metrics.md"
README = ROOT / "monitoring" / "README.md"
ROW = re.compile(r"^\| `(fed_\w+)` \| \w+ \| ([\w, ]*) \|", re.MULTILINE)
METRIC = re.compile(r"(?<![\w:])(fed_\w+)\b(?:\{([^}]*)\})?")
LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
RECORD = re.compile(r"\b(?:fed|site):\w[\w:]*")
METRIC_NAME = re.compile(r"(?<![\w:])fed_\w+")
HEADINGS = ["## Meaning", "## Impact", "## Diagnosis", "## Mitigation"]
ALWAYS = "FedwardWatchdog"

NOT_COUNTED_AS_TROUBLE = {
    RejectReason.FINISHED,  # somebody was late
    RejectReason.QUARANTINED,  # FedwardSiteQuarantined says so
    RejectReason.NOT_OFFERED,  # a site's doctor, or chunks after their receipt
    RejectReason.TASK_NOT_ALLOWED,  # a hospital's word, counted there
}


def catalogue() -> dict[str, set[str]]:
    """The labels of every metric."""
    return {name: set(labels.split(", ")) for name, labels in ROW.findall(CATALOGUE.read_text())}


pages = pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
expressions = [rule["expr"] for rule in rules()]


def test_every_metric_of_a_rule_is_in_the_catalogue_with_its_labels() -> None:
    known = catalogue()
    used = [(name, set(LABEL.findall(labels))) for text in expressions for name, labels in METRIC.findall(text)]
    assert used
    assert not {name for name, _ in used} - set(known)
    assert not [(name, labels) for name, labels in used if not labels <= known[name]]


def test_every_record_that_a_rule_uses_is_made_and_every_record_has_a_use() -> None:
    made = {rule["record"] for rule in rules() if "record" in rule}
    used = {name for text in expressions for name in RECORD.findall(text)}
    assert made
    assert made == used


def test_every_reason_of_a_refusal_is_watched_by_one_alert_or_none_on_purpose() -> None:
    watched = [reason for text in expressions for names in re.findall(r'reason=~"([\w|]+)"', text)
               for reason in names.split("|")]  # fmt: skip
    assert len(watched) == len(set(watched))
    assert {*watched, *NOT_COUNTED_AS_TROUBLE} == set(RejectReason)
    assert not NOT_COUNTED_AS_TROUBLE & set(watched)


def test_every_alert_has_a_severity_a_summary_and_its_own_page() -> None:
    for name, alert in alerts().items():
        assert alert["labels"]["severity"] in {"critical", "warning", "info"}, name
        assert alert["annotations"]["summary"], name
        assert alert["annotations"]["runbook"] == f"docs/runbooks/{name}.md", name


def test_every_alert_has_a_page_and_every_page_an_alert() -> None:
    assert {page.stem for page in PAGES.glob("*.md")} == set(alerts())


@pages
def test_a_page_says_what_it_means_what_it_costs_how_to_look_and_what_to_do(page: Path) -> None:
    lines = page.read_text().splitlines()
    assert lines[0] == f"# {page.stem}"
    assert [line for line in lines if line.startswith("## ")] == HEADINGS
    sections = re.split(r"^## \w+$", page.read_text(), flags=re.MULTILINE)[1:]
    assert all(section.strip() for section in sections)


def test_the_runbook_lists_every_alert() -> None:
    listed = re.findall(r"\]\(runbooks/(\w+)\.md\)", (ROOT / "docs" / "runbook.md").read_text())
    assert sorted(listed) == sorted(alerts())


def test_the_readme_tells_every_record_and_names_alerts_that_there_are() -> None:
    text = README.read_text()
    told = {
        name for row in re.findall(r"^\| (`(?:fed|site):.*?) \|", text, re.MULTILINE) for name in RECORD.findall(row)
    }
    assert told == {rule["record"] for rule in rules() if "record" in rule}
    named = set(re.findall(r"Fedward[A-Z]\w+", text))
    assert ALWAYS in named
    assert named <= set(alerts())


@pages
def test_what_a_page_refers_to_by_its_name_exists(page: Path) -> None:
    text = " ".join(page.read_text().split())
    named = set(re.findall(r"Fedward[A-Z]\w+", text))
    assert named <= set(alerts())
    manuals = "\n".join((ROOT / "docs" / name).read_text() for name in ("runbook.md", "operations.md"))
    headings = set(re.findall(r"^## (.+)$", manuals, re.MULTILINE))
    assert set(re.findall(r'"([A-Z][a-z ][^"]+)"', text)) <= headings
    known = set(catalogue())
    assert {re.sub(r"_(sum|count|bucket)$", "", name) for name in METRIC_NAME.findall(text)} <= known


def test_every_alert_is_tested_to_fire_and_to_be_silent() -> None:
    asked = [case for path in CASES for case in cases(path)]
    fires = {case["alertname"] for case in asked if case["exp_alerts"]}
    silent = {case["alertname"] for case in asked if not case["exp_alerts"]}
    assert fires == set(alerts())
    assert silent == set(alerts()) - {ALWAYS}
