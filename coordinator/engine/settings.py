"""How updates are weighed, buffered and folded; a preset names a method of the literature.

The engine is one formula, and the methods are its settings. With D_i the delta of an update, omega_i its weight
(weigh.py), w the model and h the cached deltas (aggregate.py):

    X_i = D_i + pull * (base_i - w)
    G   = sum_i omega_i X_i / (number of updates, or sum_i omega_i)
    w   = optimizer(w, G)
"""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import BaseModel, Field, model_validator

ROBUST_SITES = 3
"""Sites in a version from which on one of them can be outvoted."""

Preset = Literal["default", "fedavg", "fedasync", "fedbuff", "ca2fl"]


class OptimizerSettings(BaseModel, frozen=True, extra="forbid"):
    """The server optimizer: what a version does with the averaged update (optimizer.py has the formulas)."""

    name: Literal["sgd", "momentum", "adagrad", "adam", "yogi", "amsgrad"] = Field(
        default="sgd", description="Optimizer that applies the averaged update to the model."
    )
    server_lr: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="Server learning rate. Unset: 1 for sgd, 1 - momentum for momentum, 0.01 for the adaptive ones.",
    )
    momentum: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="Momentum of `momentum`. Above 0.5 is for fedavg: staleness acts as momentum too.",
    )
    beta1: float = Field(default=0.9, ge=0, lt=1, description="Decay of the first moment of the adaptive optimizers.")
    beta2: float = Field(default=0.99, ge=0, lt=1, description="Decay of the second moment of adam, yogi and amsgrad.")
    epsilon: float = Field(
        default=1e-3, gt=0, le=1, description="Added to the root of the second moment: larger is less adaptive."
    )

    @property
    def learning_rate(self) -> float:
        """`server_lr`, or the optimizer's own where it is unset."""
        if self.server_lr is not None:
            return self.server_lr
        return {"sgd": 1.0, "momentum": 1.0 - self.momentum}.get(self.name, 0.01)


class EngineSettings(BaseModel, frozen=True, extra="forbid"):
    """Settings of the engine. What is not given is the preset's; a field's default is that of the preset `default`.

    Raises pydantic.ValidationError (a ValueError) for an unknown preset or field, a value out of its bounds, and
    settings that contradict each other.
    """

    preset: Preset = Field(default="default", description="Method whose settings apply where none is given.")
    buffer_size: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="K: updates that make a version. Unset: 30 % of the active sites, at least 2 and at most 10.",
    )
    flush_after_s: float | None = Field(
        default=None,
        gt=0,
        description="Seconds after a buffer's first update at which a version is made of what is there. "
        "Unset: follows from the training times that the sites report.",
    )
    data_exponent: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Weight by number of examples: 1 in proportion (FedAvg), 0 equal hospitals.",
    )
    staleness_exponent: float = Field(
        default=0.5, ge=0, le=4, description="How fast weight falls with staleness; 0: staleness costs nothing."
    )
    staleness_free: int | None = Field(
        default=None, ge=0, description="Versions of staleness that cost nothing. Unset: active sites / K, rounded up."
    )
    rate_exponent: float = Field(
        default=1.0, ge=0, le=1, description="Correction for how often a site delivers: 1 full (unbiased), 0 none."
    )
    rate_cap: float = Field(
        default=4.0,
        ge=1,
        le=100,
        description="Bound of the correction, up and down: also what pretending to be slow can gain.",
    )
    step_exponent: float = Field(
        default=0.0, ge=0, le=1, description="Correction for unequal numbers of local steps: 1 as FedNova, 0 none."
    )
    normalisation: Literal["count", "weight"] = Field(
        default="count", description="Divide the weighted sum by the number of updates, or by the sum of their weights."
    )
    pull: bool = Field(default=False, description="Move towards a site's model instead of along its delta (FedAsync).")
    max_staleness: int = Field(default=20, ge=0, description="Updates from a base version older than this are refused.")
    barrier: bool = Field(
        default=False, description="A version takes one update of every active site (synchronous rounds)."
    )
    repeat_base: bool = Field(
        default=False, description="A site may train again from a version that it already trained from."
    )
    merge_site: bool = Field(
        default=True, description="All updates of one site in a buffer count as one: their average."
    )
    optimizer: OptimizerSettings = Field(default_factory=OptimizerSettings, description="The server optimizer.")
    cache: bool = Field(
        default=False, description="Correct with each site's last update, kept by the coordinator (CA2FL)."
    )

    norm_clip: float | None = Field(
        default=2.0,
        ge=1,
        le=1e6,
        description="Updates longer than so many typical norms (the median over the sites) are cut to that. "
        "Takes three sites; null: never.",
    )
    outlier_norm: float | None = Field(
        default=30.0,
        gt=1,
        le=1e6,
        description="Updates longer than so many typical norms are refused, and three in a row put the site in "
        "quarantine. A hospital with patients of another kind may reach ten. null: never.",
    )
    weight_cap: float | None = Field(
        default=0.3,
        gt=0,
        le=1,
        description="Largest share of one site in a version's weight; or 1.5 / sites in it, if that is more. "
        "null: none.",
    )
    robust: Literal["none", "trimmed_mean", "median", "centered_clipping"] = Field(
        default="none",
        description="What stands in for the weighted mean of a version's sites (robust.py): for members that are not "
        "trusted.",
    )
    trim: float = Field(
        default=0.2,
        gt=0,
        lt=0.5,
        description="trimmed_mean: share of the sites dropped at each end of every coordinate, rounded up.",
    )
    centering_radius: float = Field(
        default=1.0,
        gt=0,
        le=100,
        description="centered_clipping: radius around the centre, in median distances of the sites from it.",
    )
    centering_steps: int = Field(
        default=1, ge=1, le=10, description="centered_clipping: how often the centre is moved; each reads all updates."
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_preset(cls, given: object) -> object:
        if not isinstance(given, Mapping):
            return given
        filled = {**PRESETS.get(str(given.get("preset", "default")), {}), **given}
        optimizer = given.get("optimizer")
        if isinstance(optimizer, Mapping):
            filled["optimizer"] = {**_preset_optimizer(filled), **optimizer}
        return filled

    @model_validator(mode="after")
    def _contradictions(self) -> Self:
        problems = [
            text
            for wrong, text in (
                (
                    self.barrier and self.buffer_size is not None,
                    "barrier sets the buffer size: leave it unset",
                ),
                (self.barrier and self.repeat_base, "barrier takes one update a site: repeat_base must be false"),
                (self.cache and self.pull, "cache corrects deltas and pull replaces them: choose one"),
                (self.cache and self.normalisation != "count", "cache needs normalisation 'count'"),
                *self._robust_contradictions(),
            )
            if wrong
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _robust_contradictions(self) -> tuple[tuple[bool, str], ...]:
        on = self.robust != "none"
        return (
            (on and self.cache, "robust ranks what sites sent, and cache adds what they did not: choose one"),
            (on and self.pull, "robust ranks deltas, and pull replaces them: choose one"),
            (on and not self.merge_site, "robust counts sites: merge_site must be true"),
            (
                on and self.buffer_size is not None and self.buffer_size < ROBUST_SITES,
                f"robust needs a buffer_size of {ROBUST_SITES} at least: of two sites none can be outvoted",
            ),
        )


def _preset_optimizer(filled: Mapping[str, object]) -> Mapping[str, object]:
    optimizer = PRESETS.get(str(filled.get("preset", "default")), {}).get("optimizer", {})
    return optimizer if isinstance(optimizer, Mapping) else {}


_UNDEFENDED: Mapping[str, object] = {"norm_clip": None, "outlier_norm": None, "weight_cap": None}
"""The methods of the literature trust their members: they are kept as published."""

PRESETS: Mapping[str, Mapping[str, object]] = {
    "default": {},
    # McMahan et al., arXiv:1602.05629: everybody, in step, weighted by examples.
    "fedavg": {
        **_UNDEFENDED,
        "data_exponent": 1.0,
        "staleness_exponent": 0.0,
        "rate_exponent": 0.0,
        "normalisation": "weight",
        "max_staleness": 0,
        "barrier": True,
    },
    # Xie et al., arXiv:1903.03934: every arrival is mixed into the model at once.
    "fedasync": {
        **_UNDEFENDED,
        "buffer_size": 1,
        "data_exponent": 0.0,
        "staleness_free": 0,
        "rate_exponent": 0.0,
        "pull": True,
        "repeat_base": True,
        "merge_site": False,
        "optimizer": {"server_lr": 0.6},
    },
    # Nguyen et al., arXiv:2106.06639: K arrivals make a version, stale ones count less.
    "fedbuff": {
        **_UNDEFENDED,
        "buffer_size": 10,
        "data_exponent": 0.0,
        "staleness_free": 0,
        "rate_exponent": 0.0,
        "repeat_base": True,
        "merge_site": False,
    },
    # Wang et al., "Tackling the Data Heterogeneity in Asynchronous Federated Learning with Cached Update
    # Calibration", ICLR 2024: sites that are absent from the buffer are stood for by their last update.
    "ca2fl": {
        **_UNDEFENDED,
        "data_exponent": 0.0,
        "staleness_exponent": 0.0,
        "staleness_free": 0,
        "rate_exponent": 0.0,
        "cache": True,
    },
}
"""What each preset sets apart from the fields' defaults."""


def engine_settings(preset: str, **overrides: object) -> EngineSettings:
    """The settings of a preset, with `overrides` by field name in their place. Raises as EngineSettings does."""
    return EngineSettings.model_validate({"preset": preset, **overrides})
