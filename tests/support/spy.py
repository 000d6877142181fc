"""Somebody who subscribes at a broker without rights, and keeps what is new until it is taken."""

from queue import Queue
from random import Random
from threading import Thread
from typing import Self, cast

from fedward.mqtt import MqttLink, MqttSettings
from fedward.ports import Connected, Delivery, LinkEvent, LinkInbox

HOST = "127.0.0.1"
CONNECT_S = 10.0


class Spy:
    """Hears all that matches `topic_filter` at the broker on this port, in a `with` block."""

    def __init__(self, port: int, topic_filter: str) -> None:
        self._inbox: Queue[LinkEvent | None] = Queue()
        self._seen: Queue[tuple[str, bytes]] = Queue()
        settings = MqttSettings(host=HOST, port=port, client_id="spy", session_expiry_s=60)
        self.link = MqttLink(settings, cast(LinkInbox, self._inbox), Random(1))
        self.link.subscribe(topic_filter)
        self._listener = Thread(target=self._listen, daemon=True)  # a broker hands on no more than is acknowledged

    def __enter__(self) -> Self:
        self.link.open()
        while not isinstance(self._inbox.get(timeout=CONNECT_S), Connected):
            pass
        self._listener.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._inbox.put(None)
        self._listener.join()
        self.link.close()

    def take(self) -> list[tuple[str, bytes]]:
        """Topic and payload of each message since the last call."""
        return [self._seen.get() for _ in range(self._seen.qsize())]

    def hear(self) -> tuple[str, bytes]:
        """The next message, once it is there."""
        return self._seen.get(timeout=CONNECT_S)

    def _listen(self) -> None:
        while event := self._inbox.get():
            if isinstance(event, Delivery):
                self.link.acknowledge(event)
                self._seen.put((event.topic, event.payload))
