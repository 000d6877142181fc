"""The operator's commands of enrolment: authority, identity, invite, requests, admit, deny, answer, revoke, sign."""

import argparse
import os
import shlex
import sys
from pathlib import Path

from coordinator.config import AuthoritySettings, FederationConfig
from coordinator.enrolment.authority import BROKER, at_hand, offline, sign_file, take_signed, to_sign
from coordinator.enrolment.folder import REVOCATIONS, changing
from coordinator.enrolment.membership import Membership, expiry_of
from coordinator.enrolment.rules import Invitation, Stage, uncertified
from fedward.errors import ConfigError, PeerError, TransientError
from fedward.files import write_durably
from fedward.identity.certificates import (
    FileAuthority,
    Role,
    make_request,
    parse_request,
)
from fedward.identity.folder import COORDINATOR_CERTIFICATE, COORDINATOR_KEY, SEALING_KEY, coordinator_name
from fedward.identity.handover import ANSWER, REQUEST, read_handover, write_handover
from fedward.identity.keys import load_signing_key, make_sealing_key, make_signing_key
from fedward.identity.signing import COORDINATOR
from fedward.identity.token import write_token
from fedward.messages import Enrolled, Enrolment
from fedward.pack import pack, unpack
from fedward.process import SystemClock
from fedward.reach import tls_for
from fedward.settings import load_settings

INSTALLATION = """\
  pip install 'fedward[appliance]'
  fedward appliance init --token-file token.txt --task {task} --broker {broker} {release} {records}
  fedward appliance install --token-file token.txt{bundle}
Words in capitals are for the hospital to fill in; behind an HTTP proxy add --proxy http://HOST:PORT to the second."""
"""From nothing to a training agent, at the hospital."""


def add_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add them to `fedward coordinator`."""
    _add_authority(verbs)
    identity = _verb(verbs, "identity", _identity, "make the coordinator's keys and certificate, or the broker's")
    identity.add_argument(
        "--ca", type=Path, help="the authority's folder; default: authority.folder of the configuration"
    )
    identity.add_argument("--broker", metavar="HOST", help="make key and certificate of the broker with this host name")
    identity.add_argument("--renew", action="store_true", help="a new certificate for the key that is there")
    invite = _verb(verbs, "invite", _invite, "print a one-time token for a site, and end the one before")
    invite.add_argument("site")
    invite.add_argument("--days", type=float, default=7.0, help="days until the token ends; default: 7")
    invite.add_argument(
        "--broker",
        metavar="HOST:PORT",
        help="where tokens are taken, as hospitals reach it; default: broker.host and broker.enrolment_port",
    )
    invite.add_argument("--automatic", action="store_true", help="admit whoever holds the token, without a comparison")
    requests = _verb(verbs, "requests", _requests, "list who asks to be admitted, and what waits for a signature")
    requests.add_argument("--in", dest="source", type=Path, help="take the request of an air-gapped site in")
    requests.add_argument("--out", type=Path, help="write what an offline authority is to sign")
    admit = _verb(
        verbs, "admit", _admit, "admit a site whose fingerprint was compared, or take in what was signed offline"
    )
    admit.add_argument("site", nargs="?")
    admit.add_argument("--fingerprint", help="as the hospital reads it out; at least the first 4 groups")
    admit.add_argument("--in", dest="source", type=Path, help="a file that `fedward coordinator sign` has written")
    _verb(verbs, "deny", _deny, "refuse a site that asks").add_argument("site")
    answer = _verb(verbs, "answer", _answer, "write the answer for an air-gapped site")
    answer.add_argument("site")
    answer.add_argument("--out", type=Path, required=True, help="the file to write")
    revoke = _verb(verbs, "revoke", _revoke, "end a site's membership at once")
    revoke.add_argument("site")
    revoke.add_argument("--reason", default="", help="for the record")


def _add_authority(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """What needs no configuration, and may be on a machine without a network."""
    authority = verbs.add_parser("ca", help="make the authority of a federation; may be on an offline machine")
    authority.add_argument("--out", type=Path, required=True, help="the folder to make")
    authority.add_argument("--name", default="Fedward authority", help="its name in certificates")
    authority.set_defaults(run=_make_authority)
    sign = verbs.add_parser("sign", help="sign what `requests --out` has written; on the offline machine")
    sign.add_argument("--ca", type=Path, required=True, help="the authority's folder")
    sign.add_argument("--in", dest="source", type=Path, required=True, help="the file to sign")
    sign.add_argument("--out", type=Path, required=True, help="the file to carry back")
    sign.set_defaults(run=_sign)


def _verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, run: object, text: str
) -> argparse.ArgumentParser:
    command = verbs.add_parser(name, help=text, description=text)
    command.add_argument("--config", type=Path, required=True, help="federation.yaml")
    command.set_defaults(run=run)
    return command


def _make_authority(arguments: argparse.Namespace) -> None:
    made = FileAuthority.make(arguments.out, arguments.name, SystemClock().now_s())
    print(f"authority in {arguments.out}, fingerprint {made.certificate.fingerprint}")
    print("Its key signs who belongs to the federation: keep a copy where nobody else reaches it.")


def _sign(arguments: argparse.Namespace) -> None:
    authority = FileAuthority(arguments.ca)
    content, signed = sign_file(authority, _read(arguments.source), SystemClock().now_s())
    for certificate in signed:
        print(f"signed {certificate.name}, fingerprint {certificate.fingerprint}")
    write_durably(arguments.out, content)
    print(f"{arguments.out}: {len(signed)} certificates; take it in with `fedward coordinator admit --in`")


def _identity(arguments: argparse.Namespace) -> None:
    config, folder = _configured(arguments)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    settings = config.authority
    if arguments.ca is not None:
        at_hand(arguments.ca, folder)
        settings = AuthoritySettings(folder=arguments.ca, days=settings.days)
    elif settings.folder is not None:
        at_hand(settings.folder, folder)
    membership = Membership(folder, config.federation, settings)
    name, key, certificate, role = _party(arguments.broker, folder, config.federation)
    if certificate.exists() and not arguments.renew:
        print(f"{certificate} is there already; --renew makes a new certificate for its key")
    else:
        if not key.exists():
            make_signing_key(key)
        if role is Role.CLIENT and not (folder / SEALING_KEY).exists():
            make_sealing_key(folder / SEALING_KEY)
        with changing(folder):
            request = parse_request(make_request(load_signing_key(key), name))
            made = membership.sign(request, role, SystemClock().now_s())
        print(f"{certificate}: {name}, fingerprint {made.fingerprint}")
    if role is Role.BROKER and not (folder / BROKER / REVOCATIONS).exists():
        membership.publish_revocations(SystemClock().now_s())  # a broker does not start without the list


def _party(broker: str | None, folder: Path, federation: str) -> tuple[str, Path, Path, Role]:
    """Name, key, certificate and role of whom `identity` is about."""
    if broker is None:
        return coordinator_name(federation), folder / COORDINATOR_KEY, folder / COORDINATOR_CERTIFICATE, Role.CLIENT
    return broker, folder / BROKER / f"{broker}.key", folder / BROKER / f"{broker}.crt", Role.BROKER


def _invite(arguments: argparse.Namespace) -> None:
    config, membership = _membership(arguments)
    if arguments.site not in config.sites:
        raise ConfigError(
            f"site {arguments.site} is not in `sites` of the configuration; there are: {', '.join(config.sites)}"
        )
    address = _address(arguments.broker) if arguments.broker else _enrolment_address(config)
    expires_at_s = expiry_of(arguments.days, SystemClock().now_s())
    token = membership.invite(arguments.site, address, expires_at_s, automatic=arguments.automatic)
    print(write_token(token))
    print(
        f"Give this line to {arguments.site} and to nobody else; it serves once, within {arguments.days:g} days.\n"
        "There, with the line in a file, on a machine with Docker (docs/install.md):\n" + _installation(config),
        file=sys.stderr,
    )


def _installation(config: FederationConfig) -> str:
    """The hospital's commands, with all that is known here."""
    release = config.installation
    words = ["--release-key", release.release_key or "KEY"]
    if release.image is not None and release.image_signature is not None:
        words += ["--image", release.image, "--image-signature", release.image_signature]
    return INSTALLATION.format(
        task=config.task,
        broker=f"{config.broker.host}:{config.broker.port}",
        release=shlex.join(words),
        records="--records FOLDER --option NAME=FILE",
        bundle="" if release.image else " --bundle FILE",
    )


def _requests(arguments: argparse.Namespace) -> None:
    _, membership = _membership(arguments)
    now_s = SystemClock().now_s()
    if arguments.source is not None:
        _take_request(membership, arguments.source, now_s)
    for invitation in membership.invitations.all():
        if invitation.stage is not Stage.INVITED or now_s < invitation.expires_at_s:
            print(_line(invitation, now_s))
    waiting = offline(membership.folder)
    for request, role, days in waiting.waiting():
        print(f"{request.name:24} waits for a signature ({role.value}, {days:g} days)  {request.fingerprint}")
    if arguments.out is not None:
        _certify(membership, now_s)
        serials = [certificate.serial for certificate in membership.register.revoked()]
        write_durably(arguments.out, to_sign(waiting, serials))
        print(f"{arguments.out}: {len(list(waiting.waiting()))} requests and {len(serials)} revocations to sign")


def _line(invitation: Invitation, now_s: float) -> str:
    if not invitation.fingerprint:
        return f"{invitation.site:24} {invitation.stage:9} {(invitation.expires_at_s - now_s) / 3600:.0f} h left"
    age_min = (now_s - invitation.requested_at_s) / 60
    return f"{invitation.site:24} {invitation.stage:9} asked {age_min:.0f} min ago  {invitation.fingerprint}"


def _take_request(membership: Membership, source: Path, now_s: float) -> None:
    token_id, payload = read_handover(_read(source), REQUEST)
    found = [one for one in membership.invitations.all() if one.token_id == token_id]
    if not found:
        raise ConfigError(f"{source}: its token is not known here, or ended; invite the site again")
    try:
        told = membership.ask(found[0].site, unpack(payload, Enrolment), now_s)
    except PeerError as error:
        raise ConfigError(f"{source}: refused, {error}") from None
    print(f"{source}: request of {found[0].site}, {told.outcome}")


def _admit(arguments: argparse.Namespace) -> None:
    config, membership = _membership(arguments)
    now_s = SystemClock().now_s()
    if arguments.source is not None:
        with changing(membership.folder):
            for certificate in take_signed(membership.folder, config.federation, _read(arguments.source), now_s):
                print(f"{certificate.name}: certificate taken in")
        return
    if arguments.site is None or arguments.fingerprint is None:
        raise ConfigError("expected SITE and --fingerprint, or --in FILE")
    membership.admit(arguments.site, arguments.fingerprint)
    print(f"{arguments.site} is admitted")
    _certify(membership, now_s)


def _certify(membership: Membership, now_s: float) -> None:
    """Sign for all who are admitted; what waits for an authority is said, and is no failure."""
    for invitation in uncertified(membership.invitations.all(), membership.register.sites()):
        try:
            membership.certify(invitation, now_s)
            print(f"{invitation.site}: certificate signed")
        except TransientError as error:
            print(f"{invitation.site}: {error}", file=sys.stderr)


def _deny(arguments: argparse.Namespace) -> None:
    _, membership = _membership(arguments)
    membership.deny(arguments.site)
    print(f"{arguments.site} is denied")


def _answer(arguments: argparse.Namespace) -> None:
    _, membership = _membership(arguments)
    invitation = membership.invitations.asked(arguments.site)
    if not invitation.fingerprint:
        raise ConfigError(f"site {arguments.site} has not asked yet: `fedward coordinator requests --in FILE`")
    told: Enrolled = membership.answer(invitation, invitation.fingerprint)
    write_durably(arguments.out, write_handover(ANSWER, invitation.token_id, pack(told)))
    print(f"{arguments.out}: {told.outcome}")


def _revoke(arguments: argparse.Namespace) -> None:
    _, membership = _membership(arguments)
    now_s = SystemClock().now_s()
    number = membership.revoke(arguments.site, arguments.reason, now_s)
    print(f"{arguments.site} is no member any more; {number} certificates revoked")
    membership.publish_revocations(now_s)
    print("ca.crl is signed: give it to the broker")


def _configured(arguments: argparse.Namespace) -> tuple[FederationConfig, Path]:
    config = load_settings(FederationConfig, arguments.config, os.environ)
    if config.identity is None:
        raise ConfigError(f"{arguments.config}: identity.folder is missing: where keys and the register are kept")
    return config, config.identity.folder


def _membership(arguments: argparse.Namespace) -> tuple[FederationConfig, Membership]:
    config, folder = _configured(arguments)
    return config, Membership(folder, config.federation, config.authority)


def _enrolment_address(config: FederationConfig) -> tuple[str, int]:
    broker = config.broker
    secured = tls_for(broker, config.identity, COORDINATOR) is not None
    return broker.host, broker.enrolment_port if secured else broker.port


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ConfigError(f"--broker {text}: expected host:port")
    return host.strip("[]"), int(port)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
