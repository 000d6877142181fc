"""Every message that travels, as a typed value; `pack.py` turns them into bytes and back.

A field's bound stands in its annotation and is checked while reading. A field with a default may be missing
(an older peer does not send it); unknown fields are ignored (a newer peer may send more). docs/protocol.md
describes each field for those who write an agent of their own, and a test compares the two.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from annotated_types import Interval, Len

from fedward.errors import RejectReason
from fedward.limits import (
    INLINE_BYTES,
    KEY_ID_BYTES,
    MAX_CHUNKS,
    MAX_CODECS,
    MAX_EXAMPLES,
    MAX_GPUS,
    MAX_METRICS,
    MAX_NAME,
    MAX_PARTS,
    MAX_PAYLOAD_BYTES,
    MAX_PEM_BYTES,
    MAX_RANGES,
    MAX_SEED,
    MAX_STEPS,
    MAX_VERSION,
)


@dataclass(frozen=True)
class Name:
    """A name of 1 to MAX_NAME characters out of a-z, 0-9 and '-': safe as a topic level and a certificate name."""


Digest = Annotated[bytes, Len(32, 32)]
SiteName = Annotated[str, Name()]
Version = Annotated[int, Interval(ge=0, le=MAX_VERSION)]
Counter = Annotated[int, Interval(ge=0, le=MAX_VERSION)]
Seed = Annotated[int, Interval(ge=0, le=MAX_SEED)]
Seconds = Annotated[float, Interval(ge=0, le=1e10)]
Text = Annotated[str, Len(0, MAX_NAME)]
KeyId = Annotated[bytes, Len(KEY_ID_BYTES, KEY_ID_BYTES)]
Pem = Annotated[bytes, Len(1, MAX_PEM_BYTES)]


class FederationState(StrEnum):
    """What the federation wants of its sites."""

    RUNNING = "running"
    PAUSED = "paused"  # finish and deliver what was begun, begin nothing new
    FINISHED = "finished"  # the last version is out; stop training


class PartKind(StrEnum):
    """How a part of a version is applied."""

    SNAPSHOT = "snapshot"  # the exact vector of its version
    DELTA = "delta"  # added to the vector of the version before


class LocalOptimizer(StrEnum):
    """The optimizer of local training."""

    SGD = "sgd"
    ADAM = "adam"


class Phase(StrEnum):
    """What an agent is doing now."""

    IDLE = "idle"
    FETCHING = "fetching"
    TRAINING = "training"
    PUBLISHING = "publishing"
    PAUSED = "paused"
    FULL = "full"  # no room on the disk: begins nothing until there is
    FAILED = "failed"
    REFUSED_BY_POLICY = "refused_by_policy"  # of the hospital, which tells nobody outside why


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a site is asked to do with a version: local training of `local_epochs`, cut short by the other bounds."""

    local_epochs: Annotated[int, Interval(ge=1, le=10_000)]
    batch_size: Annotated[int, Interval(ge=1, le=1_000_000)]
    local_lr: Annotated[float, Interval(ge=0, le=1e6)]
    optimizer: LocalOptimizer = LocalOptimizer.SGD
    momentum: Annotated[float, Interval(ge=0, le=1)] = 0.0
    weight_decay: Annotated[float, Interval(ge=0, le=1e6)] = 0.0
    max_steps: Annotated[int, Interval(ge=1, le=MAX_STEPS)] | None = None
    max_seconds: Annotated[float, Interval(ge=0.001, le=1e7)] | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A payload cut into chunks of CHUNK_BYTES (the last may be shorter): its size, SHA-256 and its chunks' SHA-256."""

    size_bytes: Annotated[int, Interval(ge=1, le=MAX_PAYLOAD_BYTES)]
    digest: Digest
    chunk_digests: Annotated[bytes, Len(32, 32 * MAX_CHUNKS)]  # 32 bytes a chunk, in order


@dataclass(frozen=True, kw_only=True)
class Part:
    """One payload of a version's recipe: a snapshot, or the delta from the version before."""

    kind: PartKind
    version: Version
    codec: SiteName
    manifest: Manifest


@dataclass(frozen=True, kw_only=True)
class Initial:
    """How version 0 was made, for a site that would rather make it than download it: the digest says whether it did."""

    seed: Seed
    model_digest: Digest  # SHA-256 of the vector of version 0


@dataclass(frozen=True, kw_only=True)
class Announcement:
    """The coordinator to all sites, retained: the current version, how to get it, and what to do with it."""

    federation: SiteName
    sequence: Counter  # grows with every announcement: the newest wins
    boot_id: Annotated[bytes, Len(8, 8)]  # of the coordinator's process: a new one means "offer again"
    state: FederationState
    version: Version
    model_digest: Digest  # SHA-256 of the float32 vector that every agent must hold before it trains
    layout_digest: Digest
    parts: Annotated[tuple[Part, ...], Len(1, MAX_PARTS)]
    task: SiteName
    work: Work
    codec: SiteName  # of the updates, where a site's link and policy allow
    max_staleness: Annotated[int, Interval(ge=0, le=MAX_VERSION)]  # older updates are refused
    repeat_base: bool  # whether a site may train again from a version that it has trained from
    epoch: Counter | None = None  # where a new or restored ledger began: what was receipted before may be lost
    codecs: Annotated[tuple[SiteName, ...], Len(1, MAX_CODECS)] | None = None  # allowed beside `codec`
    sealing_key: Annotated[bytes, Len(32, 32)] | None = None  # X25519: what updates are sealed with
    initial: Initial | None = None
    model_key_id: KeyId | None = None  # which key the chunks of the parts are sealed with; None: with none


@dataclass(frozen=True, kw_only=True)
class Range:
    """Chunk indices [start, stop)."""

    start: Annotated[int, Interval(ge=0, le=MAX_CHUNKS)]
    stop: Annotated[int, Interval(ge=1, le=MAX_CHUNKS)]


@dataclass(frozen=True, kw_only=True)
class Get:
    """A site asks for the chunks of a part that it lacks."""

    federation: SiteName
    digest: Digest  # the part's payload
    missing: Annotated[tuple[Range, ...], Len(1, MAX_RANGES)]


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A site offers an update, before a byte of payload moves unless it is small enough to ride along."""

    federation: SiteName
    update_id: Digest
    sequence: Counter  # of this site's updates
    base_version: Version
    codec: SiteName
    layout_digest: Digest
    num_examples: Annotated[int, Interval(ge=1, le=MAX_EXAMPLES)]
    num_steps: Annotated[int, Interval(ge=1, le=MAX_STEPS)]
    work_s: Seconds  # time that training took
    manifest: Manifest
    payload: Annotated[bytes, Len(0, INLINE_BYTES)] | None = None
    base_digest: Digest | None = None  # of the model trained from: after a restore a number alone doesn't name it
    seal: Annotated[bytes, Len(32, 32)] | None = None  # X25519, fresh: what opens the payload, with the sealing key


@dataclass(frozen=True, kw_only=True)
class Grant:
    """The coordinator answers an offer with the chunks that it still lacks."""

    update_id: Digest
    missing: Annotated[tuple[Range, ...], Len(1, MAX_RANGES)]


class Outcome(StrEnum):
    """What became of an update."""

    ACCEPTED = "accepted"  # durably stored: it counts exactly once
    REFUSED = "refused"  # never counts; the reason says why
    LATER = "later"  # not now: keep it and offer again


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """The coordinator's word on an update, which ends the matter unless the outcome is `later`."""

    update_id: Digest
    outcome: Outcome
    reason: RejectReason | None = None


@dataclass(frozen=True, kw_only=True)
class Control:
    """The coordinator's wish for one site, retained: desired state, never a command that can be missed."""

    sequence: Counter
    paused: bool


@dataclass(frozen=True, kw_only=True)
class Status:
    """An agent's presence, retained; the last will is the same message with `online` false."""

    boot_id: Annotated[bytes, Len(8, 8)]  # an offline notice of an earlier process is ignored
    online: bool
    leaving: bool = False  # stopped on purpose
    software: Text = ""
    receiving_key: Annotated[bytes, Len(32, 32)] | None = None  # X25519, of this process: model keys are sealed to it


@dataclass(frozen=True, kw_only=True)
class Telemetry:
    """An agent's figures, as far as its hospital lets it tell them; lost ones are not sent again."""

    boot_id: Annotated[bytes, Len(8, 8)]
    phase: Phase
    version: Version | None = None  # held now
    step: Counter | None = None
    num_steps: Counter | None = None
    num_updates: Counter | None = None  # with an accepted receipt, since the state folder was made
    num_refused: Counter | None = None
    num_fetched: Counter | None = None  # versions downloaded, since the process started, as the bytes below
    bytes_sent: Counter | None = None
    bytes_received: Counter | None = None
    step_s: Seconds | None = None  # median time of one training step
    train_loss: Annotated[float, Interval(ge=-1e30, le=1e30)] | None = None
    uplink_bytes_s: Annotated[float, Interval(ge=0, le=1e15)] | None = None  # that the site's link carries up
    sent_at_s: Seconds | None = None  # since 1970, by the site's clock
    device: SiteName | None = None  # what it trains on: cpu, cuda
    num_gpus: Annotated[int, Interval(ge=0, le=MAX_GPUS)] | None = None  # of these that it uses


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A metric as numerator over denominator, so that sites add up: sum of numerators over sum of denominators."""

    numerator: Annotated[float, Interval(ge=-1e30, le=1e30)]
    denominator: Annotated[float, Interval(ge=0, le=1e30)]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A site's measurement of a version on its own held-out records: counts and sums, nothing of a record."""

    federation: SiteName
    version: Version
    num_examples: Annotated[int, Interval(ge=1, le=MAX_EXAMPLES)]
    metrics: Annotated[dict[SiteName, Ratio], Len(1, MAX_METRICS)]
    model_digest: Digest | None = None  # of the model measured: after a restore a number alone doesn't name it


@dataclass(frozen=True, kw_only=True)
class Enrolment:
    """A hospital that holds a token asks for its certificate."""

    request: Pem  # PKCS #10, signed by the key that it is for
    mac: Digest  # with the token's key, so that nobody on the way puts another request in its place


class EnrolmentOutcome(StrEnum):
    """What became of an enrolment."""

    WAITING = "waiting"  # for people to compare fingerprints, or for the authority to sign: ask again
    ADMITTED = "admitted"  # the certificate is in the answer
    DENIED = "denied"  # by the operator
    EXPIRED = "expired"  # the token was not used in time
    USED = "used"  # the token has served another key


@dataclass(frozen=True, kw_only=True)
class Enrolled:
    """The coordinator's answer to an enrolment; the certificates are there when the site is admitted."""

    outcome: EnrolmentOutcome
    mac: Digest  # with the token's key, over the answer and the key that it is for
    certificate: Pem | None = None  # of the site
    authority: Pem | None = None  # of the federation
    coordinator: Pem | None = None  # whose signatures count


@dataclass(frozen=True, kw_only=True)
class Renewal:
    """A site asks for a new certificate of the key that it has."""

    request: Pem  # PKCS #10


@dataclass(frozen=True, kw_only=True)
class Renewed:
    """The coordinator answers with a certificate that ends later."""

    certificate: Pem


@dataclass(frozen=True, kw_only=True)
class SealedKey:
    """The coordinator gives a member the model key, sealed to one process of it."""

    boot_id: Annotated[bytes, Len(8, 8)]  # of that process: another one ignores it
    key_id: KeyId
    seal: Annotated[bytes, Len(32, 32)]  # X25519, fresh: what opens the key, with the receiving key
    sealed: Annotated[bytes, Len(48, 48)]


@dataclass(frozen=True)
class Chunk:
    """A piece of a payload. It travels bare: the topic says whose and which, the manifest's digest proves it.

    On its way down it may be sealed with the model key, and is 16 bytes longer then.
    """

    owner: bytes  # the update's id, or the digest of the part
    index: int
    payload: bytes
