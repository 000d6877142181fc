"""The coordinator's loop with a broker whose rights it sees to; the plugin is one in memory."""

import queue
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.access import ADMINISTRATOR, coordinator_name, initial_state
from coordinator.config import Authorisation, CoordinatorBrokerSettings
from coordinator.dynsec import ANSWER_TOPIC, COMMAND_TOPIC
from fedward.ports import Delivery, LinkInbox
from fedward.testing import ManualClock, MemoryBroker, MemoryLink
from tests.support.coordinator_bench import Bench, config_of, refusals
from tests.support.dynsec_plugin import DynsecPlugin
from tests.support.updates import FEDERATION, SITES


class Broker:
    """The plugin behind a link of its own."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.plugin = DynsecPlugin(initial_state([FEDERATION]))
        self._inbox: LinkInbox = queue.Queue()
        self._link = MemoryLink(broker, "plugin", self._inbox)
        self._link.subscribe(COMMAND_TOPIC)
        self._link.open()

    def answer(self) -> bool:
        events = []
        while not self._inbox.empty():
            events.append(self._inbox.get())
        deliveries = [event for event in events if isinstance(event, Delivery)]
        for delivery in deliveries:
            self._link.publish(ANSWER_TOPIC, self.plugin.answer(delivery.payload))
        return bool(deliveries)


@pytest.fixture
def broker_side(broker: MemoryBroker) -> Broker:
    return Broker(broker)


@pytest.fixture
def bench(broker: MemoryBroker, broker_side: Broker, clock: ManualClock, tmp_path: Path) -> Iterator[Bench]:
    settings = CoordinatorBrokerSettings(host="localhost", authorisation=Authorisation.DYNAMIC_SECURITY)
    one = Bench(config_of(tmp_path, broker=settings), broker, clock)
    one.link.subscribe(ANSWER_TOPIC)
    yield one
    one.kill()


def settle(bench: Bench, broker_side: Broker) -> None:
    bench.settle()
    while broker_side.answer():
        bench.settle()


def test_the_admitted_sites_have_their_rights_soon_after_the_start(bench: Bench, broker_side: Broker) -> None:
    assert bench.service.page()["broker_access"] == "pending"
    settle(bench, broker_side)
    assert bench.service.page()["broker_access"] == "provisioned"
    assert broker_side.plugin.clients.keys() == {coordinator_name(FEDERATION), *SITES}
    assert not refusals(bench), "an answer of the plugin is no message of a site"


def test_rights_that_can_not_be_given_stop_nothing_else(bench: Bench, broker_side: Broker) -> None:
    broker_side.plugin.defaults["subscribe"] = True
    settle(bench, broker_side)
    assert bench.service.page()["broker_access"] == "failed"
    assert bench.service.unready is None


def test_a_new_process_that_admits_fewer_sites_takes_the_rights_of_the_others(
    bench: Bench, broker_side: Broker, broker: MemoryBroker, clock: ManualClock, tmp_path: Path
) -> None:
    settle(bench, broker_side)
    bench.kill()
    again = Bench(config_of(tmp_path, sites=SITES[:1], broker=bench.config.broker), broker, clock)
    again.link.subscribe(ANSWER_TOPIC)
    settle(again, broker_side)
    again.kill()
    assert broker_side.plugin.clients.keys() == {coordinator_name(FEDERATION), SITES[0]}
    assert ADMINISTRATOR in broker_side.plugin.clients[coordinator_name(FEDERATION)]
