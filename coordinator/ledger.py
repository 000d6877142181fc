"""The ledger: what was received, decided and made, in SQL. It is the truth; everything else can be lost.

One transaction a change of state, committed and synced before anybody is told.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sql
from sqlalchemy.engine import Connection, Engine

from coordinator import chaining, evaluations, needed, paces, pruning, schema, verdicts
from coordinator.chain import Entry
from coordinator.clock import Moment
from coordinator.database import copy_to_file, in_folder, writing
from coordinator.engine.norms import RECENT
from coordinator.engine.rates import SiteRate
from coordinator.tables import (
    COUNTERS,
    FACTS,
    PARTS,
    UPDATES,
    VERSIONS,
    WISHES,
    StoredEvaluation,
    StoredUpdate,
    StoredVerdict,
    StoredVersion,
    Totals,
    Verdict,
)
from fedward.errors import ConfigError, IntegrityError, RejectReason
from fedward.messages import Evaluation, FederationState, Manifest, Offer, Part, PartKind


class Ledger:
    """The ledger of one federation, in any database that SQLAlchemy reaches."""

    def __init__(self, engine: Engine, *, create: bool = True) -> None:
        """Open it; `create` makes the tables of an empty one, which only one process may do at a time.

        Raises ConfigError for a ledger of another release.
        """
        self._engine = engine
        if create:
            schema.make_tables(engine)
        else:
            schema.check(engine)

    @classmethod
    def in_folder(cls, folder: Path, *, create: bool = True) -> Self:
        """The ledger as a SQLite file."""
        return cls(in_folder(folder), create=create)

    @property
    def path(self) -> Path | None:
        """Of its file; None for one on a server."""
        name = self._engine.url.database if self._engine.dialect.name == "sqlite" else None
        return Path(name) if name else None

    def has_begun(self) -> bool:
        """Whether version 0 is recorded: until then the coordinator that makes this ledger is not done with it."""
        return sql.inspect(self._engine).has_table(VERSIONS.name) and self.newest_version() is not None

    def empty_log(self) -> None:
        """Move what was committed from SQLite's write-ahead log into the file, once both were found sound.

        A torn end is so gone from it: what a later power loss tears would make two, which are taken for damage.
        """
        if self._engine.dialect.name == "sqlite":
            with self._engine.connect() as connection:
                connection.execute(sql.text("PRAGMA wal_checkpoint(TRUNCATE)"))

    def close(self) -> None:
        self._engine.dispose()

    # What this ledger is of

    def claim(self, name: str, value: str) -> None:
        """Write a fact once; raise ConfigError when the ledger says otherwise already."""
        with writing(self._engine) as connection:
            known = _fact(connection, name)
            if known is None:
                connection.execute(sql.insert(FACTS).values(name=name, value=value))
                chaining.append_fact(connection, name)
            elif known != value:
                raise ConfigError(
                    f"the state folder belongs to {name} {known}, the configuration says {value}; "
                    "use another state_folder, or correct the configuration"
                )

    def fact(self, name: str) -> str | None:
        with self._engine.connect() as connection:
            return _fact(connection, name)

    def next_sequence(self) -> int:
        """A number that grows with every call, over restarts too."""
        with writing(self._engine) as connection:
            number = int(_fact(connection, "sequence") or 0) + 1
            _set_fact(connection, "sequence", number)
            return number

    def counters(self) -> dict[tuple[str, str], int]:
        """The greatest number that each site has used for each kind of message."""
        with self._engine.connect() as connection:
            return {(row.site, row.kind): row.counter for row in connection.execute(sql.select(COUNTERS))}

    def begin_counters(self, site: str, key: str) -> bool:
        """Count anew where the site has another key than when it was called last; whether it has.

        What the old key has signed is not signed for the new one, so nothing of it can come again.
        """
        name = f"key of {site}"
        with writing(self._engine) as connection:
            known = _fact(connection, name)
            if known != key:
                _set_fact(connection, name, key)
            if known in (None, key):
                return False
            connection.execute(sql.delete(COUNTERS).where(COUNTERS.c.site == site))
            return True

    def save_counters(self, used: Mapping[tuple[str, str], int]) -> None:
        """Replace these of them."""
        table = COUNTERS.c
        with writing(self._engine) as connection:
            for (site, kind), counter in used.items():
                connection.execute(sql.delete(COUNTERS).where(table.site == site, table.kind == kind))
                connection.execute(sql.insert(COUNTERS).values(site=site, kind=kind, counter=counter))

    @property
    def epoch(self) -> int | None:
        """Where the sequence began when this ledger was made, or restored from a backup; None before version 0."""
        epoch = self.fact("epoch")
        return int(epoch) if epoch else None

    def begin_epoch(self, least: int) -> int:
        """Let the sequence go on from `least`, or above its own value if that is greater: see docs/adr/0004."""
        with writing(self._engine) as connection:
            epoch = max(least, int(_fact(connection, "sequence") or 0) + 1)
            for name in ("sequence", "epoch"):
                _set_fact(connection, name, epoch)
            return epoch

    # Updates

    def update(self, update_id: bytes) -> StoredUpdate | None:
        rows = self._updates(UPDATES.c.update_id == update_id)
        return rows[0] if rows else None

    def add_update(
        self, offer: Offer, site: str, at: Moment, norm: float | None, reason: RejectReason | None
    ) -> StoredUpdate:
        """Record the end of an update, accepted or refused; the same id a second time returns the first row."""
        known = self.update(offer.update_id)
        if known:
            return known
        row = {name: getattr(offer, name) for name in _OF_THE_OFFER} | {
            "site": site,
            "size_bytes": offer.manifest.size_bytes,
            "digest": offer.manifest.digest,
            "received_at_s": at.wall_s,
            "arrived_s": at.own_s,
            "norm": norm,
            "reason": reason.value if reason else None,
        }
        with writing(self._engine) as connection:
            connection.execute(sql.insert(UPDATES).values(row))
            chaining.append_update(connection, offer.update_id)
        return self._updates(UPDATES.c.update_id == offer.update_id)[0]

    def latest_arrival_s(self) -> float:
        """When the last update arrived by the federation's own clock; 0 before the first."""
        with self._engine.connect() as connection:
            return float(connection.execute(sql.select(sql.func.max(UPDATES.c.arrived_s))).scalar() or 0.0)

    def has_delivered(self, site: str, base_version: int) -> bool:
        """Whether an update of this site from this version was accepted."""
        query = sql.select(UPDATES.c.number).where(
            UPDATES.c.site == site, UPDATES.c.base_version == base_version, UPDATES.c.reason.is_(None)
        )
        with self._engine.connect() as connection:
            return connection.execute(query.limit(1)).first() is not None

    def buffered(self) -> tuple[StoredUpdate, ...]:
        """The accepted updates since the last version, in ledger order."""
        return self._updates(UPDATES.c.version.is_(None), UPDATES.c.reason.is_(None))

    def buffered_bytes(self, site: str) -> int:
        """Of the payloads of a site in the buffer."""
        of = UPDATES.c
        query = sql.select(sql.func.sum(of.size_bytes)).where(
            of.site == site, of.version.is_(None), of.reason.is_(None)
        )
        with self._engine.connect() as connection:
            return int(connection.execute(query).scalar() or 0)

    def updates_of(self, version: int) -> tuple[StoredUpdate, ...]:
        """The updates that went into a version, in ledger order."""
        return self._updates(UPDATES.c.version == version)

    def updates(self) -> tuple[StoredUpdate, ...]:
        """Every update that had its receipt and is still there, in ledger order: of each site the last, at least."""
        return self._updates()

    def accepted(self) -> tuple[StoredUpdate, ...]:
        """Those of them that were accepted."""
        return self._updates(UPDATES.c.reason.is_(None))

    def num_ended(self) -> tuple[tuple[str, str | None, int], ...]:
        """Site, reason (None: accepted) and number of the updates that are there."""
        of = UPDATES.c
        query = sql.select(of.site, of.reason, sql.func.count()).group_by(of.site, of.reason)
        with self._engine.connect() as connection:
            return tuple((site, reason, number) for site, reason, number in connection.execute(query))

    def recent_norms(self) -> tuple[tuple[str, float], ...]:
        """Site and norm of the RECENT last accepted updates, newest first."""
        of = UPDATES.c
        query = sql.select(of.site, of.norm).where(of.reason.is_(None), of.norm.is_not(None))
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(of.number.desc()).limit(RECENT))
            return tuple((site, norm) for site, norm in rows)

    def last_accepted(self) -> dict[str, tuple[int, str, float | None]]:
        """Of each site, the base version, the codec and the norm of its last accepted update."""
        last, told = needed.last_of_sites(sql.true()), (UPDATES.c.base_version, UPDATES.c.codec, UPDATES.c.norm)
        query = sql.select(UPDATES.c.site, *told).where(UPDATES.c.number.in_(last))
        with self._engine.connect() as connection:
            return {row.site: (row.base_version, row.codec, row.norm) for row in connection.execute(query)}

    def paces(self) -> dict[str, SiteRate]:
        """Of each site ever heard, what its updates say of its pace."""
        with self._engine.connect() as connection:
            return paces.of_sites(connection)

    def last_written(self) -> tuple[float, str]:
        """When an update or version was recorded last, by the wall clock, and its name. Version 0 is there."""
        updates = sql.select(UPDATES.c.received_at_s, UPDATES.c.number).order_by(UPDATES.c.received_at_s.desc())
        versions = sql.select(VERSIONS.c.created_at_s, VERSIONS.c.version).order_by(VERSIONS.c.created_at_s.desc())
        with self._engine.connect() as connection:
            return max(
                (float(at_s), f"{what} {number}")
                for what, query in (("update", updates), ("version", versions))
                for at_s, number in connection.execute(query.limit(1))
            )

    def totals(self) -> dict[str, Totals]:
        """Of each site, what its updates come to that are not there any more."""
        with self._engine.connect() as connection:
            return pruning.totals_of(connection, sql.true())

    def latest_of_sites(self, before_number: int) -> dict[str, StoredUpdate]:
        """Of each site, its last update that is in a version and older than row `before_number`."""
        newest = (
            sql.select(sql.func.max(UPDATES.c.number))
            .where(UPDATES.c.version.is_not(None), UPDATES.c.reason.is_(None), UPDATES.c.number < before_number)
            .group_by(UPDATES.c.site)
        )
        return {row.site: row for row in self._updates(UPDATES.c.number.in_(newest))}

    def _updates(self, *conditions: sql.ColumnElement[bool]) -> tuple[StoredUpdate, ...]:
        query = sql.select(UPDATES).where(*conditions).order_by(UPDATES.c.number)
        with self._engine.connect() as connection:
            return tuple(StoredUpdate(**row) for row in connection.execute(query).mappings())

    # Versions

    def add_version(self, version: StoredVersion, parts: Sequence[Part], weights: Mapping[int, float]) -> None:
        """Record a version, its parts, and the updates it is made of (row number -> weight), all or nothing."""
        with writing(self._engine) as connection:
            connection.execute(
                sql.insert(VERSIONS).values(
                    version=version.version,
                    created_at_s=version.created_at_s,
                    model_digest=version.model_digest,
                    state_digest=version.state_digest,
                    settings=json.dumps(version.settings),
                )
            )
            for part in parts:
                connection.execute(
                    sql.insert(PARTS).values(
                        version=part.version, kind=part.kind, codec=part.codec, **vars(part.manifest)
                    )
                )
            for number, weight in weights.items():
                connection.execute(
                    sql.update(UPDATES).where(UPDATES.c.number == number).values(version=version.version, weight=weight)
                )
            chaining.append_version(connection, version.version)

    def versions(self) -> tuple[StoredVersion, ...]:
        return self._versions(sql.select(VERSIONS).order_by(VERSIONS.c.version))

    def version(self, version: int) -> StoredVersion:
        """Raises KeyError for a version that was never made."""
        rows = self._versions(sql.select(VERSIONS).where(VERSIONS.c.version == version))
        if not rows:
            raise KeyError(version)
        return rows[0]

    def model_digest(self, version: int) -> bytes | None:
        """Of the model that agents hold at a version; None for one that was never made."""
        query = sql.select(VERSIONS.c.model_digest).where(VERSIONS.c.version == version)
        with self._engine.connect() as connection:
            return connection.execute(query).scalar_one_or_none()

    def oldest_version(self) -> int:
        """The oldest version whose rows are kept; version 0 is always made first."""
        with self._engine.connect() as connection:
            return int(connection.execute(sql.select(sql.func.min(VERSIONS.c.version))).scalar_one())

    def newest_version(self) -> StoredVersion | None:
        rows = self._versions(sql.select(VERSIONS).order_by(VERSIONS.c.version.desc()).limit(1))
        return rows[0] if rows else None

    def _versions(self, query: sql.Select[Any]) -> tuple[StoredVersion, ...]:
        with self._engine.connect() as connection:
            rows = connection.execute(query).mappings()
            return tuple(StoredVersion(**{**row, "settings": json.loads(row["settings"])}) for row in rows)

    def parts(self, first: int, last: int) -> tuple[Part, ...]:
        """The parts of the versions `first` to `last`, both included, in order."""
        query = sql.select(PARTS).where(PARTS.c.version.between(first, last)).order_by(PARTS.c.version, PARTS.c.kind)
        with self._engine.connect() as connection:
            return tuple(_part(row) for row in connection.execute(query).mappings())

    def newest_snapshot(self, up_to: int) -> int:
        """The newest version up to `up_to` that has a snapshot; version 0 always has one."""
        query = sql.select(sql.func.max(PARTS.c.version)).where(
            PARTS.c.kind == PartKind.SNAPSHOT, PARTS.c.version <= up_to
        )
        with self._engine.connect() as connection:
            return int(connection.execute(query).scalar_one())

    # Retention

    @property
    def floor(self) -> int:
        """The oldest version that can be replayed and exported."""
        with self._engine.connect() as connection:
            return needed.number(connection, needed.FLOOR)

    @property
    def reach(self) -> int:
        """The version of a snapshot, at or below the floor: parts are kept from it on."""
        with self._engine.connect() as connection:
            return needed.number(connection, needed.REACH)

    def raise_floor(self, floor: int) -> None:
        """Let go of the payloads that only versions below `floor` need: they may be deleted when this returns."""
        with writing(self._engine) as connection:
            reach = needed.reach_of(connection, floor)
            _set_fact(connection, needed.FLOOR, floor)
            _set_fact(connection, needed.REACH, reach)

    def prune(self, first_version: int) -> None:
        """Delete the rows of older versions, as `pruning.prune` does and raises."""
        with writing(self._engine) as connection:
            pruning.prune(connection, first_version)

    def needs_blob(self, digest: bytes) -> bool:
        """Whether a row that is kept needs this blob."""
        with self._engine.connect() as connection:
            return needed.is_needed(connection, digest)

    def blobs(self) -> dict[bytes, str]:
        """Every blob that the ledger needs, and what it is. The newest state first: the next version replaces it."""
        with self._engine.connect() as connection:
            return needed.blobs(connection)

    # Chain

    def chain(self) -> tuple[Entry, ...]:
        """What was written, oldest first."""
        with self._engine.connect() as connection:
            return chaining.entries(connection)

    def newest_entry(self) -> Entry | None:
        """The chain's end, with its head; None while nothing was written."""
        with self._engine.connect() as connection:
            return chaining.newest_entry(connection)

    def check_chain(self) -> None:
        """Raise IntegrityError naming the first row that is not as it was written. Not while another one writes."""
        with self._engine.connect() as connection:
            fault = chaining.fault(connection)
        if fault:
            raise IntegrityError(f"ledger: {fault}")

    def copy_to(self, path: Path) -> None:
        """Copy the ledger to a new SQLite file, as it is at one moment, while others write."""
        copy_to_file(self._engine, path)

    # Evaluations

    def add_evaluation(self, evaluation: Evaluation, site: str, received_at_s: float) -> bool:
        """Record a site's first measurement of a version; False, and nothing changes, for a repeated one."""
        with writing(self._engine) as connection:
            return evaluations.add(connection, evaluation, site, received_at_s)

    def evaluations(self) -> tuple[StoredEvaluation, ...]:
        with self._engine.connect() as connection:
            return evaluations.stored(connection)

    def latest_evaluations(self) -> tuple[StoredEvaluation, ...]:
        """Of each site, the rows of the newest version that it measured."""
        with self._engine.connect() as connection:
            return evaluations.latest(connection)

    # Wishes

    def wish(self, target: str, state: FederationState, at_s: float) -> None:
        """Record what the operator wants of a site, or of ALL."""
        with writing(self._engine) as connection:
            row = {"target": target, "state": state, "wished_at_s": at_s}
            number = connection.execute(sql.insert(WISHES).values(row).returning(WISHES.c.number)).scalar_one()
            chaining.append_wish(connection, number)

    def wishes(self) -> dict[str, FederationState]:
        """The last wish for each target."""
        query = sql.select(WISHES).order_by(WISHES.c.number)
        with self._engine.connect() as connection:
            return {row.target: FederationState(row.state) for row in connection.execute(query)}

    # Quarantine

    def give_verdict(self, site: str, verdict: Verdict, at_s: float) -> None:
        """Record what the operator decided of a site."""
        with writing(self._engine) as connection:
            verdicts.give(connection, site, verdict, at_s)

    def verdicts(self) -> dict[str, StoredVerdict]:
        """The last one on each site."""
        with self._engine.connect() as connection:
            return verdicts.latest(connection)

    def judged(self, site: str, after_number: int, ends: Collection[str | None], most: int) -> tuple[StoredUpdate, ...]:
        """The newest `most` updates of a site, newest first, that came after an update's number and ended so."""
        with self._engine.connect() as connection:
            return verdicts.judged(connection, site, after_number, ends, most)


_OF_THE_OFFER = ("update_id", "sequence", "base_version", "codec", "num_examples", "num_steps", "work_s")


def _fact(connection: Connection, name: str) -> str | None:
    return connection.execute(sql.select(FACTS.c.value).where(FACTS.c.name == name)).scalar_one_or_none()


def _set_fact(connection: Connection, name: str, value: int | str) -> None:
    connection.execute(sql.delete(FACTS).where(FACTS.c.name == name))
    connection.execute(sql.insert(FACTS).values(name=name, value=str(value)))


def _part(row: Any) -> Part:
    manifest = Manifest(size_bytes=row["size_bytes"], digest=row["digest"], chunk_digests=row["chunk_digests"])
    return Part(kind=PartKind(row["kind"]), version=row["version"], codec=row["codec"], manifest=manifest)
