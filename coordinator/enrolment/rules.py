"""What becomes of an invitation: pure rules over one value, so a kill anywhere changes nothing but time.

    invited --request--> requested --admit--> admitted
       |                     |
       +-------- deny -------+-------------> denied

A request of an automatic invitation admits itself: the MAC has shown that the token's holder made it. Whether an
admitted site has its certificate is not a stage: the register tells.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from fedward.errors import ConfigError
from fedward.identity.certificates import Certificate, Request
from fedward.identity.token import TokenKeys
from fedward.messages import Enrolled, EnrolmentOutcome

LEAST_GROUPS = 4
"""Groups of a fingerprint that people must compare: 64 bits."""

HEAR_S = 7 * 86_400.0
"""How long after its token's end one who has asked in time may come for the answer."""


class Stage(StrEnum):
    """Where an invitation stands."""

    INVITED = "invited"  # the token is out
    REQUESTED = "requested"  # a key asks for the certificate; people compare
    ADMITTED = "admitted"  # this key is the site's
    DENIED = "denied"


@dataclass(frozen=True, kw_only=True)
class Invitation:
    """One site's token, and what has come of it. Of the token's secret only what follows from it is kept."""

    keys: TokenKeys
    expires_at_s: float
    automatic: bool
    stage: Stage = Stage.INVITED
    request: bytes = b""  # PKCS #10 as PEM, of the first key that asked; empty before
    fingerprint: str = ""  # of that key
    requested_at_s: float = 0.0

    @property
    def site(self) -> str:
        return self.keys.site

    @property
    def token_id(self) -> str:
        return self.keys.token_id


def received(invitation: Invitation, request: Request, now_s: float) -> Invitation:
    """After a request whose MAC is right: the first one counts, for its key alone."""
    if invitation.stage is not Stage.INVITED or now_s >= invitation.expires_at_s:
        return invitation
    stage = Stage.ADMITTED if invitation.automatic else Stage.REQUESTED
    facts = {"request": request.pem, "fingerprint": request.fingerprint, "requested_at_s": now_s}
    return replace(invitation, stage=stage, **facts)  # type: ignore[arg-type]  # each field its own type


def outcome(invitation: Invitation, fingerprint: str, certificate: Certificate | None) -> EnrolmentOutcome:
    """What the key with this fingerprint is told; `certificate` is the one that the register has for the site."""
    if invitation.stage is Stage.DENIED:
        return EnrolmentOutcome.DENIED
    if invitation.stage is Stage.INVITED:  # `received` has left it so
        return EnrolmentOutcome.EXPIRED
    if invitation.fingerprint != fingerprint:
        return EnrolmentOutcome.USED
    if invitation.stage is Stage.ADMITTED and certificate and certificate.fingerprint == fingerprint:
        return EnrolmentOutcome.ADMITTED
    return EnrolmentOutcome.WAITING


def answer(
    invitation: Invitation, fingerprint: str, certificate: Certificate | None, authority: bytes, coordinator: bytes
) -> Enrolled:
    """What the key with this fingerprint is told, as the message; the last two are certificates as PEM."""
    told = outcome(invitation, fingerprint, certificate)
    message = Enrolled(outcome=told, mac=bytes(32))
    if told is EnrolmentOutcome.ADMITTED and certificate is not None:
        message = replace(message, certificate=certificate.pem, authority=authority, coordinator=coordinator)
    return replace(message, mac=invitation.keys.answer_mac(fingerprint, message))


def may_connect(invitation: Invitation, now_s: float) -> bool:
    """Whether the token's holder still has something to say, or to hear: one who is denied is told so, and is out."""
    ends_at_s = invitation.expires_at_s + (HEAR_S if invitation.fingerprint else 0.0)
    return invitation.stage is not Stage.DENIED and now_s < ends_at_s


def has_served(invitation: Invitation, certificate: Certificate | None) -> bool:
    """Whether the token has done its work when its site speaks with the certificate that the register has."""
    return (
        invitation.stage is Stage.ADMITTED
        and certificate is not None
        and certificate.fingerprint == invitation.fingerprint
    )


def uncertified(invitations: Iterable[Invitation], sites: Mapping[str, Certificate]) -> list[Invitation]:
    """The admitted ones whose key has no certificate in the register yet."""
    return [
        one
        for one in invitations
        if one.stage is Stage.ADMITTED and (one.site not in sites or sites[one.site].fingerprint != one.fingerprint)
    ]


def admitted(invitation: Invitation, compared: str) -> Invitation:
    """After the operator has compared the fingerprint, or its first groups, with the hospital.

    Raises ConfigError where there is no request, it was denied, or what was compared is too short or another one.
    """
    if invitation.stage is Stage.INVITED:
        raise ConfigError(f"site {invitation.site} has not asked yet; see `fedward coordinator requests`")
    if invitation.stage is Stage.DENIED:
        raise ConfigError(f"site {invitation.site} was denied; invite it again")
    groups = compared.strip().lower().strip("-").split("-")
    if len(groups) < LEAST_GROUPS or any(len(group) != 4 for group in groups):
        raise ConfigError(
            f"--fingerprint: expected at least {LEAST_GROUPS} groups of 4 digits, as the hospital reads them"
        )
    if invitation.fingerprint.split("-")[: len(groups)] != groups:
        raise ConfigError(
            f"the key that asked for site {invitation.site} has another fingerprint than was compared: somebody else "
            "has used the token; deny the request and invite the site again"
        )
    return replace(invitation, stage=Stage.ADMITTED)


def denied(invitation: Invitation) -> Invitation:
    """After the operator's no. Raises ConfigError for an admitted site: that is revoked."""
    if invitation.stage is Stage.ADMITTED:
        raise ConfigError(f"site {invitation.site} is admitted already: `fedward coordinator revoke {invitation.site}`")
    return replace(invitation, stage=Stage.DENIED)
