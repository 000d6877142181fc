"""The proxies of hospitals, by the conventions of `https_proxy` and `no_proxy`; values in, values out.

Nothing here quotes the address of a proxy in a message: it may hold a password.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from urllib.parse import unquote, urlsplit

DEFAULT_PORT = 80
"""Of an address without one, as everywhere with http://."""

EXEMPTION = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*|[0-9a-f:.]+(?:/\d+)?)(?::(?P<port>\d+))?")
"""An entry of `no_proxy`: a name, an address, a network, an IPv6 address with or without brackets; perhaps a port."""


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy that tunnels with CONNECT; with a user name it is asked for by basic authentication."""

    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)


def parse_proxy(text: str) -> Proxy:
    """`http://[user[:password]@]host[:port]` as a proxy. Raises ValueError, which does not quote the text."""
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("expected http://host:port") from None
    if parts.scheme != "http":
        raise ValueError(f"expected http://host:port, got a proxy of kind {parts.scheme}")
    if not host or port == 0 or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("expected http://host:port")
    return Proxy(
        host=host,
        port=port or DEFAULT_PORT,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
    )


def proxy_variable(environment: Mapping[str, str]) -> tuple[str, str]:
    """Name and value of the variable that names the proxy, or two empty strings; lower case goes first, as in curl."""
    for name in ("https_proxy", "HTTPS_PROXY"):
        if environment.get(name):
            return name, environment[name]
    return "", ""


def is_exempt(host: str, port: int, environment: Mapping[str, str]) -> bool:
    """Whether `no_proxy` (lower case first) names this host: `*`, a name, a domain, an address, a network.

    `example.org` and `.example.org` mean the name and all below it. An entry with a port is for that port only. No
    name is looked up, so addresses match only a host that is written as one.
    """
    listed = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    return any(_matches(entry, _plain(host), port) for entry in re.split(r"[,\s]+", listed) if entry)


def _matches(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    parsed = EXEMPTION.fullmatch(entry.lower())
    if parsed is None or int(parsed["port"] or port) != port:
        return False
    name = _plain(parsed["host"])
    if _is_address(host):
        return _is_within(host, name)
    suffix = name.removeprefix("*").lstrip(".")
    return bool(suffix) and (host == suffix or host.endswith(f".{suffix}"))


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_within(address: str, network: str) -> bool:
    try:
        return ip_address(address) in ip_network(network, strict=False)
    except ValueError:
        return False


def _plain(host: str) -> str:
    return host.lower().strip("[]").removesuffix(".")
