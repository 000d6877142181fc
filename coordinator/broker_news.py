"""What mosquitto tells of itself under $SYS, as far as the coordinator shows it. Other brokers tell nothing of it.

The broker is not trusted: what it says here is shown, and decides nothing.
"""

import re

from fedward.ports import Delivery, Link

TOPICS = {
    "$SYS/broker/clients/connected": "clients",
    "$SYS/broker/store/messages/count": "stored_messages",
    "$SYS/broker/publish/messages/dropped": "dropped_messages",
    "$SYS/broker/uptime": "uptime_s",
}
"""Topic -> name of the figure. mosquitto tells them every ten seconds, as `broker-config` has it."""

FIGURE = re.compile(rb"([0-9]{1,15})(?: seconds)?")


class BrokerNews:
    """The latest figures; none before they came, and where the broker doesn't tell or the coordinator may not hear."""

    def __init__(self, link: Link, *, wanted: bool) -> None:
        """With `wanted` false nothing is asked for: a subscription that the broker denies is a warning each time."""
        self.figures: dict[str, int] = {}
        """By name. Replaced, never changed: other threads read it."""
        self._link = link
        self._wanted = wanted

    def begin(self) -> None:
        """Before the link opens."""
        if self._wanted:
            self._link.subscribe(*TOPICS)

    def on_disconnected(self) -> None:
        """What was told is old now."""
        self.figures = {}

    def takes(self, delivery: Delivery) -> bool:
        """Whether the message was one of these; it is done with then. What is no figure is left out."""
        name = TOPICS.get(delivery.topic)
        if name is None:
            return False
        if figure := FIGURE.fullmatch(delivery.payload):
            self.figures = {**self.figures, name: int(figure[1])}
        return True
