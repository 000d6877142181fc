"""Updates into the model, block by block: the sum over all updates of a block, then the optimizer on that block.

A version is made in one pass over the layout, from payloads of which one block is read at a time. Those that were
encoded with one seed are summed before they are decoded, which is cheaper where the codec rotates. There is no
accumulator between versions: what makes a version is its buffer and the state before it, so a replay of the
ledger calls the same function and gets the same bytes. Shape letters: P parameters, B elements of a block.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from coordinator.engine.contribution import Contribution, EncodedDelta
from coordinator.engine.optimizer import ServerState, step
from coordinator.engine.robust import RobustSum
from coordinator.engine.settings import EngineSettings
from fedward.codec import Codec, Payload
from fedward.layout import BLOCK_ELEMENTS, Layout, Vector


@dataclass(frozen=True)
class _Group:
    """The contributions that one call of the codec sums: those of one codec and one seed."""

    codec: Codec
    seed: bytes
    payloads: list[Payload] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)


def fold(
    state: ServerState,
    layout: Layout,
    contributions: Sequence[Contribution],
    divisor: float,
    settings: EngineSettings,
) -> float:
    """Make the next version, in place on the arrays of `state`: w = optimizer(w, sum of weight x delta / divisor).

    Returns the L2 norm of what was added to w.

    Sums in float32, in the order given, those of one codec and seed where the first of them stands: the same
    contributions in the same order give the same bytes. Statistics skip the optimizer: they take the weighted mean
    itself, and never more than a mean (the divisor is at least the sum of weights), because weights that sum to more
    than their count would carry a variance below zero. A robust rule takes the place of the weighted mean (robust.py).
    Memory beside the state: two blocks of temporaries and what a codec or a robust rule needs.

    Raises ValueError for a divisor that is not positive and a missing base, site or moment. The state is then half
    changed: throw it away.
    """
    layout.check(state.w)
    if not (divisor > 0.0 and math.isfinite(divisor)):
        raise ValueError(f"the divisor of a version must be positive and finite, got {divisor}")
    mean_divisor = max(divisor, math.fsum(contribution.weight for contribution in contributions))
    robust = RobustSum(contributions, layout, settings) if settings.robust != "none" else None
    groups = _grouped(contributions) if robust is None else ()
    sum_B, scratch_B = np.empty((2, min(BLOCK_ELEMENTS, layout.size)), np.float32)
    square = 0.0
    for block in layout.blocks:
        span, mean_B, free_B = slice(block.start, block.stop), sum_B[: block.size], scratch_B[: block.size]
        mean_B[:] = 0.0 if robust is None else robust.sum_block(block)
        for group in groups:
            mean_B += group.codec.sum_block(group.payloads, group.weights, layout, block, group.seed)
        if settings.pull:
            _add_pull(mean_B, free_B, span, contributions, state.w[span])
        if block.start >= layout.num_weights:
            mean_B /= mean_divisor
            state.w[span] += mean_B
        else:
            mean_B /= divisor
            step(state, span, mean_B, free_B, settings.optimizer)
        square += float(np.dot(mean_B, mean_B))
    return math.sqrt(square)


def _grouped(contributions: Sequence[Contribution]) -> Sequence[_Group]:
    """By codec and seed, in the order in which each pair comes first."""
    groups: dict[tuple[str, bytes], _Group] = {}
    for contribution in contributions:
        delta = contribution.delta
        group = groups.setdefault((delta.codec.name, delta.seed), _Group(delta.codec, delta.seed))
        group.payloads.append(delta.payload)
        group.weights.append(contribution.weight * delta.scale)
    return tuple(groups.values())


def _add_pull(
    sum_B: Vector, scratch_B: Vector, span: slice, contributions: Sequence[Contribution], w_B: Vector
) -> None:
    """sum_B += sum of weight x (base - w), in the order given."""
    for contribution in contributions:
        if contribution.base is None:
            raise ValueError("pull needs the base model of every contribution")
        np.subtract(contribution.base[span], w_B, out=scratch_B)
        scratch_B *= np.float32(contribution.weight)
        sum_B += scratch_B


def with_cache(
    contributions: Sequence[Contribution],
    sites: Sequence[str],
    cached: Mapping[str, EncodedDelta],
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
        Contribution(divisor / num_sites - in_buffer.get(site, 0.0), cached[site]) for site in sorted(cached)
    )
    return (*contributions, *corrections)
