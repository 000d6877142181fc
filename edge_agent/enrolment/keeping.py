"""What a hospital keeps of its enrolment: the key, which never leaves, and the certificates that come back.

begin: <site>.key, ca.crt          the key is made once; a run after a kill goes on with it
finish: coordinator.crt, <site>.crt   the last file says that all is there
"""

from pathlib import Path

from fedward.errors import ConfigError
from fedward.files import write_durably
from fedward.identity.authorities import check_signed
from fedward.identity.certificates import (
    AUTHORITY_CERTIFICATE,
    Certificate,
    Request,
    check_certificate,
    load_certificate,
    make_request,
    parse_certificate,
    parse_request,
)
from fedward.identity.folder import COORDINATOR_CERTIFICATE, coordinator_name
from fedward.identity.keys import load_signing_key, make_signing_key
from fedward.identity.token import Token
from fedward.messages import Enrolled, Enrolment, EnrolmentOutcome

SAID = {
    EnrolmentOutcome.DENIED: "the coordinator's operator has denied this request; ask why, and for another token",
    EnrolmentOutcome.EXPIRED: "the token was not used in time; ask for another one",
    EnrolmentOutcome.USED: (
        "the token has served another key. If it was not another machine of yours, somebody else has used it: call the "
        "coordinator's operator"
    ),
}
"""What ends an enrolment, in words for the hospital."""


def begin(folder: Path, token: Token) -> Request:
    """The site's key, made when there is none, and its request. Raises ConfigError in another authority's folder."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    known = folder / AUTHORITY_CERTIFICATE
    if not known.exists():
        write_durably(known, token.authority.pem)
    elif load_certificate(known).fingerprint != token.authority.fingerprint:
        raise ConfigError(f"{known}: of another authority than the token's; name another identity.folder")
    path = folder / f"{token.site}.key"
    key = load_signing_key(path) if path.exists() else make_signing_key(path)
    return parse_request(make_request(key, token.site))


def enrolled(folder: Path, site: str) -> Certificate | None:
    """The site's certificate, where an enrolment has ended well."""
    path = folder / f"{site}.crt"
    return load_certificate(path) if path.exists() else None


def message_of(token: Token, request: Request) -> Enrolment:
    """What leaves the hospital: the request, proved with the token's key."""
    return Enrolment(request=request.pem, mac=token.keys.request_mac(request.pem))


def finish(folder: Path, token: Token, request: Request, answer: Enrolled, now_s: float) -> Certificate | None:
    """Keep the certificates of an answer; None for one that says to wait.

    Raises ConfigError for a no, and for certificates that the token does not lead to; PeerError for an answer that the
    coordinator has not given as it stands.
    """
    token.keys.check_answer(request.fingerprint, answer)
    if answer.outcome is EnrolmentOutcome.WAITING:
        return None
    if answer.outcome in SAID:
        raise ConfigError(SAID[answer.outcome])
    if answer.certificate is None or answer.authority is None or answer.coordinator is None:
        raise ConfigError("the coordinator admits this site, and sends no certificate: a bug there")
    authority, coordinator = parse_certificate(answer.authority), parse_certificate(answer.coordinator)
    certificate = parse_certificate(answer.certificate)
    if authority.fingerprint != token.authority.fingerprint or coordinator.fingerprint != token.coordinator:
        raise ConfigError("the answer names another authority or coordinator than the token: ask for another token")
    # The coordinator's may have ended: it is its key that counts, and that does not change.
    name, ends_s = coordinator_name(token.federation), coordinator.not_after_s
    check_certificate(coordinator, token.authority, name, min(now_s, ends_s))
    check_signed(certificate, request, token.authority, now_s)
    write_durably(folder / COORDINATOR_CERTIFICATE, coordinator.pem)
    write_durably(folder / f"{token.site}.crt", certificate.pem)
    return certificate
