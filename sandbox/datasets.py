"""Public data sets cut into hospitals: each gets files of its own, and what it holds out is held out everywhere.

In shapes: C classes, S sites.
"""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_breast_cancer

from fedward.errors import ConfigError

HELD_OUT_SHARE = 0.25
LARGEST_TO_SMALLEST = 4.5
"""Ratio of the sites' sizes in the breast-cancer split: four sites hold about 45, 28, 17 and 10 % of the records."""

LABEL_TILT = (1.6, 0.6)
"""How much likelier a record of the positive class goes to an even or an odd site than the site's size says."""

DIRICHLET_ALPHA = 0.5
MIN_IMAGES = 500
MAX_DRAWS = 20_000
HEART_HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")

Indices = npt.NDArray[np.intp]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SiteData:
    """One hospital's records on disk: the task options that read them, and how many there are."""

    name: str
    options: dict[str, object]
    num_train: int
    num_held_out: int


@dataclass(frozen=True)
class Split(Sequence[SiteData]):
    """The hospitals, and `pooled`: task options whose held-out records are those of all sites together."""

    sites: tuple[SiteData, ...]
    pooled: dict[str, object]

    def __len__(self) -> int:
        return len(self.sites)

    @overload
    def __getitem__(self, index: int) -> SiteData: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[SiteData, ...]: ...

    def __getitem__(self, index: int | slice) -> SiteData | tuple[SiteData, ...]:
        return self.sites[index]


def split(task_name: str, num_sites: int, data_dir: Path | None, folder: Path, seed: int = 7) -> Split:
    """Write each hospital's files below `folder/<site>/` and the pooled held-out ones below `folder/pooled/`.

    The same arguments give the same files. Only breast-cancer needs no `data_dir`. Raises ConfigError for a task
    without a data set here, a number of sites that its data set can't be cut into, or data that are missing.
    """
    if task_name not in _SPLITS:
        raise ConfigError(f"no data set for task {task_name!r}; there is one for: {', '.join(sorted(_SPLITS))}")
    if not 2 <= num_sites <= 16:
        raise ConfigError(f"got {num_sites} sites, expected 2 to 16")
    return _SPLITS[task_name](num_sites, data_dir, folder.resolve(), np.random.default_rng(seed))


def _breast_cancer(num_sites: int, _: Path | None, folder: Path, rng: np.random.Generator) -> Split:
    """Unequal sizes, and a share of malignant records that alternates between high and low."""
    bunch = load_breast_cancer()
    malignant = 1 - bunch.target  # scikit-learn counts benign as 1
    header = [*(str(name).replace(" ", "_") for name in bunch.feature_names), "malignant"]
    rows = [[*map(repr, row.tolist()), str(label)] for row, label in zip(bunch.data, malignant, strict=True)]
    parts = _skewed(malignant, num_sites, rng)
    tables = {name: _Table(header, [rows[i] for i in part], malignant[part]) for name, part in _named(parts)}
    return _write_tables(tables, folder, rng)


def _heart_disease(num_sites: int, data_dir: Path | None, folder: Path, rng: np.random.Generator) -> Split:
    """The four hospitals as they are."""
    if num_sites != len(HEART_HOSPITALS):
        raise ConfigError(f"got {num_sites} sites, but heart-disease has exactly four: {', '.join(HEART_HOSPITALS)}")
    paths = {name: _existing(data_dir, f"heart-disease/{name}.csv") for name in HEART_HOSPITALS}
    return _write_tables({name: _read_table(path) for name, path in paths.items()}, folder, rng)


def _pneumonia(num_sites: int, data_dir: Path | None, folder: Path, rng: np.random.Generator) -> Split:
    """The official training split in Dirichlet shares of each class, the official test split in proportion to size.

    Every test image is held out by exactly one site, and all sites see the test split's own class balance. The
    official validation split is not used.
    """
    with np.load(_existing(data_dir, "pneumoniamnist.npz"), allow_pickle=False) as archive:
        images = {part: archive[f"{part}_images"] for part in ("train", "test")}
        labels = {part: archive[f"{part}_labels"].ravel().astype(np.int64) for part in ("train", "test")}
    train_parts = _dirichlet(labels["train"], num_sites, rng)
    sizes = np.array([len(part) for part in train_parts], np.float64)
    test_parts = _dealt(labels["test"], np.stack([sizes, sizes]), rng)

    sites = []
    for (name, train), held_out in zip(_named(train_parts), test_parts, strict=True):
        path = folder / name / "images.npz"
        _write_archive(path, images, labels, {"train": train, "test": held_out})
        sites.append(SiteData(name, {"images": str(path)}, len(train), len(held_out)))
    pooled = folder / "pooled" / "images.npz"
    _write_archive(pooled, images, labels, {"test": np.arange(len(labels["test"]))})
    return Split(tuple(sites), {"images": str(pooled)})


_SPLITS: Mapping[str, Callable[[int, Path | None, Path, np.random.Generator], Split]] = {
    "breast-cancer": _breast_cancer,
    "heart-disease": _heart_disease,
    "pneumonia": _pneumonia,
}


def site_name(index: int) -> str:
    """The name of a hospital that has none of its own."""
    return f"hospital-{'abcdefghijklmnop'[index]}"


def _named(parts: Sequence[Indices]) -> Iterator[tuple[str, Indices]]:
    for index, part in enumerate(parts):
        yield site_name(index), part


def _existing(data_dir: Path | None, name: str) -> Path:
    if data_dir is None or not (data_dir / name).is_file():
        where = "no data folder is set" if data_dir is None else f"{data_dir} lacks {name}"
        raise ConfigError(f"{where}; set FEDWARD_DATA or --data to the folder that holds {name}")
    return data_dir / name


# --- who gets which record


def _skewed(labels: Labels, num_sites: int, rng: np.random.Generator) -> list[Indices]:
    """Geometric sizes; the positive class tilted by site, the negative class fills up."""
    sizes = LARGEST_TO_SMALLEST ** -np.linspace(0, 1, num_sites)
    positive = sizes * np.resize(LABEL_TILT, num_sites)
    counts, positives = _counts(len(labels), sizes), _counts(int(labels.sum()), positive)
    return _dealt(labels, np.stack([counts - positives, positives]), rng)


def _dirichlet(labels: Labels, num_sites: int, rng: np.random.Generator) -> list[Indices]:
    """Each class in Dirichlet shares (Hsu et al. 2019, arXiv:1909.06335), drawn again until no site is too small."""
    classes = np.bincount(labels)
    for _ in range(MAX_DRAWS):
        shares = rng.dirichlet(np.full(num_sites, DIRICHLET_ALPHA), len(classes))
        if (classes @ shares).min() >= MIN_IMAGES + len(classes):  # + rounding, one image a class
            return _dealt(labels, shares, rng)
    raise ConfigError(
        f"got {num_sites} sites: found no split that leaves each at least {MIN_IMAGES} of {len(labels)} images; "
        "take fewer sites"
    )


def _dealt(labels: Labels, shares: npt.NDArray[np.float64], rng: np.random.Generator) -> list[Indices]:
    """Indices for each site, shuffled: of every class c all records, in proportion to row c of the (C, S) shares."""
    by_class = []
    for label, class_shares in enumerate(shares):
        members = rng.permutation(np.flatnonzero(labels == label))
        by_class.append(np.split(members, np.cumsum(_counts(len(members), class_shares))[:-1]))
    return [rng.permutation(np.concatenate(parts)) for parts in zip(*by_class, strict=True)]


def _counts(total: int, shares: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Whole numbers in proportion to the shares that add up to the total."""
    bounds = np.rint(total * np.cumsum(shares) / np.sum(shares)).astype(np.int64)
    return np.diff(bounds, prepend=0)


def _held_out(labels: Labels, rng: np.random.Generator) -> Indices:
    """HELD_OUT_SHARE of the records of each class, at least one of each."""
    chosen = [
        rng.permutation(members)[: max(1, round(HELD_OUT_SHARE * len(members)))]
        for members in (np.flatnonzero(labels == label) for label in (0, 1))
    ]
    return np.sort(np.concatenate(chosen))


# --- files


@dataclass(frozen=True)
class _Table:
    header: list[str]
    rows: list[list[str]]
    labels: Labels


def _read_table(path: Path) -> _Table:
    """A heart-disease file, cells as they are."""
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    positive = [float(row[header.index("target")]) > 0 for row in rows]
    return _Table(header, rows, np.array(positive, np.int64))


def _write_tables(tables: Mapping[str, _Table], folder: Path, rng: np.random.Generator) -> Split:
    sites, pooled_rows = [], []
    for name, table in tables.items():
        chosen = set(_held_out(table.labels, rng).tolist())
        train = [row for i, row in enumerate(table.rows) if i not in chosen]
        held_out = [row for i, row in enumerate(table.rows) if i in chosen]
        pooled_rows += held_out
        options: dict[str, object] = {
            "train": _write_csv(folder / name / "train.csv", table.header, train),
            "held_out": _write_csv(folder / name / "held_out.csv", table.header, held_out),
        }
        sites.append(SiteData(name, options, len(train), len(held_out)))
    header = next(iter(tables.values())).header
    return Split(tuple(sites), {"held_out": _write_csv(folder / "pooled" / "held_out.csv", header, pooled_rows)})


def _write_csv(path: Path, header: list[str], rows: list[list[str]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def _write_archive(
    path: Path, images: Mapping[str, npt.NDArray[np.uint8]], labels: Mapping[str, Labels], parts: Mapping[str, Indices]
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for part, chosen in parts.items():
        arrays[f"{part}_images"], arrays[f"{part}_labels"] = images[part][chosen], labels[part][chosen, None]
    np.savez(path, allow_pickle=False, **arrays)
