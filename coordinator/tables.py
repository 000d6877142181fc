"""The ledger's tables, and their rows as values."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sql

from fedward.messages import Outcome, Ratio

METADATA = sql.MetaData()


def _text(length: int) -> sql.String:
    """Sorted by its bytes in every database, whatever language a server was set up for."""
    return sql.String(length).with_variant(sql.String(length, collation="C"), "postgresql")


FACTS = sql.Table(
    "facts",
    METADATA,
    sql.Column("name", _text(80), primary_key=True),
    sql.Column("value", _text(256), nullable=False),
)
"""One line a fact: what this ledger is of, and counters that must never go back."""

UPDATES = sql.Table(
    "updates",
    METADATA,
    sql.Column("number", sql.Integer, primary_key=True, autoincrement=True),
    sql.Column("update_id", sql.LargeBinary(32), nullable=False, unique=True),
    sql.Column("site", _text(64), nullable=False),
    sql.Column("sequence", sql.BigInteger, nullable=False),
    sql.Column("base_version", sql.BigInteger, nullable=False),
    sql.Column("codec", _text(64), nullable=False),
    sql.Column("num_examples", sql.BigInteger, nullable=False),
    sql.Column("num_steps", sql.BigInteger, nullable=False),
    sql.Column("work_s", sql.Float, nullable=False),
    sql.Column("size_bytes", sql.BigInteger, nullable=False),
    sql.Column("digest", sql.LargeBinary(32), nullable=False, index=True),
    sql.Column("received_at_s", sql.Float, nullable=False),  # by the wall clock, for people
    sql.Column("arrived_s", sql.Float, nullable=False),  # by the federation's own clock, for weights and deadlines
    sql.Column("norm", sql.Float),
    sql.Column("reason", _text(32)),  # why it was refused; null: accepted
    sql.Column("version", sql.BigInteger, index=True),  # the version it went into; null: in the buffer
    sql.Column("weight", sql.Float),
    sql.Index("updates_of_a_site", "site", "base_version"),
    sql.Index("folded_of_a_site", "site", "version", "reason"),
    sqlite_autoincrement=True,
)
"""Every update that ended in a receipt, in the order of its acceptance."""

VERSIONS = sql.Table(
    "versions",
    METADATA,
    sql.Column("version", sql.BigInteger, primary_key=True, autoincrement=False),
    sql.Column("created_at_s", sql.Float, nullable=False),
    sql.Column("model_digest", sql.LargeBinary(32), nullable=False),
    sql.Column("state_digest", sql.LargeBinary(32), nullable=False),
    sql.Column("settings", sql.Text, nullable=False),
)

PARTS = sql.Table(
    "parts",
    METADATA,
    sql.Column("version", sql.BigInteger, primary_key=True, autoincrement=False),
    sql.Column("kind", _text(16), primary_key=True),
    sql.Column("codec", _text(64), nullable=False),
    sql.Column("size_bytes", sql.BigInteger, nullable=False),
    sql.Column("digest", sql.LargeBinary(32), nullable=False, index=True),
    sql.Column("chunk_digests", sql.LargeBinary, nullable=False),
)

EVALUATIONS = sql.Table(
    "evaluations",
    METADATA,
    sql.Column("version", sql.BigInteger, primary_key=True, autoincrement=False),
    sql.Column("site", _text(64), primary_key=True),
    sql.Column("metric", _text(64), primary_key=True),
    sql.Column("numerator", sql.Float, nullable=False),
    sql.Column("denominator", sql.Float, nullable=False),
    sql.Column("num_examples", sql.BigInteger, nullable=False),
    sql.Column("received_at_s", sql.Float, nullable=False),
)

CHAIN = sql.Table(
    "chain",
    METADATA,
    sql.Column("entry", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("kind", _text(16), nullable=False),
    sql.Column("key", _text(80), nullable=False),
    sql.Column("digest", sql.LargeBinary(32), nullable=False),
    sql.Column("head", sql.LargeBinary(32), nullable=False),
)
"""What was written, in its order (chain.py): appended to, never changed, and cut off at its beginning (pruning.py)."""

COUNTERS = sql.Table(
    "counters",
    METADATA,
    sql.Column("site", _text(64), primary_key=True),
    sql.Column("kind", _text(16), primary_key=True),
    sql.Column("counter", sql.BigInteger, nullable=False),
)
"""The greatest number that a site has signed a message of this kind with: what comes again has no greater one."""

WISHES = sql.Table(
    "wishes",
    METADATA,
    sql.Column("number", sql.Integer, primary_key=True, autoincrement=True),
    sql.Column("target", _text(64), nullable=False),  # a site, or ALL
    sql.Column("state", _text(16), nullable=False),
    sql.Column("wished_at_s", sql.Float, nullable=False),
    sqlite_autoincrement=True,
)
"""What the operator wants, the last of a target: the running coordinator makes it so."""

VERDICTS = sql.Table(
    "verdicts",
    METADATA,
    sql.Column("number", sql.Integer, primary_key=True, autoincrement=True),
    sql.Column("site", _text(64), nullable=False),
    sql.Column("verdict", _text(16), nullable=False),
    sql.Column("after_number", sql.BigInteger, nullable=False),  # the newest update of all sites by then
    sql.Column("given_at_s", sql.Float, nullable=False),
    sqlite_autoincrement=True,
)
"""What the operator decided of sites in quarantine; the last of a site holds."""

TOTALS = sql.Table(
    "totals",
    METADATA,
    sql.Column("up_to", sql.BigInteger, primary_key=True, autoincrement=False),  # the chain entry of the cut
    sql.Column("site", _text(64), primary_key=True),
    sql.Column("num_accepted", sql.BigInteger, nullable=False),
    sql.Column("num_refused", sql.BigInteger, nullable=False),
    sql.Column("num_steps", sql.BigInteger, nullable=False),  # of the accepted ones, as the weight
    sql.Column("weight", sql.Float, nullable=False),
    sql.Column("up_to_number", sql.BigInteger, nullable=False),  # the update up to which the site's pace is observed
    sql.Column("gap_s", sql.Float),  # the pace from here on (engine.rates); null with the others: none is known
    sql.Column("last_s", sql.Float),
    sql.Column("num_examples", sql.BigInteger),
    sql.Column("work_s", sql.Float),
)
"""What the rows of updates that were deleted at one cut come to, of each site, and its pace up to there."""

ALL = "*"


@dataclass(frozen=True, kw_only=True)
class StoredUpdate:
    """A row of `updates`."""

    number: int
    update_id: bytes
    site: str
    sequence: int
    base_version: int
    codec: str
    num_examples: int
    num_steps: int
    work_s: float
    size_bytes: int
    digest: bytes
    received_at_s: float
    arrived_s: float
    norm: float | None
    reason: str | None
    version: int | None
    weight: float | None

    @property
    def outcome(self) -> Outcome:
        return Outcome.REFUSED if self.reason else Outcome.ACCEPTED


class Verdict(StrEnum):
    """What the operator decided of a site in quarantine."""

    RELEASED = "released"  # its next updates count as before
    REFUSED = "refused"  # none of its updates counts until it is released


@dataclass(frozen=True)
class StoredVerdict:
    """What a row of `verdicts` says of its site."""

    verdict: Verdict
    after_number: int


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What some updates of a site come to; steps and weight are those of the accepted ones."""

    num_accepted: int = 0
    num_refused: int = 0
    num_steps: int = 0
    weight: float = 0.0

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(
            num_accepted=self.num_accepted + other.num_accepted,
            num_refused=self.num_refused + other.num_refused,
            num_steps=self.num_steps + other.num_steps,
            weight=self.weight + other.weight,
        )

    @classmethod
    def of(cls, update: StoredUpdate) -> "Totals":
        if update.reason:
            return cls(num_refused=1)
        return cls(num_accepted=1, num_steps=update.num_steps, weight=update.weight or 0.0)


@dataclass(frozen=True, kw_only=True)
class StoredVersion:
    """A row of `versions`."""

    version: int
    created_at_s: float
    model_digest: bytes
    state_digest: bytes
    settings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class StoredEvaluation:
    """A row of `evaluations`: one metric of one site at one version."""

    version: int
    site: str
    metric: str
    numerator: float
    denominator: float
    num_examples: int
    received_at_s: float

    @property
    def ratio(self) -> Ratio:
        return Ratio(numerator=self.numerator, denominator=self.denominator)
