"""The way of each update, as stretches of time: offered, collected, stored, waiting, folded into a version. Pure.

    offer      the offer came, until it was answered
    chunks     asked for, until the last one came
    store      the last one came, until the update was recorded and the site told: accepted or refused, and why
    wait       recorded, until a version was begun of it
    fold       the version of it was made
    update     the whole way

An update's stretches have its id, also over a restart of the coordinator, after which those before it are not known any
more. Nothing of the update itself is told but what its metrics tell, too. Times are seconds since 1970.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from coordinator.tables import StoredUpdate
from fedward.messages import Grant, Receipt

Fact = str | int

MOST = 10_000
"""Updates on their way that are remembered; of the oldest it is forgotten when they were offered."""

WHOLE = "update"


@dataclass(frozen=True)
class Stretch:
    """A part of the way of one update."""

    update_id: bytes
    name: str
    began_s: float
    ended_s: float
    facts: dict[str, Fact]


@dataclass
class _Known:
    """When an update was offered first, and asked for."""

    offered_s: float
    asked_s: float | None = None


Tell = Callable[[Stretch], None]


class Journeys:
    """Follows the updates that are on their way; `tell` is given each stretch when it has ended, the whole last."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._known: dict[bytes, _Known] = {}

    @property
    def num_known(self) -> int:
        """Updates whose offer is remembered."""
        return len(self._known)

    def answered(
        self, site: str, answer: Grant | Receipt, row: StoredUpdate | None, began_s: float, now_s: float
    ) -> None:
        """A message that began to be handled at `began_s` was answered; `row` is what was recorded for it just now.

        An update that is told to come later, or told its end once more, is not at the end of its way by that.
        """
        known = self._known.get(answer.update_id) or self._meet(answer.update_id, began_s)
        facts: dict[str, Fact] = {"site": site}
        if isinstance(answer, Grant):
            self._tell(Stretch(answer.update_id, "offer", began_s, now_s, {**facts, "answer": "granted"}))
            known.asked_s = now_s
            return
        facts |= {"answer": answer.outcome.value}
        if answer.reason:
            facts["reason"] = answer.reason.value
        if row is None:
            self._tell(Stretch(answer.update_id, "offer", began_s, now_s, facts))
            return
        if known.asked_s is not None:
            self._tell(Stretch(row.update_id, "chunks", known.asked_s, began_s, {"size_bytes": row.size_bytes}))
        self._tell(Stretch(row.update_id, "store", began_s, now_s, {**facts, **_facts(row)}))
        if row.reason:
            self._tell_whole(row, now_s, facts)

    def folded(self, rows: Iterable[StoredUpdate], version: int, began_s: float, now_s: float) -> None:
        """These updates went into `version`, which was begun at `began_s`."""
        for row in rows:
            self._tell(Stretch(row.update_id, "wait", min(row.received_at_s, began_s), began_s, {}))
            self._tell(Stretch(row.update_id, "fold", began_s, now_s, {"version": version}))
            staleness = version - 1 - row.base_version
            self._tell_whole(row, now_s, {"site": row.site, "version": version, "staleness": staleness})

    def _meet(self, update_id: bytes, began_s: float) -> _Known:
        if len(self._known) >= MOST:
            del self._known[next(iter(self._known))]
        self._known[update_id] = _Known(began_s)
        return self._known[update_id]

    def _tell_whole(self, row: StoredUpdate, now_s: float, facts: dict[str, Fact]) -> None:
        known = self._known.pop(row.update_id, None)
        began_s = known.offered_s if known else min(row.received_at_s, now_s)
        self._tell(Stretch(row.update_id, WHOLE, began_s, now_s, {**facts, **_facts(row)}))


def _facts(row: StoredUpdate) -> dict[str, Fact]:
    return {"base_version": row.base_version, "codec": row.codec, "size_bytes": row.size_bytes}
