"""mosquitto's dynamic-security plugin in memory, as far as the coordinator uses it, with the crash that it has.

`tests/integration/test_broker_access.py` says the same to the real one.
"""

import json
from typing import Any

from coordinator.dynsec import PAGE

Json = dict[str, Any]


class DynsecPlugin:
    """Roles and clients; answers commands as JSON."""

    def __init__(self, state: Json) -> None:
        self.defaults = dict(state["defaultACLAccess"])
        self.roles: dict[str, list[Json]] = {role["rolename"]: list(role["acls"]) for role in state["roles"]}
        self.clients: dict[str, list[str]] = {
            client["username"]: [role["rolename"] for role in client["roles"]] for client in state["clients"]
        }
        self.passwords: dict[str, str] = {}
        """Of each client that has one; it is then the only client id of that client, too."""
        self.groups: dict[str, list[Json]] = {}
        self.kicked: list[str] = []
        self.dangling: set[str] = set()
        """Clients whose role was deleted: the broker crashes when such a one is deleted."""

    def answer(self, message: bytes) -> bytes:
        return json.dumps({"responses": [self._answer(dict(c)) for c in json.loads(message)["commands"]]}).encode()

    def _answer(self, command: Json) -> Json:
        name, correlation = command.pop("command"), command.pop("correlationData", None)
        try:
            found = getattr(self, f"_{name}")(**command)
        except KeyError as error:
            found = {"error": f"{error} not found"}
        except ValueError as error:
            found = {"error": str(error)}
        return {"command": name, "correlationData": correlation, **(found or {})}

    def _getDefaultACLAccess(self) -> Json:  # noqa: N802 - the plugin's spelling, as below
        return {"data": {"acls": [{"acltype": kind, "allow": allow} for kind, allow in self.defaults.items()]}}

    def _listRoles(self, verbose: bool, count: int, offset: int) -> Json:  # noqa: N802
        page = sorted(self.roles)[offset : offset + count]
        roles = [{"rolename": name, "acls": self.roles[name]} for name in page]
        return {"data": {"totalCount": len(self.roles), "roles": roles}}

    def _listClients(self, verbose: bool, count: int, offset: int) -> Json:  # noqa: N802
        page = sorted(self.clients)[offset : offset + count]
        assert count == PAGE
        clients = [
            {
                "username": name,
                "roles": [{"rolename": role} for role in self.clients[name]],
                "groups": self.groups.get(name, []),
            }
            for name in page
        ]
        return {"data": {"totalCount": len(self.clients), "clients": clients}}

    def _createRole(self, rolename: str, acls: list[Json]) -> None:  # noqa: N802
        if rolename in self.roles:
            raise ValueError("Role already exists")
        self.roles[rolename] = list(acls)

    def _deleteRole(self, rolename: str) -> None:  # noqa: N802
        del self.roles[rolename]
        self.dangling.update(name for name, roles in self.clients.items() if rolename in roles)

    def _addRoleACL(self, rolename: str, **acl: Any) -> None:  # noqa: N802
        self.roles[rolename].append(acl)
        self._kick_all(rolename)

    def _removeRoleACL(self, rolename: str, acltype: str, topic: str) -> None:  # noqa: N802
        self.roles[rolename] = [
            acl for acl in self.roles[rolename] if (acl["acltype"], acl["topic"]) != (acltype, topic)
        ]
        self._kick_all(rolename)

    def _createClient(  # noqa: N802
        self, username: str, password: str | None = None, clientid: str | None = None, roles: list[Json] | None = None
    ) -> None:
        if username in self.clients:
            raise ValueError("Client already exists")
        if password is not None:
            assert clientid == username
            self.passwords[username] = password
        self.clients[username] = [role["rolename"] for role in roles or []]
        assert self.roles.keys() >= set(self.clients[username])

    def _deleteClient(self, username: str) -> None:  # noqa: N802
        assert username not in self.dangling, "the broker crashes"
        del self.clients[username]
        self.passwords.pop(username, None)
        self.kicked.append(username)

    def _addClientRole(self, username: str, rolename: str) -> None:  # noqa: N802
        self.roles[rolename]
        if rolename in self.clients[username]:
            raise ValueError("Internal error")
        self.clients[username].append(rolename)
        self.kicked.append(username)

    def _removeClientRole(self, username: str, rolename: str) -> None:  # noqa: N802
        self.clients[username].remove(rolename)
        self.kicked.append(username)

    def _kick_all(self, role: str) -> None:
        self.kicked += [name for name, roles in self.clients.items() if role in roles]
