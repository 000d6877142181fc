"""`fedward coordinator broker-config`: a mosquitto that only the members of a federation can use, in one command.

It writes two files: `mosquitto.conf`, and the dynamic-security plugin's own, which lets in the coordinators and nobody
else. From there on a coordinator with `broker.authorisation: dynamic-security` provisions its sites (provision.py).
"""

import argparse
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from coordinator.access import initial_state
from coordinator.config import ENROLMENT_PORT
from fedward.errors import ConfigError
from fedward.files import write_durably

MOSQUITTO_CONFIG = "mosquitto.conf"
RIGHTS = "dynamic-security.json"
PRIVATE = 0o600

PLUGIN = Path("/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so")
"""Where Debian's package for this processor has it."""

TEMPLATE = """\
# Written by `fedward coordinator broker-config`. Every line was tried against the attacks of docs/threat-model.md.
per_listener_settings false
allow_anonymous false

# Nobody gets further than the handshake without a certificate of the federation's authority that is not revoked.
# Who somebody is, user name and client id both, is what the certificate says, whatever the client claims.
listener {port}{address}
cafile {identity}/ca.crt
certfile {identity}/{host}.crt
keyfile {identity}/{host}.key
crlfile {identity}/ca.crl
require_certificate true
use_identity_as_username true
use_username_as_clientid true
tls_version tlsv1.2
max_connections 2000
{enrolment}
# What somebody may do is in the plugin's file, which the coordinator keeps: read it, but don't edit it.
plugin {plugin}
plugin_opt_config_file {state}/{rights}

# Limits. The queues of mosquitto are 1000 messages otherwise, and it drops what is beyond without a word.
max_packet_size 1114112
max_inflight_messages 20
max_inflight_bytes 8388608
max_queued_messages 20000
max_queued_bytes 536870912
queue_qos0_messages false
max_keepalive 120
set_tcp_nodelay true
persistent_client_expiration 14d

# A restart need not be noticed. Nothing is lost without it either, so it is written now and then only.
persistence true
persistence_location {state}/
autosave_interval 60
autosave_on_changes false
sys_interval 10

log_dest stderr
log_type error
log_type warning
log_type notice
connection_messages true
"""

ENROLMENT = """
# Who holds a token comes here, before it has a certificate: TLS all the same, then the password that follows from the
# token. The coordinator makes each such user and takes it away again. Nobody else has a password, so nobody else gets
# in, with a certificate or without.
listener {port}{address}
certfile {identity}/{host}.crt
keyfile {identity}/{host}.key
use_username_as_clientid true
tls_version tlsv1.2
max_connections 200
"""


@dataclass(frozen=True, kw_only=True)
class BrokerPlace:
    """Where a broker listens and where its files are, on the machine that it runs on."""

    host: str
    """Its name as in its certificate, whose files are `<host>.crt` and `<host>.key`."""
    port: int
    address: str | None
    """To listen on; none: on all."""
    identity: Path
    """Folder of `ca.crt`, `ca.crl`, and its own certificate and key."""
    state: Path
    """Folder that the broker writes to: rights and sessions."""
    plugin: Path
    enrolment_port: int | None
    """Where holders of tokens are taken; none: they enrol by files alone."""
    enrolment_host: str
    """The broker's name there, with a certificate for it as for `host`; the same where one name has both ports."""


def mosquitto_config(place: BrokerPlace) -> str:
    """The text of mosquitto.conf. Raises ConfigError for a value that would be more than one word of a line."""
    folders = (str(place.identity), str(place.state), str(place.plugin))
    for text in (place.host, place.enrolment_host, place.address or "", *folders):
        if any(character.isspace() or not character.isprintable() for character in text):
            raise ConfigError(f"{text!r}: mosquitto's configuration can't hold blanks or line ends here")
    if place.enrolment_port == place.port:
        raise ConfigError(f"port {place.port} for both listeners: one asks for certificates, the other for passwords")
    address = f" {place.address}" if place.address else ""
    enrolment = (
        ""
        if place.enrolment_port is None
        else ENROLMENT.format(
            port=place.enrolment_port, address=address, identity=place.identity, host=place.enrolment_host
        )
    )
    return TEMPLATE.format(
        port=place.port,
        address=address,
        identity=place.identity,
        host=place.host,
        enrolment=enrolment,
        plugin=place.plugin,
        state=place.state,
        rights=RIGHTS,
    )


def write_broker_config(
    folder: Path, place: BrokerPlace, federations: Collection[str], *, keep_rights: bool = False
) -> None:
    """Write both files into the folder; with `keep_rights` the configuration anew, and the rights where there are none.

    Raises ConfigError where one of them is there already, for the plugin's holds the rights that are in force, and
    for what is no name.
    """
    config = mosquitto_config(place)
    try:
        rights = json.dumps(initial_state(federations), indent=1)
    except ValueError as error:
        raise ConfigError(f"--federation: {error}") from None
    texts = {folder / MOSQUITTO_CONFIG: config, folder / RIGHTS: rights}
    if keep_rights and (folder / RIGHTS).exists():
        del texts[folder / RIGHTS]
    elif not keep_rights and (there := [str(path) for path in texts if path.exists()]):
        raise ConfigError(f"{', '.join(there)}: there already, and never overwritten; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        write_durably(path, text.encode(), PRIVATE)


def add_command(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `broker-config` to the coordinator's verbs."""
    text = "write the configuration of a mosquitto that only the members of a federation can use"
    parser = verbs.add_parser("broker-config", help=text, description=text)
    parser.add_argument("--out", type=Path, required=True, help="the folder to write into, on the broker's machine")
    parser.add_argument(
        "--federation",
        action="append",
        required=True,
        help="a federation that uses the broker; repeat it where several share one. Their coordinators can all change "
        "the rights at the broker, and their sites need certificates of one authority",
    )
    parser.add_argument("--host", required=True, help="the broker's name, as in its certificate")
    parser.add_argument("--port", type=int, default=8883, help="TCP port, 443 passes most firewalls; default: 8883")
    parser.add_argument(
        "--enrolment-port",
        type=int,
        default=ENROLMENT_PORT,
        help="TCP port for hospitals that hold a token and have no certificate yet; 0: none, they enrol by files; "
        f"default: {ENROLMENT_PORT}",
    )
    parser.add_argument("--enrolment-host", help="the broker's name there, if another, as in a certificate of its own")
    parser.add_argument("--address", help="address to listen on; default: all")
    parser.add_argument("--identity", type=Path, help="folder of ca.crt, ca.crl, HOST.crt, HOST.key; default: --out")
    parser.add_argument("--state", type=Path, help="folder that the broker writes to; default: --out")
    parser.add_argument(
        "--keep-rights",
        action="store_true",
        help="write the configuration anew, as a container does at each start, and leave the rights that are there",
    )
    parser.add_argument("--plugin", type=Path, default=PLUGIN, help=f"the plugin's library; default: {PLUGIN}")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    out = arguments.out.absolute()
    place = BrokerPlace(
        host=arguments.host,
        port=arguments.port,
        address=arguments.address,
        identity=(arguments.identity or out).absolute(),
        state=(arguments.state or out).absolute(),
        plugin=arguments.plugin,
        enrolment_port=arguments.enrolment_port or None,
        enrolment_host=arguments.enrolment_host or arguments.host,
    )
    write_broker_config(out, place, arguments.federation, keep_rights=arguments.keep_rights)
    hosts = dict.fromkeys((place.host, place.enrolment_host))
    needed = ", ".join(("ca.crt", "ca.crl", *(f"{host}.crt, {host}.key" for host in hosts)))
    print(f"{out / MOSQUITTO_CONFIG} and {out / RIGHTS}")  # noqa: T201
    print(f"put {needed} into {place.identity}; the user of mosquitto must own {RIGHTS} and read the key")  # noqa: T201
