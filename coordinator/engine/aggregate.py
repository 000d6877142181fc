"""Updates into the model, block by block: the sum over all updates of a block, then the optimizer on that block.

A version is made in one pass over the layout, from payloads that are decoded a block at a time. There is no
accumulator between versions: what makes a version is its buffer and the state before it, so a replay of the
ledger calls the same function and gets the same bytes. Shape letters: P parameters, B elements of a block.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from coordinator.engine.optimizer import ServerState, step
from coordinator.engine.settings import EngineSettings
from fedward.layout import BLOCK_ELEMENTS, Block, Layout, Vector

Decoder = Callable[[Block], Vector]
"""A block of the layout -> (B,) float32 of one update's delta there. What it returns is only read."""


@dataclass(frozen=True)
class Contribution:
    """One term of the sum: a delta and its weight; `base` is the (P,) model it was trained from, for `pull` only."""

    weight: float
    decode: Decoder
    base: Vector | None = None


def fold(
    state: ServerState,
    layout: Layout,
    contributions: Sequence[Contribution],
    divisor: float,
    settings: EngineSettings,
) -> None:
    """Make the next version, in place on the arrays of `state`: w = optimizer(w, sum of weight x delta / divisor).

    Sums in float32, in the order given: the same contributions in the same order give the same bytes. Statistics
    skip the optimizer: they take the weighted mean itself, and never more than a mean (the divisor is at least
    the sum of weights), because weights that sum to more than their count would carry a variance below zero.
    Memory beside the state: two blocks of temporaries and what a decoder needs.

    Raises ValueError for a divisor that is not positive, a missing base or moment, and a decoder's block of
    another shape or dtype. The state is then half changed: throw it away.
    """
    layout.check(state.w)
    if not (divisor > 0.0 and math.isfinite(divisor)):
        raise ValueError(f"the divisor of a version must be positive and finite, got {divisor}")
    mean_divisor = max(divisor, math.fsum(contribution.weight for contribution in contributions))
    sum_B, scratch_B = np.empty((2, min(BLOCK_ELEMENTS, layout.size)), np.float32)
    for block in layout.blocks:
        span, mean_B, free_B = slice(block.start, block.stop), sum_B[: block.size], scratch_B[: block.size]
        _weighted_sum(mean_B, free_B, block, contributions, state.w[span] if settings.pull else None)
        if block.start >= layout.num_weights:
            mean_B /= mean_divisor
            state.w[span] += mean_B
        else:
            mean_B /= divisor
            step(state, span, mean_B, free_B, settings.optimizer)


def _weighted_sum(
    sum_B: Vector, scratch_B: Vector, block: Block, contributions: Sequence[Contribution], pull_from_B: Vector | None
) -> None:
    """sum_B = sum of weight x (delta, and with `pull_from_B` also base - pull_from_B), in the order given."""
    sum_B.fill(0.0)
    for contribution in contributions:
        delta_B = contribution.decode(block)
        if delta_B.shape != sum_B.shape or delta_B.dtype != np.float32:
            raise ValueError(f"block at {block.start}: got {delta_B.dtype} {delta_B.shape}, expected {sum_B.shape}")
        if pull_from_B is not None:
            np.subtract(_base(contribution)[block.start : block.stop], pull_from_B, out=scratch_B)
            scratch_B += delta_B
            delta_B = scratch_B
        np.multiply(delta_B, contribution.weight, out=scratch_B)
        sum_B += scratch_B


def _base(contribution: Contribution) -> Vector:
    if contribution.base is None:
        raise ValueError("pull needs the base model of every contribution")
    return contribution.base


def with_cache(
    contributions: Sequence[Contribution],
    sites: Sequence[str],
    cached: Mapping[str, Decoder],
    num_sites: int,
    divisor: float,
) -> tuple[Contribution, ...]:
    """CA2FL as a longer sum: with h_j the update of site j before this one, kept in `cached` (zero if absent),

        G = h_bar + (1/K) sum_i (D_i - h_i) = (1/K) [ sum_i D_i + sum_j (K/n - omega_j) h_j ]

    where h_bar = (1/n) sum_j h_j, K = `divisor`, n = `num_sites` and omega_j the weight of site j in this buffer
    (1 for one update, 0 for none). `sites` names the site of each contribution. One more decode of each cached
    update a version, and no running average that would have to be kept exact across restarts.

    Wang et al., Tackling the Data Heterogeneity in Asynchronous Federated Learning with Cached Update
    Calibration, ICLR 2024. Raises ValueError where more sites are cached than there are, or for unequal lengths.
    """
    if len(cached) > num_sites:
        raise ValueError(f"{len(cached)} sites are cached, but only {num_sites} take part")
    in_buffer: dict[str, float] = {}
    for contribution, site in zip(contributions, sites, strict=True):
        in_buffer[site] = in_buffer.get(site, 0.0) + contribution.weight
    corrections = (
        Contribution(divisor / num_sites - in_buffer.get(site, 0.0), decode) for site, decode in sorted(cached.items())
    )
    return (*contributions, *corrections)
