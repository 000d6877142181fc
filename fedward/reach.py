"""How this side reaches the broker, decided from its settings and the environment: which TLS files, which proxy."""

from collections.abc import Mapping
from dataclasses import replace

from fedward.errors import ConfigError
from fedward.identity.certificates import AUTHORITY_CERTIFICATE
from fedward.proxy import Proxy, is_exempt, parse_proxy, proxy_variable
from fedward.settings import DIRECT, BrokerSettings, IdentitySettings, TlsSettings, is_loopback


def tls_for(broker: BrokerSettings, identity: IdentitySettings | None, name: str) -> TlsSettings | None:
    """The TLS files of the party whose files in the identity's folder have this name; None for plain TCP.

    `broker.tls` goes first, then the identity's folder: whoever has enrolled need not name a file. TCP is plain only
    to a broker on this machine, or where `broker.plain` asks for it. Raises ConfigError where it would be otherwise.
    """
    if broker.tls is not None:
        return broker.tls
    if broker.plain or is_loopback(broker.host):
        return None
    if identity is None:
        raise ConfigError(
            f"broker.tls: missing, and the broker is not on this machine ({broker.host}): enrol and set "
            "identity.folder, or name ca_file, certificate_file and key_file; `broker.plain: true` would go without TLS"
        )
    return TlsSettings(
        ca_file=identity.folder / AUTHORITY_CERTIFICATE,
        certificate_file=identity.folder / f"{name}.crt",
        key_file=identity.folder / f"{name}.key",
    )


def proxy_for(broker: BrokerSettings, environment: Mapping[str, str]) -> Proxy | None:
    """The proxy on the way to the broker; None for a direct connection.

    `broker.proxy` goes first. Without it `https_proxy` and `no_proxy` decide, and a broker on this machine has none.
    Raises ConfigError for an address or a password file that can't be used.
    """
    if broker.proxy == DIRECT:
        return None
    if broker.proxy is not None:
        return replace(parse_proxy(broker.proxy), password=broker.proxy_password())
    name, text = proxy_variable(environment)
    if not name or is_loopback(broker.host) or is_exempt(broker.host, broker.port, environment):
        return None
    try:
        return parse_proxy(text)
    except ValueError as error:
        raise ConfigError(f"environment variable {name}: {error}") from None
