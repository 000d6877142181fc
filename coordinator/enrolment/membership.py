"""What the operator and the hospitals decide, carried out on the identity folder: by commands and by the coordinator.

Every call may be repeated, also after a kill in the middle of it: it ends what was begun and changes nothing else.
"""

from dataclasses import replace
from pathlib import Path

from coordinator.config import AuthoritySettings
from coordinator.enrolment.authority import authority_of, file_certificate, offline, publish_revocations
from coordinator.enrolment.folder import Invitations, Register, changing
from coordinator.enrolment.rules import Invitation, Stage, admitted, answer, denied, has_served, received
from fedward.errors import ConfigError, PeerError, RejectReason, TransientError
from fedward.identity.authorities import check_signed
from fedward.identity.certificates import (
    AUTHORITY_CERTIFICATE,
    DAY_S,
    RENEW_BELOW,
    Certificate,
    Request,
    Role,
    life_left,
    load_certificate,
    parse_request,
)
from fedward.identity.folder import COORDINATOR_CERTIFICATE
from fedward.identity.token import Token, new_secret, new_token_id
from fedward.messages import Enrolled, Enrolment, Renewal

SLACK = 0.05
"""Share of a certificate's life by which a site may be early: clocks disagree. Earlier ones get the same again."""


class Membership:
    """Who is a site of one federation."""

    def __init__(self, folder: Path, federation: str, authority: AuthoritySettings) -> None:
        """`folder` is the coordinator's identity folder. Raises ConfigError where that holds no identity yet."""
        if not (folder / AUTHORITY_CERTIFICATE).exists():
            raise ConfigError(
                f"identity.folder {folder}: no identity there yet; `fedward coordinator identity` makes it"
            )
        self.folder = folder
        self.register = Register(folder)
        self.invitations = Invitations(folder)
        self._federation = federation
        self._authority = authority

    def stamp(self) -> object:
        """Another value after each change of the folder: cheap to ask for."""
        return self.invitations.stamp(), self.register.stamp()

    def invite(self, site: str, address: tuple[str, int], expires_at_s: float, *, automatic: bool) -> Token:
        """A new token for the site, which ends the one before. Raises ConfigError for a site that is enrolled."""
        if self.register.certificate(site) is not None:
            raise ConfigError(
                f"site {site} is enrolled; `fedward coordinator revoke {site}` first, if it needs a new key"
            )
        token = Token(
            federation=self._federation,
            site=site,
            token_id=new_token_id(),
            host=address[0],
            port=address[1],
            authority=load_certificate(self.folder / AUTHORITY_CERTIFICATE),
            coordinator=load_certificate(self.folder / COORDINATOR_CERTIFICATE).fingerprint,
            secret=new_secret(),
        )
        with changing(self.folder):
            self.invitations.save(Invitation(keys=token.keys, expires_at_s=expires_at_s, automatic=automatic))
        return token

    def ask(self, site: str, message: Enrolment, now_s: float) -> Enrolled:
        """Take a request in, durably, and say how it stands.

        Raises PeerError for what the token's holder has not made, or is no request of this site.
        """
        with changing(self.folder):
            invitation = self.invitations.of(site)
            if invitation is None:
                raise PeerError(RejectReason.UNKNOWN_SITE, "an enrolment of a site that is not invited any more")
            invitation.keys.check_request(message)
            request = _request_of(site, message.request)
            if self._is_revoked(request.fingerprint):
                return self.answer(replace(invitation, stage=Stage.DENIED), request.fingerprint)
            changed = received(invitation, request, now_s)
            if changed != invitation:
                self.invitations.save(changed)
        return self.answer(changed, request.fingerprint)

    def answer(self, invitation: Invitation, fingerprint: str) -> Enrolled:
        """What the key with this fingerprint is told now."""
        authority, coordinator = self.folder / AUTHORITY_CERTIFICATE, self.folder / COORDINATOR_CERTIFICATE
        certificate = self.register.certificate(invitation.site)
        return answer(invitation, fingerprint, certificate, authority.read_bytes(), coordinator.read_bytes())

    def admit(self, site: str, compared: str) -> None:
        """The operator has compared the fingerprint. The certificate comes with `certify`. Raises ConfigError."""
        with changing(self.folder):
            self.invitations.save(admitted(self.invitations.asked(site), compared))

    def deny(self, site: str) -> None:
        """The operator's no. Raises ConfigError where there is nothing to deny."""
        with changing(self.folder):
            self.invitations.save(denied(self.invitations.asked(site)))

    def certify(self, invitation: Invitation, now_s: float) -> Certificate:
        """The admitted site's certificate, in the register when this returns.

        Raises TransientError where the authority is not at hand.
        """
        with changing(self.folder):
            if self.invitations.of(invitation.site) != invitation:
                raise TransientError(f"site {invitation.site}: its invitation was ended meanwhile")
            return self.sign(parse_request(invitation.request), Role.CLIENT, now_s)

    def settle(self, site: str) -> bool:
        """The site has spoken with its certificate: whether that ends its invitation. The token serves nobody then."""
        with changing(self.folder):
            invitation = self.invitations.of(site)
            ends = invitation is not None and has_served(invitation, self.register.certificate(site))
            if ends:
                self.invitations.end(site)
        return ends

    def renew(self, site: str, message: Renewal, now_s: float) -> Certificate:
        """The newest certificate of the site's key: a new one when it is time, else the one that it has.

        Raises PeerError for another key or name than the registered one, TransientError where the authority is not at
        hand and ConfigError where it can't be used: the site asks again.
        """
        request = _request_of(site, message.request)
        with changing(self.folder):
            known = self.register.certificate(site)
            if known is None:
                raise PeerError(RejectReason.UNKNOWN_SITE, "a renewal of a site that is not enrolled")
            if known.fingerprint != request.fingerprint:
                raise PeerError(RejectReason.BAD_SIGNATURE, "a renewal for another key than the registered one")
            if life_left(known, now_s) > RENEW_BELOW + SLACK:
                return known
            return self.sign(request, Role.CLIENT, now_s)

    def revoke(self, site: str, reason: str, now_s: float) -> int:
        """The site is no member any more when this returns; the number of certificates that were revoked by this.

        Raises ConfigError for a site that never was one.
        """
        with changing(self.folder):
            if not self.register.knows(site):
                raise ConfigError(f"site {site} was never enrolled in {self._federation}; `deny` refuses a request")
            self.invitations.end(site)
            offline(self.folder).done(site, Role.CLIENT)
            return self.register.revoke(site, reason, now_s)

    def publish_revocations(self, now_s: float) -> None:
        """Sign the list anew. Raises TransientError where the authority is not at hand."""
        with changing(self.folder):
            publish_revocations(self.folder, authority_of(self._authority, self.folder), now_s)

    def sign(self, request: Request, role: Role, now_s: float) -> Certificate:
        """A certificate, checked, and on disk where it belongs. The caller is `changing` the folder."""
        authority, days = authority_of(self._authority, self.folder), self._authority.days
        certificate = authority.sign(request, role, now_s, days)
        check_signed(certificate, request, authority.certificate, now_s, days)
        file_certificate(self.folder, self._federation, certificate, role)
        return certificate

    def _is_revoked(self, fingerprint: str) -> bool:
        return any(certificate.fingerprint == fingerprint for certificate in self.register.revoked())


def expiry_of(days: float, now_s: float) -> float:
    """When a token that is made now ends."""
    return now_s + days * DAY_S


def _request_of(site: str, pem: bytes) -> Request:
    """Raises PeerError for what is no request of this site."""
    try:
        request = parse_request(pem)
    except ConfigError as error:
        raise PeerError(RejectReason.MALFORMED, str(error)) from None
    if request.name != site:
        raise PeerError(RejectReason.MALFORMED, "a certificate request for another name")
    return request
