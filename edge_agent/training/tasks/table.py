"""A table of records on disk -> the model's inputs and labels, as its column map says.

In shapes: N records, F inputs of the model, C categories.
"""

import csv
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from edge_agent.training.tasks.columns import Categorical, ColumnMap, Numeric, Value
from fedward.errors import ConfigError

Floats = npt.NDArray[np.float32]
Texts = npt.NDArray[np.str_]


def read_table(path: Path, columns: ColumnMap, option: str) -> tuple[Floats, Floats]:
    """A CSV or Parquet file -> inputs (N, F) and labels (N,) in {0, 1}, both float32.

    Raises ConfigError that names the option, the columns and how many cells are wrong, never a cell.
    """
    texts = _read_texts(path, [columns.label.name, *columns.features], option)
    problems: list[str] = []
    labels = _numbers(texts[columns.label.name], columns.label.name, problems)
    blocks = [_encode(texts[name], feature, name, problems) for name, feature in columns.features.items()]
    if problems:
        raise ConfigError(f"option {option}: {'; '.join(problems)}")
    return np.concatenate(blocks, axis=1, dtype=np.float32), (labels > columns.label.positive_above).astype(np.float32)


def canonical(value: Value) -> str:
    """One text for every way to write a value: 1, 1.0, "1" and " 1.00" are the same; so are true and "True"."""
    text = str(value).strip()
    if text.lower() in {"true", "false"}:
        return text.lower()
    number = _number(text)
    return text if math.isnan(number) else repr(number + 0.0)  # + 0.0: minus zero is zero


def _read_texts(path: Path, names: list[str], option: str) -> dict[str, Texts]:
    """Column name -> (N,) cells in their canonical text; a null is ""."""
    try:
        table = _open(path)
    # "from None": the libraries' texts quote paths and rows, and a printed traceback would show them.
    except OSError:
        raise ConfigError(f"option {option}: the file can't be opened") from None
    except (pa.ArrowInvalid, UnicodeDecodeError):
        raise ConfigError(f"option {option}: expected a CSV with a header, or a .parquet file") from None
    if lacking := sorted(set(names) - set(table.column_names)):
        raise ConfigError(f"option {option}: lacks the columns {', '.join(lacking)}")
    return {name: _canonical_column(table[name]) for name in names}


def _open(path: Path) -> pa.Table:
    if path.suffix == ".parquet":
        return pa.parquet.read_table(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file), [])
    # Cells are read as text: what means "missing" is the column map's to say, not the CSV reader's.
    as_text = pa.csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False)
    return pa.csv.read_csv(path, convert_options=as_text)


def _canonical_column(column: pa.ChunkedArray) -> Texts:
    cells = pa.compute.fill_null(column.cast(pa.string()), "")
    distinct, index = np.unique(cells.to_numpy().astype(np.str_), return_inverse=True)
    return np.array([canonical(text) for text in distinct.tolist()], np.str_)[index]


def _encode(cells: Texts, feature: Numeric | Categorical, name: str, problems: list[str]) -> Floats:
    """(N,) cells -> (N, width) inputs."""
    missing = np.isin(cells, [canonical(value) for value in feature.missing])
    if isinstance(feature, Categorical):
        encoded: npt.NDArray[np.generic] = _one_hot(cells, feature, missing, name, problems)
    else:
        values = _numbers(np.where(missing, repr(feature.center), cells), name, problems)
        encoded = ((values - feature.center) / feature.scale)[:, None]
    flag = [missing[:, None]] if feature.missing else []
    return np.concatenate([encoded, *flag], axis=1, dtype=np.float32)


def _one_hot(
    cells: Texts, feature: Categorical, missing: npt.NDArray[np.bool_], name: str, problems: list[str]
) -> npt.NDArray[np.bool_]:
    known = np.array([canonical(value) for value in feature.categories])
    hot: npt.NDArray[np.bool_] = (cells[:, None] == known) & ~missing[:, None]
    if wrong := int(np.count_nonzero(~hot.any(axis=1) & ~missing)):
        problems.append(f"column {name}: {wrong} cells are neither one of its categories nor declared missing")
    return hot


def _numbers(cells: Texts, name: str, problems: list[str]) -> npt.NDArray[np.float64]:
    values = np.array([_number(text) for text in cells.tolist()], np.float64)
    if wrong := int(np.count_nonzero(np.isnan(values))):
        problems.append(f"column {name}: {wrong} cells are neither numbers nor declared missing")
    return values


def _number(text: str) -> float:
    """The finite number that a text writes, else NaN."""
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan
