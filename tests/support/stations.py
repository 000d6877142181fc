"""Links that a test opens and reads: up, or what the log says that is in the way."""

import random
import time
from collections.abc import Iterator
from logging import LogRecord
from queue import Queue
from typing import Any

import pytest

from fedward.mqtt import MqttLink, MqttSettings
from fedward.ports import Connected, LinkInbox

DEADLINE_S = 15.0


class Stations:
    """Opens links that try again at once; `close` closes them all."""

    def __init__(self, log: pytest.LogCaptureFixture) -> None:
        self._log = log
        self._links: list[MqttLink] = []

    def open(self, **settings: Any) -> tuple[MqttLink, LinkInbox]:
        inbox: LinkInbox = Queue(1000)
        given = {"host": "127.0.0.1", "client_id": f"station-{len(self._links)}", "session_expiry_s": 60} | settings
        link = MqttLink(MqttSettings(**given, reconnect_min_s=0.02, reconnect_max_s=0.1), inbox, random.Random(0))
        self._links.append(link)
        link.open()
        return link, inbox

    def connected(self, **settings: Any) -> tuple[MqttLink, LinkInbox]:
        link, inbox = self.open(**settings)
        wait_for(inbox, Connected(1))
        return link, inbox

    def obstacle(self, **settings: Any) -> tuple[str, str]:
        """What a new link says that is in its way, and the detail; a second attempt is awaited, too."""
        self._log.clear()
        self.open(**settings)
        first, second = self.told(2)
        assert vars(first)["advice"]
        assert (vars(first)["attempts"], vars(second)["attempts"]) == (1, 2)
        return vars(first)["reason"], vars(first)["detail"]

    def told(self, number: int) -> list[LogRecord]:
        """The first log lines of attempts that failed."""
        for _ in polls():
            told = [record for record in self._log.records if record.msg == "mqtt_unreachable"]
            if len(told) >= number:
                return told[:number]
        pytest.fail("no attempt was told as failed")

    def close(self) -> None:
        for link in self._links:
            link.close()


def wait_for(inbox: LinkInbox, event: object) -> None:
    """Read the inbox up to this event."""
    while inbox.get(timeout=DEADLINE_S) != event:
        pass


def polls() -> Iterator[None]:
    """For conditions that nothing announces."""
    give_up_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < give_up_s:
        yield
        time.sleep(0.01)
