"""What the API answers, as values: docs/openapi.json is made of this. Times are seconds since 1970, UTC.

What the ledger tells is there from every coordinator, also from one that stands by. What only the one that works knows
(which site is online) is null from others.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="SHA-256 in hexadecimal.")]


class Answer(BaseModel):
    """Base of all answers: their fields never change once they are made."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Problem(Answer):
    """Why there is no answer. Nothing of the machine is in it."""

    error: str
    """A constant name: unauthorized, not_found, not_kept, invalid, away, damaged, failed, method_not_allowed."""
    detail: str
    """The same in words."""


class Federation(Answer):
    """A federation, as a whole."""

    name: str
    """Name of the federation."""
    task: str
    """Name of the task that its sites train."""
    state: Literal["running", "paused", "finished"]
    """What the operator asked for."""
    version: int
    """The current version of the model."""
    version_created_at_s: float
    """When that version was made."""
    model_digest: Digest
    """Of the (P,) float32 vector of the current version, little-endian."""
    num_parameters: int | None
    """P, the parameters of the model; null from a coordinator that stands by."""
    oldest_version: int
    """The oldest version of which there is a record."""
    floor_version: int
    """The oldest version whose model can be downloaded and replayed."""
    buffer_updates: int
    """Accepted updates since the current version."""
    num_sites: int
    """Admitted sites."""
    typical_norm: float | None
    """L2 norm of a typical update at present; null while fewer than three sites moved the model."""
    metrics: dict[str, float]
    """Each metric over the held-out records of all sites, of each site's latest evaluation."""
    leads: bool | None
    """Whether the coordinator that answers is the one that works; null where none was asked."""
    connected: bool | None
    """Whether it is connected to the broker; null from one that stands by."""


class Federations(Answer):
    """The federations of this coordinator: one."""

    federations: list[Federation]


class Part(Answer):
    """A payload that leads sites to a version."""

    kind: Literal["snapshot", "delta"]
    """A snapshot is the whole model, a delta moves the version before it on."""
    codec: str
    """The codec that it is encoded with."""
    size_bytes: int
    """Its size."""
    digest: Digest


class Version(Answer):
    """A version of the model."""

    version: int
    """Its number: from 0, one more with each."""
    created_at_s: float
    """When it was made."""
    model_digest: Digest
    """Of the (P,) float32 vector, little-endian."""
    num_updates: int
    """Updates that it was made of."""
    parts: list[Part]
    """What sites download to get it; empty where that was deleted."""
    kept: bool
    """Whether its model can be downloaded."""


class Versions(Answer):
    """A page of versions, newest first."""

    versions: list[Version]
    next_before: int | None
    """`before` of the next page; null on the last."""


class Contribution(Answer):
    """An update that went into a version."""

    site: str
    """Whose it is."""
    base_version: int
    """The version that it was trained from."""
    num_examples: int
    """Records that it was trained on, by the site's word."""
    num_steps: int
    """Training steps, by the site's word."""
    work_s: float
    """Seconds of training, by the site's word."""
    codec: str
    """The codec that it came in."""
    size_bytes: int
    """Its size."""
    norm: float | None
    """L2 norm, before any clipping."""
    weight: float | None
    """Weight with which it was folded."""
    received_at_s: float
    """When it came."""


class Measurement(Answer):
    """A metric that a site measured on its own held-out records."""

    site: str
    """Whose."""
    version: int
    """The version that was measured."""
    metric: str
    """Name of the metric."""
    ratio: float | None
    """Its value; null for one over nothing."""
    num_examples: int
    """Held-out records."""


class VersionDetail(Version):
    """A version with what it was made of and what came of it."""

    contributions: list[Contribution]
    """The updates, in the ledger's order."""
    evaluations: list[Measurement]
    """What sites measured of it."""


class LastUpdate(Answer):
    """The newest accepted update of a site."""

    base_version: int
    """The version that it was trained from."""
    num_examples: int
    """Records that it was trained on, by the site's word."""
    codec: str
    """The codec that it came in."""
    received_at_s: float
    """When it came."""
    version: int | None
    """The version that it went into; null while it waits."""
    weight: float | None
    """Weight with which it was folded."""


class Site(Answer):
    """An admitted site."""

    site: str
    """Its name."""
    num_accepted: int
    """Its updates that were accepted, ever."""
    num_refused: int
    """Its updates that were refused, ever."""
    last_update: LastUpdate | None
    """Its newest accepted update; null before the first."""
    wish: Literal["running", "paused", "finished"] | None
    """What the operator asked of this site alone; null where nothing was."""
    quarantined: bool
    """Whether its updates do not count until a person decides."""
    recent_norms: list[float]
    """L2 norms of its last updates that were looked at, at most five, the newest last."""
    online: bool | None
    """Whether it is connected now; null from a coordinator that stands by."""
    phase: str | None
    """What it does now: offline, leaving, or a phase; null as `online`."""
    heard_at_s: float | None
    """When it was last heard; null where it was not since the coordinator's start."""
    held_version: int | None
    """The version that it holds, by its own word; null where it does not say."""


class Sites(Answer):
    """The admitted sites."""

    sites: list[Site]


class SiteDetail(Site):
    """A site with its refusals and measurements."""

    refused: dict[str, int]
    """Of its updates whose records are kept, how many were refused for which reason."""
    evaluations: list[Measurement]
    """Its latest measurements."""


class Head(Answer):
    """The end of the ledger's chain: kept elsewhere, it shows later that nothing before it was changed."""

    entry: int
    """Number of the newest entry."""
    head: Digest
    mark: str
    """Both as one text: `fedward coordinator replay --head` takes it."""
