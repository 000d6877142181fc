"""The agent's loop: announcement, fetch, train, encode, outbox, publish, in this order.

Every event (a message, a finished job, time) is taken in, and then each step asks the rules of states.py whether it
has something to do. So a message that was lost or came twice, or a restart anywhere, changes nothing but time.
"""

import logging
import queue
import random
import threading
from collections import Counter
from queue import Queue
from typing import Any

from edge_agent.announced import Announced
from edge_agent.compute import Compute
from edge_agent.config import SiteConfig
from edge_agent.egress import EgressLink
from edge_agent.evaluate import Evaluator
from edge_agent.fetch import Fetcher
from edge_agent.jobs import (
    Assembled,
    AssembleJob,
    ComputeEvent,
    Encoded,
    Evaluated,
    EvaluateJob,
    Failed,
    InitialJob,
    Made,
    Paused,
    TrainJob,
    Unfit,
)
from edge_agent.model_keys import ModelKeys
from edge_agent.models import ModelFolder
from edge_agent.outbox import Outbox
from edge_agent.permission import Permission
from edge_agent.progress import ProgressFile, SavedProgress
from edge_agent.publish import Publisher
from edge_agent.receive import receive
from edge_agent.renewal import Renewer
from edge_agent.report import Reporter, page_of
from edge_agent.states import Situation, wants_evaluation, wants_fetch, wants_training
from edge_agent.train import Trainer
from edge_agent.training.failures import FailureKind
from edge_agent.uplink import Uplink
from edge_agent.voice import Voice
from fedward import __version__, topics
from fedward.disk import free_bytes, has_room
from fedward.errors import PeerError, RejectReason
from fedward.messages import Announcement, Chunk, Control, Grant, Receipt, Renewed, SealedKey
from fedward.ports import Clock, Connected, Delivery, Disconnected, LinkEvent, Room, check_broker

LOG = logging.getLogger(__name__)

TICK_S = 0.25
"""Longest wait without looking at timers and the request to stop."""

STOP_S = 5.0
"""How long a job in progress may hold up a stop.

A training step that ends within this time is saved, and nothing is lost. A longer one is given up: the next process
goes on from the last checkpoint, and does again what was done since, at most `checkpoint_s` or one step.
"""

Event = LinkEvent | ComputeEvent
Inbox = Queue[Event]


class Agent:
    """One hospital's agent. `run` returns when `stop` is set; what matters is on disk at every moment."""

    def __init__(
        self, config: SiteConfig, compute: Compute, link: EgressLink, clock: Clock, rng: random.Random, voice: Voice
    ) -> None:
        self._config = config
        self._compute = compute
        self._link = link
        self._clock = clock
        self._voice = voice
        outbox = Outbox(config.state_folder / "outbox")
        self._models = ModelFolder(config.state_folder / "model")
        self._progress = SavedProgress(ProgressFile(config.state_folder / "progress.json"), outbox.take_over())
        self._permission = Permission(config, compute.digests, clock)
        self._announced = Announced(config, compute.layouts, self._progress, self._permission)
        self._model_keys = ModelKeys(config.federation, config.site, voice.boot_id)
        self._fetcher = Fetcher(link, config.site, self._models, voice.pack, self._model_keys.opened)
        self._evaluator = Evaluator(link, config, compute, self._permission, voice.pack)
        self._trainer = Trainer(config, compute, outbox, self._progress, self._permission)
        self._uplink = Uplink(self._progress.now.uplink_bytes_s)
        self._publisher = Publisher(link, config, outbox, rng, self._uplink, voice.pack)
        receiving_key = self._model_keys.receiving_key if config.identity else None  # an unsigned one is nobody's
        self._reporter = Reporter(link, config, voice.boot_id, voice.pack, receiving_key)
        self._renewer = Renewer(link, config, voice.pack)
        self._refused: Counter[RejectReason] = Counter(dict.fromkeys(RejectReason, 0))
        self._failures: Counter[FailureKind] = Counter(dict.fromkeys(FailureKind, 0))
        self._failures[FailureKind.CRASHED] = int(self._trainer.was_cut_off)
        self.connected = False
        self.looped_at_s = clock.monotonic_s()

    def run(self, inbox: Inbox, stop: threading.Event) -> None:
        """Work until `stop` is set, and leave within STOP_S and what the link needs to close: 10 s in all.

        The link and the compute thread deliver to `inbox`.
        """
        federation = self._config.federation
        self._link.subscribe(topics.announce(federation), topics.down_all(federation, self._config.site))
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
                self._uplink.lost()  # before what the next connection brings, which has its window to itself
                LOG.warning("disconnected")
            case Room():
                pass  # step sends the next chunks
            case _:
                self._on_computed(event)

    def step(self) -> None:
        """Everything that can be done now, in the order of the data's way."""
        now_s = self.looped_at_s = self._clock.monotonic_s()
        self._compute.check()
        self._step_policy(now_s)
        self._trainer.step(now_s)
        if self._trainer.save_when_there_is_room():
            self._publisher.take_next()
        if announcement := self._announced.newest:
            if self._permission.hours_open:
                self._trainer.resume(announcement)
            self._step_fetch(announcement, now_s)
        if (announcement := self._announced.newest) and (held := self._fetcher.held):
            if wants_evaluation(self._situation()):
                self._evaluator.begin(announcement, held)
            if wants_training(self._situation()):
                self._trainer.begin(announcement, held)
        if self.connected:
            self._evaluator.step()
            if self._permission.permitted and not self._permission.refuses:
                self._publisher.step(now_s)
            self._reporter.step(self.page(), self._permission.tells, now_s)
            self._renewer.step(now_s, self._clock.now_s())
        self._link.step()

    def _step_policy(self, now_s: float) -> None:
        """See whether the hospital allows something else now."""
        if self._permission.look(now_s):
            self._trainer.try_again()
        self._permission.weigh(self._publisher.entry.offer if self._publisher.entry else None)

    # messages

    def _on_delivery(self, delivery: Delivery) -> None:
        try:
            message = receive(delivery.topic, delivery.payload, self._config.site, self._voice.check_of)
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
                    self._announced.control(message)
                case SealedKey():
                    self._model_keys.take(message)
                case Renewed():
                    self._renewer.take(message, self._clock.now_s())
        except PeerError as error:
            self._count_refusal(error)

    def _on_announcement(self, announcement: Announcement) -> None:
        news = self._announced.hear(announcement)
        if news is None:
            return
        if news.epoch:
            self._evaluator.new_epoch()
        if news.epoch or news.work:
            self._trainer.try_again()
        self._publisher.offer_soon()
        if news.coordinator:
            self._say_all_again()

    def _say_all_again(self) -> None:
        """The link or the coordinator is new, and may have missed what we sent, retained or not."""
        self._reporter.arrive()
        self._publisher.offer_now()
        self._fetcher.ask_now()
        self._evaluator.send_again()

    def _on_receipt(self, receipt: Receipt) -> None:
        self._publisher.on_receipt(receipt, self._clock.monotonic_s(), self._count)

    def _count(self, receipt: Receipt) -> None:
        facts = {"update": receipt.update_id.hex(), "outcome": receipt.outcome, "reason": receipt.reason}
        LOG.info("receipt", extra=facts)
        self._progress.change(self._progress.now.receipted(receipt, self._uplink.bytes_s))

    def _on_connected(self, event: Connected) -> None:
        check_broker(self._link)
        self.connected = True
        LOG.info("connected", extra={"generation": event.generation})
        self._uplink.look(self._link.room(), self._clock.monotonic_s())  # before others take places in the window
        self._say_all_again()

    # fetch

    def _step_fetch(self, announcement: Announcement, now_s: float) -> None:
        layout = self._compute.layouts[announcement.task]
        self._fetcher.recall(announcement, layout)
        if not wants_fetch(self._situation()):
            return
        try:
            if initial := self._fetcher.take_initial(announcement):
                self._compute.begin(InitialJob(announcement.task, initial, self._models))
            elif self._model_keys.lacks(announcement.model_key_id):
                if self.connected and self._model_keys.asks(now_s):
                    self._reporter.arrive()  # the coordinator answers with the key
            elif complete := self._fetcher.step(announcement, layout, now_s):
                self._compute.begin(AssembleJob(complete))
        except PeerError as error:
            self._count_refusal(error)
            self._announced.leads_nowhere(announcement.version)

    def _on_unfit(self, event: Unfit) -> None:
        """With a held version, that may be the wrong one: it is dropped, and the next attempt is from a snapshot."""
        self._count_refusal(event.error)
        if self._fetcher.held is None:
            self._announced.leads_nowhere(event.version)
        self._fetcher.forget()

    # what comes of the jobs: a version, its evaluation, an update

    def _on_computed(self, event: ComputeEvent) -> None:
        self._compute.taken()
        match event:
            case Assembled():
                self._fetcher.hold(event.held)
            case Unfit():
                self._on_unfit(event)
            case Made():
                self._fetcher.made(event.held)
            case Evaluated():
                self._evaluator.take(event)
            case Encoded():
                if self._trainer.save(event):
                    self._publisher.take_next()
            case Paused():
                self._trainer.paused()
            case Failed():
                self._on_failed(event)

    def _on_failed(self, event: Failed) -> None:
        """What could not be measured or trained is left; version 0, which could not be made, is downloaded."""
        self._failures[event.kind] += 1
        match event.job:
            case EvaluateJob():
                self._evaluator.failed(event.job)
            case TrainJob():
                self._trainer.failed(event.job, event.kind)

    def _leave(self, inbox: Inbox) -> None:
        self._compute.stop(STOP_S)
        while not inbox.empty():
            event = inbox.get_nowait()
            if isinstance(event, Encoded):  # done while we were asked to stop
                self._on_computed(event)
        self._trainer.leave()
        self._fetcher.close()
        self._reporter.leave()
        self._link.close()

    # where the agent stands

    def _situation(self) -> Situation:
        announcement, held, progress = self._announced.newest, self._fetcher.held, self._progress.now
        return Situation(
            announced=announcement.version if announcement else None,
            refused=self._permission.refuses,
            hours_open=self._permission.hours_open,
            evaluates=self._permission.evaluates,
            state=announcement.state if announcement else None,
            paused_here=self._announced.paused_here,
            held=held.version if held else None,
            evaluated=held.version if held and self._evaluator.measured(held) else None,
            trained_from=held.version if held and progress.trained(held.version, held.digest) else None,
            failed_at=self._trainer.failed_at,
            repeat_base=bool(announcement and announcement.repeat_base),
            computing=self._compute.job is not None,
            assembling=isinstance(self._compute.job, AssembleJob | InitialJob),
            training=self._trainer.training,
            outbox=self._publisher.entry is not None,
            full=self._is_full(),
        )

    def _is_full(self) -> bool:
        """Whether a download (its parts, and the version twice while it is written) and an update would not fit."""
        newest = self._announced.newest
        size = self._compute.layouts[newest.task].size if newest else 0
        return self._trainer.unsaved or not has_room(self._config.state_folder, 4 * 4 * size)

    @property
    def unready(self) -> str | None:
        """Why the program can't do its work now; None when it can."""
        if not self.connected:
            return "not connected to the broker"
        return "no room on the disk" if self._is_full() else None

    def page(self) -> dict[str, Any]:
        """What API, metrics and telemetry show. Other threads read it: every value is replaced, none is changed."""
        return {
            **page_of(self._config, self._situation(), self._progress.now),
            **self._trainer.page(),
            **self._link.page(),
            "now_s": self._clock.now_s(),
            "software": f"fedward {__version__}",
            "device": self._compute.device,
            "num_gpus": int(self._compute.device == "cuda"),  # training takes one
            "connected": self.connected,
            "certificate_expires_s": self._renewer.expires_s,
            "uplink_bytes_s": self._uplink.bytes_s,
            "disk_free_bytes": free_bytes(self._config.state_folder),
            "num_fetched": self._fetcher.num_fetched,
            "bytes_sent": self._link.bytes_sent,
            "bytes_received": self._link.bytes_received,
            "refused_by_policy": self._permission.refusal,
            "refused": {reason.value: count for reason, count in self._refused.items()},
            "failures": {kind.value: count for kind, count in self._failures.items()},
        }

    def _count_refusal(self, error: PeerError) -> None:
        self._refused[error.reason] += 1
        LOG.warning("refused", extra={"reason": error.reason.value, "detail": error.detail})
