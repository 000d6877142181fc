"""The announcement says how version 0 was made, where the model's file says so and it is the ledger's version 0."""

from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator.blobs import BlobFolder
from coordinator.engine.settings import EngineSettings
from coordinator.ledger import Ledger
from coordinator.making import Settings
from coordinator.versions import Versions
from fedward.errors import ConfigError
from fedward.layout import vector_digest
from fedward.messages import Initial
from fedward.modelfile import SEED_KEY, TASK_KEY, save_model
from tests.support.coordinator_bench import Bench
from tests.support.site import Site
from tests.support.updates import SMALL, inline, vector

Start = Callable[..., Bench]
VERSION_0 = vector(SMALL, 0, scale=1.0)
MADE = Initial(seed=11, model_digest=vector_digest(VERSION_0))


def write(folder: Path, **metadata: str) -> None:
    save_model(folder / "initial.safetensors", SMALL, VERSION_0, metadata)


def announced(start: Start, north: Site) -> Initial | None:
    """What a new process says."""
    bench = start()
    bench.settle()
    bench.kill()
    return north.announcements()[-1].initial


def test_the_seed_of_the_models_file_is_announced_with_the_digest_of_version_0(
    tmp_path: Path, start: Start, north: Site
) -> None:
    write(tmp_path, **{TASK_KEY: "tabular", SEED_KEY: "11"})
    assert announced(start, north) == MADE


def test_it_is_announced_with_later_versions_and_after_a_restart_too(
    tmp_path: Path, start: Start, north: Site, south: Site
) -> None:
    write(tmp_path, **{TASK_KEY: "tabular", SEED_KEY: "11"})
    bench = start()
    bench.settle()
    north.offer(inline(1, "north"))
    south.offer(inline(2, "south"))
    bench.settle()
    bench.kill()
    assert north.announcements()[-1].version == 1
    assert north.announcements()[-1].initial == MADE
    assert announced(start, north) == MADE


@pytest.mark.parametrize("metadata", [{}, {TASK_KEY: "tabular"}, {TASK_KEY: "another", SEED_KEY: "11"}])
def test_a_file_that_names_no_seed_or_another_task_leaves_it_out(
    tmp_path: Path, start: Start, north: Site, metadata: dict[str, str]
) -> None:
    write(tmp_path, **metadata)
    assert announced(start, north) is None


def test_a_ledger_that_began_with_another_model_leaves_it_out(ledger: Ledger, blobs: BlobFolder) -> None:
    """The operator may have written another file since."""
    first, again = (Versions(ledger, blobs, SMALL, Settings(EngineSettings(), "q8")) for _ in range(2))
    first.begin(VERSION_0, 0.0, 11)
    again.begin(vector(SMALL, 1), 1.0, 11)
    assert (first.initial, again.initial) == (MADE, None)


def test_a_seed_that_is_none_is_the_operators_mistake(tmp_path: Path, start: Start) -> None:
    write(tmp_path, **{TASK_KEY: "tabular", SEED_KEY: "a lot"})
    with pytest.raises(ConfigError, match="a lot"):
        start()
