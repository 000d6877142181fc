"""docs/protocol.md says what the code does: its tables are compared with the types, constants and examples here."""

import dataclasses
import hashlib
import struct
import types
from collections.abc import Iterator, Mapping
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from annotated_types import Interval, Len

from edge_agent import asking, model_keys, publish
from fedward import codec, layout, limits, messages, pack, topics
from fedward.chunks import manifest_of
from fedward.codec.eden import MAGNITUDES, signs
from fedward.errors import RejectReason
from fedward.identity.model_key import ModelKey
from fedward.identity.names import update_seed
from fedward.layout import Block, Kind, Layout, Tensor, vector_digest
from fedward.messages import Chunk, Control, Name
from fedward.pack import PROTOCOL_VERSION, SIZE_LIMITS
from fedward.topics import Down, Enrol, Up

DOCUMENT = Path(__file__).parents[3] / "docs" / "protocol.md"

TYPES = {
    name: kind
    for name, kind in vars(messages).items()
    if getattr(kind, "__module__", "") == messages.__name__
    and dataclasses.is_dataclass(kind)
    and dataclasses.fields(kind)
    and kind is not Chunk
}
ENUMS: dict[str, type[StrEnum]] = {
    name: kind
    for name, kind in vars(messages).items()
    if isinstance(kind, type) and issubclass(kind, StrEnum) and kind not in (StrEnum, RejectReason)
}
SENT_AS = {
    Down.ANNOUNCE: "Announcement",
    Down.CHUNK: "Chunk",
    Down.GRANT: "Grant",
    Down.RECEIPT: "Receipt",
    Down.CONTROL: "Control",
    Up.OFFER: "Offer",
    Up.CHUNK: "Chunk",
    Up.GET: "Get",
    Up.EVALUATION: "Evaluation",
    Up.STATUS: "Status",
    Up.TELEMETRY: "Telemetry",
    Up.RENEWAL: "Renewal",
    Down.RENEWED: "Renewed",
    Down.KEY: "SealedKey",
    Enrol.REQUEST: "Enrolment",
    Enrol.ANSWER: "Enrolled",
}
NUMBERS: dict[float, str] = {2**53 - 1: "2^53 - 1"}

EXAMPLE = Layout.of(
    [
        Tensor("norm.running_mean", (32,), Kind.STATISTIC),
        Tensor("conv.bias", (32,)),
        Tensor("conv.weight", (32, 16, 3, 3)),
    ]
)
EXAMPLE_VECTOR = ((np.arange(EXAMPLE.size) % 256 - 128) / 64).astype(np.float32)


@cache
def tables() -> Mapping[str, list[list[str]]]:
    """Of each heading, the cells of the rows below it; backticks are dropped, and so are header and rule."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in DOCUMENT.read_text().splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ").replace("`", "")
        elif line.startswith("|"):
            cells = [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
            found.setdefault(heading, []).append(cells)
    return {name: rows[2:] for name, rows in found.items()}


def column(heading: str, index: int) -> list[str]:
    return [row[index] for row in tables()[heading]]


def number(value: float) -> str:
    """2^53 - 1, 262144, 0.001, 1e15"""
    if value in NUMBERS:
        return NUMBERS[value]
    return f"{value:g}".replace("e+0", "e").replace("e+", "e") if isinstance(value, float) else str(value)


def parts_of(hint: Any) -> tuple[Any, list[object]]:
    """A field's annotation -> its type without None and bounds, and the bounds."""
    if get_origin(hint) in (Union, types.UnionType):
        return parts_of(next(option for option in get_args(hint) if option is not type(None)))
    if get_origin(hint) is Annotated:
        kind, *bounds = get_args(hint)
        return kind, bounds
    return hint, []


def type_name(kind: Any, bounds: list[object]) -> str:
    if any(isinstance(bound, Name) for bound in bounds):
        return "name"
    if get_origin(kind) is tuple:
        return f"array of {type_name(*parts_of(get_args(kind)[0]))}"
    if get_origin(kind) is dict:
        return " to ".join(["map of " + type_name(*parts_of(get_args(kind)[0])), get_args(kind)[1].__name__])
    return str(kind.__name__)


def bound_text(kind: Any, bounds: list[object]) -> str:
    unit = {bytes: "bytes", str: "characters", tuple: "items", dict: "entries"}.get(get_origin(kind) or kind, "")
    for bound in bounds:
        match bound:
            case Interval(ge=low, le=high):
                return f"{number(low)} to {number(high)}"  # type: ignore[arg-type]
            case Len(min_length=low, max_length=int(high)):
                return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"
            case Name():
                return f"1 to {limits.MAX_NAME} characters"
    return "-"


def if_missing(field: "dataclasses.Field[Any]", hint: Any) -> str:
    if field.default is dataclasses.MISSING:
        return "none" if type(None) in get_args(hint) else "refused"
    match field.default:
        case None:
            return "none"
        case "":
            return "empty"
        case bool():
            return str(field.default).lower()
    return f"{field.default:g}" if isinstance(field.default, float) else str(field.default)


def rows_of(kind: Any) -> Iterator[list[str]]:
    """Field, type, bound and what a missing one means: the columns that the code decides."""
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        inner, bounds = parts_of(hints[field.name])
        yield [
            field.name,
            type_name(inner, bounds),
            bound_text(inner, bounds),
            if_missing(field, hints[field.name]),
        ]


def constants(*modules: types.ModuleType) -> dict[str, str]:
    """The public whole numbers of the modules, as the document writes them."""
    return {
        name: number(value)
        for module in modules
        for name, value in vars(module).items()
        if name.startswith(("MAX_", "CHUNK_", "INLINE_")) and isinstance(value, int | float)
    }


def philox_words(key: bytes, count: int) -> list[int]:
    """Philox 4x64 with ten rounds, as the document describes it: 64-bit words, the first counter is 1."""
    mask, words = 2**64 - 1, []
    for counter in range(1, count // 4 + 1):
        c0, c1, c2, c3 = counter, 0, 0, 0
        k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:16], "little")
        for _ in range(10):
            high, low = divmod(0xD2E7470EE14C6C93 * c0, 2**64)
            other_high, other_low = divmod(0xCA5A826395121157 * c2, 2**64)
            c0, c1, c2, c3 = other_high ^ c1 ^ k0, other_low, high ^ c3 ^ k1, low
            k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
        words += [c0, c1, c2, c3]
    return words


def examples() -> dict[str, str]:
    """The values of the worked example, computed."""
    update_id = codec.seed_of("sepsis", "hospital-a", 41, 3)
    shared, own = (update_seed(codec.codec(name), 41, update_id) for name in ("eden4", "eden2"))
    shared_key, own_key = (codec.seed_of(seed, 0, 0)[:16] for seed in (shared, own))
    q8 = codec.codec("q8").encode(EXAMPLE_VECTOR, EXAMPLE, b"")
    key = ModelKey(bytes(range(16)), bytes(range(16, 48)))
    return {
        "layout digest": EXAMPLE.digest.hex(),
        "model digest": vector_digest(EXAMPLE_VECTOR).hex(),
        "f32 payload, size": str(codec.codec("f32").most_bytes(EXAMPLE)),
        "q8 payload, size": str(len(q8)),
        "q8 payload, first 4 bytes": q8[:4].hex(),
        "q8 payload, bytes 72 to 79": q8[72:80].hex(),
        "q8 payload, digest": hashlib.sha256(q8).hexdigest(),
        "q8 payload, chunk_digests": manifest_of(q8).chunk_digests.hex(),
        "q8 payload, chunk 0 sealed, last 16 bytes": key.close(manifest_of(q8).digest, 0, q8)[-16:].hex(),
        "eden4 payload, size": str(codec.codec("eden4").most_bytes(EXAMPLE)),
        "update_id": update_id.hex(),
        "eden4, seed": shared.hex(),
        "eden4, key of segment 0, offset 0": shared_key.hex(),
        "eden4, first word of the signs": f"{philox_words(shared_key, 4)[0]:016x}",
        "eden2, key of segment 0, offset 0": own_key.hex(),
        "eden2, first word of the signs": f"{philox_words(own_key, 4)[0]:016x}",
        "shard of hospital-a": topics.shard("hospital-a"),
        "control message": pack.pack(Control(sequence=8, paused=True)).hex(),
    }


@pytest.mark.parametrize("name", TYPES)
def test_every_field_is_described_as_it_is_read(name):
    described = [[row[0], row[1], row[3], row[4]] for row in tables()[name]]
    assert described == list(rows_of(TYPES[name]))


@pytest.mark.parametrize("name", TYPES)
def test_every_field_has_a_meaning(name):
    assert all(len(row) == 6 and row[5] for row in tables()[name])


@pytest.mark.parametrize("name", ENUMS)
def test_every_value_of_an_enumeration_is_described(name):
    assert column(name, 0) == [member.value for member in ENUMS[name]]


def test_every_reason_is_described_with_who_says_it_and_what_to_do():
    assert column("Reasons", 0) == [reason.value for reason in RejectReason]
    assert all(len(row) == 4 and all(row) for row in tables()["Reasons"])


def test_every_topic_is_described_with_its_message():
    example = {"federation": "f", "site": "a", "shard": topics.shard("a"), "index": "0"}
    example |= {"digest": "00" * 32, "update_id": "00" * 32, "token": "00" * 16}
    described = [(topics.parse(row[0].format_map(example)), row[1]) for row in tables()["Topics"]]
    assert {address.kind for address, _ in described} == {*Up, *Down, *Enrol}
    assert [name for _, name in described] == [SENT_AS[address.kind] for address, _ in described]


def test_both_ways_of_a_model_chunk_are_described():
    chunks = [topic for topic, name in zip(column("Topics", 0), column("Topics", 1), strict=True) if name == "Chunk"]
    assert len(chunks) == 3


def test_the_side_that_may_publish_follows_from_the_topic():
    for topic, _, publisher, *_ in tables()["Topics"]:
        upward = {"up": "site", "enrol": "hospital" if topic.endswith("/request") else "coordinator"}
        assert publisher == upward.get(topic.split("/")[3], "coordinator")


def test_every_limit_is_in_the_table_with_its_number():
    expected = constants(limits) | {
        "MAX_FIELDS": number(pack.MAX_FIELDS),
        "MAX_TOPIC": number(topics.MAX_TOPIC),
        "MAX_TENSOR_NAME": number(layout.MAX_TENSOR_NAME),
    }
    assert dict(zip(column("Limits", 0), column("Limits", 1), strict=True)) == expected


def test_every_size_limit_is_in_the_table():
    expected = {kind.__name__: str(limit) for kind, limit in SIZE_LIMITS.items()}
    assert dict(zip(column("Sizes", 0), column("Sizes", 1), strict=True)) == expected


def test_every_timer_is_in_the_table():
    expected = {
        name: number(value)
        for module in (asking, model_keys, publish)
        for name, value in vars(module).items()
        if name.isupper() and name.endswith("_S")
    }
    assert dict(zip(column("Timers", 0), column("Timers", 1), strict=True)) == expected


def test_every_codec_is_described_and_whether_it_may_carry_a_model_or_updates():
    words = {True: "yes", False: "no"}
    expected = {
        (name, words[known.deterministic], words[known.carries_updates]) for name, known in codec.CODECS.items()
    }
    assert set(zip(column("Codecs", 0), column("Codecs", 1), column("Codecs", 2), strict=True)) == expected


def test_the_levels_of_eden_are_those_of_the_code():
    names, levels = column("Levels of eden", 0), column("Levels of eden", 2)
    for bits, magnitudes in MAGNITUDES.items():
        assert [float(text) for name, text in zip(names, levels, strict=True) if name == f"eden{bits}"] == [*magnitudes]


def test_the_constants_of_the_layout_are_those_of_the_code():
    expected = {name: str(vars(layout)[name]) for name in ("QUANTIZED_FROM", "BLOCK_ELEMENTS")}
    assert dict(zip(column("Layout", 0), column("Layout", 1), strict=True)) == expected


def test_the_worked_example_is_what_the_code_computes():
    assert {row[0]: row[1] for row in tables()["Worked example"]} == examples()


def test_the_signs_can_be_made_from_the_document_alone():
    seed, block = bytes(range(32)), Block(segment=2, start=0, stop=5000, offset=65_536)
    words = philox_words(codec.seed_of(seed, 2, 65_536)[:16], 2 * 64)
    expected = [1 - 2 * (word >> bit & 1) for word in words for bit in range(64)]
    assert signs(seed, block).reshape(-1).tolist() == expected


@pytest.mark.parametrize("bits", MAGNITUDES)
def test_an_eden_payload_is_decoded_by_the_formula_of_the_document(bits):
    """Written from the document: H from popcounts, one element after another, in float64."""
    model = Layout.of([Tensor("w", (5000,))])
    values_P = np.random.default_rng(9).standard_normal(5000).astype(np.float32)
    payload = codec.codec(f"eden{bits}").encode(values_P, model, bytes(32))
    hadamard = np.array([[(-1) ** (i & j).bit_count() / 8 for j in range(64)] for i in range(64)])
    words = philox_words(codec.seed_of(bytes(32), 0, 0)[:16], 2 * 64)
    drawn = [1 - 2 * (word >> bit & 1) for word in words for bit in range(64)]
    decoded: list[float] = []
    for rotation in range(2):
        (scale,) = struct.unpack_from("<f", payload, 4 * rotation)
        raw = payload[8 + 512 * bits * rotation : 8 + 512 * bits * (rotation + 1)]
        codes = [byte >> place & 2**bits - 1 for byte in raw for place in range(0, 8, bits)]
        half = 2 ** (bits - 1)
        levels = np.array([MAGNITUDES[bits][code % half] * (-1 if code & half else 1) for code in codes])
        levels = levels.reshape(64, 64)
        turned = (hadamard @ levels @ hadamard).reshape(-1)
        decoded += list(scale * turned * drawn[4096 * rotation : 4096 * (rotation + 1)])
    expected = codec.decode(payload, codec.codec(f"eden{bits}"), model, bytes(32))
    np.testing.assert_allclose(decoded[:5000], expected, rtol=1e-4, atol=1e-5)


def test_the_protocol_version_is_the_title():
    assert DOCUMENT.read_text().splitlines()[0] == f"# The Fedward protocol, version {PROTOCOL_VERSION}"
