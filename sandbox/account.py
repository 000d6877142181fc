"""What became of every update of a federation: what was trained against what was received, applied or still waits.

Two witnesses that know nothing of each other: what agents trained is taken from their logs, what became of it from
the coordinator's ledger and the outboxes. Updates are named by their ids in hexadecimal.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from edge_agent.outbox import Outbox
from edge_agent.progress import ProgressFile
from fedward.limits import CHUNK_BYTES, INLINE_BYTES
from sandbox.federation import Federation
from sandbox.logs import Log

Ids = frozenset[str]


@dataclass(frozen=True)
class Account:
    """The updates of a federation, by where they are. `difference` says what does not add up."""

    trained: Ids  # were in an outbox once
    saved_again: Ids  # more than once: trained although they were done
    receipted: Ids  # the agent had the receipt
    accepted: Ids
    refused: Ids
    waiting: Ids  # in an outbox
    applied: Ids  # accepted, and in a version
    miscounted: tuple[str, ...]  # sites that have counted other receipts than the ledger
    torn_versions: tuple[int, ...]  # whose updates are other ones in the log than in the ledger, or none
    num_versions: int  # made after the initial one
    num_chunks: int  # of the accepted updates together; one that rides inside its offer has none

    @property
    def lost(self) -> Ids:
        """Trained, and nowhere."""
        return self.trained - self.accepted - self.refused - self.waiting

    def difference(self) -> list[str]:
        """What was lost, counted twice or came from nowhere, in words; empty when all adds up.

        Only when everything has settled: an update whose receipt is on its way is both accepted and waiting.
        """
        ended = self.accepted | self.refused
        findings = {
            "trained, and neither accepted nor refused nor in an outbox": self.lost,
            "never trained": (ended | self.waiting) - self.trained,
            "trained again although it was in the outbox": self.saved_again,
            "accepted and refused": self.accepted & self.refused,
            "ended, and still in an outbox": ended & self.waiting,
            "receipted, and not in the ledger": self.receipted - ended,
        }
        words = [f"{what}: {', '.join(sorted(ids))}" for what, ids in findings.items() if ids]
        words += [f"{site}: counts other receipts than the ledger" for site in self.miscounted]
        return words + [f"version {version}: its updates are in two versions" for version in self.torn_versions]


def account(running: Federation) -> Account:
    """Look at logs, outboxes and ledger, in the order of an update's life, so that none slips by: it changes nothing.

    What is lost or was trained twice shows at any time; the rest of the difference only when everything has settled.
    """
    saved: Counter[str] = Counter()
    found: set[str] = set()
    receipted: set[str] = set()
    waiting: set[str] = set()
    counted: dict[str, tuple[int, int]] = {}
    for site in running.sites:
        for event in _events(running, site):
            if event["event"] == "saved":
                saved[event["update"]] += 1
            elif event["event"] == "waiting":  # a kill came between the save and its line in the log
                found.add(event["update"])
            elif event["event"] == "receipt" and event["outcome"] != "later":
                receipted.add(event["update"])
        outbox = Outbox(running.state_folder(site) / "outbox")
        waiting |= {entry.offer.update_id.hex() for entry in outbox.entries()}
        progress = ProgressFile(running.state_folder(site) / "progress.json").load(())
        counted[site] = (progress.num_accepted, progress.num_refused)
    ledger = running.ledger()
    versions, rows = ledger.versions(), ledger.updates()
    ledger.close()
    said = chain.from_iterable(_events(running, name) for name in running.coordinators)
    accepted = [row for row in rows if row.reason is None]
    ended = Counter((row.site, row.reason is None) for row in rows)
    of_versions: dict[int, set[int]] = {row.version: set() for row in versions if row.version > 0}
    for row in accepted:
        if row.version is not None:
            of_versions.setdefault(row.version, set()).add(row.number)
    return Account(
        trained=frozenset(saved) | found,
        saved_again=frozenset(update for update, times in saved.items() if times > 1),
        receipted=frozenset(receipted),
        accepted=frozenset(row.update_id.hex() for row in accepted),
        refused=frozenset(row.update_id.hex() for row in rows if row.reason is not None),
        waiting=frozenset(waiting),
        applied=frozenset(row.update_id.hex() for row in accepted if row.version is not None),
        miscounted=tuple(site for site in running.sites if counted[site] != (ended[site, True], ended[site, False])),
        torn_versions=tuple(torn_versions(of_versions, said)),
        num_versions=len(of_versions),
        num_chunks=sum(-(-row.size_bytes // CHUNK_BYTES) for row in accepted if row.size_bytes > INLINE_BYTES),
    )


def torn_versions(of_versions: dict[int, set[int]], events: Iterator[dict[str, Any]]) -> list[int]:
    """The ledger names one version of an update; what the coordinator said when it made one has to be the same."""
    torn = {version for version, numbers in of_versions.items() if not numbers}
    for event in events:
        if event["event"] == "version" and set(event["numbers"]) != of_versions.get(event["version"]):
            torn.add(event["version"])
    return sorted(torn)


def _events(running: Federation, program: str) -> Iterator[dict[str, Any]]:
    return Log(running.plan.folder / "logs" / f"{program}.log").events()
