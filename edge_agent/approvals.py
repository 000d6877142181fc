"""What people of the hospital have approved, and what waits for them: durable, shared by the agent and its commands.

Each change is made under a lock of its own and written whole, so that an agent that asks and a person who answers
never undo each other's.
"""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from edge_agent.policy import WorkOrder
from fedward.errors import ConfigError
from fedward.files import write_durably
from fedward.process import utc_text


class Decision(StrEnum):
    """What became of a request."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"


class Approver(StrEnum):
    """Who decided."""

    PERSON = "person"
    POLICY = "policy"  # its `approval` was automatic


@dataclass(frozen=True)
class Approval:
    """A work order that somebody asked for, and what was decided; times in seconds since 1970."""

    order: WorkOrder
    asked_at_s: float
    decision: Decision = Decision.PENDING
    decided_at_s: float | None = None
    by: Approver | None = None


Approvals = Mapping[str, Approval]
"""By the id of the work order."""

_FORMAT = TypeAdapter(dict[str, Approval])


class ApprovalsFile:
    """`approvals.json`. Only orders for configured tasks get there, so a stranger can't make it large."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> Approvals:
        """All requests, oldest first. Raises ConfigError for a file that can't be read: nothing is approved then."""
        try:
            return _FORMAT.validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError):
            raise ConfigError(
                f"{self.path}: can't be read, so nothing counts as approved; restore it, or delete it and approve again"
            ) from None

    def ask(self, order: WorkOrder, now_s: float, *, automatic: bool) -> Approval:
        """The decision on an order; one that is new, or waits, is approved at once if that is automatic.

        Raises ConfigError as `load` does, OSError when a new one can't be written down.
        """
        with self._alone():
            known = self.load()
            found = known.get(order.id) or Approval(order, now_s)
            if automatic and found.decision is Decision.PENDING:
                found = replace(found, decision=Decision.APPROVED, decided_at_s=now_s, by=Approver.POLICY)
            if found != known.get(order.id):
                self._save({**known, order.id: found})
        return found

    def decide(self, request: str | None, decision: Decision, now_s: float) -> Approval:
        """Write a person's decision on this request down, by id; without one, on the only one that waits.

        Raises ConfigError for an id that is not there, and without an id when not exactly one waits.
        """
        with self._alone():
            known = self.load()
            chosen = request or _only_pending(known)
            if chosen not in known:
                raise ConfigError(f"no request {chosen}; `fedward agent pending --all` lists them")
            decided = replace(known[chosen], decision=decision, decided_at_s=now_s, by=Approver.PERSON)
            self._save({**known, chosen: decided})
        return decided

    def _save(self, approvals: Approvals) -> None:
        content = {name: asdict(approval) for name, approval in approvals.items()}
        write_durably(self.path, json.dumps(content, indent=2).encode())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def pending(approvals: Approvals) -> list[str]:
    """The ids of those that wait for a person."""
    return [name for name, approval in approvals.items() if approval.decision is Decision.PENDING]


def _only_pending(approvals: Approvals) -> str:
    waiting = pending(approvals)
    if len(waiting) != 1:
        raise ConfigError(f"{len(waiting)} requests wait: name one of those that `fedward agent pending` lists")
    return waiting[0]


def listed(approvals: Approvals, *, everything: bool) -> Iterator[str]:
    """The requests that wait, or all, for people: id, what was decided, and what was asked for."""
    for name in approvals if everything else pending(approvals):
        found = approvals[name]
        by = f" by {found.by}" if found.by else ""
        at_s = found.decided_at_s or found.asked_at_s
        yield f"{name}  {found.decision}{by} since {utc_text(at_s)}"
        yield f"    federation {found.order.federation}, task {found.order.task}, {found.order.work}"
        yield f"    task digest {found.order.task_digest}"
