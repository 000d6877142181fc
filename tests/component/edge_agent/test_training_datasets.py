"""Public data sets cut into hospitals, on synthetic files in their format."""

import csv
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from edge_agent.training.task import load_task, num_records
from fedward.errors import ConfigError
from sandbox.datasets import HEART_HOSPITALS, MIN_IMAGES, SiteData, split

HEART_HEADER = "age,sex,cp,trestbps,chol,fbs,restecg,thalach,exang,oldpeak,slope,ca,thal,target"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "heart-disease").mkdir(parents=True)
    for name in HEART_HOSPITALS:
        rows = [f"{age},1,2,130,0,?,1,150,0,1.5,,?,3,{age % 3}" for age in range(30, 70)]
        (folder / "heart-disease" / f"{name}.csv").write_text("\n".join([HEART_HEADER, *rows]))
    rng = np.random.default_rng(1)
    arrays = {}
    for part, count in (("train", 2400), ("test", 200)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (count, 28, 28), np.uint8)
        arrays[f"{part}_labels"] = np.arange(count, dtype=np.uint8)[:, None] % 2
    np.savez(folder / "pneumoniamnist.npz", allow_pickle=False, **arrays)
    return folder


def rows_of(site: SiteData, option: str) -> list[str]:
    return Path(str(site.options[option])).read_text().splitlines()[1:]


@pytest.mark.parametrize("num_sites", [2, 4, 16])
def test_every_breast_cancer_record_lies_at_one_hospital_and_either_trains_or_is_held_out(
    num_sites: int, tmp_path: Path
) -> None:
    sites = split("breast-cancer", num_sites, None, tmp_path)
    parts = [rows_of(site, option) for site in sites for option in ("train", "held_out")]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 569
    assert [site.num_train for site in sites] == sorted((site.num_train for site in sites), reverse=True)
    assert all({row[-1] for row in part} == {"0", "1"} for part in parts), "a part lacks a class"


def test_breast_cancer_hospitals_differ_in_size_and_in_their_share_of_malignant_records(tmp_path: Path) -> None:
    sites = split("breast-cancer", 4, None, tmp_path)
    assert [site.name for site in sites] == ["hospital-a", "hospital-b", "hospital-c", "hospital-d"]
    sizes = np.array([site.num_train + site.num_held_out for site in sites])
    np.testing.assert_allclose(sizes / 569, [0.45, 0.28, 0.17, 0.10], atol=0.01)
    malignant = [np.mean([row[-1] == "1" for row in rows_of(site, "train")]) for site in sites]
    assert min(malignant[0], malignant[2]) > 2 * max(malignant[1], malignant[3])


@pytest.mark.parametrize(("name", "num_sites"), [("breast-cancer", 3), ("heart-disease", 4), ("pneumonia", 2)])
def test_every_site_reads_its_files_and_the_pooled_records_are_those_all_sites_hold_out(
    name: str, num_sites: int, data_dir: Path, tmp_path: Path
) -> None:
    sites = split(name, num_sites, data_dir, tmp_path / "sites")
    for site in sites:
        task = load_task(name, site.options)
        assert num_records(task.train_data()) == site.num_train
        assert num_records(task.held_out_data()) == site.num_held_out
    pooled = load_task(name, sites.pooled)
    assert num_records(pooled.held_out_data()) == sum(site.num_held_out for site in sites)


def test_the_same_seed_writes_the_same_files_and_another_one_does_not(tmp_path: Path) -> None:
    first, again, other = (
        split("breast-cancer", 4, None, tmp_path / folder, seed)
        for folder, seed in (("first", 7), ("again", 7), ("other", 8))
    )
    assert rows_of(first[0], "train") == rows_of(again[0], "train")
    assert rows_of(first[0], "train") != rows_of(other[0], "train")


def test_heart_disease_hospitals_keep_their_own_records_cell_for_cell(data_dir: Path, tmp_path: Path) -> None:
    sites = split("heart-disease", 4, data_dir, tmp_path / "sites")
    assert tuple(site.name for site in sites) == HEART_HOSPITALS
    original = (data_dir / "heart-disease" / "va.csv").read_text().splitlines()[1:]
    assert sorted(rows_of(sites[3], "train") + rows_of(sites[3], "held_out")) == sorted(original)
    assert sites[3].num_held_out == 10


def test_pneumonia_images_lie_at_one_hospital_each_and_none_is_too_small(data_dir: Path, tmp_path: Path) -> None:
    sites = split("pneumonia", 3, data_dir, tmp_path / "sites")
    held: dict[str, list[set[bytes]]] = {"train": [], "test": []}
    for site in sites:
        with np.load(str(site.options["images"]), allow_pickle=False) as archive:
            for part, seen in held.items():
                seen.append({image.tobytes() for image in archive[f"{part}_images"]})
            assert abs(archive["test_labels"].mean() - 0.5) < 0.05
    assert min(site.num_train for site in sites) >= MIN_IMAGES
    assert sum(map(len, held["train"])) == 2400
    assert sum(map(len, held["test"])) == 200
    assert not any(a & b for seen in held.values() for a, b in combinations(seen, 2))


@pytest.mark.parametrize(
    ("name", "num_sites", "problem"),
    [
        ("astrology", 4, "there is one for: breast-cancer, heart-disease, pneumonia"),
        ("breast-cancer", 17, "got 17 sites, expected 2 to 16"),
        ("heart-disease", 3, "exactly four"),
        ("pneumonia", 5, "take fewer sites"),
    ],
)
@pytest.mark.slow
def test_a_split_that_cannot_be_made_is_a_config_error(
    name: str, num_sites: int, problem: str, data_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=problem):
        split(name, num_sites, data_dir, tmp_path / "sites")


@pytest.mark.parametrize(("name", "num_sites"), [("heart-disease", 4), ("pneumonia", 2)])
def test_missing_data_say_what_to_set(name: str, num_sites: int, tmp_path: Path) -> None:
    for data_dir in (None, tmp_path):
        with pytest.raises(ConfigError, match="set FEDWARD_DATA or --data"):
            split(name, num_sites, data_dir, tmp_path / "sites")


def test_cells_of_a_written_table_are_what_scikit_learn_holds(tmp_path: Path) -> None:
    path = Path(str(split("breast-cancer", 2, None, tmp_path).pooled["held_out"]))
    header, first, *_ = csv.reader(path.read_text().splitlines())
    assert header[0] == "mean_radius"
    assert header[-1] == "malignant"
    assert 5 < float(first[0]) < 30
