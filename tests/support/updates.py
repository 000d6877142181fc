"""Updates of two sites of one federation, and their offers: what the tests of the coordinator send."""

from typing import Any

import numpy as np

from fedward.chunks import manifest_of
from fedward.codec import codec
from fedward.identity.names import update_id_of, update_seed
from fedward.layout import Kind, Layout, Tensor, Vector
from fedward.messages import Offer

FEDERATION = "ward"
SITES = ["north", "south"]
SMALL = Layout.of([Tensor("weight", (64, 80)), Tensor("bias", (10,)), Tensor("mean", (10,), Kind.STATISTIC)])
LARGE = Layout.of([Tensor("weight", (1000, 250))])
"""A float32 update of this one has four chunks, the last of them shorter."""


def vector(layout: Layout, seed: int, scale: float = 0.01) -> Vector:
    """(P,) float32, drawn from a normal distribution."""
    return (scale * np.random.default_rng(seed).standard_normal(layout.size)).astype(np.float32)


def payload_of(layout: Layout, seed: int, codec_name: str = "f32", scale: float = 0.01) -> bytes:
    """Of an update of the first site from version 0."""
    how = codec(codec_name)
    return how.encode(vector(layout, seed, scale), layout, update_seed(how, 0, update_id(seed)))


def update_id(seed: int, site: str = "north", base_version: int = 0) -> bytes:
    """The id of a site's update of this number."""
    return update_id_of(FEDERATION, site, base_version, seed)


def offer_of(content: bytes, seed: int, site: str = "north", base_version: int = 0, **changes: Any) -> Offer:
    """The offer of a payload, without it unless `changes` say so."""
    fields = {
        "federation": FEDERATION,
        "update_id": update_id(seed, site, base_version),
        "sequence": seed,
        "base_version": base_version,
        "codec": "f32",
        "layout_digest": SMALL.digest,
        "num_examples": 100,
        "num_steps": 10,
        "work_s": 5.0,
        "manifest": manifest_of(content),
    }
    return Offer(**{**fields, **changes})


def inline(seed: int, site: str = "north", base_version: int = 0, payload: bytes = b"") -> Offer:
    """An offer that carries its payload, or another one."""
    content = payload_of(SMALL, seed)
    return offer_of(content, seed, site, base_version, payload=payload or content)
