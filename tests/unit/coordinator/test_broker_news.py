"""What the broker tells of itself is shown where it is a figure, and never believed further."""

import queue

import pytest

from coordinator.broker_news import TOPICS, BrokerNews
from fedward.ports import Delivery
from fedward.testing import MemoryBroker, MemoryLink

CLIENTS = "$SYS/broker/clients/connected"


@pytest.fixture
def news() -> BrokerNews:
    return BrokerNews(MemoryLink(MemoryBroker(), "coordinator", queue.Queue()), wanted=True)


def told(topic: str, payload: bytes) -> Delivery:
    return Delivery(topic=topic, payload=payload)


def test_figures_are_taken(news: BrokerNews) -> None:
    assert news.takes(told(CLIENTS, b"4"))
    assert news.takes(told("$SYS/broker/uptime", b"126 seconds"))
    assert news.figures == {"clients": 4, "uptime_s": 126}


@pytest.mark.parametrize("payload", [b"", b"many", b"-1", b"1e9", b"9" * 16, b"4 seconds ago", b"\xff", b"4\n"])
def test_what_is_no_figure_is_left_out(news: BrokerNews, payload: bytes) -> None:
    assert news.takes(told(CLIENTS, payload))
    assert news.figures == {}


def test_other_topics_are_for_others(news: BrokerNews) -> None:
    assert not news.takes(told("fl/v1/ward/up/north/s00/status", b"4"))
    assert not news.takes(told("$SYS/broker/version", b"4"))


def test_what_was_told_before_the_connection_ended_is_old(news: BrokerNews) -> None:
    news.takes(told(CLIENTS, b"4"))
    news.on_disconnected()
    assert news.figures == {}


def test_only_exact_topics_are_asked_for() -> None:
    assert not [topic for topic in TOPICS if "+" in topic or "#" in topic]
