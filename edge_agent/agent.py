"""The agent's loop: announcement, fetch, train, encode, outbox, publish, in this order.

Every event (a message, a finished job, time) is taken in, and then each step asks the rules of states.py whether it
has something to do. So a message that was lost or came twice, or a restart anywhere, changes nothing but time.
"""

import errno
import logging
import queue
import random
import threading
from collections import Counter
from dataclasses import replace
from queue import Queue
from typing import Any

from edge_agent.compute import Compute, ComputeEvent, Encoded, Evaluated, EvaluateJob, Failed, TrainJob
from edge_agent.config import SiteConfig
from edge_agent.fetch import Fetcher
from edge_agent.models import ModelFolder
from edge_agent.outbox import Outbox
from edge_agent.policy import check_announcement
from edge_agent.progress import Progress, ProgressFile
from edge_agent.publish import Publisher
from edge_agent.receive import receive
from edge_agent.report import Reporter
from edge_agent.states import Situation, can_still_count, phase, wants_evaluation, wants_fetch, wants_training
from edge_agent.training.failures import FailureKind
from fedward import topics
from fedward.chunks import manifest_of
from fedward.disk import free_bytes, has_room
from fedward.errors import PeerError, RejectReason
from fedward.identity import update_id_of
from fedward.layout import vector_digest
from fedward.messages import (
    Announcement,
    Chunk,
    Control,
    Evaluation,
    Grant,
    Offer,
    Outcome,
    Receipt,
)
from fedward.pack import pack
from fedward.ports import Clock, Connected, Delivery, Disconnected, Link, LinkEvent, Room, check_broker
from fedward.topics import Up

LOG = logging.getLogger(__name__)

TICK_S = 0.25
"""Longest wait without looking at timers and the request to stop."""

STOP_S = 5.0
"""How long a training step in progress may hold up a stop."""

Event = LinkEvent | ComputeEvent
Inbox = Queue[Event]


class Agent:
    """One hospital's agent. `run` returns when `stop` is set; what matters is on disk at every moment."""

    def __init__(
        self, config: SiteConfig, compute: Compute, link: Link, clock: Clock, rng: random.Random, boot_id: bytes
    ) -> None:
        self._config = config
        self._compute = compute
        self._link = link
        self._clock = clock
        self._outbox = Outbox(config.state_folder / "outbox")
        self._outbox.tidy()
        waiting = [entry.offer for entry in self._outbox.entries()]
        for offer in waiting:
            LOG.info("waiting", extra={"update": offer.update_id.hex(), "base_version": offer.base_version})
        self._progress_file = ProgressFile(config.state_folder / "progress.json")
        # Saved as corrected: its receipt will delete the update that the correction was read from.
        self._set_progress(self._progress_file.load(waiting))
        models = ModelFolder(config.state_folder / "model")
        models.tidy()
        self._fetcher = Fetcher(link, config.site, models)
        self._publisher = Publisher(link, config.federation, config.site, self._outbox, rng)
        self._reporter = Reporter(link, config, boot_id)
        self._announcement: Announcement | None = None
        self._newest_sequence: int | None = None
        self._control: Control | None = None
        self._job: TrainJob | EvaluateJob | None = None
        self._unfinished = compute.unfinished(config.policy.compute_share, config.policy.min_examples)
        self._evaluation: Evaluation | None = None
        self._evaluated: int | None = None
        self._failed_at: int | None = None
        self._train_loss: float | None = None
        self._unsaved: Encoded | None = None
        self._refused: Counter[RejectReason] = Counter(dict.fromkeys(RejectReason, 0))
        self._failures: Counter[FailureKind] = Counter(dict.fromkeys(FailureKind, 0))
        self.connected = False
        self.looped_at_s = clock.monotonic_s()

    def run(self, inbox: Inbox, stop: threading.Event) -> None:
        """Work until `stop` is set. The link and the compute thread deliver to `inbox`."""
        config = self._config
        self._link.subscribe(topics.announce(config.federation), topics.down_all(config.federation, config.site))
        self._link.open()
        while not stop.is_set():
            try:
                self.handle(inbox.get(timeout=TICK_S))
            except queue.Empty:
                pass  # time passed, which step looks at
            self.step()
        self._leave(inbox)

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
            case Room():
                pass  # step sends the next chunks
            case Evaluated():
                self._on_evaluated(event)
            case Encoded():
                self._save(event)
            case Failed():
                self._on_failed(event)

    def step(self) -> None:
        """Everything that can be done now, in the order of the data's way."""
        now_s = self.looped_at_s = self._clock.monotonic_s()
        if self._unsaved and has_room(self._config.state_folder, len(self._unsaved.payload)):
            self._save(self._unsaved)
        self._compute.check()
        if self._announcement:
            self._step_resume(self._announcement)
            self._step_fetch(self._announcement, now_s)
            self._step_evaluate(self._announcement)
            self._step_train(self._announcement)
        if self.connected:
            self._publisher.step(now_s)
            self._reporter.step(self.page(), now_s)

    # announcement

    def _on_delivery(self, delivery: Delivery) -> None:
        try:
            message = receive(delivery.topic, delivery.payload)
            match message:
                case Announcement():
                    self._on_announcement(message)
                case Chunk():
                    self._fetcher.add(message, self._clock.monotonic_s())
                case Grant():
                    self._publisher.on_grant(message)
                case Receipt():
                    self._on_receipt(message)
                case Control():
                    self._on_control(message)
        except PeerError as error:
            self._count_refusal(error)

    def _on_announcement(self, announcement: Announcement) -> None:
        if self._newest_sequence is not None and announcement.sequence <= self._newest_sequence:
            return
        known, self._announcement = self._announcement, None  # one that is refused ends the work on the one before
        self._newest_sequence = announcement.sequence
        check_announcement(announcement, self._config)
        if announcement.layout_digest != self._compute.layouts[announcement.task].digest:
            raise PeerError(RejectReason.LAYOUT_MISMATCH, "the installed task's model is not the federation's")
        self._announcement = announcement
        self._enter_epoch(announcement.epoch or 0)
        if known is None or known.boot_id != announcement.boot_id:  # a new coordinator may have missed what we sent
            self._publisher.offer_now()
            self._send_evaluation()
        LOG.info("announced", extra={"version": announcement.version, "state": announcement.state})

    def _enter_epoch(self, epoch: int) -> None:
        """After a restore the numbers of versions stand for other models, and what was receipted may be lost."""
        if epoch > self._progress.epoch:
            self._set_progress(self._progress.in_epoch(epoch))
            self._evaluation, self._evaluated, self._failed_at = None, None, None

    def _on_control(self, control: Control) -> None:
        if self._control is None or control.sequence > self._control.sequence:
            self._control = control

    def _on_connected(self, event: Connected) -> None:
        check_broker(self._link)
        self.connected = True
        LOG.info("connected", extra={"generation": event.generation})
        self._reporter.arrive()
        self._publisher.offer_now()
        self._fetcher.ask_now()
        self._send_evaluation()

    # fetch

    def _step_fetch(self, announcement: Announcement, now_s: float) -> None:
        layout = self._compute.layouts[announcement.task]
        self._fetcher.recall(announcement, layout)
        base = self._fetcher.held
        if not wants_fetch(self._situation()):
            return
        try:
            self._fetcher.step(announcement, layout, now_s)
        except PeerError as error:
            self._count_refusal(error)
            if self._fetcher.held is base:
                self._announcement = None  # wait for one that leads somewhere
            # Otherwise the held version was dropped, and the next attempt starts from a snapshot.

    # train and encode, on the compute thread

    def _step_resume(self, announcement: Announcement) -> None:
        """Once: go on with what the process before this one began, whatever is newest by now, or drop it."""
        job, self._unfinished = self._unfinished, None
        if job is None:
            return
        if not self._is_next(job) or not still_counts(job, announcement):
            self._compute.forget_unfinished()
            LOG.info("unfinished_dropped", extra={"version": job.version})
            return
        self._begin(job)
        LOG.info("resuming", extra={"version": job.version})

    def _is_next(self, job: TrainJob) -> bool:
        """Is this the next update of the site? Otherwise it is in the outbox, or has been counted."""
        config = self._config
        return job.update_id == update_id_of(config.federation, config.site, job.version, self._progress.sequence)

    def _step_evaluate(self, announcement: Announcement) -> None:
        held = self._fetcher.held
        if held and wants_evaluation(self._situation()):
            self._begin(EvaluateJob(announcement.task, announcement.federation, held.version, held.vector_P))

    def _step_train(self, announcement: Announcement) -> None:
        held = self._fetcher.held
        if not held or not wants_training(self._situation()):
            return
        config = self._config
        job = TrainJob(
            task=announcement.task,
            version=held.version,
            vector_P=held.vector_P,
            work=announcement.work,
            codec=announcement.codec,
            update_id=update_id_of(config.federation, config.site, held.version, self._progress.sequence),
            share=config.policy.compute_share,
            min_examples=config.policy.min_examples,
        )
        self._begin(job)
        LOG.info("training", extra={"version": held.version})

    def _begin(self, job: TrainJob | EvaluateJob) -> None:
        self._job = job
        self._compute.begin(job)

    def _on_evaluated(self, event: Evaluated) -> None:
        self._job = None
        self._evaluated, self._evaluation = event.version, event.evaluation
        self._send_evaluation()

    def _on_failed(self, event: Failed) -> None:
        if isinstance(self._job, TrainJob):
            self._failed_at = event.version
            self._compute.forget_unfinished()
        else:
            self._evaluated, self._evaluation = event.version, None
        self._job = None
        self._failures[event.kind] += 1

    # outbox

    def _save(self, done: Encoded) -> None:
        """Save, and only then send."""
        self._job = None
        self._train_loss = done.trained.train_loss
        offer = Offer(
            federation=self._config.federation,
            update_id=done.job.update_id,
            sequence=self._progress.sequence,
            base_version=done.job.version,
            codec=done.job.codec,
            layout_digest=self._compute.layouts[done.job.task].digest,
            num_examples=done.trained.num_examples,
            num_steps=done.trained.num_steps,
            work_s=done.trained.work_s,
            manifest=manifest_of(done.payload),
            base_digest=vector_digest(done.job.vector_P),
        )
        try:
            self._outbox.save(offer, done.payload)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            LOG.error("disk_full", extra={"needed_bytes": len(done.payload)})
            self._unsaved = done  # kept in memory until there is room: hours of work may be in it
            return
        self._unsaved = None
        facts = {"update": offer.update_id.hex(), "base_version": offer.base_version, "size_bytes": len(done.payload)}
        LOG.info("saved", extra=facts)
        self._set_progress(self._progress.after(offer))
        self._compute.forget_unfinished()  # last: a crash before leaves one that is known by its sequence
        self._publisher.take_next()

    # publish

    def _on_receipt(self, receipt: Receipt) -> None:
        outcome = self._publisher.on_receipt(receipt, self._clock.monotonic_s())
        if outcome is None:
            return
        facts = {"update": receipt.update_id.hex(), "outcome": outcome, "reason": receipt.reason}
        LOG.info("receipt", extra=facts)
        if outcome is Outcome.ACCEPTED:
            self._set_progress(replace(self._progress, num_accepted=self._progress.num_accepted + 1))
        elif outcome is Outcome.REFUSED:
            self._set_progress(replace(self._progress, num_refused=self._progress.num_refused + 1))

    def _send_evaluation(self) -> None:
        if self._evaluation:
            topic = topics.up(self._config.federation, self._config.site, Up.EVALUATION)
            self._link.publish(topic, pack(self._evaluation))

    def _leave(self, inbox: Inbox) -> None:
        self._compute.stop(STOP_S)
        while not inbox.empty():
            event = inbox.get_nowait()
            if isinstance(event, Encoded):  # done while we were asked to stop
                self._save(event)
        self._fetcher.close()
        self._reporter.leave()
        self._link.close()

    # where the agent stands

    def _situation(self) -> Situation:
        announcement, held = self._announcement, self._fetcher.held
        return Situation(
            announced=announcement.version if announcement else None,
            state=announcement.state if announcement else None,
            paused_here=bool(self._control and self._control.paused),
            held=held.version if held else None,
            evaluated=self._evaluated,
            trained_from=held.version if held and self._progress.trained(held.version, held.digest) else None,
            failed_at=self._failed_at,
            repeat_base=bool(announcement and announcement.repeat_base),
            computing=self._job is not None,
            training=isinstance(self._job, TrainJob),
            outbox=self._publisher.entry is not None,
            full=self._is_full(),
        )

    def _is_full(self) -> bool:
        """Whether a download (its parts, and the version twice while it is written) and an update would not fit."""
        task = self._announcement.task if self._announcement else None
        size = self._compute.layouts[task].size if task else 0
        return self._unsaved is not None or not has_room(self._config.state_folder, 4 * 4 * size)

    @property
    def unready(self) -> str | None:
        """Why the program can't do its work now; None when it can."""
        if not self.connected:
            return "not connected to the broker"
        return "no room on the disk" if self._is_full() else None

    def page(self) -> dict[str, Any]:
        """What API, metrics and telemetry show. Other threads read it: every value is replaced, none is changed."""
        now = self._situation()
        last_step = self._compute.last_step if now.training else None
        return {
            "site": self._config.site,
            "federation": self._config.federation,
            "phase": str(phase(now)),
            "connected": self.connected,
            "announced": now.announced,
            "held": now.held,
            "outbox": int(now.outbox),
            "disk_free_bytes": free_bytes(self._config.state_folder),
            "step": last_step.step if last_step else 0,
            "num_steps": last_step.num_steps if last_step else 0,
            "step_s": self._compute.step_s,
            "train_loss": self._train_loss,
            "num_accepted": self._progress.num_accepted,
            "num_refused": self._progress.num_refused,
            "num_fetched": self._fetcher.num_fetched,
            "bytes_sent": self._link.bytes_sent,
            "bytes_received": self._link.bytes_received,
            "refused": {reason.value: count for reason, count in self._refused.items()},
            "failures": {kind.value: count for kind, count in self._failures.items()},
        }

    def _set_progress(self, progress: Progress) -> None:
        self._progress = progress
        self._progress_file.save(progress)

    def _count_refusal(self, error: PeerError) -> None:
        self._refused[error.reason] += 1
        LOG.warning("refused", extra={"reason": error.reason.value, "detail": error.detail})


def still_counts(job: TrainJob, announcement: Announcement) -> bool:
    """Is an unfinished update one that this announcement's federation can still use?"""
    if job.task != announcement.task:
        return False
    if job.version == announcement.version and vector_digest(job.vector_P) != announcement.model_digest:
        return False  # another federation's version of the same number
    return can_still_count(job.version, announcement.version, announcement.max_staleness, announcement.state)
