"""Attacks on a real mosquitto with the configuration that `broker-config` writes and the rights that are provisioned.

Hospital B (`hosp-b`) is a member of federation f1 as hospital A (`hosp-a`) is, and turned hostile; hosp-c is a
member of federation f2 at the same broker. Each test says what the attacker sees, and that the victim noticed nothing.
"""

import itertools
import socket
import ssl
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.dynsec import ANSWER_TOPIC, COMMAND_TOPIC, create_client, pack_commands
from fedward import topics
from fedward.identity.certificates import FileAuthority
from fedward.topics import Down, Enrol, Up
from sandbox.broker import find_mosquitto
from tests.support.party import Papers, Party, context, papers
from tests.support.ward import Office, Ward

pytestmark = [
    pytest.mark.network,
    pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed: apt-get install mosquitto"),
]

DENIED = "Not authorized"
GRANTED = "Granted QoS 1"
ID = bytes(range(32))
TOKEN = "0123456789abcdef" * 2
FORGED = b"as if from somebody else"
COUNTER = itertools.count()
DAY_S = 86_400.0

WORDS_OF_A_SITE = {
    Up.OFFER: topics.offer("f1", "hosp-a", ID),
    Up.CHUNK: topics.update_chunk("f1", "hosp-a", ID, 0),
    **{kind: topics.up("f1", "hosp-a", kind) for kind in Up if kind not in (Up.OFFER, Up.CHUNK)},
}
WORDS_TO_A_SITE = {
    Down.CHUNK: topics.down_chunk("f1", "hosp-a", ID, 0),
    **{kind: topics.down("f1", "hosp-a", kind) for kind in Down if kind not in (Down.CHUNK, Down.ANNOUNCE)},
}


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    """For attacks that leave the broker as it is."""
    with Ward(tmp_path_factory.mktemp("ward")) as one:
        yield one


@pytest.fixture(scope="module")
def office(ward: Ward) -> Office:
    ward.office("f2", ["hosp-c"])
    return ward.office("f1", ["hosp-a", "hosp-b"])


@pytest.fixture
def own_ward(tmp_path: Path) -> Iterator[Ward]:
    """For attacks that change it."""
    with Ward(tmp_path) as one:
        yield one


@pytest.fixture
def a(ward: Ward, office: Office) -> Iterator[Party]:
    """Hospital A, which hears what is said to it."""
    with Party(ward.port, ward.papers("hosp-a")) as party:
        assert party.subscribe(topics.down_all("f1", "hosp-a")) == GRANTED
        yield party


@pytest.fixture
def b(ward: Ward, office: Office) -> Iterator[Party]:
    with Party(ward.port, ward.papers("hosp-b")) as party:
        yield party


def ends_in_the_handshake(port: int, shown: ssl.SSLContext) -> str:
    """What a client sees that should not get further; with TLS 1.3 it sees it at its first read."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        try:
            with shown.wrap_socket(connection, server_hostname="127.0.0.1") as secured:
                secured.recv(1)
        except ssl.SSLError as error:
            return str(error.reason)
        except TimeoutError:
            pytest.fail("it was let in: the broker waits for its CONNECT")
    pytest.fail("the broker hung up without a word")


def hears_nothing_forged(office: Office, party: Party, topic: str) -> None:
    """What the party may say arrives at the coordinator, and by then nothing forged has."""
    genuine = b"genuine %d" % next(COUNTER)
    assert party.publish(topic, genuine) == "Success"
    office.work(lambda: (topic, genuine) in office.received, "heard")
    assert FORGED not in [payload for _, payload in office.received]


def is_told_nothing_forged(office: Office, party: Party, topic: str) -> None:
    """What the coordinator says arrives at the site, and by then nothing forged has."""
    genuine = b"genuine %d" % next(COUNTER)
    office.link.publish(topic, genuine)
    party.wait_until(lambda: (topic, genuine) in party.received, f"a message on {topic}")
    assert FORGED not in [payload for _, payload in party.received]


# who is let in


def test_without_a_certificate_nobody_gets_past_the_handshake(ward: Ward, a: Party, office: Office) -> None:
    assert ends_in_the_handshake(ward.port, context(None, ward.trusted)) == "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    hears_nothing_forged(office, a, WORDS_OF_A_SITE[Up.GET])


def test_a_certificate_of_a_rogue_authority_with_the_name_of_a_site_is_refused(
    ward: Ward, a: Party, office: Office, tmp_path: Path
) -> None:
    rogue = FileAuthority.make(tmp_path / "rogue", "sandbox authority", time.time())
    forged = papers(tmp_path, rogue, ward.trusted, "hosp-a")
    assert ends_in_the_handshake(ward.port, context(forged, ward.trusted)) == "TLSV1_ALERT_UNKNOWN_CA"
    hears_nothing_forged(office, a, WORDS_OF_A_SITE[Up.GET])


def test_a_revoked_certificate_is_refused(own_ward: Ward) -> None:
    stolen = own_ward.papers("hosp-a")
    with Party(own_ward.port, stolen) as party:
        assert party.connected
    own_ward.broker.revoke(stolen.serial)
    with Party(own_ward.port, own_ward.papers("hosp-a")) as party:
        assert party.connected, "the new certificate of the same site"
    assert ends_in_the_handshake(own_ward.port, context(stolen, own_ward.trusted)) == "SSLV3_ALERT_CERTIFICATE_REVOKED"


def test_an_expired_certificate_is_refused(ward: Ward) -> None:
    expired = ward.papers("hosp-a", made_at_s=time.time() - 10 * DAY_S, days=9.5)
    assert ends_in_the_handshake(ward.port, context(expired, ward.trusted)) == "SSLV3_ALERT_CERTIFICATE_EXPIRED"


def test_tls_1_1_is_refused(ward: Ward) -> None:
    old = context(ward.papers("hosp-a"), ward.trusted)
    old.set_ciphers("DEFAULT:@SECLEVEL=0")  # or this side would refuse, and not the broker
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    assert ends_in_the_handshake(ward.port, old) == "TLSV1_ALERT_PROTOCOL_VERSION"


def test_a_member_of_the_authority_that_no_federation_admits_can_do_nothing(ward: Ward, office: Office) -> None:
    with Party(ward.port, ward.papers("hosp-x")) as stranger:
        assert stranger.publish(topics.up("f1", "hosp-x", Up.STATUS)) == DENIED
        assert stranger.subscribe(topics.announce("f1")) == DENIED
        assert stranger.subscribe(topics.down_all("f1", "hosp-x")) == DENIED


# whose topics


@pytest.mark.parametrize("kind", WORDS_OF_A_SITE)
def test_b_can_not_publish_on_the_topics_of_a(kind: Up, b: Party, office: Office) -> None:
    assert b.publish(WORDS_OF_A_SITE[kind], FORGED, retain=kind is Up.STATUS) == DENIED
    hears_nothing_forged(office, b, topics.up("f1", "hosp-b", Up.GET))


@pytest.mark.parametrize("kind", WORDS_TO_A_SITE)
def test_b_can_not_forge_what_the_coordinator_says_to_a(kind: Down, b: Party, a: Party, office: Office) -> None:
    assert b.publish(WORDS_TO_A_SITE[kind], FORGED) == DENIED
    is_told_nothing_forged(office, a, WORDS_TO_A_SITE[Down.GRANT])


def test_b_can_not_forge_an_announcement(ward: Ward, b: Party, a: Party, office: Office) -> None:
    assert a.subscribe(topics.announce("f1")) == GRANTED
    assert b.publish(topics.announce("f1"), FORGED, retain=True) == DENIED
    is_told_nothing_forged(office, a, WORDS_TO_A_SITE[Down.GRANT])
    with Party(ward.port, ward.papers("hosp-b")) as late:
        assert late.subscribe(topics.announce("f1")) == GRANTED
        assert late.publish(topics.part_chunk("f1", ID, 0), FORGED) == DENIED
        assert late.received == [], "nothing was retained"


def test_b_can_not_clear_what_is_retained_of_a_and_for_all(own_ward: Ward) -> None:
    office = own_ward.office("f1", ["hosp-a", "hosp-b"])
    status, control = WORDS_OF_A_SITE[Up.STATUS], WORDS_TO_A_SITE[Down.CONTROL]
    with Party(own_ward.port, own_ward.papers("hosp-a")) as a:
        assert a.publish(status, b"online", retain=True) == "Success"
    for topic in (topics.announce("f1"), control):
        office.link.publish(topic, b"retained", retain=True)
    office.hear(status)
    with Party(own_ward.port, own_ward.papers("hosp-b")) as b:
        for topic in (status, topics.announce("f1"), control):
            assert b.publish(topic, b"", retain=True) == DENIED
    with Party(own_ward.port, own_ward.papers("hosp-a")) as a:
        assert a.subscribe(topics.down_all("f1", "hosp-a")) == GRANTED
        assert a.subscribe(topics.announce("f1")) == GRANTED
        assert a.hear(control) == a.hear(topics.announce("f1")) == b"retained"
    with Party(own_ward.port, own_ward.papers("coordinator-f1")) as another_replica:
        assert another_replica.subscribe(topics.up_all("f1")) == GRANTED
        assert another_replica.hear(status) == b"online"


@pytest.mark.parametrize(
    "topic_filter",
    [
        "#",
        "fl/#",
        "+/+/+/+/+/#",
        "$SYS/#",
        "$CONTROL/#",
        COMMAND_TOPIC,
        ANSWER_TOPIC,
        topics.down_all("f1", "hosp-a"),
        "fl/v1/f1/dn/+/receipt",
        "fl/v1/f1/dn/#",
        topics.up_all("f1"),
        "fl/v1/f1/up/hosp-a/#",
        "fl/v1/+/pub/announce",
        topics.announce("f2"),
        topics.part_chunks("f2", ID),
        topics.down_all("f2", "hosp-c"),
        topics.down_all("f2", "hosp-b"),
        topics.enrolment_requests("f1"),
        topics.enrolment("f1", TOKEN, Enrol.ANSWER),
        "fl/v1/f1/enrol/#",
    ],
)
def test_b_can_not_subscribe_to_what_is_not_its_own(topic_filter: str, a: Party, b: Party, office: Office) -> None:
    assert b.subscribe(topic_filter) == DENIED
    hears_nothing_forged(office, a, WORDS_OF_A_SITE[Up.GET])
    is_told_nothing_forged(office, a, WORDS_TO_A_SITE[Down.RECEIPT])
    assert b.publish(topics.up("f1", "hosp-b", Up.GET)) == "Success", "the answer comes after all that was sent to B"
    assert b.received == []


def test_b_can_not_publish_to_a_foreign_federation(b: Party) -> None:
    for topic in (topics.up("f2", "hosp-b", Up.STATUS), topics.up("f2", "hosp-c", Up.STATUS), topics.announce("f2")):
        assert b.publish(topic) == DENIED


@pytest.mark.parametrize("kind", Enrol)
def test_b_can_not_speak_in_the_enrolment_of_another(kind: Enrol, b: Party, a: Party, office: Office) -> None:
    assert b.publish(topics.enrolment("f1", TOKEN, kind), FORGED) == DENIED
    hears_nothing_forged(office, a, WORDS_OF_A_SITE[Up.GET])


def test_b_can_not_join_a_share_group_of_the_coordinator_and_steal_from_it(
    ward: Ward, a: Party, b: Party, office: Office
) -> None:
    for group in ("agg", "coordinator-f1"):
        assert b.subscribe(f"$share/{group}/{topics.up_all('f1')}") == DENIED
        assert b.subscribe(f"$share/{group}/{topics.down_all('f1', 'hosp-a')}") == DENIED
    sent = [(WORDS_OF_A_SITE[Up.GET], b"%d of 21" % number) for number in range(21)]
    for topic, payload in sent:
        assert a.publish(topic, payload) == "Success"
    hears_nothing_forged(office, a, WORDS_OF_A_SITE[Up.GET])
    assert [message for message in office.received if message in sent] == sent
    assert b.received == []


def test_the_will_of_b_can_not_say_that_a_is_gone(ward: Ward, a: Party, office: Office) -> None:
    status = WORDS_OF_A_SITE[Up.STATUS]
    with Party(ward.port, ward.papers("hosp-b"), will=(status, FORGED)) as b:
        assert b.connected, "the broker takes the will, and looks at it when it is due"
        b.break_off()
    hears_nothing_forged(office, a, status)


def test_a_certificate_whose_name_is_a_wildcard_gives_no_rights(ward: Ward, a: Party, office: Office) -> None:
    for name in ("+", "#", "hosp-a/#", "+/#"):
        with Party(ward.port, ward.papers(name), client_id="somebody") as party:
            assert party.publish(WORDS_OF_A_SITE[Up.GET], FORGED) == DENIED
            assert party.publish(f"fl/v1/f1/up/{topics.shard('hosp-a')}/get") == DENIED
            for topic_filter in ("#", topics.down_all("f1", "hosp-a"), topics.announce("f1")):
                assert party.subscribe(topic_filter) == DENIED
    hears_nothing_forged(office, a, WORDS_OF_A_SITE[Up.GET])


# who is who


@pytest.mark.parametrize("claimed", ["hosp-a", "f1-hosp-a", "coordinator-f1"])
def test_b_can_not_push_anybody_off_by_connecting_with_their_client_id(
    claimed: str, ward: Ward, a: Party, office: Office
) -> None:
    connections = office.connections
    with Party(ward.port, ward.papers("hosp-b"), client_id=claimed, username=claimed) as b:
        assert b.connected
        assert b.publish(WORDS_OF_A_SITE[Up.GET], FORGED) == DENIED
        assert b.publish(topics.announce("f1"), FORGED) == DENIED
        is_told_nothing_forged(office, a, WORDS_TO_A_SITE[Down.RECEIPT])
        hears_nothing_forged(office, a, WORDS_OF_A_SITE[Up.GET])
    assert a.connected
    assert office.connections == connections


def test_b_with_the_stolen_client_id_of_a_does_not_get_what_waits_for_a(ward: Ward, office: Office) -> None:
    """A is away; what waits for it is in a session that goes by the certificate's name, not by the client id."""
    receipt = WORDS_TO_A_SITE[Down.RECEIPT]
    own = ward.papers("hosp-a")
    with Party(ward.port, own) as a:
        assert a.subscribe(topics.down_all("f1", "hosp-a")) == GRANTED
    office.link.publish(receipt, b"for A")
    with Party(ward.port, ward.papers("hosp-b"), client_id="hosp-a", username="hosp-a", resume=True) as b:
        assert b.publish(topics.up("f1", "hosp-b", Up.GET)) == "Success"
        assert b.received == []
    with Party(ward.port, own, resume=True) as a:
        assert a.hear(receipt) == b"for A"


def test_b_can_not_give_itself_rights_nor_forge_the_answers_of_the_plugin(b: Party, office: Office) -> None:
    commands = pack_commands([create_client("hosp-x")], "b")
    assert b.publish(COMMAND_TOPIC, commands) == DENIED
    assert b.publish(ANSWER_TOPIC, b'{"responses": []}') == DENIED
    assert b.subscribe(ANSWER_TOPIC) == DENIED


# who is not admitted any more


def test_a_site_that_is_revoked_loses_its_live_connection_at_once_and_can_not_come_back(own_ward: Ward) -> None:
    office = own_ward.office("f1", ["hosp-a", "hosp-b"])
    own: Papers = own_ward.papers("hosp-a")
    with Party(own_ward.port, own) as a, Party(own_ward.port, own_ward.papers("hosp-b")) as b:
        assert a.subscribe(topics.down_all("f1", "hosp-a")) == GRANTED
        began_s = time.monotonic()
        office.sites.remove("hosp-a")
        office.provide()
        assert a.wait_for_end() == "Administrative action"
        assert time.monotonic() - began_s < 2.0
        with Party(own_ward.port, own, resume=True) as back:
            assert back.publish(WORDS_OF_A_SITE[Up.GET]) == DENIED
            assert back.subscribe(topics.down_all("f1", "hosp-a")) == DENIED
            assert back.subscribe(topics.announce("f1")) == DENIED
            office.link.publish(WORDS_TO_A_SITE[Down.RECEIPT], b"for A")
            office.link.publish(topics.announce("f1"), b"for all")
            hears_nothing_forged(office, b, topics.up("f1", "hosp-b", Up.GET))
            assert back.publish(WORDS_OF_A_SITE[Up.GET]) == DENIED
            assert back.received == [], "its old session holds the subscription, and gets nothing by it"
    own_ward.broker.revoke(own.serial)
    shown = context(own, own_ward.trusted)
    with Party(own_ward.port, own_ward.papers("hosp-b")):
        assert ends_in_the_handshake(own_ward.port, shown) == "SSLV3_ALERT_CERTIFICATE_REVOKED"


def test_a_client_that_the_broker_calls_disabled_still_connects_so_revoking_deletes_it(own_ward: Ward) -> None:
    office = own_ward.office("f1", ["hosp-a", "hosp-b"])
    office.link.publish(COMMAND_TOPIC, pack_commands([{"command": "disableClient", "username": "hosp-a"}], "by hand"))
    with Party(own_ward.port, own_ward.papers("hosp-a")) as a:
        assert a.connected, "what is disabled is its password, and nobody asks for that"
        office.sites.remove("hosp-a")
        office.provide()
        assert a.wait_for_end() == "Administrative action"
    with Party(own_ward.port, own_ward.papers("hosp-a")) as back:
        assert back.publish(WORDS_OF_A_SITE[Up.GET]) == DENIED


# and those who belong


def test_a_site_may_say_all_that_the_protocol_lets_it_say(a: Party, office: Office) -> None:
    for kind, topic in WORDS_OF_A_SITE.items():
        payload = f"{kind} of A".encode()
        assert a.publish(topic, payload, qos=0 if kind is Up.TELEMETRY else 1, retain=kind is Up.STATUS) == "Success"
        office.work(lambda sent=(topic, payload): sent in office.received, f"heard {kind}")  # type: ignore[misc]


def test_a_site_hears_all_that_the_coordinator_says_to_it_and_to_all(a: Party, office: Office) -> None:
    assert a.subscribe(topics.announce("f1")) == GRANTED
    assert a.subscribe(topics.part_chunks("f1", ID)) == GRANTED
    for topic in (*WORDS_TO_A_SITE.values(), topics.announce("f1"), topics.part_chunk("f1", ID, 7)):
        office.link.publish(topic, b"said on " + topic.encode())
        a.hear(topic)
    assert office.link.denied == 0


def test_the_will_of_a_site_says_that_it_is_gone(ward: Ward, office: Office) -> None:
    status = WORDS_OF_A_SITE[Up.STATUS]
    with Party(ward.port, ward.papers("hosp-a"), will=(status, b"A is offline")) as party:
        party.break_off()
    office.work(lambda: (status, b"A is offline") in office.received, "heard of its end")
