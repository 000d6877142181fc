"""The coordinator's loop: receive, verify, store, aggregate, publish, in this order.

One thread does all of it, so a message is handled whole before the next one. Whatever is told to a site is in
the ledger before it is told; whatever is lost on the way is asked for again by the site.
"""

import logging
import queue
import threading
from typing import Any

from coordinator.aggregate import Aggregator
from coordinator.announcer import Announcer
from coordinator.broker_news import BrokerNews
from coordinator.clock import FederationClock
from coordinator.config import Authorisation, FederationConfig
from coordinator.damage import LEDGER_FILE
from coordinator.durations import Meter
from coordinator.enrolment.desk import desk_of
from coordinator.gate import Gate, address_of
from coordinator.intake import Ended, Intake
from coordinator.journeys import Journeys, Tell
from coordinator.members import Members
from coordinator.model_key import keeper_of
from coordinator.operation import Operation
from coordinator.provision import Provision
from coordinator.publish import Publisher
from coordinator.receive import Received
from coordinator.replayed import last_replay
from coordinator.retention import Retention
from coordinator.senders import Senders
from coordinator.tables import StoredUpdate
from coordinator.verify import Terms, check_evaluation
from coordinator.versions import Versions
from fedward import __version__, topics
from fedward.disk import free_bytes, used_bytes
from fedward.errors import PeerError, RejectReason, UnprovenError
from fedward.identity.folder import CoordinatorIdentity
from fedward.messages import (
    Chunk,
    Evaluation,
    FederationState,
    Get,
    Grant,
    Offer,
    Outcome,
    Receipt,
    Renewal,
    Status,
    Telemetry,
)
from fedward.ports import Clock, Connected, Delivery, Disconnected, Link, LinkEvent, LinkInbox, Room, check_broker

LOG = logging.getLogger(__name__)

LISTEN_S = 1.0
"""Time after the first connection in which it is not known yet which sites are there: no version is made, and requests
for chunks are gathered in full."""

ACKNOWLEDGE_EVERY = 10
"""Messages that are made durable together, at most: half of what the broker sends before it waits for
acknowledgements (`MqttSettings.receive_maximum`), so that the other half comes in meanwhile."""

TICK_S = 0.5
"""Longest wait without looking at deadlines, the operator's wishes and the request to stop."""


class Service:
    """One federation's coordinator. `run` returns when `stop` is set; everything it knows is in the ledger."""

    def __init__(
        self,
        config: FederationConfig,
        versions: Versions,
        link: Link,
        clock: Clock,
        identity: CoordinatorIdentity | None = None,
        tell: Tell | None = None,
    ) -> None:
        """Without an identity nothing is signed or sealed, and whoever writes to a site's topics is taken for it.

        `tell` is given the stretches of each update's way.
        """
        ledger, blobs = versions.store.ledger, versions.store.blobs
        self._config = config
        self._ledger = ledger
        self._versions = versions
        self._identity = identity
        self._senders = Senders(identity, config.federation, ledger, clock) if identity else None
        self._link = link
        self._clock = clock
        self._federation_clock = FederationClock(clock, ledger.latest_arrival_s())
        self._members = Members(config.sites, ledger)
        self.desk = desk_of(config, link, clock)
        if self.desk:
            self._members.enrol(self.desk.sites)
        self._gate = Gate(config, self._members, self._senders, self.desk, clock)
        self._intake = Intake(
            config,
            versions.store,
            self._federation_clock,
            self._terms,
            identity.seal_of if identity else None,
        )
        self._uploads = self._intake.uploads
        blobs.tidy()
        self._retention = Retention(ledger, blobs, config.retention)
        self._retention.begin()
        self._aggregator = Aggregator(ledger, versions, self._members, config.engine)
        self._keys = keeper_of(config)
        if self._keys and self.desk:
            self._keys.look(self.desk.sites, clock.now_s())
        self._publisher = Publisher(
            link,
            config.federation,
            blobs,
            config.gather_s,
            identity.sign_to(config.federation) if identity else None,
            self._keys.close if self._keys else None,
        )
        by_us = config.broker.authorisation is Authorisation.DYNAMIC_SECURITY
        self._provision = Provision(link, clock, config.federation, wanted=by_us)
        self._broker_news = BrokerNews(link, wanted=by_us)
        self.meter = Meter()
        self._unacknowledged: list[Delivery] = []
        self._operation = Operation(ledger, config.finish, clock)
        self._announcer = Announcer(
            config,
            versions,
            self._operation,
            self._members,
            self._publisher,
            clock,
            sealing_key=identity.sealed_to if identity else None,
            keys=self._keys,
        )
        self._journeys = Journeys(tell) if tell else None
        self._began_s = clock.now_s()  # to handle the present message
        self._listens_until_s: float | None = None
        self.connected = False
        self.looped_at_s = clock.monotonic_s()

    def run(self, inbox: LinkInbox, stop: threading.Event) -> None:
        """Work until `stop` is set. The link delivers to `inbox`; what was handled by then does not come again."""
        self._provision.begin()
        self._broker_news.begin()
        self._link.subscribe(topics.up_all(self._config.federation))
        if self.desk:
            self._link.subscribe(self.desk.filter)
        self._link.open()
        while not stop.is_set():
            event = _next_of(inbox, self._wait_s())
            began_s = self._clock.monotonic_s()
            if event is None:
                self._retention.cut()  # nobody waits for us; and time passed, which tick looks at
            else:
                self.handle(event)
            self.tick()
            if inbox.empty() or len(self._unacknowledged) >= ACKNOWLEDGE_EVERY:
                self.acknowledge()
            self.meter.busy_s += self._clock.monotonic_s() - began_s
        self.acknowledge()

    def close(self) -> None:
        """Give up link and files. What is not acknowledged comes to the next process, which finds every file."""
        self._link.close()
        self._uploads.close()

    def handle(self, event: LinkEvent) -> None:
        """One event of the link; a message stays the broker's until `acknowledge`."""
        match event:
            case Delivery():
                if not (self._provision.takes(event) or self._broker_news.takes(event)):
                    self._on_delivery(event)
                self._unacknowledged.append(event)
            case Connected():
                check_broker(self._link)
                self.connected = True
                if self._listens_until_s is None:
                    self._listens_until_s = self._clock.monotonic_s() + LISTEN_S
                LOG.info("connected", extra={"generation": event.generation})
                self._provision.on_connected()
                self._announcer.announce_all()
            case Disconnected():
                self.connected = False
                self._provision.on_disconnected()
                self._broker_news.on_disconnected()
                self._publisher.forget_asked()
                LOG.warning("disconnected")
            case Room():
                pass  # tick sends the next chunks

    def acknowledge(self) -> None:
        """Make durable all that follows from the handled messages, and only then acknowledge them, as they came.

        Nearly all of it is durable already, for somebody was told of it. Chunks are not: an fsync for each of them
        would take longer than all else, so the files are synced here, once for all messages since the last time.
        """
        self._uploads.sync()
        if self._senders:
            self._senders.save()
        for delivery in self._unacknowledged:
            self._link.acknowledge(delivery)
        self._unacknowledged.clear()

    def tick(self) -> None:
        """What follows from the event and from time: a wish of the operator, a version, chunks to send."""
        self.looped_at_s = self._clock.monotonic_s()
        if self._operation.look() or (self.connected and self._announcer.is_due(self.looped_at_s)):
            self._announcer.announce_all()
        self._look_who_belongs()
        self._provision.tick(self._gate.let_in(), self.desk.holders if self.desk else ())
        self._intake.quarantine.look(self.looped_at_s)
        self._members.hold(self._intake.quarantine.held)
        self._aggregate()
        self._publisher.send_chunks(self._clock.monotonic_s())

    def _look_who_belongs(self) -> None:
        """Before anything is made or sent: what a former member can read with is not used for it."""
        if self.desk and self.desk.look():
            self._members.enrol(self.desk.sites)
        if self.desk and self._keys and self._keys.look(self.desk.sites, self._clock.now_s()):
            self._announcer.announce_all()

    # receive

    def _on_delivery(self, delivery: Delivery) -> None:
        began_s, address = self._clock.monotonic_s(), address_of(delivery.topic)
        self._receive(delivery)
        kind = address.kind if address and isinstance(address.kind, topics.Up) else None
        self.meter.handled(kind, self._clock.monotonic_s() - began_s)

    def _receive(self, delivery: Delivery) -> None:
        try:
            received = self._gate.receive(delivery)
        except PeerError as error:
            self._refuse_message(delivery.topic, error)
            return
        if received is None:
            return
        self._began_s = self._clock.now_s()
        self._members.heard(received.site, self._began_s)
        try:
            self._on_message(received)
        except PeerError as error:
            self._gate.count(received.site, error)

    def _on_message(self, received: Received) -> None:
        site, message = received.site, received.message
        match message:
            case Offer():
                self._answer(site, self._intake.offer(site, message))
            case Chunk():
                ended = self._intake.chunk(site, message)
                if ended:
                    self._answer(site, ended)
            case Get():
                self._on_get(site, message)
            case Evaluation():
                self._on_evaluation(site, message)
            case Status():
                self._on_status(site, message)
            case Telemetry():
                self._members.on_telemetry(site, message, self._clock.now_s())
            case Renewal():
                self._on_renewal(site, message)

    def _on_status(self, site: str, status: Status) -> None:
        if self.desk:
            self.desk.on_status(site)
        if self._members.on_status(site, status):
            self._announcer.say_soon()
        if self._keys:
            self._keys.heard(site, status)
            self._announcer.hand_out_keys(site)

    def _refuse_message(self, topic: str, error: PeerError) -> None:
        """Count it; and answer when it was an offer of an admitted site, whose id the topic tells.

        Whoever is not proven ends nothing: at most the site is told to offer again.
        """
        address = address_of(topic)
        if address is None:
            self._gate.count(None, error)
            return
        site = address.site if address.site in self._members else None
        self._gate.count(site, error)
        later = error.reason is RejectReason.PROTOCOL_VERSION  # an upgrade of either side may still save the work
        if isinstance(error, UnprovenError) and not later:
            return
        if site and address.kind is topics.Up.OFFER and address.owner:
            outcome = Outcome.LATER if later else Outcome.REFUSED
            new = Receipt(update_id=address.owner, outcome=outcome, reason=error.reason)
            self._publisher.receipt(site, self._intake.known(site, address.owner) or new)

    # verify, store

    def _terms(self, offer: Offer) -> Terms:
        """What the current announcement asks of an update."""
        current = self._versions.current.version
        return Terms(
            layout=self._versions.layout,
            version=current,
            max_staleness=min(self._config.engine.max_staleness, current - self._retention.floor),
            codecs=self._announcer.codecs.allowed,
            state=self._operation.state,
            base_digest=self._ledger.model_digest(offer.base_version),
            sealed=self._identity is not None,
        )

    def _answer(self, site: str, answer: Grant | Ended) -> None:
        """Tell the site; what is new of an update was recorded before, and is known to everybody first."""
        if isinstance(answer, Grant):
            self._publisher.grant(site, answer)
            self._follow(site, answer)
            return
        row = answer.row
        if row:
            self._members.on_update(row)
        if row and not row.reason:
            self._aggregator.add(row)
            LOG.info("accepted", extra={"site": site, "base_version": row.base_version, "number": row.number})
        if answer.error:
            self._gate.count(site, answer.error)
        self._publisher.receipt(site, answer.receipt)
        self._follow(site, answer.receipt, row)

    def _follow(self, site: str, answer: Grant | Receipt, row: StoredUpdate | None = None) -> None:
        if self._journeys:
            self._journeys.answered(site, answer, row, self._began_s, self._clock.now_s())

    # aggregate

    def _aggregate(self) -> None:
        """The end is looked for before a version too: a crash may have come between the last version and its wish."""
        if not self._knows_who_is_there():
            return
        if self._operation.state is FederationState.FINISHED or self._finish_if_done() or self._intake.is_full():
            return
        began_s, began_monotonic_s = self._clock.now_s(), self._clock.monotonic_s()
        folded = self._aggregator.make_if_ready(self._federation_clock.now())
        if folded:
            self.meter.made(self._clock.monotonic_s() - began_monotonic_s)
            if self._journeys:
                self._journeys.folded(folded, self._versions.current.version, began_s, self._clock.now_s())
            self._retention.apply()
            self._look_who_belongs()  # that took its time
            if not self._finish_if_done():
                self._announcer.announce()

    def _finish_if_done(self) -> bool:
        """Whether the end that the configuration names was reached; the announcement says so then.

        By all records together and by the site in the middle: one that claims any number of records ends nothing alone.
        """
        measured = self._members.measured_by_all()
        metrics = (self._members.metrics(), self._members.middle_metrics()) if measured else ()
        finished = self._operation.finish_if_done(self._versions.current.version, *metrics)
        if finished:
            self._announcer.announce_all()
        return finished

    # publish

    def _on_renewal(self, site: str, renewal: Renewal) -> None:
        renewed = self.desk.on_renewal(site, renewal) if self.desk else None
        if renewed:
            self._publisher.renewed(site, renewed)

    def _on_get(self, site: str, get: Get) -> None:
        online = self._members.online() if self._knows_who_is_there() else ()
        for part in self._versions.parts():
            if part.manifest.digest == get.digest:
                self._publisher.ask(site, get, part, self._clock.monotonic_s(), online)
                return
        raise PeerError(RejectReason.UNKNOWN_BASE, "a part that is not announced any more")

    # what the sites measured

    def _on_evaluation(self, site: str, evaluation: Evaluation) -> None:
        ours = self._ledger.model_digest(evaluation.version)
        check_evaluation(evaluation, self._versions.current.version, ours)
        if self._ledger.add_evaluation(evaluation, site, self._clock.now_s()):
            self._members.on_evaluation(site, evaluation)

    def _knows_who_is_there(self) -> bool:
        """Whether every site that is online had LISTEN_S to say so: the broker hands its retained status out late."""
        return self._listens_until_s is not None and self._clock.monotonic_s() >= self._listens_until_s

    def _wait_s(self) -> float:
        """Until the next deadline, at most TICK_S. What is left in the buffer of a finished federation is never due."""
        own_s, monotonic_s = self._federation_clock.now().own_s, self._clock.monotonic_s()
        due_s, chunks_s = self._aggregator.due_s(own_s), self._publisher.next_at_s()
        waits = [TICK_S]
        if due_s is not None and self._operation.state is not FederationState.FINISHED:
            waits.append(due_s - own_s)
        if chunks_s is not None:
            waits.append(chunks_s - monotonic_s)
        return max(0.001, min(waits))

    @property
    def unready(self) -> str | None:
        """Why the program can't do its work now; None when it can."""
        if not self.connected:
            return "not connected to the broker"
        return "no room on the disk" if self._intake.is_full() else None

    def page(self) -> dict[str, Any]:
        """What API, metrics and demo show. Other threads read it: every value is replaced, none is changed in place."""
        current, replayed = self._versions.current, last_replay(self._config.state_folder)
        return {
            "federation": self._config.federation,
            "software": f"fedward {__version__}",
            "state": str(self._operation.state),
            "leads": True,
            "connected": self.connected,
            "broker_access": self._provision.state.value,
            "broker": self._broker_news.figures,
            "certificate_expires_s": self.desk.expires_s() if self.desk else None,
            "own_certificate_expires_s": self.desk.own_expires_s() if self.desk else None,
            "certificates": self.desk.expiries_s() if self.desk else {},
            "model_key_id": self._keys.key_id.hex() if self._keys else None,
            "version": current.version,
            "version_created_at_s": current.created_at_s,
            "num_parameters": self._versions.layout.size,
            "step_norm": self._versions.step_norm,
            "floor": self._retention.floor,
            "row_changed": self._retention.row_changed,
            "replayed_at_s": replayed.at_s if replayed else None,
            "replay_matches": replayed.matches if replayed else None,
            "disk_free_bytes": free_bytes(self._config.state_folder),
            "blobs_bytes": used_bytes(self._config.state_folder / "blobs"),
            "ledger_bytes": used_bytes(self._config.state_folder, f"{LEDGER_FILE}*"),  # 0 for one on a server
            "buffer": len(self._aggregator),
            "buffer_size": self._aggregator.size,
            "sites_needed": self._aggregator.usual_size,
            "sites_admitted": len(self._members.admitted()),
            "sites_online": len(self._members.online()),
            "metrics": self._members.metrics(),
            "worst_metrics": self._members.worst_metrics(),
            **self._gate.page(),
            **self.meter.page(),
            "bytes_sent": self._link.bytes_sent,
            "bytes_received": self._link.bytes_received,
            "num_waiting": self._link.num_waiting,
            "bytes_waiting": self._link.bytes_waiting,
            "chunks_received": self._uploads.num_received,
            "chunks_redundant": self._uploads.num_received - self._uploads.num_useful,
            "sites": self._members.page(),
        }


def _next_of(inbox: LinkInbox, wait_s: float) -> LinkEvent | None:
    """None when nothing came in time."""
    try:
        return inbox.get(timeout=wait_s)
    except queue.Empty:
        return None
