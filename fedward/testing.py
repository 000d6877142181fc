"""In-memory stand-ins for the network and the clock: synchronous, deterministic, for one thread.

`tests/contract` holds the broker and the link to the same promises as the real ones. Simpler than the real thing:
messages do not expire, wills do not wait, and a full inbox holds deliveries back instead of dropping them.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from fedward.limits import MAX_MESSAGE_BYTES
from fedward.ports import Connected, Delivery, Disconnected, LinkInbox, Room, Will


class ManualClock:
    """A Clock that stands still until `advance`."""

    def __init__(self, now_s: float = 1_700_000_000.0) -> None:
        self._start_s = now_s
        self._elapsed_s = 0.0

    def advance(self, seconds: float) -> None:
        """Let time pass; ValueError for a negative step."""
        if seconds < 0:
            raise ValueError(f"time can't go back by {-seconds} s")
        self._elapsed_s += seconds

    def now_s(self) -> float:
        return self._start_s + self._elapsed_s

    def monotonic_s(self) -> float:
        return self._elapsed_s


@dataclass(frozen=True)
class _Message:
    topic: str
    payload: bytes
    qos: int


@dataclass
class _Session:
    """What the broker keeps of a client, connected or not."""

    filters: set[str] = field(default_factory=set)
    waiting: deque[_Message] = field(default_factory=deque)
    unacknowledged: dict[int, _Message] = field(default_factory=dict)
    last_packet_id: int = 0

    def hand_out(self, message: _Message) -> int:
        """The packet id of a delivery; QoS 0 has none, and nobody waits for its acknowledgement."""
        if message.qos == 0:
            return 0
        self.last_packet_id += 1
        self.unacknowledged[self.last_packet_id] = message
        return self.last_packet_id

    def resume(self) -> None:
        """A new connection gets again, first and in order, what the last one left unacknowledged."""
        self.waiting.extendleft(reversed(self.unacknowledged.values()))
        self.unacknowledged.clear()


class MemoryBroker:
    """Retained messages, wildcard filters, sessions that outlive connections, QoS 1. Starts running."""

    def __init__(self) -> None:
        self.running = True
        self.duplicates = 0
        """How many of the next QoS 1 messages reach each subscriber twice."""
        self._retained: dict[str, bytes] = {}
        self._sessions: dict[str, _Session] = {}
        self._links: dict[str, MemoryLink] = {}
        self._paused: deque[Callable[[], None]] | None = None

    def stop(self) -> None:
        """Die, as brokers without persistence do: sessions and retained messages are gone, links are down."""
        self.running = False
        self._paused = None
        self._retained.clear()
        self._sessions.clear()
        for link in self._links.values():
            link.went_down()

    def start(self) -> None:
        """Come back empty; every open link reconnects at once."""
        self.running = True
        for link in list(self._links.values()):
            self.connect(link)

    def pause(self) -> None:
        """Take publishes without acknowledging or delivering them, until `resume`."""
        self._paused = deque()

    def resume(self) -> None:
        """Go through what came in during the pause, in order."""
        waiting, self._paused = self._paused or deque(), None
        for take in waiting:
            take()

    def take_one(self) -> None:
        """Go through the oldest of what came in during the pause, which goes on. IndexError when there is nothing."""
        waiting, self._paused = self._paused or deque(), None
        try:
            waiting.popleft()()
        finally:
            self._paused = waiting

    def connect(self, link: "MemoryLink") -> None:
        """Open or resume the link's session; a stopped broker connects it when it starts."""
        self._links[link.client_id] = link
        if self.running:
            session = self._sessions.setdefault(link.client_id, _Session())
            session.resume()
            link.came_up()
            self._deliver(link.client_id)

    def disconnect(self, link: "MemoryLink") -> None:
        """The link's goodbye: its session stays, its will is forgotten."""
        self._links.pop(link.client_id, None)

    def subscribe(self, client_id: str, topic_filter: str) -> None:
        """Add a filter, and deliver the retained messages that match it."""
        session = self._sessions[client_id]
        session.filters.add(topic_filter)
        session.waiting.extend(
            _Message(topic, payload, 1) for topic, payload in self._retained.items() if matches(topic_filter, topic)
        )
        self._deliver(client_id)

    def unsubscribe(self, client_id: str, topic_filter: str) -> None:
        """Remove a filter; one that was never there is no error."""
        self._sessions[client_id].filters.discard(topic_filter)

    def receive(self, message: _Message, *, retain: bool, acknowledge: Callable[[], None]) -> None:
        """Take a publish: acknowledge it, retain it, and put it into every session that wants it."""
        if self._paused is not None:
            self._paused.append(lambda: self.receive(message, retain=retain, acknowledge=acknowledge))
            return
        acknowledge()
        self.publish(message.topic, message.payload, qos=message.qos, retain=retain)

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Publish without a link, as somebody else would."""
        if retain:
            self._retained.pop(topic, None)
        if retain and payload:
            self._retained[topic] = payload
        copies = 2 if qos == 1 and self.duplicates > 0 else 1
        self.duplicates -= copies - 1
        for client_id, session in self._sessions.items():
            if any(matches(topic_filter, topic) for topic_filter in session.filters):
                if qos == 1 or client_id in self._links:
                    session.waiting.extend([_Message(topic, payload, qos)] * copies)
                self._deliver(client_id)

    def acknowledged(self, client_id: str, packet_id: int) -> None:
        """A delivery needs no repetition, and left room for the next one."""
        self._sessions[client_id].unacknowledged.pop(packet_id, None)
        self._deliver(client_id)

    def _deliver(self, client_id: str) -> None:
        session, link = self._sessions[client_id], self._links.get(client_id)
        while link is not None and session.waiting and not link.inbox.full():
            message = session.waiting.popleft()
            link.deliver(message.topic, message.payload, message.qos, session.hand_out(message))


class MemoryLink:
    """Keeps the promises of `fedward.ports.Link` without a network."""

    max_payload_bytes = MAX_MESSAGE_BYTES
    refusal = ""
    failure = None

    def __init__(
        self, broker: MemoryBroker, client_id: str, inbox: LinkInbox, *, window: int = 8, will: Will | None = None
    ) -> None:
        self.client_id = client_id
        self.inbox = inbox
        self.bytes_sent = 0
        self.bytes_received = 0
        self.num_waiting = 0
        self.bytes_waiting = 0
        self._broker = broker
        self._window = window
        self._will = will
        self._filters: dict[str, bool] = {}  # False: to be removed from the session at the next connection
        self._generation = 0
        self._in_flight = 0
        self._up = False

    def open(self) -> None:
        self._broker.connect(self)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        expiry_s: int | None = None,  # noqa: ARG002  # messages do not expire here
    ) -> bool:
        if len(payload) > self.max_payload_bytes:
            raise ValueError(f"payload of {len(payload)} bytes, this broker takes {self.max_payload_bytes}: chunk it")
        if qos not in (0, 1):
            raise ValueError(f"qos {qos}, expected 0 or 1")
        if not self._up:
            return False
        self.bytes_sent += len(payload)
        self._in_flight += qos
        generation = self._generation
        self._broker.receive(
            _Message(topic, payload, qos), retain=retain, acknowledge=lambda: self._puback(qos, generation)
        )
        return True

    def room(self) -> int:
        return max(0, self._window - self._in_flight) if self._up else 0

    def subscribe(self, *filters: str) -> None:
        for topic_filter in filters:
            self._filters[topic_filter] = True
            if self._up:
                self._broker.subscribe(self.client_id, topic_filter)

    def unsubscribe(self, *filters: str) -> None:
        for topic_filter in filters:
            self._filters[topic_filter] = False
            if self._up:
                self._broker.unsubscribe(self.client_id, topic_filter)

    def acknowledge(self, delivery: Delivery) -> None:
        self.num_waiting -= 1
        self.bytes_waiting -= len(delivery.payload)
        if self._up and delivery.generation == self._generation:
            self._broker.acknowledged(self.client_id, delivery.packet_id)

    def close(self) -> None:
        self._up = False
        self._broker.disconnect(self)

    def kill(self) -> None:
        """End as a killed process does: no goodbye, so the will is published, and no way back."""
        self.close()
        if self._will is not None:
            self._broker.publish(self._will.topic, self._will.payload, retain=True)

    def reconnect(self) -> None:
        if self._up:
            self.drop()

    def drop(self) -> None:
        """Lose the connection and get it back at once."""
        self.went_down()
        self.open()

    def came_up(self) -> None:
        """For the broker: a connection is there."""
        self._up = True
        self._generation += 1
        self._in_flight = 0
        self.inbox.put_nowait(Connected(self._generation))
        for topic_filter, wanted in self._filters.items():
            change = self._broker.subscribe if wanted else self._broker.unsubscribe
            change(self.client_id, topic_filter)

    def went_down(self) -> None:
        """For the broker: the connection is gone."""
        if self._up:
            self._up = False
            self.inbox.put_nowait(Disconnected())

    def deliver(self, topic: str, payload: bytes, qos: int, packet_id: int) -> None:
        """For the broker: a message for the inbox."""
        self.bytes_received += len(payload)
        self.num_waiting += 1
        self.bytes_waiting += len(payload)
        self.inbox.put_nowait(Delivery(topic, payload, qos, packet_id, self._generation))

    def _puback(self, qos: int, generation: int) -> None:
        if generation != self._generation:
            return
        was_full = self.room() == 0
        self._in_flight -= qos
        if was_full and self.room() > 0:
            self.inbox.put_nowait(Room())


def matches(topic_filter: str, topic: str) -> bool:
    """Does an MQTT filter, with its wildcards + (one level) and # (the rest, or nothing), select this topic?"""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if wanted[-1] == "#":
        wanted.pop()
        levels = levels[: len(wanted)]
    return len(wanted) == len(levels) and all(
        pattern in ("+", level) for pattern, level in zip(wanted, levels, strict=True)
    )
