"""How a version is made from its parts: which parts to take, and how they are applied.

The coordinator and every agent run these same elementwise steps, so all hold the same bits (docs/protocol.md).
"""

from collections.abc import Iterable

import numpy as np

from fedward import codec
from fedward.errors import PeerError, RejectReason
from fedward.layout import Layout, Vector
from fedward.messages import Announcement, Initial, Part, PartKind


def cheapest_recipe(parts: Iterable[Part], version: int, held: int | None) -> tuple[Part, ...]:
    """The fewest bytes that lead to `version`: the deltas after the `held` version, or a snapshot and its deltas.

    Empty when `held` is `version`. Raises PeerError (MALFORMED) when the parts lead nowhere.
    """
    if held == version:
        return ()
    parts = tuple(parts)
    deltas = {part.version: part for part in parts if part.kind is PartKind.DELTA}
    starts: list[tuple[Part, ...]] = [(part,) for part in parts if part.kind is PartKind.SNAPSHOT]
    chains = [(start, start[0].version) for start in starts]
    if held is not None and held < version:
        chains.append(((), held))
    recipes = [
        start + tuple(deltas[at] for at in range(begin + 1, version + 1))
        for start, begin in chains
        if begin <= version and all(at in deltas for at in range(begin + 1, version + 1))
    ]
    if not recipes:
        raise PeerError(RejectReason.MALFORMED, f"the announced parts do not lead to version {version}")
    return min(recipes, key=size_of)


def size_of(recipe: Iterable[Part]) -> int:
    """Bytes of the parts together."""
    return sum(part.manifest.size_bytes for part in recipe)


def initial_to_make(announcement: Announcement) -> Initial | None:
    """How version 0 is made, where whoever holds nothing has fewer bytes to fetch from there than from nothing.

    None where it is not announced, where that spares nothing, or where it contradicts the announced version. Raises
    PeerError (MALFORMED) when the parts lead nowhere.
    """
    initial, version, parts = announcement.initial, announcement.version, announcement.parts
    if initial is None or (version == 0 and initial.model_digest != announcement.model_digest):
        return None
    from_version_0, from_nothing = (size_of(cheapest_recipe(parts, version, held)) for held in (0, None))
    return initial if from_version_0 < from_nothing else None


def codec_of(part: Part) -> codec.Codec:
    """How the part is decoded. Raises PeerError (UNKNOWN_CODEC) where that would not bring the same bits everywhere."""
    how = codec.codec(part.codec)
    if not how.deterministic:
        raise PeerError(RejectReason.UNKNOWN_CODEC, f"{part.codec} may not carry a model: its decoding varies")
    return how


def apply_part(vector_P: Vector | None, part: Part, payload: memoryview, layout: Layout) -> Vector:
    """Version v-1 and a delta, or nothing and a snapshot -> (P,) float32 of version v; `vector_P` is overwritten.

    Raises PeerError: UNKNOWN_CODEC for a codec whose decoding is not the same bits everywhere, LAYOUT_MISMATCH
    for a payload of another size, MALFORMED for one that is no encoding, or a delta without a version to add it to.
    """
    how = codec_of(part)
    codec.check_payload(payload, how, layout)
    if part.kind is PartKind.SNAPSHOT:
        vector_P = np.empty(layout.size, np.float32)
    elif vector_P is None:
        raise PeerError(RejectReason.MALFORMED, f"a delta to version {part.version} and no version before it")
    for block in layout.blocks:
        decoded = how.decode_block(payload, layout, block, b"")
        if part.kind is PartKind.SNAPSHOT:
            vector_P[block.start : block.stop] = decoded
        else:
            vector_P[block.start : block.stop] += decoded
    return vector_P
