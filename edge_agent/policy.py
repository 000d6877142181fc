"""What the hospital allows, decided here and nowhere else. Pure.

`PolicySettings` is the hospital's own file, docs/policy.md explains it. Whatever it refuses, the other side learns
that the site refuses, by the phase, and never why: a Verdict stays in the hospital.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from edge_agent.hours import parse_range
from fedward.codec import CODECS
from fedward.messages import Announcement, Offer, Telemetry, Work
from fedward.settings import NameSetting, Settings, UpdateCodecSetting

ANY = "any"
EVALUATION = "evaluation"

TELLABLE = (*(field.name for field in fields(Telemetry) if field.name not in ("boot_id", "phase")), EVALUATION)
"""What may be told beside presence and phase: the fields of Telemetry, and the whole Evaluation."""


def tellable(name: str) -> str:
    """The name itself. Raises ValueError for one that no message has."""
    if name not in TELLABLE:
        raise ValueError(f"nothing of that name is ever told; known: {', '.join(TELLABLE)}")
    return name


def open_range(text: str) -> str:
    """The text itself. Raises ValueError for one that is no range of hours."""
    parse_range(text)
    return text


TaskDigest = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


class Approving(StrEnum):
    """Who approves what is new here."""

    BY_HAND = "by hand"
    AUTOMATIC = "automatic"


class HoursSettings(Settings):
    """When training may run."""

    time_zone: str
    """The hospital's own, such as Europe/Berlin: all times are what the clock on its wall shows."""
    open: list[Annotated[str, AfterValidator(open_range)]] = Field(min_length=1)
    """Ranges such as 'mon-fri 19:00-07:00' (until the next morning) or 'sat,sun 00:00-24:00'."""


class PolicySettings(Settings):
    """What the hospital allows; the coordinator cannot override it."""

    federations: list[NameSetting] | None = None
    """Federations that this site may take part in; unset: the one that the agent is configured for."""
    tasks: dict[NameSetting, Literal["any"] | list[TaskDigest]] | None = None
    """Tasks that may be trained, each with the digests that it may have, or `any`; unset: those of the agent's
    configuration, whatever is installed under their names."""
    hours: HoursSettings | None = None
    """When training and evaluation may run; unset: always. What runs at the end of the hours stops within a step."""
    compute_share: float = Field(default=1.0, gt=0, le=1)
    """Share of the time that training may use the device: 0.25 trains a quarter of the time and pauses the rest."""
    min_examples: int = Field(default=1, ge=1)
    """Least number of training records; with fewer, this site does not train, and no update leaves. An update is
    trained on so many at least, however few steps or seconds the coordinator asks for."""
    codecs: list[UpdateCodecSetting] | None = Field(default=None, min_length=1)
    """Codecs that updates may leave in; unset: all that the federation allows. With none in common with the
    federation, this site does not train."""
    upload_s: float = Field(default=60.0, gt=0, le=86_400)
    """Seconds that an upload may take, or a quarter of the time of training if that is longer: a slow link sends
    updates of fewer bits."""
    telemetry: list[Annotated[str, AfterValidator(tellable)]] = Field(default=list(TELLABLE))
    """What may be told beside presence, phase and updates; what is not listed never leaves. `evaluation` stands for
    the metrics on held-out records."""
    approval: Approving = Approving.BY_HAND
    """How a federation, task, task digest or kind of work that is new here is approved: `by hand`, by a person with
    `fedward agent approve`, or `automatic`."""


NOTHING = PolicySettings(federations=[], tasks={}, telemetry=[])
"""What holds where the hospital's file can't be read."""


class Refusal(StrEnum):
    """Why the policy refuses: a closed list, for the hospital's log, status and metrics only."""

    UNREADABLE = "unreadable"  # the policy file, or the file of approvals
    FEDERATION = "federation"
    TASK = "task"
    TASK_DIGEST = "task_digest"
    CODEC = "codec"
    PENDING = "pending"  # waits for a person's approval
    DENIED = "denied"
    UPDATE = "update"  # a finished one, that the policy would not let be made any more
    HOURS = "hours"


@dataclass(frozen=True)
class Verdict:
    """What the policy says to something; `detail` is for the people of the hospital. No refusal: allowed."""

    refusal: Refusal | None = None
    detail: str = ""

    @property
    def allowed(self) -> bool:
        return self.refusal is None


ALLOWED = Verdict()


@dataclass(frozen=True)
class WorkOrder:
    """What a person approves: whom to work for, on what, by which code, and what kind of work."""

    federation: str
    task: str
    task_digest: str  # hexadecimal, of what is installed here
    work: str

    @property
    def id(self) -> str:
        """12 hexadecimal digits; another digit of another part is another id."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    def __str__(self) -> str:
        return f"federation {self.federation}, task {self.task}, {self.work}, task digest {self.task_digest}"


def kind_of_work(work: Work) -> str:
    """The optimizer and the magnitude of a round: ten times more epochs is another kind, and asked for again."""
    epochs = 10 ** len(str(work.local_epochs - 1)) if work.local_epochs > 1 else 1
    return f"{work.optimizer}, at most {epochs} epoch{'s' if epochs > 1 else ''} a round"


def order_of(announcement: Announcement, digests: Mapping[str, str]) -> WorkOrder | None:
    """What the announcement asks for; `digests` are those of the configured tasks. None for any other task."""
    digest = digests.get(announcement.task)
    if digest is None:
        return None
    return WorkOrder(announcement.federation, announcement.task, digest, kind_of_work(announcement.work))


def check_federation(federation: str, policy: PolicySettings) -> Verdict:
    """May this site take part in the federation at all?"""
    if policy.federations is not None and federation not in policy.federations:
        return Verdict(Refusal.FEDERATION, f"federation {federation} is not among `federations`")
    return ALLOWED


def check_announcement(announcement: Announcement, order: WorkOrder | None, policy: PolicySettings) -> Verdict:
    """Is what is announced allowed, if a person approves it where the policy wants that?"""
    verdict = check_federation(announcement.federation, policy)
    if not verdict.allowed:
        return verdict
    if order is None:
        return Verdict(Refusal.TASK, f"task {announcement.task} is not among `tasks` of the agent's configuration")
    if policy.tasks is not None and order.task not in policy.tasks:
        return Verdict(Refusal.TASK, f"task {order.task} is not among `tasks` of the policy")
    digests = ANY if policy.tasks is None else policy.tasks[order.task]
    if digests != ANY and order.task_digest not in digests:
        return Verdict(Refusal.TASK_DIGEST, f"task {order.task} has digest {order.task_digest}, which is not listed")
    if not allowed_codecs(announcement, policy):
        given, here = ", ".join(offered_codecs(announcement)), ", ".join(policy.codecs or CODECS)
        return Verdict(Refusal.CODEC, f"updates may come in {given}; allowed here: {here}")
    return ALLOWED


def check_update(offer: Offer, policy: PolicySettings) -> Verdict:
    """May this finished update leave? The policy may have changed since it was trained."""
    if policy.codecs is not None and offer.codec not in policy.codecs:
        return Verdict(Refusal.UPDATE, f"a finished update is in codec {offer.codec}, which is not among `codecs`")
    if offer.num_examples < policy.min_examples:
        records = f"{offer.num_examples} records, `min_examples` is {policy.min_examples}"
        return Verdict(Refusal.UPDATE, f"a finished update was trained on {records}")
    return ALLOWED


def allowed_codecs(announcement: Announcement, policy: PolicySettings) -> tuple[str, ...]:
    """What an update of this site may be written in: what the federation takes, known here, and the policy allows."""
    return tuple(
        name
        for name in offered_codecs(announcement)
        if name in CODECS and CODECS[name].carries_updates and (policy.codecs is None or name in policy.codecs)
    )


def offered_codecs(announcement: Announcement) -> tuple[str, ...]:
    """What the federation takes, each once; only the codec asked for where an older coordinator does not say."""
    return tuple(dict.fromkeys([announcement.codec, *(announcement.codecs or ())]))


def told(telemetry: Telemetry, tells: Collection[str]) -> Telemetry:
    """The telemetry with nothing but presence, phase and what may be told."""
    kept = {"boot_id", "phase", *tells}
    return Telemetry(**{name: value for name, value in vars(telemetry).items() if name in kept})
