"""What the two sides need of the world outside, as protocols: the real thing and its fake both keep them.

`tests/contract` runs one suite against each implementation.
"""

from dataclasses import dataclass
from queue import Queue
from typing import Protocol

from fedward.dial import UnreachableError
from fedward.errors import ConfigError
from fedward.limits import LEAST_BROKER_PAYLOAD


@dataclass(frozen=True)
class Delivery:
    """A message that came in. It stays the broker's until `Link.acknowledge` is called with it.

    `generation` counts the connections of this process: an acknowledgement of an older connection would
    acknowledge somebody else's message (MQTT packet identifiers are re-used) and is dropped.
    """

    topic: str
    payload: bytes
    qos: int = 1
    packet_id: int = 0
    generation: int = 0


@dataclass(frozen=True)
class Connected:
    """The link is up and subscribed; everything that must be known to the other side is sent now."""

    generation: int


@dataclass(frozen=True)
class Disconnected:
    """The link is down; it comes back by itself. What was in flight may or may not have arrived."""


@dataclass(frozen=True)
class Room:
    """The in-flight window, which was full, has room again."""


LinkEvent = Delivery | Connected | Disconnected | Room


@dataclass(frozen=True)
class Will:
    """What the broker publishes for us, retained, when the connection ends without a goodbye.

    It waits `delay_s` for a reconnection first, so that a short drop of the network is not a death notice.
    """

    topic: str
    payload: bytes
    delay_s: int


class Link(Protocol):
    """A connection to the broker that keeps coming back. Delivers events to the inbox given at construction.

    It is a fast, lossy hint channel: whatever matters is asked for again by the layers above.
    """

    def open(self) -> None:
        """Start connecting in the background; `Connected` arrives in the inbox at each success."""

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, expiry_s: int | None = None
    ) -> bool:
        """Hand one message to the broker; False when the link is down (nothing is kept for later).

        True is not a receipt: what is in flight when the connection drops is forgotten here, and may or may not
        have arrived. QoS 0 is for telemetry and takes no place in the window. An empty retained payload clears
        the topic. Raises ValueError for a payload above `max_payload_bytes`: the caller must chunk.
        """

    def room(self) -> int:
        """How many more bulk messages fit the in-flight window now; 0 when down. `Room` comes when it grows from 0."""

    def subscribe(self, *filters: str) -> None:
        """Subscribe now and at every later connection."""

    def unsubscribe(self, *filters: str) -> None:
        """Undo `subscribe`, also one of an earlier process that the broker's session still remembers."""

    def acknowledge(self, delivery: Delivery) -> None:
        """Tell the broker that this message needs no redelivery. Call in the order of arrival, for every delivery."""

    def reconnect(self) -> None:
        """Give up this connection for a new one, made with the certificate that is on the disk then.

        `Disconnected` and `Connected` come as after a broken network; what is in flight may or may not arrive.
        """

    def close(self) -> None:
        """Disconnect cleanly after what is in flight has left, within a few seconds; the will is not sent."""

    @property
    def refusal(self) -> str:
        """Why the broker refused the latest attempt to connect, in its words; empty where it did not."""

    @property
    def failure(self) -> UnreachableError | None:
        """Why the latest attempt did not reach the broker; None where it did."""

    @property
    def max_payload_bytes(self) -> int:
        """The largest payload that the broker takes; at most limits.MAX_MESSAGE_BYTES."""

    @property
    def bytes_sent(self) -> int:
        """Payload bytes handed to the broker."""

    @property
    def bytes_received(self) -> int:
        """Payload bytes that came in, redeliveries included."""

    @property
    def num_waiting(self) -> int:
        """Deliveries that came in and were not acknowledged yet."""

    @property
    def bytes_waiting(self) -> int:
        """Payload bytes of these."""


def check_broker(link: Link) -> None:
    """Raise ConfigError when the broker takes no packets of the size that the protocol needs."""
    if link.max_payload_bytes < LEAST_BROKER_PAYLOAD:
        raise ConfigError(
            f"the broker takes payloads of {link.max_payload_bytes} bytes, Fedward needs {LEAST_BROKER_PAYLOAD}: "
            "raise its largest packet size (mosquitto: max_packet_size)"
        )


LinkInbox = Queue[LinkEvent]


class Clock(Protocol):
    """Time as an argument. `now_s` is wall-clock (for people and the ledger), `monotonic_s` for every timer."""

    def now_s(self) -> float: ...

    def monotonic_s(self) -> float: ...
