"""The agent's only way out: every message is in the egress log before the broker gets it, or it does not leave."""

import hashlib
import logging
from collections import Counter

from edge_agent.egress_lines import Facts, What
from edge_agent.egress_log import EgressLog, is_full
from fedward import topics
from fedward.dial import UnreachableError
from fedward.errors import PeerError
from fedward.messages import Evaluation, Offer, Telemetry
from fedward.pack import unpack
from fedward.ports import Delivery, Link, Will
from fedward.topics import CARRIED, Up, carried_by

LOG = logging.getLogger(__name__)


class EgressLink:
    """A Link that writes down what leaves. Filters and acknowledgements are no messages: they carry nothing of ours."""

    def __init__(self, link: Link, log: EgressLog, will: Will | None) -> None:
        """`will` is the one that `link` hands over with every connection, if it has one."""
        self._link = link
        self._log = log
        self._will = will
        self._upload: tuple[bytes, int] | None = None  # id and base version of the update that was offered last
        self._opened = False
        self._full = False
        self._num_left = Counter(dict.fromkeys(CARRIED, 0))
        self._bytes_left = Counter(dict.fromkeys(CARRIED, 0))

    def open(self) -> None:
        """Raises as EgressLog.open does: without a log, or the will in it, nothing connects."""
        will = [{"what": What.WILL, **self._facts(self._will.topic, self._will.payload)}] if self._will else []
        self._log.open(*will)
        self._opened = True
        self._link.open()

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, expiry_s: int | None = None
    ) -> bool:
        """Also False when there is no room on the disk for the line: nothing leaves that could not be written down."""
        if not self._opened:  # nobody else holds the link, so it is down
            return self._link.publish(topic, payload, qos=qos, retain=retain, expiry_s=expiry_s)
        facts = self._facts(topic, payload)
        n = self._written({"what": What.MESSAGE, **facts}, synced=facts["kind"] == Up.OFFER)
        if n is None:
            return False
        sent = self._link.publish(topic, payload, qos=qos, retain=retain, expiry_s=expiry_s)
        if sent:
            carried = carried_by(facts["kind"])
            self._num_left[carried] += 1
            self._bytes_left[carried] += len(payload)
        else:
            self._written({"what": What.UNSENT, "of": n})
        return sent

    def step(self) -> None:
        """Sync the log if that is due."""
        try:
            if self._opened:
                self._log.sync_if_due()
        except OSError as error:
            self._no_room(error)

    def room(self) -> int:
        return self._link.room()

    def subscribe(self, *filters: str) -> None:
        self._link.subscribe(*filters)

    def unsubscribe(self, *filters: str) -> None:
        self._link.unsubscribe(*filters)

    def acknowledge(self, delivery: Delivery) -> None:
        self._link.acknowledge(delivery)

    def reconnect(self) -> None:
        self._link.reconnect()

    def close(self) -> None:
        """Raises nothing for a log that finds the disk full."""
        self._link.close()
        self._log.close()

    @property
    def refusal(self) -> str:
        return self._link.refusal

    @property
    def failure(self) -> UnreachableError | None:
        return self._link.failure

    @property
    def max_payload_bytes(self) -> int:
        return self._link.max_payload_bytes

    @property
    def bytes_sent(self) -> int:
        return self._link.bytes_sent

    @property
    def bytes_received(self) -> int:
        return self._link.bytes_received

    @property
    def num_waiting(self) -> int:
        return self._link.num_waiting

    @property
    def bytes_waiting(self) -> int:
        return self._link.bytes_waiting

    def page(self) -> dict[str, dict[str, int]]:
        """What left since the start, by what it carries, as the log has it: without what was not sent, and the will."""
        return {"num_left": dict(self._num_left), "bytes_left": dict(self._bytes_left)}

    def _facts(self, topic: str, payload: bytes) -> dict[str, str | int]:
        """Of a message, whatever it is; the version where it names one, or belongs to an update that does."""
        facts: dict[str, str | int] = {"kind": "other", "federation": "", "topic": topic}
        try:
            address = topics.parse(topic)
            facts = {"kind": str(address.kind), "federation": address.federation}
            version = self._version(address, payload)
            if version is not None:
                facts["version"] = version
        except PeerError:
            pass  # of a newer kind: its bytes count all the same
        return {**facts, "size": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}

    def _version(self, address: topics.Address, payload: bytes) -> int | None:
        match address.kind:
            case Up.OFFER:
                offer = unpack(payload, Offer)
                self._upload = (offer.update_id, offer.base_version)
                return offer.base_version
            case Up.CHUNK:
                return self._upload[1] if self._upload and self._upload[0] == address.owner else None
            case Up.EVALUATION:
                return unpack(payload, Evaluation).version
            case Up.TELEMETRY:
                return unpack(payload, Telemetry).version
        return None

    def _written(self, facts: Facts, *, synced: bool = False) -> int | None:
        """The number of the line; None when there is no room for it."""
        try:
            n = self._log.write(facts)
            if synced:
                self._log.sync()
        except OSError as error:
            self._no_room(error)
            return None
        self._full = False
        return n

    def _no_room(self, error: OSError) -> None:
        """Say once that the disk is full; raise what is anything else."""
        if not is_full(error):
            raise error
        if not self._full:
            LOG.error("egress_log_full", extra={"advice": "nothing leaves until there is room"})
        self._full = True
