"""The bookkeeping of a link, without a network: what is on its way out, what fits the inbox, who watches the thread.

Two threads use each of them, the one of the network and the worker; they do their own locking.
"""

import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import Full

from fedward.limits import MAX_INBOX_BYTES
from fedward.ports import Connected, Delivery, Disconnected, LinkInbox, Room

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Sent:
    topic: str
    counts: bool


class InFlight:
    """Messages that were sent and not yet acknowledged, counted against a window.

    A client library learns a message's packet id inside its `publish`, so the network thread may report the
    acknowledgement before the worker gets to say which id was sent. Such an early one is kept for `sent`.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._generation = 0
        self._sent: dict[int, _Sent] = {}
        self._early: set[int] = set()
        self._moved_at_s = 0.0
        self._changed = threading.Condition()

    def restart(self, generation: int, window: int) -> None:
        """Forget everything: a new connection has its own packet ids."""
        with self._changed:
            self._window, self._generation = window, generation
            self._sent.clear()
            self._early.clear()
            self._changed.notify_all()

    def sent(self, packet_id: int, topic: str, *, counts: bool, generation: int) -> None:
        """Note a message; `counts` says whether it takes a place in the window. One of an older connection is gone."""
        with self._changed:
            if packet_id in self._early:
                self._early.discard(packet_id)
            elif generation == self._generation:
                if counts and not self._num_counted():
                    self._moved_at_s = time.monotonic()
                self._sent[packet_id] = _Sent(topic, counts)

    def acknowledged(self, packet_id: int) -> bool:
        """Forget one message; True when the window was full and has room now."""
        with self._changed:
            full = self._room() == 0
            sent = self._sent.pop(packet_id, None)
            if sent is None:
                self._early.add(packet_id)
            elif sent.counts:
                self._moved_at_s = time.monotonic()
            self._changed.notify_all()
            return full and self._room() > 0

    def topic_of(self, packet_id: int) -> str:
        """For the log; empty when the acknowledgement overtook `sent`."""
        with self._changed:
            return self._sent[packet_id].topic if packet_id in self._sent else ""

    def room(self) -> int:
        """Places left in the window, 0 or more: small messages may go out beyond it."""
        with self._changed:
            return self._room()

    def stuck_s(self) -> float:
        """Seconds for which no message that counts was acknowledged although one is in flight.

        One that does not count is done with once it is written, whatever the broker does.
        """
        with self._changed:
            return time.monotonic() - self._moved_at_s if self._num_counted() else 0.0

    def wait_until_empty(self, timeout_s: float) -> bool:
        """True as soon as nothing is in flight, False when the time is up."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._sent, timeout_s)

    def _room(self) -> int:
        return max(0, self._window - self._num_counted())

    def _num_counted(self) -> int:
        return sum(sent.counts for sent in self._sent.values())


class Intake:
    """The way into a bounded inbox, for a thread that must never block.

    A delivery that finds it full is dropped, for it stays with the broker; news of the link itself is kept here and
    goes in, before any later delivery, as soon as there is room. While MAX_INBOX_BYTES wait to be handled nothing is to
    be read at all: brokers send more than was asked for (mosquitto 2.0.11, once acknowledgements flow, any number), and
    to drop all that would cost a connection each time.
    """

    def __init__(self, inbox: LinkInbox) -> None:
        self._inbox = inbox
        self._num_waiting = 0
        self._waiting_bytes = 0
        self._kept: deque[Connected | Disconnected | Room] = deque()
        self._dropped = 0
        self._starved = False
        self._lock = threading.Lock()

    @property
    def dropped(self) -> int:
        """Deliveries that found the inbox full, since the start."""
        return self._dropped

    @property
    def num_waiting(self) -> int:
        """Deliveries that were put in and are not handled yet."""
        return self._num_waiting

    @property
    def bytes_waiting(self) -> int:
        """Payload bytes of these."""
        return self._waiting_bytes

    def tell(self, news: Connected | Disconnected | Room) -> None:
        """Put news of the link into the inbox, now or as soon as there is room; only the latest is kept."""
        with self._lock:
            if isinstance(news, Disconnected):
                self._kept.clear()  # news of a connection that has ended
                self._starved = False  # the next connection brings again what was dropped
            if news not in self._kept:
                self._kept.append(news)
            self._flush()

    def flush(self) -> None:
        """Put in what was kept, as far as there is room. The worker calls it as it takes events out."""
        with self._lock:
            self._flush()

    def offer(self, delivery: Delivery) -> bool:
        """Put a delivery into the inbox; False when it was full."""
        with self._lock:
            self._flush()
            if self._fits(delivery) and not self._kept and self._put(delivery):
                self._num_waiting += 1
                self._waiting_bytes += len(delivery.payload)
                return True
            self._dropped += 1
            self._starved |= delivery.qos > 0
            return False

    def handled(self, delivery: Delivery) -> None:
        """The worker is done with a delivery: its bytes are free."""
        with self._lock:
            self._num_waiting -= 1
            self._waiting_bytes -= len(delivery.payload)

    def may_read(self) -> bool:
        """Whether more may come in."""
        return self._waiting_bytes < MAX_INBOX_BYTES

    def starved(self) -> bool:
        """True once after deliveries were dropped, when half of the inbox is free: time to ask for them anew."""
        with self._lock:
            starved = self._starved and self._inbox.qsize() <= self._inbox.maxsize // 2
            self._starved &= not starved
            return starved

    def _fits(self, delivery: Delivery) -> bool:
        """QoS 0 has a quarter of the inbox: no broker holds it back, and a flood of it must not delay what matters."""
        places = self._inbox.maxsize
        return delivery.qos > 0 or (
            4 * (self._waiting_bytes + len(delivery.payload)) <= MAX_INBOX_BYTES
            and (not places or 4 * self._inbox.qsize() < places)
        )

    def _flush(self) -> None:
        while self._kept and self._put(self._kept[0]):
            self._kept.popleft()

    def _put(self, event: Connected | Disconnected | Room | Delivery) -> bool:
        try:
            self._inbox.put_nowait(event)
        except Full:
            return False
        return True


class ThreadWatch:
    """Makes the death of a library's thread an error of the worker's next call: nobody else would notice it.

    `wake` is called in the dying thread, so that a worker that waits for the inbox makes such a call.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def begin(self) -> None:
        """Called in the thread that is to be watched."""
        self._thread = threading.current_thread()

    def guarded(self, callback: Callable[..., None]) -> Callable[..., None]:
        """The callback; what it raises is logged and kept for `check`, and raised on."""

        @functools.wraps(callback)
        def guard(*arguments: object) -> None:
            try:
                callback(*arguments)
            except BaseException as error:
                self._failure = error
                facts = {"callback": callback.__name__, "error": type(error).__name__}
                log.critical("link_callback_failed", extra=facts)
                self._wake()
                raise

        return guard

    def check(self) -> None:
        """Raises RuntimeError, from the first cause where it is known, when the thread has ended."""
        ended = self._thread is not None and not self._thread.is_alive()
        if ended or self._failure is not None:
            raise RuntimeError("the network thread has died, and this process can't go on") from self._failure

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread's end, if it ever began; False when the time is up before."""
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()
