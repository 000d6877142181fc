"""Who may do what at the broker: the rights of a federation, and the commands that bring a broker to hold them. Pure.

A role's name begins with its federation's, so that several federations, each with a coordinator of its own, share a
broker without touching each other's roles. `/` stands in no name, so no name can be mistaken for another. Users are
the common names of certificates, and none of these has a password. The holder of a token has no certificate yet: its
user has the password that follows from the token, may say one thing and hear one, and is gone with the invitation.
"""

from collections.abc import Collection, Iterator
from typing import Any

from coordinator.broker_news import TOPICS as BROKER_NEWS
from coordinator.dynsec import (
    ANSWER_TOPIC,
    COMMAND_TOPIC,
    RECEIVE,
    SEND,
    SUBSCRIBE_LITERAL,
    SUBSCRIBE_PATTERN,
    Acl,
    Client,
    Command,
    Held,
    add_acl,
    add_client_role,
    create_client,
    create_client_with_password,
    create_role,
    delete_client,
    delete_role,
    remove_acl,
    remove_client_role,
)
from fedward import topics
from fedward.identity.folder import coordinator_name
from fedward.identity.token import USER_PREFIX, TokenKeys
from fedward.pack import NAME
from fedward.topics import Enrol

COORDINATOR = "coordinator-"
"""A coordinator's common name is this and its federation's name; no site's may begin so."""

ADMINISTRATOR = "fedward/administrator"
"""The role of those who may send commands. The plugin can't divide that right: it is the right to all rights."""

ADMINISTRATOR_RIGHTS = frozenset(
    {Acl(SEND, COMMAND_TOPIC), Acl(RECEIVE, ANSWER_TOPIC), Acl(SUBSCRIBE_LITERAL, ANSWER_TOPIC)}
)


def rights(federation: str, sites: Collection[str], holders: Collection[TokenKeys] = ()) -> Held:
    """All that a broker must hold for a federation of these sites, and of the holders of these tokens.

    Raises ValueError for what is no name, as a wildcard would be a right to more, and for a site that is named like a
    coordinator or like a token's holder.
    """
    for name in (federation, *sites):
        if not NAME.fullmatch(name):
            raise ValueError("expected a name of a-z, 0-9 and '-'")
    if impostors := [site for site in sites if site.startswith((COORDINATOR, USER_PREFIX))]:
        raise ValueError(f"a site may not be named like a coordinator or a token: {', '.join(sorted(impostors))}")
    coordinator, members = f"{_prefix(federation)}coordinator", f"{_prefix(federation)}members"
    roles = {coordinator: _of_coordinator(federation), members: _of_members(federation)}
    clients = {coordinator_name(federation): Client(frozenset({coordinator}))}
    for site in sites:
        role = f"{_prefix(federation)}site/{site}"
        roles[role] = _of_site(federation, site)
        clients[site] = Client(frozenset({members, role}))
    for holder in holders:
        role = f"{_prefix(federation)}enrol/{holder.token_id}"
        roles[role] = _of_holder(federation, holder.token_id)
        clients[holder.user] = Client(frozenset({role}), password=holder.password)
    return Held(roles, clients)


def _prefix(federation: str) -> str:
    return f"fedward/{federation}/"


def _of_coordinator(federation: str) -> frozenset[Acl]:
    up, requests = topics.up_all(federation), topics.enrolment_requests(federation)
    return frozenset(
        {
            Acl(SEND, topics.pub_all(federation)),
            Acl(SEND, topics.down_to_all(federation)),
            Acl(SEND, topics.enrolment(federation, "+", Enrol.ANSWER)),
            Acl(RECEIVE, up),
            Acl(SUBSCRIBE_LITERAL, up),
            Acl(RECEIVE, requests),
            Acl(SUBSCRIBE_LITERAL, requests),
            *(Acl(right, topic) for topic in BROKER_NEWS for right in (RECEIVE, SUBSCRIBE_LITERAL)),
        }
    )


def _of_members(federation: str) -> frozenset[Acl]:
    return frozenset(
        {
            Acl(RECEIVE, topics.pub_all(federation)),
            Acl(SUBSCRIBE_LITERAL, topics.announce(federation)),
            Acl(SUBSCRIBE_PATTERN, topics.any_part_chunks(federation)),
        }
    )


def _of_site(federation: str, site: str) -> frozenset[Acl]:
    down = topics.down_all(federation, site)
    return frozenset({Acl(SEND, topics.up_own(federation, site)), Acl(RECEIVE, down), Acl(SUBSCRIBE_LITERAL, down)})


def _of_holder(federation: str, token_id: str) -> frozenset[Acl]:
    request, answer = (topics.enrolment(federation, token_id, kind) for kind in (Enrol.REQUEST, Enrol.ANSWER))
    return frozenset({Acl(SEND, request), Acl(RECEIVE, answer), Acl(SUBSCRIBE_LITERAL, answer)})


def ours(federation: str, sites: Collection[str], held: Held, holders: Collection[TokenKeys] = ()) -> Held:
    """The part of what a broker holds that `changes` looks at: a broker may serve many others."""
    prefix = _prefix(federation)
    named = {coordinator_name(federation), *sites, *(holder.user for holder in holders)}
    return Held(
        {name: acls for name, acls in held.roles.items() if name.startswith(prefix)},
        {
            name: client
            for name, client in held.clients.items()
            if name in named or any(role.startswith(prefix) for role in client.roles)
        },
    )


def changes(federation: str, sites: Collection[str], held: Held, holders: Collection[TokenKeys] = ()) -> list[Command]:
    """The commands that make a broker which holds `held` hold the federation's rights; none when it does.

    Only roles of this federation are touched, and clients only as far as they have such a role. What takes rights
    away comes first, and ends the client's connection. So does the last command that gives a client rights, for a
    subscription that was refused is not tried again within a connection. Nobody has a role when it is deleted.
    """
    wanted, prefix = rights(federation, sites, holders), _prefix(federation)
    return [
        *_removals(wanted, held, prefix),
        *(delete_role(name) for name in sorted(held.roles) if name.startswith(prefix) and name not in wanted.roles),
        *_role_changes(wanted, held),
        *_client_changes(wanted, held),
    ]


def _role_changes(wanted: Held, held: Held) -> Iterator[Command]:
    for name, acls in wanted.roles.items():
        if name not in held.roles:
            yield create_role(name, acls)
            continue
        yield from (remove_acl(name, acl) for acl in sorted(held.roles[name] - acls))
        yield from (add_acl(name, acl) for acl in sorted(acls - held.roles[name]))


def _client_changes(wanted: Held, held: Held) -> Iterator[Command]:
    for name, client in wanted.clients.items():
        if name not in held.clients and client.password is not None:
            yield create_client_with_password(name, client.password, client.roles)
            continue
        has = held.clients[name].roles if name in held.clients else frozenset()
        if name not in held.clients:
            yield create_client(name)
        yield from (add_client_role(name, role) for role in sorted(client.roles - has))


def _removals(wanted: Held, held: Held, prefix: str) -> Iterator[Command]:
    for name, client in sorted(held.clients.items()):
        own = {role for role in client.roles if role.startswith(prefix)}
        if name not in wanted.clients and own and own == client.roles and not client.grouped:
            yield delete_client(name)
            continue
        keeps = wanted.clients[name].roles if name in wanted.clients else frozenset()
        yield from (remove_client_role(name, role) for role in sorted(own - keeps))


def initial_state(federations: Collection[str]) -> dict[str, Any]:
    """The plugin's file for a broker that lets in the coordinators of these federations, and nobody else.

    Raises ValueError for what is no name.
    """
    roles, clients = {ADMINISTRATOR: ADMINISTRATOR_RIGHTS}, {}
    for federation in federations:
        held = rights(federation, ())
        roles.update(held.roles)
        clients.update({name: client.roles | {ADMINISTRATOR} for name, client in held.clients.items()})
    return {
        "defaultACLAccess": {
            "publishClientSend": False,
            "publishClientReceive": False,
            "subscribe": False,
            "unsubscribe": True,
        },
        "roles": [{"rolename": name, "acls": [acl.to_json() for acl in sorted(acls)]} for name, acls in roles.items()],
        "groups": [],
        "clients": [
            {"username": name, "roles": [{"rolename": role} for role in sorted(names)]}
            for name, names in clients.items()
        ],
    }
