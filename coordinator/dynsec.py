"""The language of mosquitto's dynamic-security plugin: commands in JSON, and its answers, parsed. Pure.

The answers come from the broker, which is not trusted: they are bounded before they are believed. The plugin sends
each answer to everybody who holds the topic of answers, so `correlationData` says whose it is.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fedward.errors import PeerError, RejectReason
from fedward.limits import MAX_MESSAGE_BYTES

COMMAND_TOPIC = "$CONTROL/dynamic-security/v1"
ANSWER_TOPIC = "$CONTROL/dynamic-security/v1/response"

SEND, RECEIVE = "publishClientSend", "publishClientReceive"
SUBSCRIBE_LITERAL, SUBSCRIBE_PATTERN = "subscribeLiteral", "subscribePattern"

PAGE = 100
"""Roles or clients in one answer; 100 of ours have about 60 KB."""

MAX_ENTRIES = 20_000
"""Roles or clients of a broker; one that says that it holds more is not read to the end."""

Command = dict[str, Any]


class Acl(NamedTuple):
    """One right. Everything that no right allows is denied, as the broker's defaults must say."""

    kind: str
    topic: str
    priority: int = 0
    allow: bool = True

    def to_json(self) -> Command:
        return {"acltype": self.kind, "topic": self.topic, "priority": self.priority, "allow": self.allow}


@dataclass(frozen=True)
class Client:
    """A user name and the roles that it has. It is the common name of a certificate, or has a password."""

    roles: frozenset[str]
    grouped: bool = False
    """Whether somebody else put it into a group, which may give it rights too."""
    password: str | None = field(default=None, repr=False)
    """To be set when it is made; the plugin never tells one."""


@dataclass(frozen=True)
class Held:
    """What a broker holds, as far as it was read."""

    roles: dict[str, frozenset[Acl]]
    clients: dict[str, Client]


@dataclass(frozen=True)
class Answer:
    """The answer to one command; `error` is none where it was followed."""

    command: str
    error: str | None
    open_defaults: frozenset[str]
    """Of getDefaultACLAccess: what is allowed to everybody although no right says so."""
    total: int
    """Of a listing: how many entries there are in all pages."""
    held: Held
    """Of a listing: its entries."""


def create_role(name: str, acls: frozenset[Acl]) -> Command:
    return {"command": "createRole", "rolename": name, "acls": [acl.to_json() for acl in sorted(acls)]}


def delete_role(name: str) -> Command:
    """Only for a role that no client has any more: mosquitto up to 2.0.15 at least crashes when such a client goes."""
    return {"command": "deleteRole", "rolename": name}


def add_acl(role: str, acl: Acl) -> Command:
    """Ends the connections of all who have the role, so that they subscribe anew."""
    return {"command": "addRoleACL", "rolename": role, **acl.to_json()}


def remove_acl(role: str, acl: Acl) -> Command:
    """Ends the connections of all who have the role."""
    return {"command": "removeRoleACL", "rolename": role, "acltype": acl.kind, "topic": acl.topic}


def create_client(name: str) -> Command:
    """Without a password: its certificate says who it is."""
    return {"command": "createClient", "username": name}


def create_client_with_password(name: str, password: str, roles: frozenset[str]) -> Command:
    """It connects under no other client id than its name. With its roles from the start: nobody is there yet."""
    given = [{"rolename": role} for role in sorted(roles)]
    return {"command": "createClient", "username": name, "clientid": name, "password": password, "roles": given}


def delete_client(name: str) -> Command:
    """Takes all its rights and ends its connection."""
    return {"command": "deleteClient", "username": name}


def add_client_role(name: str, role: str) -> Command:
    """Ends its connection, so that it subscribes anew."""
    return {"command": "addClientRole", "username": name, "rolename": role}


def remove_client_role(name: str, role: str) -> Command:
    """Ends its connection."""
    return {"command": "removeClientRole", "username": name, "rolename": role}


def get_defaults() -> Command:
    return {"command": "getDefaultACLAccess"}


def list_roles(offset: int) -> Command:
    return {"command": "listRoles", "verbose": True, "count": PAGE, "offset": offset}


def list_clients(offset: int) -> Command:
    return {"command": "listClients", "verbose": True, "count": PAGE, "offset": offset}


def pack_commands(commands: Sequence[Command], correlation: str) -> bytes:
    """The message that carries these commands; each answer repeats the correlation."""
    return json.dumps({"commands": [{**command, "correlationData": correlation} for command in commands]}).encode()


Text = Annotated[str, Field(max_length=65_535)]
Short = Annotated[str, Field(max_length=256)]


class _Lenient(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class _Acl(_Lenient):
    acltype: Text
    topic: Text = ""
    priority: int = 0
    allow: bool = False


class _Role(_Lenient):
    rolename: Text
    acls: list[_Acl] = Field(default=[], max_length=MAX_ENTRIES)


class _RoleName(_Lenient):
    rolename: Text


class _Client(_Lenient):
    username: Text
    roles: list[_RoleName] = Field(default=[], max_length=MAX_ENTRIES)
    groups: list[dict[str, Any]] = Field(default=[], max_length=MAX_ENTRIES)


class _Data(_Lenient):
    totalCount: int = Field(default=0, ge=0)  # noqa: N815 - the plugin's spelling, as below
    roles: list[_Role] = Field(default=[], max_length=MAX_ENTRIES)
    clients: list[_Client] = Field(default=[], max_length=MAX_ENTRIES)
    acls: list[_Acl] = Field(default=[], max_length=MAX_ENTRIES)


class _Answer(_Lenient):
    command: Short
    error: Short | None = None
    correlationData: Short | None = None  # noqa: N815
    data: dict[str, Any] | None = None


class _Answers(_Lenient):
    responses: list[_Answer] = Field(max_length=MAX_ENTRIES)


DATA = TypeAdapter(_Data)


def parse_answers(payload: bytes, correlation: str, num_commands: int) -> list[Answer] | None:
    """The answers to our commands, one for each; None when they are to somebody else's.

    Raises PeerError (TOO_LARGE, MALFORMED) for anything else.
    """
    if len(payload) > MAX_MESSAGE_BYTES:
        raise PeerError(RejectReason.TOO_LARGE, f"answers of {len(payload)} bytes, the limit is {MAX_MESSAGE_BYTES}")
    try:
        answers = _Answers.model_validate_json(payload).responses
        if not answers or any(answer.correlationData != correlation for answer in answers):
            return None
        parsed = [_answer(answer) for answer in answers]
    except ValidationError:
        raise PeerError(RejectReason.MALFORMED, "not an answer of the dynamic-security plugin") from None
    if len(parsed) != num_commands:
        raise PeerError(RejectReason.MALFORMED, f"{len(parsed)} answers to {num_commands} commands")
    return parsed


def _answer(answer: _Answer) -> Answer:
    data = DATA.validate_python(answer.data or {})
    return Answer(
        command=answer.command,
        error=answer.error,
        open_defaults=frozenset(acl.acltype for acl in data.acls if acl.allow and acl.acltype != "unsubscribe"),
        total=data.totalCount,
        held=Held(
            {role.rolename: frozenset(map(_acl, role.acls)) for role in data.roles},
            {
                client.username: Client(frozenset(role.rolename for role in client.roles), bool(client.groups))
                for client in data.clients
            },
        ),
    )


def _acl(acl: _Acl) -> Acl:
    return Acl(acl.acltype, acl.topic, acl.priority, acl.allow)
