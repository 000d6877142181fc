"""The column map of a table: which columns a model reads, and how each becomes numbers.

It is a data dictionary that the hospitals agree on beforehand, so centers and scales are typical values of the
field and not statistics of anyone's records. Input size and hidden layers follow from the map alone, therefore
sites with the same map have the same layout. In YAML:

    label: {name: target, positive_above: 0}     # a record is positive if the column is above this
    features:
      age: {center: 54, scale: 9}                # (value - center) / scale
      chol: {center: 240, scale: 52, missing: ["?", "", 0]}
      cp: {categories: [1, 2, 3, 4]}             # one input for each
    hidden: [256, 128]                           # widths of the hidden layers
"""

from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt, ValidationError

from fedward.errors import ConfigError

SHIPPED = Path(__file__).parent

Value = bool | int | float | str


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Label(_Strict):
    """What to predict."""

    name: str
    positive_above: FiniteFloat


class Numeric(_Strict):
    """A number, brought to about zero mean and unit scale; a value in `missing` becomes 0 and is flagged."""

    center: FiniteFloat
    scale: FiniteFloat = Field(gt=0)
    missing: tuple[Value, ...] = ()

    @property
    def width(self) -> int:
        """Inputs of the model that this column fills."""
        return 1 + bool(self.missing)


class Categorical(_Strict):
    """One of a few values, one input for each; a value in `missing` becomes zeros and is flagged."""

    categories: tuple[Value, ...] = Field(min_length=2)
    missing: tuple[Value, ...] = ()

    @property
    def width(self) -> int:
        """Inputs of the model that this column fills."""
        return len(self.categories) + bool(self.missing)


class ColumnMap(_Strict):
    """A whole table. The order of the features is the order of the model's inputs."""

    label: Label
    features: dict[str, Numeric | Categorical] = Field(min_length=1)
    hidden: tuple[PositiveInt, ...]

    @property
    def num_inputs(self) -> int:
        return sum(feature.width for feature in self.features.values())


def shipped_names() -> Sequence[str]:
    """The maps that come with Fedward."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_column_map(columns: str | Path) -> ColumnMap:
    """A shipped map by its name, or any other by its path. Raises ConfigError with every problem in it."""
    path = SHIPPED / f"{columns}.yaml" if str(columns) in shipped_names() else Path(columns)
    try:
        return ColumnMap.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        shipped = ", ".join(shipped_names())
        raise ConfigError(f"option columns: no such file, and the shipped maps are: {shipped}") from error
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigError("option columns: the file is not YAML") from None  # it may be the records, by mistake
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
        raise ConfigError(f"option columns: {'; '.join(problems)}") from None
