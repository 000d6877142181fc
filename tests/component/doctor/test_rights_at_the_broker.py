"""What the doctor says of real brokers: who is let in, what is allowed, how large messages may be."""

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue

import pytest

from coordinator.doctor import wanted_by as wanted_by_coordinator
from edge_agent.doctor import wanted_by
from fedward import topics
from fedward.doctor.check import Check, Verdict
from fedward.doctor.session import talk, talk_instead, visitor
from fedward.limits import LEAST_BROKER_PAYLOAD
from fedward.mqtt import MqttLink, MqttSettings
from fedward.ports import Connected, Delivery, LinkEvent
from fedward.process import is_worked_in, only_process_in
from sandbox.broker import find_mosquitto
from tests.support.network import DYNAMIC_SECURITY, HOST, listening, mosquitto, silence

pytestmark = [
    pytest.mark.network,
    pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed: apt-get install mosquitto"),
]

Examine = Callable[..., dict[str, Check]]

OPEN = "listener {port} 127.0.0.1\nallow_anonymous true\n"
ANNOUNCE = topics.announce("ward")


class Client:
    """Somebody else at the broker."""

    def __init__(self, port: int, client_id: str, *filters: str) -> None:
        self.inbox: Queue[LinkEvent] = Queue(100)
        self.settings = MqttSettings(host=HOST, port=port, client_id=client_id, session_expiry_s=600)
        self.link = MqttLink(self.settings, self.inbox, random.Random(0))
        self.link.subscribe(*filters)
        self.link.open()
        assert isinstance(self.next(), Connected)

    def next(self) -> LinkEvent:
        return self.inbox.get(timeout=10.0)

    def say(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        before = self.link.room()
        assert self.link.publish(topic, payload, retain=retain)
        give_up_s = time.monotonic() + 10.0
        while self.link.room() < before:
            assert time.monotonic() < give_up_s, "the broker did not acknowledge in time"
            time.sleep(0.01)


@pytest.fixture
def clients() -> Iterator[Callable[..., Client]]:
    made: list[Client] = []

    def connect(port: int, client_id: str, *filters: str) -> Client:
        made.append(Client(port, client_id, *filters))
        return made[-1]

    yield connect
    for client in made:
        client.link.close()


def rules(folder: Path, *allowed: tuple[str, str]) -> str:
    """Settings of a broker that allows everybody exactly these access rules."""
    assert DYNAMIC_SECURITY
    none = {"publishClientSend": False, "publishClientReceive": False, "subscribe": False, "unsubscribe": True}
    acls = [{"acltype": kind, "topic": topic, "allow": True} for kind, topic in allowed]
    roles = {
        "defaultACLAccess": none,
        "roles": [{"rolename": "any", "acls": acls}],
        "groups": [{"groupname": "all", "roles": [{"rolename": "any"}], "clients": []}],
        "anonymousGroup": "all",
        "clients": [],
    }
    folder.mkdir()
    (folder / "rules.json").write_text(json.dumps(roles))
    return f"{OPEN}plugin {DYNAMIC_SECURITY}\nplugin_opt_config_file {folder / 'rules.json'}\n"


needs_rules = pytest.mark.skipif(
    DYNAMIC_SECURITY is None, reason="mosquitto's dynamic security plugin is not installed"
)


def test_a_broker_that_allows_all_is_ok_and_the_missing_announcement_is_told(examine: Examine, tmp_path: Path) -> None:
    with mosquitto(tmp_path / "broker", OPEN) as port:
        checks = examine(port)
    assert [checks[name].verdict for name in ("mqtt", "rights", "sizes")] == [Verdict.OK] * 3
    assert checks["announcement"].verdict is Verdict.WARNING


def test_the_announcement_that_is_there_is_heard(
    examine: Examine, clients: Callable[..., Client], tmp_path: Path
) -> None:
    with mosquitto(tmp_path / "broker", OPEN) as port:
        clients(port, "coordinator-ward").say(ANNOUNCE, b"any", retain=True)
        assert examine(port)["announcement"].verdict is Verdict.OK


def test_a_broker_that_takes_small_packets_only_is_told_what_to_raise(examine: Examine, tmp_path: Path) -> None:
    with mosquitto(tmp_path / "broker", OPEN + "max_packet_size 131072\n") as port:
        check = examine(port)["sizes"]
    assert check.verdict is Verdict.FAILED
    assert f"the protocol needs {LEAST_BROKER_PAYLOAD}" in check.found
    assert "max_packet_size" in check.remedy


def test_a_broker_that_lets_nobody_in_is_told_with_its_reason(examine: Examine, tmp_path: Path) -> None:
    with mosquitto(tmp_path / "broker", "listener {port} 127.0.0.1\nallow_anonymous false\n") as port:
        checks = examine(port)
    assert "Not authorized" in checks["mqtt"].found
    assert "let site st-anna in" in checks["mqtt"].remedy
    assert checks["rights"].found == "because mqtt failed"


def test_a_port_that_speaks_no_mqtt_is_given_up(examine: Examine) -> None:
    with listening(silence) as port:
        check = examine(port, run_s=1.0)["mqtt"]
    assert check.verdict is Verdict.FAILED
    assert "MQTT port" in check.remedy


@needs_rules
def test_every_right_that_is_missing_is_named(examine: Examine, tmp_path: Path) -> None:
    own_down = topics.down_all("ward", "st-anna")
    with mosquitto(tmp_path / "broker", rules(tmp_path / "rules", ("subscribePattern", own_down))) as port:
        check = examine(port)["rights"]
    assert check.verdict is Verdict.FAILED
    assert own_down not in check.remedy
    for missing in (
        f"subscribe to {ANNOUNCE}",
        "subscribe to fl/v1/ward/pub/m/+/c/+",
        "publish to fl/v1/ward/up/st-anna/",
    ):
        assert missing in check.remedy


@needs_rules
def test_the_rules_that_the_protocol_asks_for_are_enough(examine: Examine, tmp_path: Path) -> None:
    allowed = [
        ("publishClientSend", "fl/v1/+/up/st-anna/#"),
        ("subscribePattern", "fl/v1/+/dn/st-anna/#"),
        ("subscribePattern", "fl/v1/ward/pub/#"),
    ]
    with mosquitto(tmp_path / "broker", rules(tmp_path / "rules", *allowed)) as port:
        assert examine(port)["rights"].verdict is Verdict.OK


@needs_rules
def test_a_coordinator_that_may_not_speak_to_sites_is_told(tmp_path: Path) -> None:
    allowed = [("publishClientSend", "fl/v1/+/pub/#"), ("subscribePattern", "fl/v1/+/up/#")]
    with mosquitto(tmp_path / "broker", rules(tmp_path / "rules", *allowed)) as port:
        settings = MqttSettings(host=HOST, port=port, client_id="coordinator-ward", session_expiry_s=600)
        wanted = wanted_by_coordinator("ward", "st-anna")
        answer = talk(visitor(settings), wanted, 10.0)
    assert [wanted.rules[topic] for topic in answer.denied] == ["publish to fl/v1/ward/dn/+/#"]


def test_nothing_is_left_behind_and_a_running_agent_keeps_its_connection(
    examine: Examine, clients: Callable[..., Client], tmp_path: Path
) -> None:
    with mosquitto(tmp_path / "broker", OPEN) as port:
        agent = clients(port, "ward-st-anna", topics.down_all("ward", "st-anna"))
        assert examine(port)["rights"].verdict is Verdict.OK
        agent.say(topics.down("ward", "st-anna", topics.Down.GRANT), b"fence")
        assert agent.next() == Delivery("fl/v1/ward/dn/st-anna/grant", b"fence", 1, packet_id=1, generation=1)
        late = clients(port, "late", "#")
        late.say("fence", b"")
        heard = late.next()
        assert isinstance(heard, Delivery)
        assert heard.topic == "fence"  # and nothing retained before it


def test_a_client_id_that_belongs_to_the_certificate_is_left_to_the_agent_that_runs(tmp_path: Path) -> None:
    state = tmp_path / "state"
    settings = MqttSettings(host=HOST, port=1, client_id="st-anna", session_expiry_s=600)
    with only_process_in(state):
        assert is_worked_in(state)
        assert talk_instead(settings, wanted_by("ward", "st-anna"), state, 10.0) is None
    assert not is_worked_in(state)


def test_what_waits_in_the_agents_own_session_is_still_there_after_the_doctor(
    clients: Callable[..., Client], tmp_path: Path
) -> None:
    grant = topics.down("ward", "st-anna", topics.Down.GRANT)
    with mosquitto(tmp_path / "broker", OPEN) as port:
        wanted = wanted_by("ward", "st-anna")
        agent = clients(port, "st-anna", *wanted.filters)
        (passing,) = wanted.passing
        agent.link.close()
        clients(port, "coordinator-ward").say(grant, b"while away")
        answer = talk_instead(agent.settings, wanted, tmp_path / "state", 10.0)
        assert answer
        assert grant in answer.delivered
        back = clients(port, "st-anna")
        waiting = back.next()
        assert isinstance(waiting, Delivery)
        assert (waiting.topic, waiting.payload) == (grant, b"while away")
        back.link.acknowledge(waiting)
        clients(port, "other").say(passing.replace("+", "0"), b"of a filter that was held for the doctor only")
        clients(port, "another").say(grant, b"fence")
        fence = back.next()
        assert isinstance(fence, Delivery)
        assert fence.topic == grant
