"""A delta encoded where the model is: the codec's own payload, and nothing else that crosses."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from edge_agent.training.encode import RUN_ELEMENTS, TWINS, encode, encode_on_device, runs
from fedward.codec import CODECS, codec, decode
from fedward.codec.eden import ROTATION
from fedward.errors import PeerError
from fedward.layout import BLOCK_ELEMENTS, Kind, Layout, Tensor, Vector
from tests.support.pretend_gpu import DEVICE, PretendGpu

SEED = bytes(range(32))
# Three blocks, the last with a tail in every codec; one rotation block alone; a small weight; statistics.
LAYOUT = Layout.of(
    [
        Tensor("a", (2 * BLOCK_ELEMENTS + 4465,)),
        Tensor("b", (64, 64)),
        Tensor("bias", (10,)),
        Tensor("mean", (7,), Kind.STATISTIC),
    ]
)
EDENS = {"eden4": 4, "eden2": 2, "eden1": 1}
FLOAT32 = np.finfo(np.float32)

every_eden = pytest.mark.parametrize("name", EDENS)
every_twin = pytest.mark.parametrize("name", TWINS)


def inputs(size: int = LAYOUT.size) -> dict[str, Vector]:
    rng = np.random.default_rng(7)
    sparse = np.where(rng.random(size) < 0.01, rng.standard_normal(size), 0)
    sparse[:ROTATION] = 0
    drawn = {
        "normal": 1e-3 * rng.standard_normal(size),
        "student-t(3)": rng.standard_t(3, size),
        "sparse": sparse,
        "tiny": 1e-30 * rng.standard_normal(size),
        "huge": 1e34 * rng.standard_normal(size),
    }
    return {name: values.astype(np.float32) for name, values in drawn.items()}


every_input = pytest.mark.parametrize("delta_P", inputs().values(), ids=inputs(1))


def nmse(payload: bytes, name: str, original_P: Vector) -> float:
    original = original_P.astype(np.float64)
    return float(np.sum((decode(payload, codec(name), LAYOUT, SEED) - original) ** 2) / np.sum(original**2))


def scales_and_codes(payload: bytes, bits: int) -> tuple[Vector, np.ndarray]:
    """All scales and all codes of the quantized segments, cut out as docs/protocol.md says."""
    scales, codes, at = [], [], 0
    for block in LAYOUT.blocks:
        if LAYOUT.segments[block.segment].exact:
            continue
        rotations = -(-block.size // ROTATION)
        middle, end = at + 4 * rotations, at + (4 + ROTATION * bits // 8) * rotations
        scales.append(np.frombuffer(payload[at:middle], "<f4"))
        packed = np.frombuffer(payload[middle:end], np.uint8)
        codes.append((packed[:, None] >> np.arange(0, 8, bits) & (2**bits - 1)).ravel())
        at = end
    return np.concatenate(scales), np.concatenate(codes)


# The payload


@every_eden
@every_input
def test_eden_is_encoded_like_its_codec_but_for_rare_ties(name: str, delta_P: Vector) -> None:
    ours = encode_on_device(torch.from_numpy(delta_P), LAYOUT, name, SEED)
    theirs = codec(name).encode(delta_P, LAYOUT, SEED)
    assert len(ours) == len(theirs)
    assert ours[-4 * 17 :] == theirs[-4 * 17 :] == delta_P[-17:].tobytes()  # the bias and the statistics
    (our_scales, our_codes), (their_scales, their_codes) = (scales_and_codes(p, EDENS[name]) for p in (ours, theirs))
    np.testing.assert_allclose(our_scales, their_scales, rtol=1e-5)
    assert np.mean(our_codes != their_codes) < 1e-4
    assert nmse(ours, name, delta_P) == pytest.approx(nmse(theirs, name, delta_P), rel=0.01)


@pytest.mark.parametrize("peak", [FLOAT32.max, FLOAT32.smallest_normal, FLOAT32.smallest_subnormal, 1e-38, 1.0])
@pytest.mark.parametrize("name", ["q8", "f32"])
def test_q8_is_encoded_to_the_very_bytes_of_its_codec(name: str, peak: float) -> None:
    delta_P = (np.random.default_rng(3).uniform(-1, 1, LAYOUT.size) * float(peak)).astype(np.float32)
    delta_P[::1000] = peak
    delta_P[5000:6000] = 0  # groups of zeros among them
    delta_P[300:500] = 0.5 * peak / 127  # ties, of which half go up and half down
    assert encode_on_device(torch.from_numpy(delta_P), LAYOUT, name, SEED) == codec(name).encode(delta_P, LAYOUT, SEED)


def test_a_tensor_of_several_runs_is_encoded_in_the_order_of_its_blocks() -> None:
    layout = Layout.of([Tensor("w", (RUN_ELEMENTS + 3 * BLOCK_ELEMENTS + 5000,))])
    delta_P = np.random.default_rng(1).standard_normal(layout.size, np.float32)
    assert [len(run) for run in runs(layout)] == [RUN_ELEMENTS // BLOCK_ELEMENTS, 3, 1]
    assert encode_on_device(torch.from_numpy(delta_P), layout, "q8", SEED) == codec("q8").encode(delta_P, layout, SEED)


def test_runs_hold_every_block_once_in_order_and_none_is_too_long() -> None:
    layout = Layout.of([Tensor(name, (3 * RUN_ELEMENTS - 1,)) for name in "ab"] + [Tensor("c", (9,))])
    assert [block for run in runs(layout) for block in run] == list(layout.blocks)
    for run in runs(layout):
        assert len({(block.segment, block.size) for block in run}) == 1
        assert sum(block.size for block in run) <= RUN_ELEMENTS


@every_twin
def test_the_same_delta_and_seed_give_the_same_bytes(name: str) -> None:
    delta_P = torch.from_numpy(inputs()["normal"])
    first, again = (encode_on_device(delta_P, LAYOUT, name, SEED) for _ in range(2))
    assert first == again


@every_eden
def test_another_seed_gives_other_codes(name: str) -> None:
    delta_P = torch.from_numpy(inputs()["normal"])
    assert encode_on_device(delta_P, LAYOUT, name, SEED) != encode_on_device(delta_P, LAYOUT, name, bytes(32))


@every_twin
def test_zeros_are_encoded_to_what_comes_back_as_zeros(name: str) -> None:
    payload = encode_on_device(torch.zeros(LAYOUT.size), LAYOUT, name, SEED)
    assert not decode(payload, codec(name), LAYOUT, SEED).any()


@pytest.mark.parametrize("name", ["eden4", "q8"])
@pytest.mark.parametrize("bad", [np.nan, -np.inf])
@pytest.mark.parametrize("where", [0, 2 * BLOCK_ELEMENTS + 4464, -100, -10, -1], ids=["a", "tail", "b", "bias", "mean"])
def test_a_delta_that_is_not_finite_is_not_encoded(name: str, bad: float, where: int) -> None:
    delta_P = torch.from_numpy(inputs()["normal"])
    delta_P[where] = bad
    with pytest.raises(ValueError, match="NaN or an infinity"):
        encode_on_device(delta_P, LAYOUT, name, SEED)


@every_eden
def test_eden_on_the_device_refuses_what_could_decode_to_infinity(name: str) -> None:
    with pytest.raises(ValueError, match="could not be decoded"):
        encode_on_device(torch.full((LAYOUT.size,), float(FLOAT32.max)), LAYOUT, name, SEED)


@pytest.mark.parametrize("other", [torch.zeros(3), torch.zeros(LAYOUT.size, dtype=torch.float64)], ids=["P", "dtype"])
@pytest.mark.parametrize("how", [encode, encode_on_device])
def test_a_delta_of_another_shape_or_dtype_is_not_encoded(how: object, other: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="expected float32"):
        how(other, LAYOUT, "q8", SEED)  # type: ignore[operator]


# Where it is computed


@pytest.fixture
def gpu() -> Iterator[PretendGpu]:
    with PretendGpu() as pretended:
        yield pretended


def on_gpu(gpu: PretendGpu, delta_P: Vector) -> torch.Tensor:
    """The delta on the device, as training leaves it there: what moved it is not counted."""
    delta = torch.from_numpy(delta_P).to(DEVICE)
    gpu.to_device = 0
    return delta


@pytest.mark.parametrize("name", CODECS)
def test_on_a_cpu_the_payload_is_the_codecs_own(name: str) -> None:
    delta_P = inputs()["normal"]
    assert encode(torch.from_numpy(delta_P), LAYOUT, name, SEED) == codec(name).encode(delta_P, LAYOUT, SEED)


@every_twin
def test_only_the_payload_crosses_to_the_host_and_only_signs_to_the_device(gpu: PretendGpu, name: str) -> None:
    delta_P = inputs()["normal"]
    payload = encode(on_gpu(gpu, delta_P), LAYOUT, name, SEED)
    answers = 32 * len(list(runs(LAYOUT)))  # the extremes of each run, and whether its scales can be decoded
    assert len(payload) <= gpu.to_host <= len(payload) + answers
    padded = LAYOUT.size + 2 * ROTATION
    tables = 4 * (256 * 8 + 64 * 64 + 16)
    assert gpu.to_device <= (padded / 8 + tables if name in EDENS else 0)
    assert payload == encode_on_device(torch.from_numpy(delta_P), LAYOUT, name, SEED)


@pytest.mark.parametrize("name", CODECS)
def test_every_codec_encodes_a_delta_that_is_on_a_gpu(gpu: PretendGpu, name: str) -> None:
    delta_P = inputs()["normal"]
    payload = encode(on_gpu(gpu, delta_P), LAYOUT, name, SEED)
    theirs = codec(name).encode(delta_P, LAYOUT, SEED)
    assert nmse(payload, name, delta_P) == pytest.approx(nmse(theirs, name, delta_P), rel=0.01)


def test_an_unknown_codec_is_refused_wherever_the_delta_is(gpu: PretendGpu) -> None:
    for delta_P in (torch.zeros(LAYOUT.size), on_gpu(gpu, np.zeros(LAYOUT.size, np.float32))):
        with pytest.raises(PeerError):
            encode(delta_P, LAYOUT, "eden5", SEED)


# How it is computed


@pytest.fixture(params=["older switch", "newer switch"])
def _fast_products(request: pytest.FixtureRequest) -> Iterator[None]:
    """A task that has switched TF32 on for its own matrix products: torch has two ways, and refuses to mix them."""
    matmul = torch.backends.cuda.matmul
    switch, on = ("allow_tf32", True) if request.param == "older switch" else ("fp32_precision", "tf32")
    before = getattr(matmul, switch)
    setattr(matmul, switch, on)
    yield
    setattr(matmul, switch, before)


@pytest.mark.usefixtures("_fast_products")
def test_products_are_float32_though_the_task_has_switched_tf32_on_which_it_stays(gpu: PretendGpu) -> None:
    encode(on_gpu(gpu, inputs()["normal"]), LAYOUT, "eden4", SEED)
    assert gpu.precisions == {"ieee"}
    assert torch.backends.cuda.matmul.fp32_precision == "tf32"


@pytest.mark.usefixtures("_fast_products")
def test_what_cannot_be_encoded_leaves_the_tasks_switch_as_it_was() -> None:
    with pytest.raises(ValueError, match="NaN"):
        encode_on_device(torch.full((LAYOUT.size,), torch.nan), LAYOUT, "eden4", SEED)
    assert torch.backends.cuda.matmul.fp32_precision == "tf32"


def test_autocast_that_a_task_has_left_on_changes_no_byte() -> None:
    delta_P = torch.from_numpy(inputs()["normal"])
    plain = encode_on_device(delta_P, LAYOUT, "eden4", SEED)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert encode_on_device(delta_P, LAYOUT, "eden4", SEED) == plain
