"""The coordinator's loop: receive, verify, store, aggregate, publish, in this order.

One thread does all of it, so a message is handled whole before the next one. Whatever is told to a site is in
the ledger before it is told; whatever is lost on the way is asked for again by the site.
"""

import logging
import queue
import secrets
import threading
from collections import Counter
from typing import Any

from coordinator.blobs import BlobFolder
from coordinator.config import FederationConfig, FinishSettings
from coordinator.engine.buffer import buffer_size
from coordinator.engine.rates import SiteRate, observe
from coordinator.engine.rounds import flush_after_s, flush_at_s, is_ready
from coordinator.engine.weigh import weights
from coordinator.ledger import ALL, Ledger, StoredUpdate
from coordinator.publish import Publisher
from coordinator.receive import Received, receive
from coordinator.state import SiteState, active_sites, federation_metrics
from coordinator.uploads import Upload, Uploads
from coordinator.verify import Terms, check_offer, check_update
from coordinator.versions import Versions, arrival_of
from fedward import topics
from fedward.errors import PeerError, RejectReason
from fedward.limits import CHUNK_BYTES
from fedward.messages import (
    Announcement,
    Chunk,
    Control,
    Evaluation,
    FederationState,
    Get,
    Grant,
    Offer,
    Outcome,
    Receipt,
    Status,
    Telemetry,
)
from fedward.ports import Clock, Connected, Delivery, Disconnected, Link, LinkEvent, LinkInbox, Room

LOG = logging.getLogger(__name__)

TICK_S = 0.5
"""Longest wait without looking at deadlines, the operator's wishes and the request to stop."""


class Service:
    """One federation's coordinator. `run` returns when `stop` is set; everything it knows is in the ledger."""

    def __init__(
        self, config: FederationConfig, ledger: Ledger, blobs: BlobFolder, versions: Versions, clock: Clock
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._blobs = blobs
        self._versions = versions
        self._clock = clock
        self._uploads = Uploads(config.state_folder / "incoming")
        self._boot_id = secrets.token_bytes(8)
        self._state = FederationState.RUNNING
        self._wishes: dict[str, FederationState] = {}
        self._buffer: list[StoredUpdate] = list(ledger.buffered())
        self._rates: dict[str, SiteRate] = {}
        self._link: Link
        self._publisher: Publisher
        self.sites = {name: SiteState() for name in config.sites}
        self.refused: Counter[RejectReason] = Counter(dict.fromkeys(RejectReason, 0))
        self.connected = False
        self.looped_at_s = clock.monotonic_s()
        self._recall()

    def run(self, inbox: LinkInbox, stop: threading.Event) -> None:
        """Work until `stop` is set; `attach` comes first."""
        self._link.open()
        while not stop.is_set():
            try:
                self.handle(inbox.get(timeout=self._wait_s()))
            except queue.Empty:
                pass
            self.tick()
        self._link.close()

    def attach(self, link: Link) -> None:
        """Use this link, which delivers to the inbox that `run` reads."""
        self._link = link
        self._publisher = Publisher(link, self._config.federation, self._blobs, self._config.gather_s)
        link.subscribe(topics.up_all(self._config.federation))

    def handle(self, event: LinkEvent) -> None:
        """One event of the link; a message is acknowledged when all that follows from it is durable."""
        match event:
            case Delivery():
                self._on_delivery(event)
                self._link.acknowledge(event)
            case Connected():
                self.connected = True
                LOG.info("connected", extra={"generation": event.generation})
                self._read_wishes()
                self._announce()
                self._control_sites()
            case Disconnected():
                self.connected = False
                self._publisher.forget_asked()
                LOG.warning("disconnected")
            case Room():
                pass  # tick sends the next chunks

    def tick(self) -> None:
        """What time alone brings: a deadline, an operator's wish, chunks whose gathering time is over."""
        self.looped_at_s = self._clock.monotonic_s()
        if self._read_wishes():
            self._announce()
            self._control_sites()
        self._aggregate()
        self._publisher.send_chunks(self._clock.monotonic_s())

    # receive

    def _on_delivery(self, delivery: Delivery) -> None:
        try:
            received = receive(delivery.topic, delivery.payload, self._config.federation, frozenset(self.sites))
        except PeerError as error:
            self._refuse_message(delivery.topic, error)
            return
        site = self.sites[received.site]
        site.heard_at_s = self._clock.now_s()
        site.bytes_received += len(delivery.payload)
        try:
            self._on_message(received)
        except PeerError as error:
            self._count_refusal(received.site, error)

    def _on_message(self, received: Received) -> None:
        site, message = received.site, received.message
        match message:
            case Offer():
                self._on_offer(site, message)
            case Chunk():
                self._on_chunk(site, message)
            case Get():
                self._on_get(site, message)
            case Evaluation():
                self._on_evaluation(site, message)
            case Status():
                self._on_status(site, message)
            case Telemetry():
                self.sites[site].telemetry = message

    def _refuse_message(self, topic: str, error: PeerError) -> None:
        """Count it; and answer when it was an offer of an admitted site, whose id the topic tells."""
        try:
            address = topics.parse(topic)
        except PeerError:
            self._count_refusal(None, error)
            return
        known = address.site if address.site in self.sites else None
        self._count_refusal(known, error)
        if known and address.kind is topics.Up.OFFER and address.owner:
            self._send_receipt(known, address.owner, Outcome.REFUSED, error.reason)

    def _count_refusal(self, site: str | None, error: PeerError) -> None:
        self.refused[error.reason] += 1
        LOG.warning("refused", extra={"site": site, "reason": error.reason.value, "detail": error.detail})

    # verify

    def _on_offer(self, site: str, offer: Offer) -> None:
        known = self._ledger.update(offer.update_id)
        if known:
            self._send_receipt(
                site, offer.update_id, known.outcome, RejectReason(known.reason) if known.reason else None
            )
            return
        try:
            check_offer(offer, self._terms())
        except PeerError as error:
            self._refuse_update(site, offer, error)
            return
        upload = self._uploads.open(site, offer)
        if offer.payload is not None:
            for start in range(0, len(offer.payload), CHUNK_BYTES):
                self._add_chunk(upload, start // CHUNK_BYTES, offer.payload[start : start + CHUNK_BYTES])
        if upload.collected.num_missing:
            self._publisher.grant(site, Grant(update_id=offer.update_id, missing=upload.collected.missing()))
        else:
            self._store(upload)

    def _on_chunk(self, site: str, chunk: Chunk) -> None:
        upload = self._uploads.find(site, chunk.owner)
        if self._add_chunk(upload, chunk.index, chunk.payload) and not upload.collected.num_missing:
            self._store(upload)

    def _add_chunk(self, upload: Upload, index: int, payload: bytes) -> bool:
        try:
            return upload.collected.add(index, payload)
        except PeerError as error:  # a wrong chunk changes nothing; the right one is granted again
            self._count_refusal(upload.site, error)
            return False

    # store

    def _store(self, upload: Upload) -> None:
        """Verify the whole, make it durable, and only then tell the site."""
        offer = upload.offer
        self._uploads.end(upload)
        try:
            self._blobs.adopt(upload.collected)
            norm = check_update(self._blobs.view(offer.manifest.digest), offer, self._versions.layout)
        except PeerError as error:
            self._blobs.drop(offer.manifest.digest)
            self._refuse_update(upload.site, offer, error)
            return
        row = self._ledger.add_update(offer, upload.site, self._clock.now_s(), norm, None)
        self._buffer.append(row)
        self._remember(row)
        LOG.info("accepted", extra={"site": row.site, "base_version": row.base_version, "number": row.number})
        self._send_receipt(upload.site, offer.update_id, Outcome.ACCEPTED, None)

    def _refuse_update(self, site: str, offer: Offer, error: PeerError) -> None:
        self._ledger.add_update(offer, site, self._clock.now_s(), None, error.reason)
        self.sites[site].num_refused += 1
        self._count_refusal(site, error)
        self._send_receipt(site, offer.update_id, Outcome.REFUSED, error.reason)

    def _remember(self, row: StoredUpdate) -> None:
        """Take an accepted update into what is known of its site's pace."""
        self._rates[row.site] = observe(self._rates.get(row.site), arrival_of(row))
        if row.site in self.sites:
            self.sites[row.site].num_accepted += 1
            self.sites[row.site].base_version = row.base_version

    # aggregate

    def _aggregate(self) -> None:
        """Make a version when the buffer is ready, and announce it."""
        settings, now_s = self._config.engine, self._clock.now_s()
        active = active_sites(self.sites, self._rates, settings.barrier)
        size = buffer_size(settings, len(active))
        arrivals = [arrival_of(row) for row in self._buffer]
        deadline_s = flush_after_s(settings, size, self._rates, now_s)
        if not is_ready(arrivals, settings, active, deadline_s, now_s) or self._state is FederationState.FINISHED:
            return
        version = self._versions.current.version
        shares = weights(arrivals, version, self._rates, settings, size, now_s)
        self._versions.make(self._buffer, shares, now_s)
        for row, weight in zip(self._buffer, shares, strict=True):
            if row.site in self.sites:
                self.sites[row.site].staleness = version - row.base_version
                self.sites[row.site].weight = weight
        LOG.info("version", extra={"version": version + 1, "updates": len(self._buffer)})
        self._buffer.clear()
        self._finish_if_done()
        self._announce()

    def _finish_if_done(self) -> None:
        done = is_done(self._config.finish, self._versions.current.version, federation_metrics(self.sites))
        if done and self._state is not FederationState.FINISHED:
            LOG.info("finished", extra={"version": self._versions.current.version})
            self._ledger.wish(ALL, FederationState.FINISHED)
            self._read_wishes()

    # publish

    def _announce(self) -> None:
        current = self._versions.current
        self._publisher.announce(
            Announcement(
                federation=self._config.federation,
                sequence=self._ledger.next_sequence(),
                boot_id=self._boot_id,
                state=self._state,
                version=current.version,
                model_digest=current.model_digest,
                layout_digest=self._versions.layout.digest,
                parts=self._versions.parts(),
                task=self._config.task,
                work=self._config.work,
                codec=self._config.codec,
                max_staleness=self._config.engine.max_staleness,
                repeat_base=self._config.engine.repeat_base,
            )
        )

    def _send_receipt(self, site: str, update_id: bytes, outcome: Outcome, reason: RejectReason | None) -> None:
        self._publisher.receipt(site, Receipt(update_id=update_id, outcome=outcome, reason=reason))

    def _on_get(self, site: str, get: Get) -> None:
        for part in self._versions.parts():
            if part.manifest.digest == get.digest:
                self._publisher.ask(site, get, part, self._clock.monotonic_s())
                return
        raise PeerError(RejectReason.UNKNOWN_BASE, "a part that is not announced any more")

    def _control_sites(self) -> None:
        for site in self.sites:
            paused = self._wishes.get(site) is FederationState.PAUSED
            if paused or site in self._wishes:
                self._publisher.control(site, Control(sequence=self._ledger.next_sequence(), paused=paused))

    # what sites say of themselves

    def _on_evaluation(self, site: str, evaluation: Evaluation) -> None:
        if evaluation.version > self._versions.current.version:
            raise PeerError(RejectReason.UNKNOWN_BASE, f"measured version {evaluation.version}, which is not out")
        self._ledger.add_evaluation(evaluation, site, self._clock.now_s())
        self.sites[site].evaluated_version = evaluation.version
        self.sites[site].metrics = dict(evaluation.metrics)
        before = self._state
        self._finish_if_done()
        if self._state is not before:
            self._announce()

    def _on_status(self, site: str, status: Status) -> None:
        """A notice that a process is gone is only believed of the process that was last here."""
        known = self.sites[site].status
        if status.online or known is None or known.boot_id == status.boot_id:
            self.sites[site].status = status
            LOG.info("status", extra={"site": site, "online": status.online, "leaving": status.leaving})

    # what the operator wants, and what there was before this process

    def _read_wishes(self) -> bool:
        wishes = self._ledger.wishes()
        changed, self._wishes = wishes != self._wishes, wishes
        self._state = wishes.get(ALL, FederationState.RUNNING)
        return changed

    def _recall(self) -> None:
        for row in self._ledger.accepted():
            self._remember(row)
        for evaluation in self._ledger.evaluations():
            if evaluation.site in self.sites:
                site = self.sites[evaluation.site]
                if evaluation.version != site.evaluated_version:
                    site.evaluated_version, site.metrics = evaluation.version, {}
                site.metrics[evaluation.metric] = evaluation.ratio
        self._read_wishes()

    def _terms(self) -> Terms:
        return Terms(
            layout=self._versions.layout,
            version=self._versions.current.version,
            max_staleness=self._config.engine.max_staleness,
            codec=self._config.codec,
            state=self._state,
        )

    def _wait_s(self) -> float:
        """Until the next deadline, at most TICK_S."""
        arrivals = [arrival_of(row) for row in self._buffer]
        settings, now_s = self._config.engine, self._clock.now_s()
        active = active_sites(self.sites, self._rates, settings.barrier)
        size = buffer_size(settings, len(active))
        flush_s = flush_at_s(arrivals, flush_after_s(settings, size, self._rates, now_s))
        chunks_s = self._publisher.next_at_s()
        waits = [TICK_S] + ([flush_s - now_s] if flush_s else [])
        waits += [chunks_s - self._clock.monotonic_s()] if chunks_s else []
        return max(0.001, min(waits))

    def page(self) -> dict[str, Any]:
        """What API, metrics and demo show. Other threads read it: every value is replaced, none is changed in place."""
        current = self._versions.current
        settings = self._config.engine
        size = buffer_size(settings, len(active_sites(self.sites, self._rates, settings.barrier)))
        return {
            "federation": self._config.federation,
            "state": str(self._state),
            "connected": self.connected,
            "version": current.version,
            "version_created_at_s": current.created_at_s,
            "num_parameters": self._versions.layout.size,
            "buffer": len(self._buffer),
            "buffer_size": size,
            "metrics": federation_metrics(self.sites),
            "refused": {reason.value: count for reason, count in self.refused.items()},
            "bytes_sent": self._link.bytes_sent,
            "bytes_received": self._link.bytes_received,
            "sites": {name: site.page() for name, site in self.sites.items()},
        }


def is_done(finish: FinishSettings, version: int, metrics: dict[str, float]) -> bool:
    """Whether the federation has reached what its configuration calls the end."""
    if finish.version is not None and version >= finish.version:
        return True
    if finish.metric is None or finish.value is None or finish.metric not in metrics:
        return False
    reached = metrics[finish.metric]
    return reached <= finish.value if finish.metric == "loss" else reached >= finish.value
