"""The versions made again from the ledger, and what is found when something was changed."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from coordinator.blobs import BlobFolder
from coordinator.chain import Mark
from coordinator.engine.settings import PRESETS, EngineSettings
from coordinator.ledger import Ledger
from coordinator.making import Settings, Store
from coordinator.replay import check_ledger, replay, snapshot_of_ledger
from coordinator.versions import Versions
from fedward.cli import EXIT_CONFIG, EXIT_INTEGRITY, main
from fedward.codec import codec
from fedward.errors import ConfigError, IntegrityError
from fedward.identity.names import update_seed
from fedward.layout import vector_digest
from fedward.messages import Part, PartKind
from tests.support.coordinator_bench import at
from tests.support.updates import SITES, SMALL, offer_of, update_id, vector


def run(ledger: Ledger, blobs: BlobFolder, versions: Versions, count: int, codec_name: str = "f32") -> None:
    """Make this many versions, each of an update of both sites, from bases up to two versions old."""
    for _ in range(count):
        current = versions.current.version
        for number, site in enumerate(SITES):
            seed, base_version = 1 + 2 * current + number, max(0, current - 2 * number)
            rotation = update_seed(codec(codec_name), base_version, update_id(seed, site, base_version))
            content = codec(codec_name).encode(vector(SMALL, seed), SMALL, rotation)
            blobs.put(content)
            offer = offer_of(content, seed, site, base_version, codec=codec_name)
            ledger.add_update(offer, site, at(float(seed)), 1.0, None)
        versions.make(ledger.buffered(), [1.25, 1 / 3], now_s=100.0 + current)


def begun(ledger: Ledger, blobs: BlobFolder, engine: EngineSettings, model_codec: str) -> Versions:
    versions = Versions(ledger, blobs, SMALL, Settings(engine, model_codec))
    versions.begin(vector(SMALL, seed=0, scale=1.0), now_s=1.0)
    return versions


@pytest.fixture
def store(ledger: Ledger, blobs: BlobFolder) -> Store:
    """Six versions, with snapshots among them."""
    run(ledger, blobs, begun(ledger, blobs, EngineSettings(), "q8"), 6)
    return Store(ledger, blobs, SMALL)


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize(("up", "down"), [("eden4", "uqz"), ("eden4", "q8"), ("f32", "f32"), ("f32", "f32z")])
def test_every_method_comes_out_as_it_is_recorded(
    ledger: Ledger, blobs: BlobFolder, preset: str, up: str, down: str
) -> None:
    run(ledger, blobs, begun(ledger, blobs, EngineSettings.model_validate({"preset": preset}), down), 5, up)
    done = list(replay(Store(ledger, blobs, SMALL), 0))
    assert [(one.version, one.num_updates) for one in done] == [(0, 0), *((version, 2) for version in range(1, 6))]
    assert [one.model_digest for one in done] == [row.model_digest for row in ledger.versions()]


def test_each_version_is_made_with_the_settings_that_it_records(ledger: Ledger, blobs: BlobFolder) -> None:
    for server_lr, down in ((0.1, "q8"), (0.01, "f32"), (0.5, "q8")):
        engine = EngineSettings.model_validate({"optimizer": {"name": "adam", "server_lr": server_lr}})
        run(ledger, blobs, begun(ledger, blobs, engine, down), 2)
    assert len(list(replay(Store(ledger, blobs, SMALL), 0))) == 7


def test_from_a_version_on_only_the_later_ones_are_compared(store: Store) -> None:
    assert [one.version for one in replay(store, 4)] == [4, 5, 6]


def test_from_a_version_after_a_stored_state_the_earlier_updates_are_not_needed(
    ledger: Ledger, blobs: BlobFolder
) -> None:
    run(ledger, blobs, begun(ledger, blobs, EngineSettings(), "f32"), 4)
    blobs.drop(ledger.updates_of(1)[0].digest)
    assert [one.version for one in replay(Store(ledger, blobs, SMALL), 3)] == [3, 4]
    with pytest.raises(IntegrityError, match="version 1: update 1 of north"):
        list(replay(Store(ledger, blobs, SMALL), 0))


@pytest.mark.parametrize("version", [-1, 7])
def test_a_version_that_was_never_made_cannot_be_begun_from(store: Store, version: int) -> None:
    with pytest.raises(ConfigError, match="the newest version is 6"):
        list(replay(store, version))


def test_a_missing_update_is_named(store: Store) -> None:
    store.blobs.drop(store.ledger.updates_of(3)[1].digest)
    with pytest.raises(IntegrityError, match=r"version 3: update 6 of south: blob [0-9a-f]{64} is missing"):
        list(replay(store, 0))


def test_a_damaged_part_is_named(store: Store) -> None:
    path = store.blobs.path(store.ledger.parts(2, 2)[0].manifest.digest)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(IntegrityError, match=r"version 2: its delta: blob [0-9a-f]{64} is damaged"):
        list(replay(store, 0))


def test_an_initial_model_that_is_gone_is_named(store: Store) -> None:
    store.blobs.drop(store.ledger.parts(0, 0)[0].manifest.digest)
    with pytest.raises(IntegrityError, match=r"version 0: its snapshot: blob [0-9a-f]{64} is missing"):
        list(replay(store, 0))


class LyingVersions(Versions):
    """A coordinator that folds in more than it writes down."""

    def slip_in(self, size: float) -> None:
        self._model.state.w += np.float32(size)


def test_a_version_that_its_updates_do_not_lead_to_is_found_though_the_chain_is_whole(
    ledger: Ledger, blobs: BlobFolder
) -> None:
    versions = LyingVersions(ledger, blobs, SMALL, Settings(EngineSettings(), "q8"))
    versions.begin(vector(SMALL, seed=0, scale=1.0), now_s=1.0)
    run(ledger, blobs, versions, 2)
    versions.slip_in(0.001)
    run(ledger, blobs, versions, 1)
    ledger.check_chain()
    seen = replay(Store(ledger, blobs, SMALL), 0)
    assert [next(seen).version for _ in range(3)] == [0, 1, 2]
    with pytest.raises(IntegrityError, match=r"version 3: model digest recorded \w{64}, made again \w{64}"):
        next(seen)


class Misleading(Versions):
    """A coordinator whose agents get another payload than the version that it records."""

    def _write(self, kind: PartKind, version: int, codec_name: str, pieces: Iterable[bytes]) -> Part:
        list(pieces)  # the model moves on as it should
        return super()._write(kind, version, codec_name, [codec(codec_name).encode(vector(SMALL, 5), SMALL, b"")])


@pytest.mark.parametrize(("down", "kind"), [("uqz", "delta"), ("f32", "snapshot")])
def test_a_part_that_leads_agents_to_another_model_is_found(
    ledger: Ledger, blobs: BlobFolder, down: str, kind: str
) -> None:
    run(ledger, blobs, begun(ledger, blobs, EngineSettings(), down), 1)
    misled = Misleading(ledger, blobs, SMALL, Settings(EngineSettings(), down))
    misled.begin(vector(SMALL, seed=0, scale=1.0), now_s=1.0)
    run(ledger, blobs, misled, 1)
    seen = replay(Store(ledger, blobs, SMALL), 0)
    assert [next(seen).version for _ in range(2)] == [0, 1]
    with pytest.raises(IntegrityError, match=f"version 2: its {kind} leads to another model than is recorded"):
        next(seen)


def test_a_copy_of_the_ledger_stands_still_while_versions_are_made(ledger: Ledger, blobs: BlobFolder) -> None:
    versions = begun(ledger, blobs, EngineSettings(), "q8")
    run(ledger, blobs, versions, 2)
    with snapshot_of_ledger(ledger) as copy:
        run(ledger, blobs, versions, 2)
        check_ledger(copy, None)
        assert [one.version for one in replay(Store(copy, blobs, SMALL), 0)] == [0, 1, 2]


def test_a_head_that_the_chain_never_had_is_refused(store: Store) -> None:
    for entry in store.ledger.chain():
        check_ledger(store.ledger, entry.mark)
    with pytest.raises(IntegrityError, match=f"never had the head {'ab' * 32}"):
        check_ledger(store.ledger, Mark(b"\xab" * 32))


def fedward(folder: Path, verb: str, *arguments: object) -> int:
    return main(["coordinator", verb, "--config", str(folder / "federation.yaml"), *map(str, arguments)])


def test_the_command_says_what_it_compared_and_takes_the_head_of_a_card(
    after_a_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fedward(after_a_run, "export", "--out", tmp_path / "model.safetensors") == 0
    head = (tmp_path / "model.md").read_text().split("--head ")[1].split("`")[0]
    capsys.readouterr()
    assert fedward(after_a_run, "replay", "--verbose", "--head", head) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines[:2]] == ["version 0: 0 updates", "version 1: 2 updates"]
    assert lines[0].endswith(vector_digest(vector(SMALL, 0, scale=1.0)).hex())
    assert lines[2:] == [
        "2 versions made again of 2 updates: every digest is as recorded",
        f"chain of 12 entries, head {head}",
    ]


@pytest.mark.parametrize(("head", "code"), [("00" * 32, EXIT_INTEGRITY), ("not a head", EXIT_CONFIG)])
def test_another_head_ends_the_command(after_a_run: Path, head: str, code: int) -> None:
    assert fedward(after_a_run, "replay", "--head", head) == code


def test_a_difference_ends_the_command_with_its_own_exit_code(
    after_a_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (after_a_run / "state" / "blobs").iterdir():
        path.unlink()
    assert fedward(after_a_run, "replay") == EXIT_INTEGRITY
    assert "version 0: its snapshot: blob" in capsys.readouterr().err
