"""The documents against the code: names and paths that they mention exist."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from prometheus_client.core import Metric

from coordinator.metrics import SITE_COUNTERS, SITE_GAUGES
from coordinator.metrics import StateCollector as CoordinatorCollector
from edge_agent.metrics import COUNTERS, GAUGES
from edge_agent.metrics import StateCollector as AgentCollector

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [ROOT / "README.md", ROOT / "docker" / "README.md", ROOT / "monitoring" / "README.md", *ROOT.glob("docs/**/*.md")]
)
FOLDERS = "fedward|edge_agent|coordinator|sandbox|docker|tests|docs|benchmarks|examples|monitoring"
PATH = re.compile(rf"`((?:{FOLDERS})/[\w./-]+\.(?:py|md|yaml|svg|png))`")
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_every_test_that_a_document_names_exists() -> None:
    named = {found for document in DOCUMENTS for found in TEST.findall(document.read_text())}
    assert named
    assert not [f"{path}::{name}" for path, name in named if f"def {name}(" not in (ROOT / path).read_text()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_and_link_of_a_document_exists(document: Path) -> None:
    text = document.read_text()
    missing = [path for path in PATH.findall(text) if not (ROOT / path).exists()]
    missing += [link for link in LINK.findall(text) if not (document.parent / link).exists()]
    assert not missing


def test_the_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+)(?:[a-z ]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`?make ([a-z-]+)", (ROOT / "README.md").read_text()))
    assert named
    assert named <= targets


def documented_rows(families: Iterable[Metric]) -> set[str]:
    rows = set()
    for family in families:
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = ", ".join(sorted({label for sample in family.samples for label in sample.labels}))
        rows.add(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    return rows


def test_the_metrics_document_has_every_metric_with_its_labels_and_meaning() -> None:
    site = dict.fromkeys([*SITE_GAUGES, *SITE_COUNTERS], 1) | {"phase": "idle", "codec": "eden4"}
    federation = dict.fromkeys(
        [
            "version",
            "version_created_at_s",
            "buffer",
            "buffer_size",
            "connected",
            "bytes_sent",
            "bytes_received",
            "chunks_received",
            "chunks_redundant",
            "disk_free_bytes",
            "blobs_bytes",
            "ledger_bytes",
            "floor",
            "row_changed",
            "leads",
            "certificate_expires_s",
        ],
        1,
    )
    page = federation | {
        "broker_access": "unused",
        "refused": {"stale": 0},
        "metrics": {"auc": 1},
        "sites": {"a": site},
    }
    agent_page = dict.fromkeys([*GAUGES, *COUNTERS], 1) | {
        "phase": "idle",
        "codec": "eden4",
        "refused": {"stale": 0},
        "refused_by_policy": None,
        "failures": {"exception": 0},
    }
    expected = documented_rows(CoordinatorCollector(page).collect())
    expected |= documented_rows(AgentCollector(agent_page).collect())
    document = (ROOT / "docs" / "metrics.md").read_text().splitlines()
    assert {line for line in document if line.startswith("| `fed_")} == expected
