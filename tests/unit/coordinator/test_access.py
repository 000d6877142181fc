"""What a broker must hold for a federation, and the commands that bring it there."""

import json
from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.access import ADMINISTRATOR, changes, initial_state, ours, rights
from coordinator.dynsec import RECEIVE, SEND, SUBSCRIBE_LITERAL, SUBSCRIBE_PATTERN, Acl, Client, Held
from fedward.identity.token import TokenKeys
from tests.support.dynsec_plugin import DynsecPlugin

EMPTY = Held({}, {})
SITES = st.sets(st.sampled_from(["hosp-a", "hosp-b", "hosp-c", "hosp-d"]))
HOLDERS = {
    federation: [TokenKeys.derive(bytes(32), federation, f"hosp-{n}", f"{first + n:032x}") for n in range(3)]
    for federation, first in (("f1", 0), ("f2", 3))  # ids are random, so no two are the same
}
HOLDER = HOLDERS["f1"][0]


def held_by(plugin: DynsecPlugin) -> Held:
    return Held(
        {
            name: frozenset(Acl(acl["acltype"], acl["topic"], acl["priority"], acl["allow"]) for acl in acls)
            for name, acls in plugin.roles.items()
        },
        {name: Client(frozenset(roles), bool(plugin.groups.get(name))) for name, roles in plugin.clients.items()},
    )


def bring(plugin: DynsecPlugin, federation: str, sites: set[str], holders: Collection[TokenKeys] = ()) -> list[str]:
    """Send the changes; the errors."""
    commands = changes(federation, sites, ours(federation, sites, held_by(plugin), holders), holders)
    answers = json.loads(plugin.answer(json.dumps({"commands": commands}).encode()))
    return [answer["error"] for answer in answers["responses"] if "error" in answer]


def test_a_site_may_speak_below_its_own_name_and_hear_what_is_said_to_it_and_to_all() -> None:
    roles = rights("f1", ["hosp-a"]).roles
    assert roles["fedward/f1/site/hosp-a"] == {
        Acl(SEND, "fl/v1/f1/up/hosp-a/s18/#"),
        Acl(RECEIVE, "fl/v1/f1/dn/hosp-a/#"),
        Acl(SUBSCRIBE_LITERAL, "fl/v1/f1/dn/hosp-a/#"),
    }
    assert roles["fedward/f1/members"] == {
        Acl(RECEIVE, "fl/v1/f1/pub/#"),
        Acl(SUBSCRIBE_LITERAL, "fl/v1/f1/pub/announce"),
        Acl(SUBSCRIBE_PATTERN, "fl/v1/f1/pub/m/+/c/+"),
    }


def test_the_holder_of_a_token_may_ask_and_hear_its_own_answer_and_nothing_else() -> None:
    held = rights("f1", [], [HOLDER])
    prefix = f"fl/v1/f1/enrol/{HOLDER.token_id}"
    assert held.clients[f"enrol-{HOLDER.token_id}"].roles == {f"fedward/f1/enrol/{HOLDER.token_id}"}
    assert held.roles[f"fedward/f1/enrol/{HOLDER.token_id}"] == {
        Acl(SEND, f"{prefix}/request"),
        Acl(RECEIVE, f"{prefix}/answer"),
        Acl(SUBSCRIBE_LITERAL, f"{prefix}/answer"),
    }
    assert held.roles["fedward/f1/coordinator"] >= {
        Acl(SEND, "fl/v1/f1/enrol/+/answer"),
        Acl(RECEIVE, "fl/v1/f1/enrol/+/request"),
        Acl(SUBSCRIBE_LITERAL, "fl/v1/f1/enrol/+/request"),
    }


def test_a_token_opens_the_broker_with_its_password_and_ends_with_its_connection() -> None:
    plugin = DynsecPlugin(initial_state(["f1"]))
    assert bring(plugin, "f1", {"hosp-a"}, [HOLDER]) == []
    assert plugin.passwords == {HOLDER.user: HOLDER.password}
    assert HOLDER.password not in repr(rights("f1", [], [HOLDER]))
    plugin.kicked.clear()
    assert bring(plugin, "f1", {"hosp-a"}) == []
    assert plugin.kicked == [HOLDER.user]
    assert plugin.clients.keys() == {"coordinator-f1", "hosp-a"}
    assert not [name for name in plugin.roles if "/enrol/" in name]


@pytest.mark.parametrize("name", ["+", "#", "hosp-a/#", "hosp-a/+", "", "Hosp-A", "hosp-a\n", "a" * 65, "hosp a"])
def test_a_name_with_a_wildcard_or_anything_else_that_is_no_name_gets_no_role(name: str) -> None:
    with pytest.raises(ValueError, match="expected a name"):
        rights("f1", [name])
    with pytest.raises(ValueError, match="expected a name"):
        rights(name, ["hosp-a"])


def test_a_site_that_is_named_like_a_coordinator_gets_no_role() -> None:
    with pytest.raises(ValueError, match="named like a coordinator or a token: coordinator-f2"):
        rights("f1", ["coordinator-f2"])
    with pytest.raises(ValueError, match="named like a coordinator or a token: enrol-1"):
        rights("f1", ["enrol-1"])


def test_names_that_could_be_joined_in_two_ways_have_roles_of_their_own() -> None:
    assert not rights("a", ["b-c"]).roles.keys() & rights("a-b", ["c"]).roles.keys()


def test_a_broker_that_holds_all_rights_is_sent_nothing() -> None:
    assert changes("f1", ["hosp-a"], rights("f1", ["hosp-a"])) == []


def test_the_commands_for_a_new_site_end_with_one_that_makes_it_subscribe_anew() -> None:
    commands = changes("f1", ["hosp-a"], rights("f1", []))
    assert [command["command"] for command in commands] == [
        "createRole",
        "createClient",
        "addClientRole",
        "addClientRole",
    ]


@given(st.lists(st.tuples(st.sampled_from(["f1", "f2"]), SITES, st.sets(st.sampled_from([0, 1, 2]))), max_size=8))
def test_whatever_the_federations_admit_in_turn_each_ends_with_its_own_rights_and_those_of_the_other_stay(
    steps: list[tuple[str, set[str], set[int]]],
) -> None:
    plugin = DynsecPlugin(initial_state(["f1", "f2"]))
    admitted: dict[str, set[str]] = {"f1": set(), "f2": set()}
    tokens: dict[str, list[TokenKeys]] = {"f1": [], "f2": []}
    for federation, sites, invited in steps:
        admitted[federation], tokens[federation] = sites, [HOLDERS[federation][n] for n in invited]
        assert bring(plugin, federation, sites, tokens[federation]) == []
    for federation, sites in admitted.items():
        mine = ours(federation, sites, held_by(plugin), tokens[federation])
        assert changes(federation, sites, mine, tokens[federation]) == [], "nothing is left to do"
    everybody = {"coordinator-f1", "coordinator-f2"} | admitted["f1"] | admitted["f2"]
    assert plugin.passwords == {one.user: one.password for both in tokens.values() for one in both}
    assert plugin.clients.keys() == everybody | plugin.passwords.keys()
    prefixes = {
        name: {role.split("/")[1] for role in roles if role != ADMINISTRATOR} for name, roles in plugin.clients.items()
    }
    for site in everybody - {"coordinator-f1", "coordinator-f2"}:
        assert prefixes[site] == {federation for federation, sites in admitted.items() if site in sites}


def test_a_site_that_goes_is_deleted_and_one_that_has_another_role_loses_ours_only() -> None:
    plugin = DynsecPlugin(initial_state(["f1"]))
    bring(plugin, "f1", {"hosp-a", "hosp-b", "hosp-c"})
    plugin.roles["backup"] = []
    plugin.clients["hosp-b"].append("backup")
    plugin.groups["hosp-c"] = [{"groupname": "staff"}]
    plugin.kicked.clear()
    assert bring(plugin, "f1", set()) == []
    assert plugin.clients == {
        "coordinator-f1": ["fedward/administrator", "fedward/f1/coordinator"],
        "hosp-b": ["backup"],
        "hosp-c": [],
    }
    assert set(plugin.kicked) == {"hosp-a", "hosp-b", "hosp-c"}
    assert not [name for name in plugin.roles if "/site/" in name]


def test_what_somebody_changed_in_our_roles_is_put_right_and_their_holders_subscribe_anew() -> None:
    plugin = DynsecPlugin(initial_state(["f1"]))
    bring(plugin, "f1", {"hosp-a"})
    role = plugin.roles["fedward/f1/site/hosp-a"]
    role[0] = {"acltype": SEND, "topic": "#", "priority": 0, "allow": True}
    plugin.clients["hosp-a"].append("fedward/f1/coordinator")
    plugin.kicked.clear()
    assert bring(plugin, "f1", {"hosp-a"}) == []
    assert ours("f1", ["hosp-a"], held_by(plugin)) == rights_with_administrator(["hosp-a"])
    assert "hosp-a" in plugin.kicked


def rights_with_administrator(sites: list[str]) -> Held:
    wanted = rights("f1", sites)
    coordinator = Client(wanted.clients["coordinator-f1"].roles | {ADMINISTRATOR})
    return Held(wanted.roles, {**wanted.clients, "coordinator-f1": coordinator})


def test_the_initial_state_lets_in_the_coordinators_only_and_allows_nothing_else() -> None:
    state = initial_state(["f1", "f2"])
    assert state["defaultACLAccess"] == {
        "publishClientSend": False,
        "publishClientReceive": False,
        "subscribe": False,
        "unsubscribe": True,
    }
    assert [client["username"] for client in state["clients"]] == ["coordinator-f1", "coordinator-f2"]
    plugin = DynsecPlugin(state)
    assert ours("f1", (), held_by(plugin)) == rights_with_administrator([])
    assert changes("f1", (), ours("f1", (), held_by(plugin))) == []


def test_rights_are_taken_away_before_others_are_given() -> None:
    held = rights("f1", ["hosp-a"])
    commands = changes("f1", [f"hosp-{number}" for number in range(100)], held)
    assert commands[:2] == [
        {"command": "deleteClient", "username": "hosp-a"},
        {"command": "deleteRole", "rolename": "fedward/f1/site/hosp-a"},
    ]
