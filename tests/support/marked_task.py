"""A hospital's own task over a table that has markers wherever there is room for one; it fails when it is told to.

The markers stand in the hospital's files only. The package that offers the task knows none.
"""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import yaml
from torch import Tensor, nn

from edge_agent.training.task import Batch
from edge_agent.training.tasks.tabular import TabularTask
from tests.support.needles import Needles, number_needles, row_needles, text_needles

TASK = "marked"
NUM_RECORDS = 60
HURT_AT = 3
"""Every so many steps, when it is told to: in the middle of a training."""

FOLDER, FILE, POLICY = "mrkFolderVq83Zt", "mrkFileKw52Hd", "mrkPolicyRj49Xs"
LABEL, FEATURE, OTHER, CATEGORICAL, UNUSED = (
    "mrkLabelPx71Gn",
    "mrkColumnQX7Lb2",
    "mrkColumnBt36Fy",
    "mrkColumnNc90We",
    "mrkColumnDm15Uz",
)
CATEGORIES = ("mrkValueHs68Ka", "mrkValueTy27Pv")
NOTE, CELL, EXCEPTION = "mrkNoteLf43Qo", "mrkCellZg84Ri", "mrkExceptionMb59Je"
PERSON, CLINIC = "mrkPersonSd57Ow", "mrk-clinic-nv38ek"
"""In a policy: who decided, in a comment, and a federation that it allows."""
POSITIVE, VALUE, NEXT_VALUE, PATIENT = 73.645191283, 0.7364519283, -0.4182736455, 739182645091827

OF_RECORDS: Needles = {
    **{form: needle for text in (*CATEGORIES, NOTE, CELL, EXCEPTION) for form, needle in text_needles(text).items()},
    **{form: needle for value in (POSITIVE, VALUE, NEXT_VALUE) for form, needle in number_needles(value).items()},
    **number_needles(PATIENT),
    **row_needles(VALUE, NEXT_VALUE),
}
"""What is of a record, or may quote one: no process says it to anybody."""

OF_NAMES: Needles = {
    form: needle
    for text in (FOLDER, FILE, POLICY, PERSON, CLINIC, LABEL, FEATURE, OTHER, CATEGORICAL, UNUSED)
    for form, needle in text_needles(text).items()
}
"""What the hospital calls things: for its own people only."""

MARKERS: Needles = {**OF_RECORDS, **OF_NAMES}


class MarkedTask(TabularTask):
    """The tabular task, but it raises, with the text of the file `hurt`, while there is one."""

    def __init__(self, columns: str, train: str | None = None, hurt: str | None = None) -> None:
        super().__init__(columns, train)
        self._hurt = Path(hurt) if hurt else None
        self._num_steps = 0

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        self._num_steps += 1
        if self._hurt and self._hurt.exists() and self._num_steps % HURT_AT == 0:
            raise ValueError(self._hurt.read_text()) from KeyError(EXCEPTION)
        return super().loss(model, batch)


@dataclass(frozen=True)
class MarkedFiles:
    """A hospital's files below `folder`."""

    folder: Path

    @property
    def table(self) -> Path:
        return self.folder / FOLDER / f"{FILE}.csv"

    @property
    def columns(self) -> Path:
        return self.folder / FOLDER / f"{FILE}.yaml"

    @property
    def policy(self) -> Path:
        return self.folder / FOLDER / f"{FILE}.policy.yaml"

    @property
    def hurt(self) -> Path:
        """There while the task is to fail."""
        return self.folder / FOLDER / f"{FILE}.hurt"

    @property
    def options(self) -> dict[str, object]:
        return {"columns": str(self.columns), "train": str(self.table), "hurt": str(self.hurt)}

    def write(self, seed: int) -> None:
        """Column map and records."""
        self.table.parent.mkdir(parents=True)
        self.columns.write_text(yaml.safe_dump(_column_map(), sort_keys=False))  # their order is that of a row
        draw = Random(seed)
        self.write_table([_record(draw, index) for index in range(NUM_RECORDS)])

    def write_table(self, records: Iterable[Mapping[str, object]]) -> None:
        with self.table.open("w", newline="") as file:
            writer = csv.DictWriter(file, [FEATURE, OTHER, CATEGORICAL, UNUSED, "patient", LABEL])
            writer.writeheader()
            writer.writerows(records)

    def refuse(self) -> None:
        """A policy as a hospital writes it: it allows others, and says who wants that."""
        self.policy.write_text(f"# {PERSON} wants it so\nfederations: [{CLINIC}]  # not {PERSON}'s\n")

    def allow(self) -> None:
        """A policy that says nothing but that nobody is asked."""
        self.policy.write_text(f"# {PERSON} is on holiday\napproval: automatic\n")

    def spoil(self) -> None:
        """A cell that is no number, and a value of no category."""
        good = _record(Random(0), 0)
        self.write_table([{**good, FEATURE: CELL}, {**good, CATEGORICAL: CELL}, good])


def install(folder: Path, name: str = TASK, task: str = f"{__name__}:{MarkedTask.__name__}") -> Path:
    """The package that offers a task, as pip would leave it."""
    metadata = folder / f"fedward_{name}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: fedward-{name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[fedward.tasks]\n{name} = {task}\n")
    return folder


def _column_map() -> dict[str, Any]:
    number = {"center": 0.0, "scale": 1.0}  # a record's value is the model's input, bit for bit
    return {
        "label": {"name": LABEL, "positive_above": 1.0},
        "features": {FEATURE: number, OTHER: number, CATEGORICAL: {"categories": list(CATEGORIES)}},
        "hidden": [8],
    }


def _record(draw: Random, index: int) -> dict[str, object]:
    marked = index % 2 == 0
    return {
        FEATURE: VALUE if marked else draw.gauss(0, 1),
        OTHER: NEXT_VALUE if marked else draw.gauss(0, 1),
        CATEGORICAL: draw.choice(CATEGORIES),
        UNUSED: NOTE,
        "patient": PATIENT,
        LABEL: draw.choice((0.0, POSITIVE)),
    }
