"""What a task digest covers: the source of the task, its package's release, its model's layout."""

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from edge_agent.training.task import Installed, installed, source_digest
from fedward.errors import ConfigError
from fedward.layout import Layout, Tensor

LAYOUT = Layout.of([Tensor("weight", (3,))])
PACKAGED = EntryPoint("sepsis", "sepsis_task.learning.model:Sepsis", "fedward.tasks")
ALONE = EntryPoint("sepsis", "sepsis_alone:Sepsis", "fedward.tasks")


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two tasks, one in a package of packages, one a module of its own; with what lies beside them."""
    folder = tmp_path / "sepsis_task" / "learning"
    folder.mkdir(parents=True)
    for name in ("../__init__.py", "__init__.py", "model.py", "columns.yaml", "notes.txt"):
        (folder / name).write_text("")
    for name in ("sepsis_alone.py", "neighbour.py"):
        (tmp_path / name).write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("sepsis_task", "sepsis_task.learning"):  # imported to find what is in them
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("entry_point", "file", "is_part"),
    [
        (PACKAGED, "sepsis_task/learning/model.py", True),
        (PACKAGED, "sepsis_task/learning/__init__.py", True),
        (PACKAGED, "sepsis_task/learning/columns.yaml", True),
        (PACKAGED, "sepsis_task/learning/another.py", True),
        (PACKAGED, "sepsis_task/learning/notes.txt", False),
        (PACKAGED, "sepsis_task/__init__.py", False),
        (ALONE, "sepsis_alone.py", True),
        (ALONE, "neighbour.py", False),
    ],
)
def test_the_source_is_what_lies_with_the_tasks_module(
    packages: Path, entry_point: EntryPoint, file: str, is_part: bool
) -> None:
    before = source_digest(entry_point)
    assert source_digest(entry_point) == before
    (packages / file).write_text("changed = True\n")
    assert (source_digest(entry_point) != before) is is_part


def test_another_class_of_the_same_module_is_another_source(packages: Path) -> None:
    other = EntryPoint("sepsis", "sepsis_alone:Other", "fedward.tasks")
    assert source_digest(other) != source_digest(ALONE)


def test_a_module_that_is_no_file_can_not_be_digested() -> None:
    with pytest.raises(ConfigError, match="not there to be digested"):
        source_digest(EntryPoint("x", "sys:exit", "fedward.tasks"))


def test_another_source_release_or_layout_is_another_task() -> None:
    task = Installed("sepsis 1.0", "1" * 64)
    others = [Installed("sepsis 1.1", "1" * 64), Installed("sepsis 1.0", "2" * 64)]
    digests = {task.task_digest(LAYOUT), *(other.task_digest(LAYOUT) for other in others)}
    digests.add(task.task_digest(Layout.of([Tensor("weight", (4,))])))
    assert len(digests) == 4
    assert {len(digest) for digest in digests} == {64}


def test_an_installed_task_names_its_package_and_its_source() -> None:
    found = installed("breast-cancer")
    assert found.release.startswith("fedward ")
    assert found.source_digest != installed("heart-disease").source_digest
