"""The agent's loop: announcement, fetch, train, encode, outbox, publish, in this order.

Every event (a message, a finished job, time) is taken in, and then each step asks the rules of states.py whether it
has something to do. So a message that was lost or came twice, or a restart anywhere, changes nothing but time.
"""

import logging
import queue
import random
import secrets
import threading
from collections import Counter
from dataclasses import replace
from queue import Queue
from typing import Any

from edge_agent.compute import Compute, ComputeEvent, Encoded, Evaluated, EvaluateJob, Failed, TrainJob
from edge_agent.config import SiteConfig
from edge_agent.fetch import Fetch, Held, ModelFolder
from edge_agent.outbox import Outbox
from edge_agent.policy import check_announcement
from edge_agent.progress import Progress, ProgressFile
from edge_agent.publish import Publisher
from edge_agent.states import Situation, phase, wants_evaluation, wants_fetch, wants_training
from edge_agent.training.failures import FailureKind
from fedward import __version__, topics
from fedward.chunks import manifest_of
from fedward.codec import seed_of
from fedward.errors import PeerError, RejectReason
from fedward.layout import Layout
from fedward.messages import (
    Announcement,
    Chunk,
    Control,
    Evaluation,
    FederationState,
    Grant,
    Offer,
    Outcome,
    Receipt,
    Status,
    Telemetry,
)
from fedward.pack import pack, unpack
from fedward.ports import Clock, Connected, Delivery, Disconnected, Link, LinkEvent, Room, Will
from fedward.topics import Down, Up

LOG = logging.getLogger(__name__)

TICK_S = 0.25
"""Longest wait without looking at timers and the request to stop."""

SOON_S = 0.2
"""Least time between two reports when the phase changes."""

STOP_S = 5.0
"""How long a training step in progress may hold up a stop."""

Event = LinkEvent | ComputeEvent
Inbox = Queue[Event]


def will_of(config: SiteConfig, boot_id: bytes) -> Will:
    """What the broker says in our name when we are gone without a word."""
    topic = topics.up(config.federation, config.site, Up.STATUS)
    return Will(topic, pack(Status(boot_id=boot_id, online=False)), config.broker.will_delay_s)


class Agent:
    """One hospital's agent. `run` returns when `stop` is set; what matters is on disk at every moment."""

    def __init__(self, config: SiteConfig, layouts: dict[str, Layout], clock: Clock, rng: random.Random) -> None:
        """`layouts`: of each allowed task, the arrangement of its model."""
        self._config = config
        self._layouts = layouts
        self._clock = clock
        self._rng = rng
        self._outbox = Outbox(config.state_folder / "outbox")
        self._models = ModelFolder(config.state_folder / "model")
        self._progress_file = ProgressFile(config.state_folder / "progress.json")
        self._progress = self._progress_file.load(entry.offer for entry in self._outbox.entries())
        self._announcement: Announcement | None = None
        self._control: Control | None = None
        self._held: Held | None = None
        self._fetch: Fetch | None = None
        self._evaluation: Evaluation | None = None
        self._evaluated: int | None = None
        self._failed_at: int | None = None
        self._job: TrainJob | EvaluateJob | None = None
        self._num_fetched = 0
        self._train_loss: float | None = None
        self._reported = ("", 0.0)
        self._link: Link
        self._computes: dict[str, Compute]
        self._publisher: Publisher
        self.boot_id = secrets.token_bytes(8)
        self.refused: Counter[RejectReason] = Counter(dict.fromkeys(RejectReason, 0))
        self.failures: Counter[FailureKind] = Counter(dict.fromkeys(FailureKind, 0))
        self.connected = False
        self.looped_at_s = clock.monotonic_s()

    def attach(self, link: Link, computes: dict[str, Compute]) -> None:
        """Use this link and, of each allowed task, this compute; both deliver to the inbox that `run` reads."""
        self._link = link
        self._computes = computes
        config = self._config
        self._publisher = Publisher(link, config.federation, config.site, self._outbox, self._rng)
        link.subscribe(topics.announce(config.federation), topics.down_all(config.federation, config.site))

    def run(self, inbox: Inbox, stop: threading.Event) -> None:
        """Work until `stop` is set; `attach` comes first."""
        self._link.open()
        while not stop.is_set():
            try:
                self.handle(inbox.get(timeout=TICK_S))
            except queue.Empty:
                pass
            self.step()
        self._leave()

    def handle(self, event: Event) -> None:
        """Take one event in."""
        match event:
            case Delivery():
                self._on_delivery(event)
                self._link.acknowledge(event)
            case Connected():
                self._on_connected(event)
            case Disconnected():
                self.connected = False
                LOG.warning("disconnected")
            case Evaluated():
                self._job = None
                self._evaluated, self._evaluation = event.version, event.evaluation
                self._send_evaluation()
            case Encoded():
                self._save(event)
            case Failed():
                self._on_failed(event)
            case Room():
                pass  # step sends the next chunks

    def step(self) -> None:
        """Everything that can be done now, in the order of the data's way."""
        self.looped_at_s = self._clock.monotonic_s()
        self._step_fetch()
        self._step_evaluate()
        self._step_train()
        self._publisher.step(self._clock.monotonic_s())
        self._report()

    # announcement

    def _on_delivery(self, delivery: Delivery) -> None:
        try:
            address = topics.parse(delivery.topic)
            match address.kind:
                case Down.ANNOUNCE:
                    self._on_announcement(unpack(delivery.payload, Announcement))
                case Down.CHUNK if address.owner is not None and address.index is not None:
                    self._on_chunk(Chunk(address.owner, address.index, delivery.payload))
                case Down.GRANT:
                    self._publisher.on_grant(unpack(delivery.payload, Grant))
                case Down.RECEIPT:
                    self._on_receipt(unpack(delivery.payload, Receipt))
                case Down.CONTROL:
                    self._on_control(unpack(delivery.payload, Control))
        except PeerError as error:
            self._count_refusal(error)

    def _on_announcement(self, announcement: Announcement) -> None:
        known = self._announcement
        if known and announcement.sequence <= known.sequence:
            return
        check_announcement(announcement, self._config)
        if announcement.layout_digest != self._layouts[announcement.task].digest:
            raise PeerError(RejectReason.LAYOUT_MISMATCH, "the installed task's model is not the federation's")
        self._announcement = announcement
        if known is None or known.boot_id != announcement.boot_id:
            self._publisher.offer_now()
            self._send_evaluation()
        LOG.info("announced", extra={"version": announcement.version, "state": announcement.state})

    def _on_control(self, control: Control) -> None:
        if self._control is None or control.sequence > self._control.sequence:
            self._control = control

    def _on_connected(self, event: Connected) -> None:
        self.connected = True
        LOG.info("connected", extra={"generation": event.generation})
        status = Status(boot_id=self.boot_id, online=True, software=f"fedward {__version__}")
        self._link.publish(self._topic(Up.STATUS), pack(status), retain=True)
        self._publisher.offer_now()
        self._send_evaluation()
        if self._fetch:
            self._fetch.ask_now()
        self._reported = ("", 0.0)

    # fetch

    def _step_fetch(self) -> None:
        announcement = self._announcement
        if announcement is None:
            return
        if self._held is None:
            self._held = self._models.load(self._layouts[announcement.task])
        if not wants_fetch(self._situation()):
            return
        if self._fetch is None or self._fetch.announcement.version != announcement.version:
            self._begin_fetch(announcement)
        if self._fetch and self._fetch.complete:
            self._end_fetch(self._fetch)
        elif self._fetch and self.connected:
            for get in self._fetch.gets(self._clock.monotonic_s()):
                self._link.publish(self._topic(Up.GET), pack(get), expiry_s=60)

    def _begin_fetch(self, announcement: Announcement) -> None:
        before = set(self._fetch.filters()) if self._fetch else set()
        if self._fetch:
            self._fetch.close()
        try:
            self._fetch = Fetch(announcement, self._held, self._layouts[announcement.task], self._models)
        except PeerError as error:
            self._fetch = None
            self._announcement = None  # wait for one that leads somewhere
            self._count_refusal(error)
        filters = self._fetch.filters() if self._fetch else ()
        if before - set(filters):
            self._link.unsubscribe(*(before - set(filters)))
        if filters:
            self._link.subscribe(*filters)

    def _on_chunk(self, chunk: Chunk) -> None:
        if self._fetch:
            self._fetch.add(chunk, self._clock.monotonic_s())

    def _end_fetch(self, fetch: Fetch) -> None:
        self._link.unsubscribe(*fetch.filters())
        self._fetch = None
        try:
            self._held = fetch.assemble()
            self._num_fetched += 1
            LOG.info("fetched", extra={"version": self._held.version})
        except PeerError as error:
            self._held = None
            self._models.forget()
            self._count_refusal(error)

    # train and encode, on the compute thread

    def _step_evaluate(self) -> None:
        if self._announcement and self._held and wants_evaluation(self._situation()):
            job = EvaluateJob(self._config.federation, self._held.version, self._held.vector_P)
            self._begin(self._announcement.task, job)

    def _step_train(self) -> None:
        announcement, held = self._announcement, self._held
        if announcement is None or held is None or not wants_training(self._situation()):
            return
        config = self._config
        update_id = seed_of(config.federation, config.site, held.version, self._progress.sequence)
        share = config.policy.compute_share
        job = TrainJob(held.version, held.vector_P, announcement.work, announcement.codec, update_id, share)
        self._begin(announcement.task, job)
        LOG.info("training", extra={"version": held.version})

    def _begin(self, task: str, job: TrainJob | EvaluateJob) -> None:
        self._job = job
        self._computes[task].begin(job)

    def _on_failed(self, event: Failed) -> None:
        self._job = None
        if event.training:
            self._failed_at = event.version
        else:
            self._evaluated, self._evaluation = event.version, None
        if event.kind:
            self.failures[event.kind] += 1

    # outbox

    def _save(self, done: Encoded) -> None:
        """Save, and only then send."""
        self._job = None
        self._train_loss = done.trained.train_loss
        if done.trained.num_examples < self._config.policy.min_examples:
            self._failed_at = done.base_version
            LOG.warning("too_few_examples", extra={"least": self._config.policy.min_examples})
            return
        announcement = self._announcement
        if announcement is None:
            return
        offer = Offer(
            federation=self._config.federation,
            update_id=done.update_id,
            sequence=self._progress.sequence,
            base_version=done.base_version,
            codec=done.codec,
            layout_digest=self._layouts[announcement.task].digest,
            num_examples=done.trained.num_examples,
            num_steps=done.trained.num_steps,
            work_s=done.trained.work_s,
            manifest=manifest_of(done.payload),
        )
        self._outbox.save(offer, done.payload)
        self._set_progress(self._progress.after(offer))
        self._publisher.take_next()
        LOG.info("saved", extra={"base_version": done.base_version, "size_bytes": len(done.payload)})

    # publish

    def _on_receipt(self, receipt: Receipt) -> None:
        outcome = self._publisher.on_receipt(receipt, self._clock.monotonic_s())
        if outcome is Outcome.ACCEPTED:
            self._set_progress(replace(self._progress, num_accepted=self._progress.num_accepted + 1))
        elif outcome is Outcome.REFUSED:
            self._set_progress(replace(self._progress, num_refused=self._progress.num_refused + 1))
        if outcome:
            LOG.info("receipt", extra={"outcome": outcome, "reason": receipt.reason})

    def _send_evaluation(self) -> None:
        if self._evaluation:
            self._link.publish(self._topic(Up.EVALUATION), pack(self._evaluation))

    def _report(self) -> None:
        """Telemetry at intervals, and soon after a change of phase."""
        now_s, current = self._clock.monotonic_s(), phase(self._situation())
        told, at_s = self._reported
        due_s = SOON_S if current != told else self._config.telemetry_s
        if not self.connected or (told and now_s - at_s < due_s):
            return
        self._reported = (current, now_s)
        page = self.page()
        telemetry = Telemetry(
            boot_id=self.boot_id,
            phase=current,
            version=page["held"],
            step=page["step"],
            num_steps=page["num_steps"],
            num_updates=page["num_accepted"],
            num_refused=page["num_refused"],
            num_fetched=page["num_fetched"],
            bytes_sent=page["bytes_sent"],
            bytes_received=page["bytes_received"],
            step_s=page["step_s"],
            train_loss=page["train_loss"],
        )
        self._link.publish(self._topic(Up.TELEMETRY), pack(telemetry), qos=0, expiry_s=60)

    def _leave(self) -> None:
        for compute in self._computes.values():
            compute.stop(STOP_S)
        if self._fetch:
            self._fetch.close()
        status = Status(boot_id=self.boot_id, online=False, leaving=True)
        self._link.publish(self._topic(Up.STATUS), pack(status), retain=True)
        self._link.close()

    # where the agent stands

    def _situation(self) -> Situation:
        announcement = self._announcement
        return Situation(
            announced=announcement.version if announcement else None,
            state=announcement.state if announcement else FederationState.PAUSED,
            paused_here=bool(self._control and self._control.paused),
            held=self._held.version if self._held else None,
            evaluated=self._evaluated,
            trained_from=self._progress.trained_from,
            failed_at=self._failed_at,
            repeat_base=bool(announcement and announcement.repeat_base),
            computing=self._job is not None,
            training=isinstance(self._job, TrainJob),
            outbox=self._publisher.entry is not None,
        )

    def page(self) -> dict[str, Any]:
        """What API, metrics and telemetry show. Other threads read it: every value is replaced, none is changed."""
        now = self._situation()
        compute = self._computes.get(self._announcement.task) if self._announcement else None
        last_step = compute.last_step if compute and now.training else None
        return {
            "site": self._config.site,
            "federation": self._config.federation,
            "phase": str(phase(now)),
            "connected": self.connected,
            "announced": now.announced,
            "held": now.held,
            "outbox": int(now.outbox),
            "step": last_step.step if last_step else 0,
            "num_steps": last_step.num_steps if last_step else 0,
            "step_s": compute.step_s if compute else None,
            "train_loss": self._train_loss,
            "num_accepted": self._progress.num_accepted,
            "num_refused": self._progress.num_refused,
            "num_fetched": self._num_fetched,
            "bytes_sent": self._link.bytes_sent,
            "bytes_received": self._link.bytes_received,
            "refused": {reason.value: count for reason, count in self.refused.items()},
            "failures": {kind.value: count for kind, count in self.failures.items()},
        }

    def _set_progress(self, progress: Progress) -> None:
        self._progress = progress
        self._progress_file.save(progress)

    def _count_refusal(self, error: PeerError) -> None:
        self.refused[error.reason] += 1
        LOG.warning("refused", extra={"reason": error.reason.value, "detail": error.detail})

    def _topic(self, kind: Up) -> str:
        return topics.up(self._config.federation, self._config.site, kind)
