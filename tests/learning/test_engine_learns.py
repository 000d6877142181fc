"""The engine learns where hospitals differ in what they see and in how fast they are.

A federation of ten sites is simulated event by event in simulated seconds: softmax regression, Dirichlet label
skew, log-normal speeds. Nothing here knows a method; presets run through the same engine calls as the service's.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest

from coordinator.engine.aggregate import fold
from coordinator.engine.buffer import buffer_size, divisor
from coordinator.engine.contribution import Contribution, EncodedDelta
from coordinator.engine.optimizer import ServerState
from coordinator.engine.rates import SiteRate, observe
from coordinator.engine.rounds import flush_after_s, flush_at_s, is_ready
from coordinator.engine.settings import EngineSettings, engine_settings
from coordinator.engine.weigh import Arrival, weights
from fedward.codec import codec
from fedward.layout import Layout, Tensor, Vector

NUM_SITES, NUM_CLASSES, NUM_FEATURES, LOCAL_STEPS, LOCAL_LR = 10, 5, 20, 10, 0.1
LAYOUT = Layout.of([Tensor("weight", (NUM_FEATURES, NUM_CLASSES))])
Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Site:
    """One hospital: its records and the seconds that it needs for one update."""

    x: Floats
    y: Labels
    work_s: float


def make_sites(seed: int) -> dict[str, Site]:
    """Sites whose labels are Dirichlet(0.1) and whose speeds are log-normal with sigma 1."""
    rng = np.random.default_rng(seed)
    centres = 0.7 * rng.standard_normal((NUM_CLASSES, NUM_FEATURES))
    sites = {}
    for i in range(NUM_SITES):
        y = rng.choice(NUM_CLASSES, int(rng.integers(60, 240)), p=rng.dirichlet([0.1] * NUM_CLASSES))
        x = centres[y] + rng.standard_normal((len(y), NUM_FEATURES))
        sites[f"s{i}"] = Site(x.astype(np.float32), y, float(np.exp(rng.standard_normal())))
    return sites


def train(w_P: Vector, site: Site) -> Vector:
    """The delta of LOCAL_STEPS of full-batch gradient descent on the cross-entropy of the site."""
    weight = w_P.reshape(NUM_FEATURES, NUM_CLASSES).copy()
    target = np.eye(NUM_CLASSES, dtype=np.float32)[site.y]
    for _ in range(LOCAL_STEPS):
        logits = site.x @ weight
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        weight -= LOCAL_LR * site.x.T @ (odds / odds.sum(axis=1, keepdims=True) - target) / len(site.y)
    return weight.ravel() - w_P


def accuracies(w_P: Vector, sites: dict[str, Site]) -> list[float]:
    weight = w_P.reshape(NUM_FEATURES, NUM_CLASSES)
    return [float(np.mean((site.x @ weight).argmax(axis=1) == site.y)) for site in sites.values()]


def exact(delta_P: Vector) -> EncodedDelta:
    return EncodedDelta(codec("f32"), memoryview(codec("f32").encode(delta_P, LAYOUT, b"")), b"")


@dataclass
class Federation:
    """Sites, coordinator and the simulated clock between them."""

    sites: dict[str, Site]
    settings: EngineSettings
    version: int = 0
    rates: dict[str, SiteRate] = field(default_factory=dict)
    buffer: list[tuple[Arrival, Vector, Vector]] = field(default_factory=list)
    training: list[tuple[float, str, int, Vector]] = field(default_factory=list)
    waiting: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.state = ServerState.initial(np.zeros(LAYOUT.size, np.float32), self.settings.optimizer)
        for site in self.sites:
            self._begin(site, 0.0)

    def run(self, until_s: float) -> Vector:
        """The model at `until_s`."""
        while self.training:
            now_s, site, base_version, base_P = self.training[0]
            due_s = flush_at_s(self._arrivals(), self._deadline_s(now_s))
            if min(now_s, due_s or now_s) > until_s:
                break
            if due_s is not None and due_s < now_s:
                self._flush(due_s)
                continue
            heapq.heappop(self.training)
            self._receive(now_s, site, base_version, base_P)
        return self.state.w

    def _begin(self, site: str, now_s: float) -> None:
        done_s = now_s + self.sites[site].work_s
        heapq.heappush(self.training, (done_s, site, self.version, self.state.w.copy()))

    def _receive(self, now_s: float, site: str, base_version: int, base_P: Vector) -> None:
        hospital = self.sites[site]
        if self.version - base_version <= self.settings.max_staleness:
            arrival = Arrival(site, base_version, len(hospital.y), LOCAL_STEPS, hospital.work_s, now_s)
            self.rates[site] = observe(self.rates.get(site), arrival)
            self.buffer.append((arrival, train(base_P, hospital), base_P))
        if self.settings.repeat_base or base_version < self.version:
            self._begin(site, now_s)
        else:
            self.waiting.add(site)
        if is_ready(self._arrivals(), self.settings, self.sites, self._deadline_s(now_s), now_s):
            self._flush(now_s)

    def _flush(self, now_s: float) -> None:
        arrivals, size = self._arrivals(), buffer_size(self.settings, len(self.sites))
        given = weights(arrivals, self.version, self.rates, self.settings, size, now_s)
        contributions = [
            Contribution(weight, exact(delta_P), base_P)
            for weight, (_, delta_P, base_P) in zip(given, self.buffer, strict=True)
        ]
        fold(self.state, LAYOUT, contributions, divisor(given, arrivals, self.settings), self.settings)
        self.version += 1
        self.buffer.clear()
        for site in sorted(self.waiting):
            self._begin(site, now_s)
        self.waiting.clear()

    def _arrivals(self) -> list[Arrival]:
        return [arrival for arrival, _, _ in self.buffer]

    def _deadline_s(self, now_s: float) -> float:
        return flush_after_s(self.settings, buffer_size(self.settings, len(self.sites)), self.rates, now_s)


def score(preset: str, over: Callable[[list[float]], float]) -> float:
    """Mean over three federations of `over` the sites' accuracies after 40 simulated seconds."""
    scores = []
    for seed in range(3):
        sites = make_sites(seed)
        scores.append(over(accuracies(Federation(sites, engine_settings(preset)).run(until_s=40.0), sites)))
    return float(np.mean(scores))


@pytest.mark.slow
def test_the_default_serves_the_worst_site_better_than_fedbuff() -> None:
    assert score("default", min) > score("fedbuff", min) + 0.05


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["default", "fedavg", "fedbuff", "fedasync"])
def test_every_preset_learns(preset: str) -> None:
    assert score(preset, lambda sites: sum(sites) / len(sites)) > 0.85  # a guess is right one time in five
