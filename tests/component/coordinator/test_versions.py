"""Versions made of the buffer, persisted, and rebuilt from what is stored."""

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy.engine import Engine

from coordinator.blobs import BlobFolder
from coordinator.engine.settings import EngineSettings, OptimizerSettings
from coordinator.ledger import Ledger
from coordinator.making import Settings, Store
from coordinator.replay import replay
from coordinator.tables import StoredUpdate, StoredVersion
from coordinator.versions import LONGEST_CHAIN, Versions
from fedward.codec import CODECS, codec
from fedward.errors import ConfigError, IntegrityError
from fedward.identity.names import update_seed
from fedward.layout import Layout, Tensor, Vector, vector_digest
from fedward.limits import MAX_PARTS
from fedward.messages import Part, PartKind
from fedward.recipe import apply_part, cheapest_recipe
from tests.support.coordinator_bench import at
from tests.support.updates import SMALL, offer_of, payload_of, update_id, vector

INITIAL_P = vector(SMALL, seed=0, scale=1.0)
ADAM = EngineSettings(optimizer=OptimizerSettings(name="adam"))
DOWN = sorted(name for name, known in CODECS.items() if known.deterministic)


class PowerCutError(Exception):
    """The machine lost power at this line."""


class DyingLedger(Ledger):
    """Dies when a version above 0 is to be committed."""

    def add_version(self, version: StoredVersion, parts: Sequence[Part], weights: Mapping[int, float]) -> None:
        if version.version > 0:
            raise PowerCutError
        super().add_version(version, parts, weights)


def begun(ledger: Ledger, blobs: BlobFolder, model_codec: str = "q8", engine: EngineSettings | None = None) -> Versions:
    versions = Versions(ledger, blobs, SMALL, Settings(engine or EngineSettings(), model_codec))
    versions.begin(INITIAL_P, now_s=1.0)
    return versions


def stored(ledger: Ledger, blobs: BlobFolder, seed: int) -> StoredUpdate:
    """An accepted update."""
    payload = payload_of(SMALL, seed)
    blobs.put(payload)
    return ledger.add_update(offer_of(payload, seed), "north", at(float(seed)), 1.0, None)


def make(versions: Versions, ledger: Ledger, blobs: BlobFolder, count: int, first_seed: int = 1) -> None:
    """Make `count` versions, each of two updates."""
    for seed in range(first_seed, first_seed + 2 * count, 2):
        versions.make([stored(ledger, blobs, seed), stored(ledger, blobs, seed + 1)], [1.0, 0.5], now_s=seed + 10.0)


def fetched(versions: Versions, blobs: BlobFolder, held: int | None, held_P: Vector | None) -> Vector:
    """What an agent arrives at that holds a version and follows the announcement."""
    result_P = None if held_P is None else held_P.copy()
    for part in cheapest_recipe(versions.parts(), versions.current.version, held):
        result_P = apply_part(result_P, part, blobs.view(part.manifest.digest), SMALL)
    assert result_P is not None
    return result_P


def trajectory(ledger: Ledger) -> list[bytes]:
    return [row.model_digest for row in ledger.versions()]


@pytest.fixture
def rooms(engine_of: Callable[..., Engine], tmp_path: Path) -> Iterator[Callable[..., tuple[Ledger, BlobFolder]]]:
    """Opens the ledger and the blobs of a folder of this name, again and again."""
    opened: list[Ledger] = []

    def enter(name: str, kind: type[Ledger] = Ledger) -> tuple[Ledger, BlobFolder]:
        opened.append(kind(engine_of(name)))
        return opened[-1], BlobFolder(tmp_path / name / "blobs")

    yield enter
    for ledger in opened:
        ledger.close()


def test_version_0_is_the_initial_model_as_a_snapshot(ledger: Ledger, blobs: BlobFolder) -> None:
    versions = begun(ledger, blobs)
    assert versions.current.version == 0
    assert versions.current.model_digest == vector_digest(INITIAL_P)
    assert [(part.kind, part.version) for part in versions.parts()] == [(PartKind.SNAPSHOT, 0)]
    np.testing.assert_array_equal(fetched(versions, blobs, None, None), INITIAL_P)


def test_no_version_is_current_before_begin(ledger: Ledger, blobs: BlobFolder) -> None:
    versions = Versions(ledger, blobs, SMALL, Settings(EngineSettings(), "q8"))
    with pytest.raises(RuntimeError, match="begin"):
        _ = versions.current


def test_beginning_again_goes_on_with_the_newest_version(ledger: Ledger, blobs: BlobFolder) -> None:
    first = begun(ledger, blobs)
    make(first, ledger, blobs, count=2)
    again = Versions(ledger, blobs, SMALL, Settings(EngineSettings(), "q8"))
    again.begin(vector(SMALL, seed=99), now_s=99.0)
    assert again.current == first.current
    assert len(ledger.versions()) == 3
    np.testing.assert_array_equal(again.vector(0), INITIAL_P)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adagrad", "adam", "yogi", "amsgrad"])
def test_a_restart_between_versions_changes_no_bit(rooms: Callable[..., tuple[Ledger, BlobFolder]], name: str) -> None:
    engine = EngineSettings.model_validate({"optimizer": {"name": name}})
    ledger, blobs = rooms("straight")
    make(begun(ledger, blobs, engine=engine), ledger, blobs, count=3)
    broken, broken_blobs = rooms("restarted")
    for number in range(3):
        make(begun(broken, broken_blobs, engine=engine), broken, broken_blobs, 1, first_seed=1 + 2 * number)
    assert trajectory(broken) == trajectory(ledger)
    assert [row.state_digest for row in broken.versions()] == [row.state_digest for row in ledger.versions()]


def test_the_update_of_one_version_is_its_weighted_mean(ledger: Ledger, blobs: BlobFolder) -> None:
    versions = begun(ledger, blobs, model_codec="f32")
    make(versions, ledger, blobs, count=1)
    mean_P = (vector(SMALL, 1) + 0.5 * vector(SMALL, 2)) / np.float32(1)
    # All updates of one site count as one in the buffer; the statistics take a mean: (1 + 1/2) divides them.
    mean_P[SMALL.num_weights :] /= 1.5
    np.testing.assert_allclose(versions.vector(1), INITIAL_P + mean_P, atol=1e-6)


@pytest.mark.parametrize(("up", "loss"), [("q8", 1e-4), ("eden4", 0.02), ("eden2", 0.2), ("eden1", 0.7)])
def test_updates_of_every_codec_are_decoded_with_the_seed_that_a_site_takes(
    ledger: Ledger, blobs: BlobFolder, up: str, loss: float
) -> None:
    versions = begun(ledger, blobs, model_codec="f32")
    rows = []
    for seed in (1, 2, 3):
        own = update_seed(codec(up), 0, update_id(seed))
        payload = codec(up).encode(vector(SMALL, seed), SMALL, own)
        blobs.put(payload)
        rows.append(ledger.add_update(offer_of(payload, seed, codec=up), "north", at(float(seed)), 1.0, None))
    versions.make(rows, [1.0, 1.0, 1.0], now_s=9.0)
    move_P = (versions.vector(1) - INITIAL_P)[: SMALL.num_weights]  # three updates of one site count as one
    sum_P = (vector(SMALL, 1) + vector(SMALL, 2) + vector(SMALL, 3))[: SMALL.num_weights]
    assert np.sum((move_P - sum_P) ** 2) < loss * np.sum(sum_P**2)


@pytest.mark.parametrize("down", DOWN)
def test_every_version_is_reached_from_every_version_before_it(ledger: Ledger, blobs: BlobFolder, down: str) -> None:
    versions = begun(ledger, blobs, model_codec=down)
    held = {0: INITIAL_P}
    for newest in range(1, 8):
        make(versions, ledger, blobs, 1, first_seed=2 * newest)
        for version, held_P in held.items():
            assert vector_digest(fetched(versions, blobs, version, held_P)) == versions.current.model_digest
        held[newest] = fetched(versions, blobs, None, None)
        assert vector_digest(held[newest]) == versions.current.model_digest


@pytest.mark.parametrize("down", DOWN)
def test_an_old_version_is_rebuilt_bit_by_bit(ledger: Ledger, blobs: BlobFolder, down: str) -> None:
    versions = begun(ledger, blobs, model_codec=down)
    make(versions, ledger, blobs, count=6)
    for row in ledger.versions():
        assert vector_digest(versions.vector(row.version)) == row.model_digest
    assert len(set(trajectory(ledger))) == 7
    with pytest.raises(KeyError):
        versions.vector(7)


def test_the_float32_codec_publishes_a_snapshot_each_time(ledger: Ledger, blobs: BlobFolder) -> None:
    versions = begun(ledger, blobs, model_codec="f32")
    make(versions, ledger, blobs, count=3)
    assert [(part.kind, part.version) for part in ledger.parts(0, 3)] == [(PartKind.SNAPSHOT, at) for at in range(4)]
    assert [part.version for part in versions.parts()] == [3]


@pytest.mark.parametrize("place", [5, -3], ids=["a frame", "the index"])
def test_a_damaged_snapshot_is_named_as_what_it_is(ledger: Ledger, blobs: BlobFolder, place: int) -> None:
    versions = begun(ledger, blobs)
    path = blobs.path(versions.parts()[0].manifest.digest)
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match="version 0: its snapshot can't be read"):
        begun(ledger, blobs)


class FullFolder(BlobFolder):
    """A disk that is full when so many pieces were written."""

    pieces = 1_000_000

    def write(self, pieces: Iterable[bytes | memoryview]) -> bytes:
        return super().write(self._counted(pieces))

    def _counted(self, pieces: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        for piece in pieces:
            self.pieces -= 1
            if self.pieces < 0:
                raise OSError(errno.ENOSPC, "no space left on device")
            yield piece


def test_a_version_that_could_not_be_written_leaves_no_model_to_go_on_with(ledger: Ledger, tmp_path: Path) -> None:
    disk = FullFolder(tmp_path / "full")
    versions = begun(ledger, disk)
    updates, before_P = [stored(ledger, disk, 1), stored(ledger, disk, 2)], versions.vector(0)
    disk.pieces = 1
    with pytest.raises(OSError, match="no space"):
        versions.make(updates, [1.0, 0.5], now_s=11.0)
    with pytest.raises(RuntimeError, match="begin"):
        versions.make(updates, [1.0, 0.5], now_s=11.0)
    disk.pieces = 1_000_000
    versions.begin(INITIAL_P, now_s=12.0)
    np.testing.assert_array_equal(versions.vector(0), before_P)
    versions.make(updates, [1.0, 0.5], now_s=13.0)
    assert [made.version for made in replay(Store(ledger, disk, SMALL), 0)] == [0, 1]


@pytest.mark.parametrize("down", ["q8", "uqz"])
def test_a_snapshot_comes_when_the_deltas_since_the_last_are_larger_than_it(
    ledger: Ledger, blobs: BlobFolder, down: str
) -> None:
    versions = begun(ledger, blobs, model_codec=down)
    make(versions, ledger, blobs, count=12)
    parts = ledger.parts(0, 12)
    of_snapshots = {part.version: part.manifest.size_bytes for part in parts if part.kind is PartKind.SNAPSHOT}
    assert len(of_snapshots) > 1
    last, chain_bytes = 0, 0
    for part in (part for part in parts if part.kind is PartKind.DELTA):
        chain_bytes += part.manifest.size_bytes
        assert (part.version in of_snapshots) is (chain_bytes > of_snapshots[last])
        if part.version in of_snapshots:
            last, chain_bytes = part.version, 0


def test_a_snapshot_is_smaller_than_its_float32_numbers(ledger: Ledger, blobs: BlobFolder) -> None:
    versions = begun(ledger, blobs)
    (snapshot,) = versions.parts()
    assert (snapshot.codec, snapshot.manifest.size_bytes < 4 * SMALL.size) == ("f32z", True)


def test_a_snapshot_comes_after_the_longest_chain_of_small_deltas(
    ledger: Ledger, blobs: BlobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.versions.LONGEST_CHAIN", 2)
    versions = begun(ledger, blobs)
    make(versions, ledger, blobs, count=5)
    snapshots = [part.version for part in ledger.parts(0, 5) if part.kind is PartKind.SNAPSHOT]
    assert snapshots == [0, 2, 4]


def test_an_announcement_lists_no_chain_that_is_larger_than_the_snapshot(ledger: Ledger, blobs: BlobFolder) -> None:
    versions = begun(ledger, blobs)
    make(versions, ledger, blobs, count=9)
    listed = [(part.version, part.kind) for part in versions.parts()]
    deltas = [(version, PartKind.DELTA) for version in (6, 7, 8)]
    assert listed == [*deltas, (8, PartKind.SNAPSHOT), (9, PartKind.DELTA)]
    assert LONGEST_CHAIN + 2 <= MAX_PARTS


def test_what_the_agents_hold_stays_within_one_quantization_of_the_true_model(
    rooms: Callable[..., tuple[Ledger, BlobFolder]],
) -> None:
    exact, exact_blobs = rooms("exact")
    true = begun(exact, exact_blobs, model_codec="f32")
    make(true, exact, exact_blobs, count=12)
    ledger, blobs = rooms("quantized")
    versions = begun(ledger, blobs, model_codec="q8")
    make(versions, ledger, blobs, count=12)
    difference_P = np.abs(versions.vector(12) - true.vector(12))
    # The residual is carried, so the error is that of the last delta alone: half a step of its largest value,
    # which is that of one version and what the one before left over. Without carrying it would grow.
    last = ledger.parts(12, 12)[0]
    delta_P = np.empty(SMALL.size, np.float32)
    for block in SMALL.blocks:
        payload = blobs.view(last.manifest.digest)
        delta_P[block.start : block.stop] = codec("q8").decode_block(payload, SMALL, block, b"")
    assert difference_P.max() <= 0.51 * np.abs(delta_P).max() / 127 + 1e-6
    assert difference_P.max() > 0


def test_stored_parts_that_lead_elsewhere_are_not_believed(ledger: Ledger, blobs: BlobFolder) -> None:
    versions = begun(ledger, blobs)
    make(versions, ledger, blobs, count=1)
    path = blobs.path(ledger.parts(1, 1)[0].manifest.digest)
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x40
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match="version 1: the stored parts do not lead to the recorded model digest"):
        versions.vector(1)
    with pytest.raises(IntegrityError, match="version 1"):
        begun(ledger, blobs)


def test_a_version_cut_off_before_its_commit_was_never_made(
    rooms: Callable[..., tuple[Ledger, BlobFolder]],
) -> None:
    ledger, blobs = rooms("straight")
    make(begun(ledger, blobs, engine=ADAM), ledger, blobs, count=2)

    doomed, doomed_blobs = rooms("cut", DyingLedger)
    with pytest.raises(PowerCutError):
        make(begun(doomed, doomed_blobs, engine=ADAM), doomed, doomed_blobs, count=1)
    again, again_blobs = rooms("cut")
    versions = begun(again, again_blobs, engine=ADAM)
    assert versions.current.version == 0
    assert len(again.buffered()) == 2
    versions.make(again.buffered(), [1.0, 0.5], now_s=11.0)
    make(versions, again, again_blobs, count=1, first_seed=3)
    assert again.versions() == ledger.versions()
    assert again.parts(0, 2) == ledger.parts(0, 2)


def test_of_older_versions_every_tenth_state_is_kept(ledger: Ledger, blobs: BlobFolder) -> None:
    versions = begun(ledger, blobs, engine=ADAM)
    make(versions, ledger, blobs, count=12)
    kept = [row.version for row in ledger.versions() if blobs.path(row.state_digest).exists()]
    assert kept == [0, 10, 12]


def test_a_state_that_is_a_snapshot_too_is_kept(ledger: Ledger, blobs: BlobFolder) -> None:
    versions = begun(ledger, blobs, model_codec="f32")
    make(versions, ledger, blobs, count=2)
    assert versions.current.state_digest == versions.parts()[0].manifest.digest
    np.testing.assert_array_equal(versions.vector(0), INITIAL_P)


def test_another_optimizer_cannot_go_on_with_the_stored_state(ledger: Ledger, blobs: BlobFolder) -> None:
    begun(ledger, blobs)
    with pytest.raises(ConfigError, match="made with sgd, got adam"):
        begun(ledger, blobs, engine=ADAM)


def test_each_version_records_its_settings(ledger: Ledger, blobs: BlobFolder) -> None:
    versions = begun(ledger, blobs, engine=ADAM)
    make(versions, ledger, blobs, count=1)
    settings = ledger.version(1).settings
    assert settings == {"engine": ADAM.model_dump(mode="json"), "model_codec": "q8", "norm_bound": None}


def test_pull_takes_the_base_model_of_each_update(ledger: Ledger, blobs: BlobFolder) -> None:
    engine = EngineSettings.model_validate({"preset": "fedasync", "optimizer": {"server_lr": 1.0}})
    versions = begun(ledger, blobs, model_codec="f32", engine=engine)
    make(versions, ledger, blobs, count=1)
    versions.make([stored(ledger, blobs, 9)], [1.0], now_s=50.0)  # its base is version 0
    np.testing.assert_allclose(versions.vector(2), INITIAL_P + vector(SMALL, 9), atol=1e-5)


def test_a_cached_update_of_an_absent_site_takes_part(ledger: Ledger, blobs: BlobFolder) -> None:
    engine = EngineSettings.model_validate({"preset": "ca2fl"})
    versions = begun(ledger, blobs, model_codec="f32", engine=engine)
    versions.make([stored(ledger, blobs, 1)], [1.0], now_s=11.0)
    row = stored(ledger, blobs, 2)
    versions.make([row], [1.0], now_s=12.0)
    # One site, so h_bar = h: G = h + (D - h) = D.
    expected_P = INITIAL_P + vector(SMALL, 1) + vector(SMALL, 2)
    weights = slice(0, SMALL.num_weights)
    np.testing.assert_allclose(versions.vector(2)[weights], expected_P[weights], atol=1e-5)


def test_a_model_of_several_blocks_survives_the_way_through_the_store(ledger: Ledger, blobs: BlobFolder) -> None:
    layout = Layout.of([Tensor("weight", (300, 300)), Tensor("bias", (3,))])
    versions = Versions(ledger, blobs, layout, Settings(EngineSettings(), "q8"))
    initial_P = vector(layout, seed=5)
    versions.begin(initial_P, now_s=1.0)
    np.testing.assert_array_equal(versions.vector(0), initial_P)
