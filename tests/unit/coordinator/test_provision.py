"""The conversation with a broker about rights, against the plugin in memory."""

import queue
from collections.abc import Callable, Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.access import initial_state
from coordinator.dynsec import ANSWER_TOPIC, COMMAND_TOPIC, Acl, Answer, Client, Held
from coordinator.provision import AGAIN_S, ANSWER_S, BrokerAccess, Provision, provision
from fedward.errors import TransientError
from fedward.identity.token import TokenKeys
from fedward.ports import Connected, Delivery, Disconnected, LinkInbox
from fedward.testing import ManualClock, MemoryBroker, MemoryLink
from tests.support.dynsec_plugin import DynsecPlugin

SITES = {"hosp-a", "hosp-b"}


class Office:
    """A provisioning over a link in memory; the plugin is a subscriber of the topic of commands."""

    def __init__(self, broker: MemoryBroker, plugin: DynsecPlugin, *, wanted: bool = True) -> None:
        self.clock = ManualClock()
        self.plugin = plugin
        self.num_messages = 0
        self.tamper: Callable[[bytes], bytes] = lambda answers: answers
        self._inbox: LinkInbox = queue.Queue()
        self._plugin_inbox: LinkInbox = queue.Queue()
        self.link = MemoryLink(broker, "coordinator-f1", self._inbox)
        self._plugin_link = MemoryLink(broker, "plugin", self._plugin_inbox)
        self._plugin_link.subscribe(COMMAND_TOPIC)
        self._plugin_link.open()
        self.provision = Provision(self.link, self.clock, "f1", wanted=wanted)
        self.provision.begin()
        self.link.open()

    def work(self, sites: set[str], holders: Collection[TokenKeys] = (), *, answers: bool = True) -> None:
        """Until nothing is under way any more."""
        self._events()
        self.provision.tick(sites, holders)
        while answers and self._answer():
            self._events()
        self.provision.tick(sites, holders)

    def deliver(self, payload: bytes) -> None:
        self._plugin_link.publish(ANSWER_TOPIC, payload)
        self._events()

    def _answer(self) -> bool:
        num_answered = 0
        while not self._plugin_inbox.empty():
            event = self._plugin_inbox.get()
            if isinstance(event, Delivery):
                num_answered += 1
                self._plugin_link.publish(ANSWER_TOPIC, self.tamper(self.plugin.answer(event.payload)))
                self._plugin_link.acknowledge(event)
        self.num_messages += num_answered
        return num_answered > 0

    def _events(self) -> None:
        while not self._inbox.empty():
            match event := self._inbox.get():
                case Connected():
                    self.provision.on_connected()
                case Disconnected():
                    self.provision.on_disconnected()
                case Delivery():
                    assert self.provision.takes(event)
                    self.link.acknowledge(event)


@pytest.fixture
def plugin() -> DynsecPlugin:
    return DynsecPlugin(initial_state(["f1"]))


@pytest.fixture
def office(broker: MemoryBroker, plugin: DynsecPlugin) -> Office:
    return Office(broker, plugin)


def test_the_sites_get_their_rights_and_it_says_so(office: Office, plugin: DynsecPlugin) -> None:
    assert office.provision.state is BrokerAccess.PENDING
    office.work(SITES)
    assert office.provision.state is BrokerAccess.PROVISIONED
    assert plugin.clients["hosp-a"] == ["fedward/f1/members", "fedward/f1/site/hosp-a"]


def test_a_new_connection_reads_again_and_changes_nothing(broker: MemoryBroker, office: Office) -> None:
    office.work(SITES)
    office.plugin.kicked.clear()
    office.num_messages = 0
    broker.stop()
    broker.start()
    office.work(SITES)
    assert office.provision.state is BrokerAccess.PROVISIONED
    assert office.num_messages == 3, "the defaults, the roles, the clients"
    assert office.plugin.kicked == []


def test_a_site_that_is_not_admitted_any_more_loses_its_rights_without_a_new_connection(office: Office) -> None:
    office.work(SITES)
    office.work({"hosp-b"})
    assert "hosp-a" not in office.plugin.clients
    assert office.plugin.kicked[-1] == "hosp-a"


def test_a_token_opens_the_broker_as_long_as_it_is_out_and_no_site_notices(office: Office) -> None:
    token = TokenKeys.derive(bytes(32), "f1", "hosp-c", "0" * 32)
    office.work(SITES)
    office.plugin.kicked.clear()
    office.work(SITES, [token])
    assert office.plugin.passwords == {token.user: token.password}
    assert office.provision.state is BrokerAccess.PROVISIONED
    office.work(SITES)
    assert office.plugin.passwords == {}
    assert office.plugin.kicked == [token.user]


def test_a_change_of_the_sites_while_answers_are_awaited_counts(office: Office) -> None:
    office.work(SITES, answers=False)
    office.work({"hosp-b"})
    assert office.provision.state is BrokerAccess.PROVISIONED
    assert office.plugin.clients.keys() == {"coordinator-f1", "hosp-b"}


def test_hundreds_of_sites_and_of_others_are_read_page_by_page(office: Office) -> None:
    sites = {f"hosp-{number}" for number in range(250)}
    office.plugin.clients.update({f"stranger-{number}": [] for number in range(150)})
    office.work(sites)
    assert office.provision.state is BrokerAccess.PROVISIONED
    office.work(set())
    assert office.provision.state is BrokerAccess.PROVISIONED
    assert len(office.plugin.clients) == 151


def test_a_coordinator_that_another_one_let_in_gives_itself_the_rights_that_it_needs(
    broker: MemoryBroker,
) -> None:
    plugin = DynsecPlugin(initial_state(["f2"]))
    plugin.clients["coordinator-f1"] = ["fedward/administrator"]
    Office(broker, plugin).work(SITES)
    assert "fedward/f1/coordinator" in plugin.clients["coordinator-f1"]
    assert plugin.kicked[0] == "coordinator-f1"


def test_a_broker_that_does_not_answer_has_failed_and_is_asked_again(office: Office) -> None:
    office.work(SITES, answers=False)
    office.clock.advance(ANSWER_S)
    office.work(SITES, answers=False)
    assert office.provision.state is BrokerAccess.FAILED
    office.clock.advance(AGAIN_S)
    office.work(SITES)
    assert office.provision.state is BrokerAccess.PROVISIONED


def test_a_broker_that_allows_everybody_what_no_role_forbids_has_failed(office: Office) -> None:
    office.plugin.defaults["publishClientReceive"] = True
    office.work(SITES)
    assert office.provision.state is BrokerAccess.FAILED
    assert "hosp-a" not in office.plugin.clients


class DeafPlugin(DynsecPlugin):
    """Says that it did what it was told, and does nothing."""

    def _createRole(self, rolename: str, acls: object) -> None:  # noqa: N802
        pass

    def _addClientRole(self, username: str, rolename: str) -> None:  # noqa: N802
        pass


def test_a_broker_that_only_says_that_it_follows_has_failed(broker: MemoryBroker) -> None:
    office = Office(broker, DeafPlugin(initial_state(["f1"])))
    office.work(SITES)
    assert office.provision.state is BrokerAccess.FAILED


@pytest.mark.parametrize(
    "payload",
    [b"", b"not json", b'{"responses": []}', b'{"responses": [{"command": "x", "correlationData": "another"}]}'],
)
def test_what_is_no_answer_to_it_changes_nothing(office: Office, payload: bytes) -> None:
    office.work(SITES, answers=False)
    office.deliver(payload)
    assert office.provision.state is BrokerAccess.PENDING
    office.work(SITES)
    assert office.provision.state is BrokerAccess.PROVISIONED


def test_a_broker_that_answers_less_than_it_was_asked_is_not_believed(office: Office) -> None:
    office.tamper = lambda answers: answers.replace(b'"command"', b'"kommand"')
    office.work(SITES)
    assert office.provision.state is BrokerAccess.PENDING
    office.clock.advance(ANSWER_S)
    office.work(SITES)
    assert office.provision.state is BrokerAccess.FAILED


NAMES = st.sampled_from(
    ["hosp-a", "coordinator-f1", "fedward/f1/members", "fedward/f1/site/hosp-a", "fedward/f2/x", "#", ""]
)
ACLS = st.frozensets(st.builds(Acl, NAMES, NAMES, st.integers(), st.booleans()), max_size=3)
CLIENTS = st.builds(Client, st.frozensets(NAMES, max_size=3), st.booleans())
LIES = st.builds(
    Answer,
    command=NAMES,
    error=st.none() | st.text(max_size=3),
    open_defaults=st.just(frozenset()) | st.frozensets(NAMES, max_size=1),
    total=st.integers(0, 300),
    held=st.builds(Held, st.dictionaries(NAMES, ACLS, max_size=3), st.dictionaries(NAMES, CLIENTS, max_size=3)),
)


@given(st.data())
def test_whatever_a_broker_answers_the_conversation_ends_and_touches_no_other_federation(data: st.DataObject) -> None:
    conversation = provision("f1", SITES)
    commands = next(conversation)
    for _ in range(2000):
        assert not [one for one in commands if str(one.get("rolename", "fedward/f1/")).split("/")[1] != "f1"]
        lie = data.draw(LIES)
        try:
            commands = conversation.send([lie] * len(commands))
        except (StopIteration, TransientError):
            return
    pytest.fail("it goes on for ever")


def test_where_the_operator_sees_to_the_rights_it_says_nothing_to_the_broker(
    broker: MemoryBroker, plugin: DynsecPlugin
) -> None:
    office = Office(broker, plugin, wanted=False)
    office.work(SITES)
    assert office.provision.state is BrokerAccess.UNUSED
    assert office.num_messages == 0
