"""The documents against the code: names and paths that they mention exist."""

import re
from pathlib import Path

import pytest

from monitoring.catalogue import CATALOGUE, catalogue

ROOT = Path(__file__).parents[2]
FOLDERS_WITH_ONE = ("docker", "helm/coordinator", "monitoring")
DOCUMENTS = sorted(
    [ROOT / "README.md", *(ROOT / it / "README.md" for it in FOLDERS_WITH_ONE), *ROOT.glob("docs/**/*.md")]
)
FOLDERS = "fedward|edge_agent|coordinator|sandbox|docker|helm|tests|docs|benchmarks|examples|monitoring"
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


def test_the_metrics_document_is_made_of_the_code() -> None:
    assert CATALOGUE.read_text() == catalogue(), "`python -m monitoring.catalogue` makes it anew"


def test_every_metric_says_what_it_is() -> None:
    rows = [line for line in catalogue().splitlines() if line.startswith("| `fed_")]
    assert len(rows) > 70
    assert not [row for row in rows if len(row.split(" | ")[-1]) < 15 or not row.endswith(". |")]
