"""Attacks on the listener for those who enrol, at a real mosquitto as `broker-config` and the coordinator leave it.

A token's holder is the hospital `hosp-n`, which is invited to federation f1 and turned hostile, or whoever has stolen
its token; `hosp-o` is invited, too. hosp-a and hosp-b are members.
"""

import secrets
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from coordinator.dynsec import ANSWER_TOPIC, COMMAND_TOPIC, create_client, pack_commands
from fedward import topics
from fedward.identity.token import TokenKeys, new_token_id
from fedward.topics import Enrol, Up
from sandbox.broker import find_mosquitto
from tests.support.party import Nothing, Party, context
from tests.support.ward import Office, Ward

pytestmark = [
    pytest.mark.network,
    pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed: apt-get install mosquitto"),
]

DENIED = "Not authorized"
GRANTED = "Granted QoS 1"
FORGED = b"as if from somebody else"


def token_for(site: str) -> TokenKeys:
    return TokenKeys.derive(secrets.token_bytes(32), "f1", site, new_token_id())


def request_topic(token: TokenKeys) -> str:
    return topics.enrolment("f1", token.token_id, Enrol.REQUEST)


def answer_topic(token: TokenKeys) -> str:
    return topics.enrolment("f1", token.token_id, Enrol.ANSWER)


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    with Ward(tmp_path_factory.mktemp("ward")) as one:
        yield one


@pytest.fixture(scope="module")
def own(ward: Ward) -> TokenKeys:
    return token_for("hosp-n")


@pytest.fixture(scope="module")
def other(ward: Ward) -> TokenKeys:
    return token_for("hosp-o")


@pytest.fixture(scope="module")
def office(ward: Ward, own: TokenKeys, other: TokenKeys) -> Office:
    office = ward.office("f1", ["hosp-a", "hosp-b"])
    office.holders |= {own, other}
    office.provide()
    return office


def knocking(ward: Ward, name: str, password: str | None, client_id: str | None = None) -> Party:
    """Somebody without a certificate at the listener for those who enrol."""
    nothing = Nothing(name, ward.trusted)
    return Party(ward.broker.enrolment_port, nothing, client_id=client_id, username=name, password=password)


@pytest.fixture
def holder(ward: Ward, office: Office, own: TokenKeys) -> Iterator[Party]:
    with knocking(ward, own.user, own.password) as party:
        assert party.connected, party.answer
        yield party


@pytest.fixture
def a(ward: Ward, office: Office) -> Iterator[Party]:
    with Party(ward.port, ward.papers("hosp-a")) as party:
        assert party.subscribe(topics.down_all("f1", "hosp-a")) == GRANTED
        yield party


def is_refused(party: Party) -> None:
    with party:
        assert party.answer == DENIED
        assert not party.connected


def test_a_holder_says_its_request_and_hears_its_answer(holder: Party, office: Office, own: TokenKeys) -> None:
    assert holder.subscribe(answer_topic(own)) == GRANTED
    assert holder.publish(request_topic(own), b"request") == "Success"
    assert office.hear(request_topic(own)) == b"request"
    office.link.publish(answer_topic(own), b"answer")
    assert holder.hear(answer_topic(own)) == b"answer"


# who is let in


def test_without_a_user_with_a_wrong_password_or_with_none_nobody_is_let_in(
    ward: Ward, office: Office, own: TokenKeys, other: TokenKeys
) -> None:
    for password in (None, "", "x", own.password[:-1], other.password):
        is_refused(knocking(ward, own.user, password))
    with Party(ward.broker.enrolment_port, Nothing("somebody", ward.trusted)) as nameless:
        assert not nameless.connected
    is_refused(knocking(ward, "enrol-" + "0" * 32, own.password))


@pytest.mark.parametrize("name", ["coordinator-f1", "hosp-a", "admin", "+", "#"])
@pytest.mark.parametrize("password", [None, "", "x"])
def test_nobody_but_a_holder_of_a_token_has_a_password(
    ward: Ward, a: Party, office: Office, name: str, password: str | None
) -> None:
    connections = office.connections
    with knocking(ward, name, password) as party:
        assert not party.connected
    assert a.publish(topics.up("f1", "hosp-a", Up.GET), b"still here") == "Success"
    assert a.connected
    assert office.connections == connections


@pytest.mark.parametrize("name", ["hosp-a", "coordinator-f1"])
def test_a_certificate_gains_its_holder_nothing_where_passwords_are_asked_for(
    ward: Ward, office: Office, own: TokenKeys, name: str
) -> None:
    shown = ward.papers(name)
    for claimed, password in ((name, None), (name, ""), (own.user, None), (own.user, "x"), (None, None)):
        with Party(ward.broker.enrolment_port, shown, client_id=claimed, username=claimed, password=password) as party:
            assert not party.connected


def test_a_holder_can_not_get_in_where_certificates_are_asked_for(ward: Ward, office: Office, own: TokenKeys) -> None:
    with socket.create_connection(("127.0.0.1", ward.port), timeout=5) as connection:
        secured = context(None, ward.trusted).wrap_socket(connection, server_hostname="127.0.0.1")
        with secured, pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
            secured.recv(1)  # with TLS 1.3 it shows at the first read


def test_a_member_with_a_stolen_token_is_itself_where_certificates_are_asked_for(
    ward: Ward, office: Office, own: TokenKeys
) -> None:
    shown = ward.papers("hosp-b")
    with Party(ward.port, shown, client_id=own.user, username=own.user, password=own.password) as b:
        assert b.connected
        assert b.publish(request_topic(own), FORGED) == DENIED
        assert b.subscribe(answer_topic(own)) == DENIED
        assert b.publish(topics.up("f1", "hosp-b", Up.GET)) == "Success"


@pytest.mark.parametrize("claimed", ["hosp-a", "coordinator-f1", ""])
def test_a_holder_pushes_nobody_off_with_their_client_id(
    claimed: str, ward: Ward, a: Party, office: Office, own: TokenKeys
) -> None:
    connections = office.connections
    with knocking(ward, own.user, own.password, client_id=claimed) as party:
        assert party.publish(topics.up("f1", "hosp-a", Up.GET), FORGED) != "Success"
    assert a.publish(topics.up("f1", "hosp-a", Up.GET), b"genuine") == "Success"
    assert a.connected
    office.work(lambda: (topics.up("f1", "hosp-a", Up.GET), b"genuine") in office.received, "heard")
    assert office.connections == connections


# what a holder may do


@pytest.mark.parametrize(
    "topic_filter",
    [
        "#",
        "fl/#",
        "fl/v1/f1/enrol/+/answer",
        "fl/v1/f1/enrol/+/request",
        "fl/v1/f1/enrol/#",
        "$SYS/#",
        "$CONTROL/#",
        COMMAND_TOPIC,
        ANSWER_TOPIC,
        topics.announce("f1"),
        topics.part_chunks("f1", bytes(32)),
        topics.up_all("f1"),
        topics.down_all("f1", "hosp-a"),
        topics.down_all("f1", "hosp-n"),
        "OTHER",
        "OWN REQUEST",
        "SHARED",
    ],
)
def test_a_holder_can_not_subscribe_to_anything_but_its_own_answer(
    topic_filter: str, a: Party, holder: Party, office: Office, own: TokenKeys, other: TokenKeys
) -> None:
    named = {
        "OTHER": answer_topic(other),
        "OWN REQUEST": request_topic(own),
        "SHARED": f"$share/group/{topics.enrolment_requests('f1')}",
    }
    assert holder.subscribe(named.get(topic_filter, topic_filter)) == DENIED
    office.link.publish(topics.announce("f1"), b"for all")
    office.link.publish(answer_topic(other), b"for another")
    assert a.publish(topics.up("f1", "hosp-a", Up.GET), b"said by A") == "Success"
    office.work(lambda: (topics.up("f1", "hosp-a", Up.GET), b"said by A") in office.received, "heard")
    assert holder.publish(request_topic(own)) == "Success", "the answer comes after all that was sent to it"
    assert holder.received == []


def test_a_holder_can_not_publish_on_anything_but_its_own_request(
    holder: Party, a: Party, office: Office, own: TokenKeys, other: TokenKeys
) -> None:
    for topic in (
        request_topic(other),
        answer_topic(own),
        answer_topic(other),
        f"fl/v1/f2/enrol/{own.token_id}/request",
        topics.up("f1", "hosp-a", Up.STATUS),
        topics.up("f1", "hosp-n", Up.STATUS),
        topics.offer("f1", "hosp-n", bytes(32)),
        topics.announce("f1"),
        topics.down_all("f1", "hosp-a").replace("#", "receipt"),
        COMMAND_TOPIC,
        ANSWER_TOPIC,
    ):
        assert holder.publish(topic, FORGED) == DENIED, topic
        assert holder.publish(topic, b"", retain=True) == DENIED, topic
    assert holder.publish(COMMAND_TOPIC, pack_commands([create_client("hosp-x")], "holder")) == DENIED
    assert holder.publish(request_topic(own), b"genuine, last") == "Success"
    office.work(lambda: (request_topic(own), b"genuine, last") in office.received, "heard")
    assert FORGED not in [payload for _, payload in office.received]
    assert a.received == []


def test_the_will_of_a_holder_says_nothing_in_anothers_name(ward: Ward, office: Office, a: Party) -> None:
    status, token = topics.up("f1", "hosp-a", Up.STATUS), token_for("hosp-w")
    office.holders.add(token)
    office.provide()
    will = (status, FORGED)
    nothing = Nothing(token.user, ward.trusted)
    port = ward.broker.enrolment_port
    with Party(port, nothing, username=token.user, password=token.password, will=will) as party:
        assert party.connected
        party.break_off()
    assert a.publish(topics.up("f1", "hosp-a", Up.GET), b"after the will") == "Success"
    office.work(lambda: (topics.up("f1", "hosp-a", Up.GET), b"after the will") in office.received, "heard")
    assert FORGED not in [payload for _, payload in office.received]


def test_a_thief_with_the_token_pushes_the_hospital_off_and_the_other_way_round(
    ward: Ward, office: Office, own: TokenKeys
) -> None:
    with knocking(ward, own.user, own.password) as hospital, knocking(ward, own.user, own.password) as thief:
        hospital.wait_for_end()
        assert thief.subscribe(answer_topic(own)) == GRANTED
        with knocking(ward, own.user, own.password) as again:
            thief.wait_for_end()
            assert again.publish(request_topic(own), b"from the hospital again") == "Success"
    office.work(lambda: (request_topic(own), b"from the hospital again") in office.received, "heard")


# whose token has ended


def test_a_token_that_ends_ends_its_live_connection_and_opens_nothing_any_more(
    ward: Ward, a: Party, office: Office
) -> None:
    token = token_for("hosp-e")
    office.holders.add(token)
    office.provide()
    with knocking(ward, token.user, token.password) as party:
        assert party.subscribe(answer_topic(token)) == GRANTED
        office.holders.remove(token)
        office.provide()
        assert party.wait_for_end() == "Administrative action"
    is_refused(knocking(ward, token.user, token.password))
    assert a.publish(topics.up("f1", "hosp-a", Up.GET)) == "Success"
    assert a.connected


def test_strangers_who_fill_the_listener_keep_no_site_out(ward: Ward, office: Office) -> None:
    """They hold connections open and say nothing; mosquitto ends them after a minute and a half."""
    with ExitStack() as held:
        for _ in range(220):
            held.enter_context(socket.create_connection(("127.0.0.1", ward.broker.enrolment_port), timeout=5))
        with Party(ward.port, ward.papers("hosp-b")) as b:
            assert b.publish(topics.up("f1", "hosp-b", Up.GET)) == "Success"
