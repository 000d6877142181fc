"""The rights of the enrolment user at the broker: commands for mosquitto's dynamic-security plugin, as JSON values.

A token's holder may say one thing and hear one: its request, and the answer. It connects on a listener that asks for
a password in place of a client certificate. Pure: who sends the commands decides when.
"""

from typing import Any

from coordinator.enrolment.rules import Invitation
from fedward import topics
from fedward.identity.token import USER_PREFIX
from fedward.topics import Enrol

Command = dict[str, Any]
Acl = dict[str, Any]


def user_of(token_id: str) -> str:
    """The user name, role name and client id of a token's holder."""
    return f"{USER_PREFIX}{token_id}"


def rights_of_coordinator(federation: str) -> list[Acl]:
    """What the coordinator needs beside its other rights, to hear all who hold a token and to answer them."""
    requests, answers = (topics.enrolment(federation, "+", kind) for kind in Enrol)
    return [
        _allow("publishClientSend", answers),
        _allow("publishClientReceive", requests),
        _allow("subscribeLiteral", requests),
    ]


def admit_enrolment(invitation: Invitation) -> list[Command]:
    """A user with the password that follows from the token, and nothing but its two topics.

    Its role's name does not begin as those of a federation do, so nobody takes it for one that is left over.
    """
    user, federation = user_of(invitation.token_id), invitation.keys.federation
    request, answer = (topics.enrolment(federation, invitation.token_id, kind) for kind in Enrol)
    acls = [
        _allow("publishClientSend", request),
        _allow("publishClientReceive", answer),
        _allow("subscribeLiteral", answer),
    ]
    return [
        {"command": "createRole", "rolename": user, "acls": acls},
        {
            "command": "createClient",
            "username": user,
            "password": invitation.keys.password,
            "clientid": user,
            "roles": [{"rolename": user, "priority": 0}],
        },
    ]


def end_enrolment(token_id: str) -> list[Command]:
    """The user is gone, and with it its connection."""
    user = user_of(token_id)
    return [{"command": "deleteClient", "username": user}, {"command": "deleteRole", "rolename": user}]


def _allow(kind: str, topic: str) -> Acl:
    return {"acltype": kind, "topic": topic, "priority": 0, "allow": True}
