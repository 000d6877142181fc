"""What stands in for the weighted mean of a version where members are not trusted: one vote a site, block by block.

The updates of a site are averaged first, with their weights, into one row x_s of weight W_s. Then, of each coordinate,

    trimmed_mean       sort the rows, drop k at each end, and take the weighted mean of the others
    median             the same with the largest k that leaves something: the middle row, or the middle two
    centered_clipping  v <- v + sum_s (W_s / sum W) (x_s - v) min(1, radius / ||x_s - v||), v from the median on

Rows are ranked and dropped by count, not by weight, for weights are what sites claim; among those that stay they count
as ever. What comes out takes the place of sum_s W_s x_s / sum W, so staleness still shortens a version's step.
Statistics go the same way: each coordinate stays between what the sites sent, so a variance stays positive.

Trimmed mean and median: Yin et al., Byzantine-Robust Distributed Learning, ICML 2018, arXiv:1803.01498. Centered
clipping: Karimireddy et al., Learning from History for Byzantine Robust Optimization, ICML 2021, arXiv:2012.10333; the
start from the median and the radius in median distances are ours, where the paper goes on from the step before.

Memory: one block of every site, and what sorting it needs. Shape letters: K rows, one a site; B elements of a
block.
"""

import math
from collections.abc import Sequence
from statistics import median_low

import numpy as np
import numpy.typing as npt

from coordinator.engine.contribution import Contribution
from coordinator.engine.settings import EngineSettings
from fedward.layout import Block, Layout, Vector

Rows = npt.NDArray[np.float32]
"""(K, B)."""


class RobustSum:
    """The sum of weights times the robust mean of the sites, of any block of a layout."""

    def __init__(self, contributions: Sequence[Contribution], layout: Layout, settings: EngineSettings) -> None:
        """Centered clipping reads every update `centering_steps` times here. Raises ValueError for a missing site."""
        self._layout = layout
        self._sites = _by_site(contributions)
        self._weights_K = np.array([math.fsum(one.weight for one in own) for own in self._sites], np.float32)
        self._total = np.float32(math.fsum(self._weights_K.tolist()))
        self._num_trimmed = num_trimmed(len(self._sites), settings)
        self._scales: list[Vector] = []
        if settings.robust == "centered_clipping":
            for _ in range(settings.centering_steps):
                self._scales.append(self._next_scales(settings.centering_radius))

    def sum_block(self, block: Block) -> Vector:
        """(B,) float32, a fresh array."""
        total_B = self._centre(self._rows(block))
        total_B *= self._total
        return total_B

    def _rows(self, block: Block) -> Rows:
        """Of each site the mean of its updates."""
        rows = np.zeros((len(self._sites), block.size), np.float32)
        for index, own in enumerate(self._sites):
            for one in own:
                part = [one.weight / float(self._weights_K[index]) * one.delta.scale]
                rows[index] += one.delta.codec.sum_block([one.delta.payload], part, self._layout, block, one.delta.seed)
        return rows

    def _centre(self, rows: Rows) -> Vector:
        """(B,): the robust mean, after as many steps of clipping as are known by now."""
        centre_B = trimmed_mean(rows, self._weights_K, self._num_trimmed)
        for scales_K in self._scales:
            step_B = np.zeros_like(centre_B)
            for row_B, share in zip(rows, scales_K * self._weights_K / self._total, strict=True):
                step_B += share * (row_B - centre_B)
            centre_B += step_B
        return centre_B

    def _next_scales(self, radius: float) -> Vector:
        """(K,): min(1, radius / distance from the centre), the radius in median distances."""
        squares_K = np.zeros(len(self._sites), np.float64)
        for block in self._layout.blocks:
            rows = self._rows(block)
            squares_K += np.square(rows - self._centre(rows), dtype=np.float64).sum(axis=1)
        distances = [math.sqrt(square) for square in squares_K]
        reach = radius * median_low(distances)
        return np.array([min(1.0, reach / far) if far > 0.0 else 1.0 for far in distances], np.float32)


def num_trimmed(num_sites: int, settings: EngineSettings) -> int:
    """Sites dropped at each end, such that one stays at least. Centered clipping begins with the median."""
    most = (num_sites - 1) // 2
    if settings.robust != "trimmed_mean":
        return most
    return min(most, math.ceil(settings.trim * num_sites - 1e-9))  # 7 % of a hundred sites are seven, in floats too


def trimmed_mean(rows: Rows, weights_K: Vector, dropped: int) -> Vector:
    """(K, B), (K,) -> (B,) float32: of each coordinate the weighted mean of the rows without `dropped` at each end."""
    order = np.argsort(rows, axis=0, kind="stable")[dropped : len(rows) - dropped]
    weights = weights_K[order]
    kept: Rows = np.take_along_axis(rows, order, axis=0)
    kept *= weights
    mean_B: Vector = kept.sum(axis=0) / weights.sum(axis=0)
    return mean_B


def _by_site(contributions: Sequence[Contribution]) -> list[list[Contribution]]:
    """In the order in which the sites come first."""
    sites: dict[str, list[Contribution]] = {}
    for one in contributions:
        if one.site is None:
            raise ValueError("a robust rule needs the site of every contribution")
        sites.setdefault(one.site, []).append(one)
    return list(sites.values())
