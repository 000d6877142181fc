"""Provisioning of a real mosquitto, by the real link: what the tests with the plugin in memory take for granted."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.dynsec import COMMAND_TOPIC, pack_commands
from coordinator.provision import BrokerAccess
from fedward import topics
from fedward.identity.token import TokenKeys
from fedward.topics import Enrol, Up
from sandbox.broker import find_mosquitto
from tests.support.party import Nothing, Party
from tests.support.ward import DEADLINE_S, Ward

pytestmark = [
    pytest.mark.network,
    pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed: apt-get install mosquitto"),
]

GRANTED = "Granted QoS 1"
DENIED = "Not authorized"


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    with Ward(tmp_path) as one:
        yield one


def roles_of(ward: Ward) -> dict[str, set[str]]:
    """Of each client, as the plugin has written them: into the file that is there, so it may be met half-written."""
    give_up_s = time.monotonic() + DEADLINE_S
    while True:
        try:
            state = json.loads((ward.folder / "broker" / "dynamic-security.json").read_text())
            break
        except ValueError:
            assert time.monotonic() < give_up_s, "the plugin's file never became whole"
    return {client["username"]: {role["rolename"] for role in client["roles"]} for client in state["clients"]}


def test_two_federations_share_a_broker_and_leave_each_others_sites_alone(ward: Ward) -> None:
    first, second = ward.office("f1", ["hosp-a", "hosp-b"]), ward.office("f2", ["hosp-b", "hosp-c"])
    assert roles_of(ward)["hosp-b"] == {
        "fedward/f1/members",
        "fedward/f1/site/hosp-b",
        "fedward/f2/members",
        "fedward/f2/site/hosp-b",
    }
    first.sites.clear()
    first.provide()
    assert roles_of(ward).keys() == {"coordinator-f1", "coordinator-f2", "hosp-b", "hosp-c"}
    with Party(ward.port, ward.papers("hosp-b")) as b:
        assert b.publish(topics.up("f1", "hosp-b", Up.GET)) == DENIED
        assert b.publish(topics.up("f2", "hosp-b", Up.GET)) == "Success"
    second.hear(topics.up("f2", "hosp-b", Up.GET))


def test_a_site_that_waits_before_it_is_admitted_is_made_to_subscribe_anew(ward: Ward) -> None:
    office = ward.office("f1", [])
    with Party(ward.port, ward.papers("hosp-a")) as early:
        assert early.subscribe(topics.announce("f1")) == DENIED
        office.sites.add("hosp-a")
        office.provide()
        assert early.wait_for_end() == "Administrative action"
    with Party(ward.port, ward.papers("hosp-a"), resume=True) as a:
        assert a.subscribe(topics.announce("f1")) == GRANTED


def test_a_new_connection_and_a_restarted_broker_end_nobodys_connection(ward: Ward) -> None:
    office = ward.office("f1", ["hosp-a"])
    connections = office.connections
    ward.broker.stop()
    ward.broker.start()
    office.work(lambda: office.connections > connections, "connected again")
    with Party(ward.port, ward.papers("hosp-a")) as a:
        office.provide()
        assert a.publish(topics.up("f1", "hosp-a", Up.GET)) == "Success"
        assert a.connected


def test_a_coordinator_that_was_let_in_later_gives_itself_its_rights(tmp_path: Path) -> None:
    with Ward(tmp_path, federations=["f1"]) as ward:
        first = ward.office("f1", [])
        for command in (
            {"command": "createClient", "username": "coordinator-f2"},
            {"command": "addClientRole", "username": "coordinator-f2", "rolename": "fedward/administrator"},
        ):
            first.link.publish(COMMAND_TOPIC, pack_commands([command], "by hand"))
        first.work(lambda: "coordinator-f2" in roles_of(ward), "let in")
        second = ward.office("f2", ["hosp-c"])
        with Party(ward.port, ward.papers("hosp-c")) as c:
            assert c.publish(topics.up("f2", "hosp-c", Up.GET), b"from C") == "Success"
        assert second.hear(topics.up("f2", "hosp-c", Up.GET)) == b"from C"


def test_a_broker_that_an_older_release_configured_is_given_what_the_coordinator_needs_for_tokens(
    tmp_path: Path,
) -> None:
    ward, token = Ward(tmp_path), TokenKeys.derive(bytes(32), "f1", "hosp-n", "0" * 32)
    path = tmp_path / "broker" / "dynamic-security.json"
    state = json.loads(path.read_text())
    for role in state["roles"]:
        role["acls"] = [acl for acl in role["acls"] if "/enrol/" not in acl["topic"]]
    path.write_text(json.dumps(state))
    request = topics.enrolment("f1", token.token_id, Enrol.REQUEST)
    with ward:
        office = ward.office("f1", [])
        office.holders.add(token)
        office.provide()
        nothing = Nothing(token.user, ward.trusted)
        with Party(ward.broker.enrolment_port, nothing, username=token.user, password=token.password) as holder:
            assert holder.publish(request, b"request") == "Success"
            assert office.hear(request) == b"request"


def test_rights_that_somebody_widened_are_put_right_at_the_next_connection(ward: Ward) -> None:
    office = ward.office("f1", ["hosp-a", "hosp-b"])
    wide = {"acltype": "publishClientSend", "topic": "fl/#", "priority": 0, "allow": True}
    command = {"command": "addRoleACL", "rolename": "fedward/f1/site/hosp-b", **wide}
    office.link.publish(COMMAND_TOPIC, pack_commands([command], "by hand"))
    connections = office.connections
    ward.broker.stop()
    ward.broker.start()
    office.work(lambda: office.connections > connections, "connected again")
    office.provide()
    with Party(ward.port, ward.papers("hosp-b")) as b:
        assert b.publish(topics.up("f1", "hosp-a", Up.GET)) == DENIED


def test_fifty_sites_come_and_go_and_the_broker_lives(ward: Ward) -> None:
    sites = {f"hosp-{number}" for number in range(50)}
    office = ward.office("f1", sites)
    office.sites.clear()
    office.provide()
    assert roles_of(ward).keys() == {"coordinator-f1", "coordinator-f2"}
    assert ward.broker.alive
    assert office.provision.state is BrokerAccess.PROVISIONED


def test_a_broker_that_allows_everybody_something_is_not_called_provisioned(ward: Ward) -> None:
    acls = [{"acltype": "publishClientReceive", "allow": True}]
    office = ward.office("f1", [])
    command = {"command": "setDefaultACLAccess", "acls": acls}
    office.link.publish(COMMAND_TOPIC, pack_commands([command], "by hand"))
    office.sites.add("hosp-a")
    office.work(lambda: office.provision.state is BrokerAccess.FAILED, "seen")
    assert "hosp-a" not in roles_of(ward)
