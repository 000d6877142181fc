"""What the hospital permits right now: its policy, its people's approvals and its hours, asked before every step."""

import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path

from edge_agent.approvals import ApprovalsFile, Decision
from edge_agent.config import SiteConfig
from edge_agent.policy import (
    ALLOWED,
    EVALUATION,
    Approving,
    PolicySettings,
    Refusal,
    Verdict,
    WorkOrder,
    check_announcement,
    check_federation,
    check_update,
    order_of,
)
from edge_agent.policy_file import PolicyFile, open_at
from fedward.errors import ConfigError
from fedward.files import stamp_of, write_durably
from fedward.messages import Announcement, Offer
from fedward.ports import Clock
from fedward.process import utc_text

LOG = logging.getLogger(__name__)

LOOK_S = 2.0
"""Seconds after which the files of the hospital are looked at again."""

APPROVALS_FILE = "approvals.json"

VERDICT_FILE = "permission.json"
"""What `fedward agent status` reads."""


class Permission:
    """Nothing is permitted before the first announcement: until then there is nobody to work for."""

    def __init__(self, config: SiteConfig, digests: Mapping[str, str], clock: Clock) -> None:
        """`digests` of the configured tasks, by name, hexadecimal."""
        self._federation = config.federation
        self._digests = digests
        self._clock = clock
        self._file = PolicyFile(config.policy_file)
        self._approvals = ApprovalsFile(config.state_folder / APPROVALS_FILE)
        self._approvals_stamp = stamp_of(self._approvals.path)
        self._verdict_path = config.state_folder / VERDICT_FILE
        self._announcement: Announcement | None = None
        self._looked_s = clock.monotonic_s()
        self._update = ALLOWED  # what the policy says to the finished update that waits
        self._told: Verdict | None = None
        self.verdict = ALLOWED
        """On the announcement heard last, or on the federation before the first one."""
        self.judge()

    @property
    def policy(self) -> PolicySettings:
        return self._file.policy

    @property
    def permitted(self) -> bool:
        """May anything but presence and phase leave, and anything be fetched and computed?"""
        return self._announcement is not None and self.verdict.allowed

    @property
    def refuses(self) -> bool:
        """Is there anything that the coordinator is to be told is refused, the hours apart?"""
        return not (self.verdict.allowed and self._update.allowed)

    @property
    def hours_open(self) -> bool:
        """May training and evaluation run at this time of the week?"""
        return open_at(self.policy, self._clock.now_s())

    @property
    def tells(self) -> Collection[str]:
        """What telemetry may say beside presence and phase."""
        return self.policy.telemetry if self.permitted else ()

    @property
    def evaluates(self) -> bool:
        """May measurements on held-out records be made, and told?"""
        return EVALUATION in self.tells

    @property
    def refusal(self) -> Refusal | None:
        """What the people of the hospital were told last."""
        return self._told.refusal if self._told else None

    def hear(self, announcement: Announcement) -> None:
        """Judge what is asked for from now on."""
        self._announcement = announcement
        self.judge()

    def look(self, now_s: float) -> bool:
        """Read what has changed since the last look, if that is a while ago; whether the policy is another one."""
        if now_s < self._looked_s + LOOK_S:
            return False
        self._looked_s = now_s
        changed = self._file.look()
        if changed or stamp_of(self._approvals.path) != self._approvals_stamp or self._told != self._standing():
            self.judge()
        return changed

    def weigh(self, update: Offer | None) -> None:
        """Judge the finished update that waits, if one does: the policy may have changed since it was trained."""
        verdict = check_update(update, self.policy) if update else ALLOWED
        if verdict != self._update:
            self._update = verdict
            self._tell(self._standing())

    def judge(self) -> None:
        """Ask policy and people again, and tell the people of the hospital if the answer is another one."""
        self.verdict = self._judged()
        self._tell(self._standing())

    def _judged(self) -> Verdict:
        if self._file.problem:
            return Verdict(Refusal.UNREADABLE, self._file.problem)
        if self._announcement is None:
            return check_federation(self._federation, self.policy)
        order = order_of(self._announcement, self._digests)
        verdict = check_announcement(self._announcement, order, self.policy)
        return self._approved(order) if order and verdict.allowed else verdict

    def _approved(self, order: WorkOrder) -> Verdict:
        try:
            automatic = self.policy.approval is Approving.AUTOMATIC
            found = self._approvals.ask(order, self._clock.now_s(), automatic=automatic)
            self._approvals_stamp = stamp_of(self._approvals.path)
        except (ConfigError, OSError) as error:
            self._approvals_stamp = None  # look again
            return Verdict(Refusal.UNREADABLE, str(error))
        if found.decision is Decision.APPROVED:
            return ALLOWED
        if found.decision is Decision.DENIED:
            return Verdict(Refusal.DENIED, f"request {order.id} was denied: {order}")
        return Verdict(Refusal.PENDING, f"request {order.id} waits for `fedward agent approve {order.id}`: {order}")

    def _standing(self) -> Verdict:
        """The verdict, or that an update is held back, or that the hours are over."""
        if not self.verdict.allowed:
            return self.verdict
        if self._update.allowed and self.policy.hours and not self.hours_open:
            hours = self.policy.hours
            return Verdict(Refusal.HOURS, f"open {'; '.join(hours.open)}, {hours.time_zone}")
        return self._update

    def _tell(self, verdict: Verdict) -> None:
        """Into the log and the file that `status` reads, once a change."""
        if verdict == self._told:
            return
        self._told = verdict
        if verdict.allowed:
            LOG.info("policy_allows")
        else:
            LOG.warning("refused_by_policy", extra={"refusal": verdict.refusal, "detail": verdict.detail})
        content = {"at_s": self._clock.now_s(), "refusal": verdict.refusal, "detail": verdict.detail}
        try:
            write_durably(self._verdict_path, json.dumps(content).encode())
        except OSError as error:
            LOG.warning("verdict_not_saved", extra={"problem": error.strerror})


def told_verdict(state_folder: Path) -> str:
    """What the agent said last of its permission, for people; empty before it said anything."""
    try:
        content = json.loads((state_folder / VERDICT_FILE).read_text())
    except (FileNotFoundError, ValueError):
        return ""
    since = f"since {utc_text(content['at_s'])}"
    return f"{content['refusal']} ({content['detail']}), {since}" if content["refusal"] else f"allowed, {since}"
