"""`fedward agent enroll`: make this hospital's key, and get its certificate for a token."""

import argparse
import os
import queue
import random
from collections.abc import Mapping
from pathlib import Path

from edge_agent.config import SiteConfig
from edge_agent.egress import EgressLink
from edge_agent.egress_log import EGRESS, EgressLog
from edge_agent.enrolment.asking import Asking
from edge_agent.enrolment.keeping import begin, enrolled, finish, message_of
from fedward.errors import ConfigError, PeerError, TransientError
from fedward.files import write_durably
from fedward.identity.certificates import AUTHORITY_CERTIFICATE, Request
from fedward.identity.handover import ANSWER, REQUEST, read_handover, write_handover
from fedward.identity.keys import check_private
from fedward.identity.token import Token, read_token
from fedward.limits import MIB
from fedward.messages import Enrolled
from fedward.mqtt import MqttLink, MqttSettings
from fedward.pack import pack, unpack
from fedward.ports import LinkInbox
from fedward.process import SystemClock, log_to_stderr, only_process_in
from fedward.reach import proxy_for, tls_for
from fedward.settings import TrustSettings, load_settings

INBOX_EVENTS = 1000


def add_verb(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `enroll` to `fedward agent`."""
    text = "make this hospital's key, and get its certificate for a token; run again after a stop, it goes on"
    command = verbs.add_parser("enroll", help=text, description=text)
    command.add_argument("--config", type=Path, required=True, help="site.yaml")
    token = command.add_mutually_exclusive_group(required=True)
    token.add_argument(
        "--token",
        help="the line that the coordinator's operator gave you; a shell's history and the list of processes show it",
    )
    token.add_argument("--token-file", type=Path, help="a file with that line, which you alone can read")
    command.add_argument("--wait", type=float, default=600.0, help="seconds to wait for the operator; default: 600")
    command.add_argument("--request-out", type=Path, help="without a network: write the request, to be carried there")
    command.add_argument("--answer", type=Path, help="without a network: take in the answer that was carried back")
    command.set_defaults(run=_enroll)


def _enroll(arguments: argparse.Namespace) -> None:
    config = load_settings(SiteConfig, arguments.config, os.environ)
    if config.identity is None:
        raise ConfigError(f"{arguments.config}: identity.folder is missing: where the key will be kept")
    folder, token = config.identity.folder, _token(arguments)
    if (token.federation, token.site) != (config.federation, config.site):
        raise ConfigError(
            f"the token is for site {token.site} of {token.federation}, the configuration says {config.site} of "
            f"{config.federation}"
        )
    known = enrolled(folder, config.site)
    if known is not None:
        print(f"{config.site} is enrolled already, fingerprint {known.fingerprint}")
        return
    request = begin(folder, token)
    print(f"fingerprint of this hospital's key: {request.fingerprint}")
    if arguments.request_out is not None:
        message = pack(message_of(token, request))
        write_durably(arguments.request_out, write_handover(REQUEST, token.token_id, message))
        print(
            f"{arguments.request_out}: carry it to the coordinator, and read the fingerprint to its operator by phone"
        )
        return
    if arguments.answer is not None:
        _from_file(arguments.answer, folder, token, request)
    else:
        _over_mqtt(config, folder, token, request, arguments.wait)
    print(f"{config.site} is enrolled: {folder / f'{config.site}.crt'}")


def _token(arguments: argparse.Namespace) -> Token:
    if arguments.token is not None:
        return read_token(arguments.token)
    check_private(arguments.token_file)
    try:
        return read_token(arguments.token_file.read_text())
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"--token-file {arguments.token_file}: can't be read as text") from None


def _from_file(path: Path, folder: Path, token: Token, request: Request) -> None:
    try:
        token_id, payload = read_handover(path.read_bytes(), ANSWER)
        if token_id != token.token_id:
            raise ConfigError(f"{path}: the answer to another token")
        certificate = finish(folder, token, request, unpack(payload, Enrolled), SystemClock().now_s())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except PeerError as error:
        raise ConfigError(f"{path}: refused, {error}") from None
    if certificate is None:
        raise TransientError(f"{path}: not admitted yet; ask the coordinator's operator for another answer")


def _over_mqtt(config: SiteConfig, folder: Path, token: Token, request: Request, wait_s: float) -> None:
    log_to_stderr("WARNING")
    print("read it to the coordinator's operator by phone: who compares is not deceived, whoever is in between")
    inbox: LinkInbox = queue.Queue(INBOX_EVENTS)
    rng, clock = random.Random(), SystemClock()  # noqa: S311 - jitter, not a secret
    with only_process_in(config.state_folder):  # it writes the agent's egress log
        log = EgressLog(config.state_folder / EGRESS, config.egress_log_mib * MIB, clock)
        settings = link_settings(config, token, folder, os.environ)
        link = EgressLink(MqttLink(settings, inbox, rng), log, None)
        try:
            Asking(link, inbox, clock, token, request).run(folder, wait_s, print)
        finally:
            link.close()


def link_settings(config: SiteConfig, token: Token, folder: Path, environment: Mapping[str, str]) -> MqttSettings:
    """How the token's holder connects: to the broker that it names, on the way that the site's `broker` says.

    There the token's authority alone is believed, whose certificate `begin` has put into `folder`; this side has none
    to show yet, and says a password that follows from the token. Without TLS only where the agent will go without.
    """
    broker = config.broker.model_copy(update={"host": token.host, "port": token.port})
    secured = tls_for(broker, config.identity, config.site) is not None
    return MqttSettings(
        host=token.host,
        port=token.port,
        tls=TrustSettings(ca_file=folder / AUTHORITY_CERTIFICATE) if secured else None,
        proxy=proxy_for(broker, environment),
        transport=config.broker.transport,
        client_id=token.user,
        username=token.user,
        password=token.keys.password,
        keepalive_s=config.broker.keepalive_s,
        session_expiry_s=0,
        reconnect_max_s=config.broker.reconnect_max_s,
    )
