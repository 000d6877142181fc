"""The rights of the enrolment user at the broker: commands for mosquitto's dynamic-security plugin, as JSON values.

A token's holder may say one thing and hear one: its request, and the answer. It connects on a listener that asks for
a password in place of a client certificate. Pure: who sends the commands decides when.
"""

from typing import Any, Protocol

from coordinator.enrolment.rules import Invitation
from fedward import topics
from fedward.identity.token import USER_PREFIX
from fedward.topics import Enrol

Command = dict[str, Any]


class BrokerRights(Protocol):
    """What the running coordinator tells whoever keeps the broker's access rules. Each call may come again."""

    def invited(self, invitation: Invitation) -> None:
        """The token's holder may ask."""

    def ended(self, token_id: str) -> None:
        """The token serves nobody any more."""

    def revoked(self, site: str) -> None:
        """The site loses its rights, and its connection."""


class UnmanagedBroker:
    """A broker whose access rules somebody else keeps, or that has none."""

    def invited(self, invitation: Invitation) -> None:
        """Nothing is to be done."""

    def ended(self, token_id: str) -> None:
        """Nothing is to be done."""

    def revoked(self, site: str) -> None:
        """Nothing is to be done."""


def user_of(token_id: str) -> str:
    """The user name, role name and client id of a token's holder."""
    return f"{USER_PREFIX}{token_id}"


def admit_enrolment(invitation: Invitation) -> list[Command]:
    """A user with the password that follows from the token, and nothing but its two topics."""
    user, federation = user_of(invitation.token_id), invitation.keys.federation
    request = topics.enrolment(federation, invitation.token_id, Enrol.REQUEST)
    answer = topics.enrolment(federation, invitation.token_id, Enrol.ANSWER)
    acls = [
        {"acltype": "publishClientSend", "topic": request, "priority": 0, "allow": True},
        {"acltype": "publishClientReceive", "topic": answer, "priority": 0, "allow": True},
        {"acltype": "subscribeLiteral", "topic": answer, "priority": 0, "allow": True},
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
