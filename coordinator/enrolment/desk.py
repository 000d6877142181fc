"""The running coordinator's part in enrolment: hears those who hold a token, answers, renews, and notices revocations.

What people decide is written by commands of their own into the identity folder; the desk looks there as the loop looks
for wishes. Nothing is kept here that a restart would have to know.
"""

import logging
from collections.abc import Mapping

from coordinator.config import FederationConfig
from coordinator.enrolment.membership import Membership
from coordinator.enrolment.rules import Invitation, may_connect, outcome, uncertified
from fedward import topics
from fedward.errors import ConfigError, IntegrityError, PeerError, RejectReason, TransientError
from fedward.identity.certificates import RENEW_BELOW, Certificate, life_left, load_certificate
from fedward.identity.folder import COORDINATOR_CERTIFICATE
from fedward.identity.token import TokenKeys
from fedward.messages import Enrolled, Enrolment, Renewal, Renewed
from fedward.pack import pack, unpack
from fedward.ports import Clock, Link
from fedward.topics import Enrol

LOG = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
"""How long a decision of the operator may go unseen."""

FRESH_S = 2.0
"""After a change the folder is read at every look for so long: file systems tell times of a few milliseconds only."""

SIGN_AGAIN_S = 60.0
"""Wait after an attempt to sign that failed: a program that signs may take its whole time every time."""

WARN_EVERY_S = 86_400.0
"""Between two warnings that a certificate ends soon."""


class Desk:
    """Enrolment and membership while the coordinator runs."""

    def __init__(self, membership: Membership, config: FederationConfig, link: Link, clock: Clock) -> None:
        self._membership = membership
        self._federation = config.federation
        self._link = link
        self._clock = clock
        self._invitations: dict[str, Invitation] = {}  # by the token's id
        self._told: dict[str, Enrolled] = {}  # by the token's id: the key that has asked first knows so much
        self._look_at_s = self._sign_at_s = self._warn_at_s = 0.0
        self._fresh_until_s = 0.0
        self._stamp: object = None
        self.sites: Mapping[str, Certificate] = membership.register.sites()
        """The enrolled sites, as they were seen last; replaced, never changed."""
        self.holders: frozenset[TokenKeys] = frozenset()
        """Those whose token opens the broker, each for its two topics; as they were seen last, replaced as `sites`."""

    @property
    def filter(self) -> str:
        """What the coordinator subscribes to for the desk."""
        return topics.enrolment_requests(self._federation)

    def knows(self, token_id: str) -> bool:
        """Whether the token is out, or was used, and is not ended."""
        return token_id in self._invitations

    def look(self) -> bool:
        """Look for decisions, if it is time, and carry them out; whether `sites` is another one now."""
        now_s = self._clock.monotonic_s()
        if now_s < self._look_at_s:
            return False
        self._look_at_s = now_s + LOOK_EVERY_S
        changed = self._see()
        if self._certify(now_s):
            changed |= self._see()
        self._tell_decisions()  # before the broker ends the connection of one who is denied
        self.holders = self._holders()
        if now_s >= self._warn_at_s:
            self._warn_at_s = now_s + WARN_EVERY_S
            self._warn()
        return changed

    def takes(self, topic: str, payload: bytes) -> bool:
        """Whether the message is for the desk; it is answered then. Raises PeerError for what is refused silently."""
        address = topics.parse(topic)
        if address.token is None:
            return False
        if address.federation != self._federation or address.kind is not Enrol.REQUEST:
            raise PeerError(RejectReason.MALFORMED, "not a topic that holders of a token send to")
        self._on_request(address.token, payload)
        return True

    def _on_request(self, token_id: str, payload: bytes) -> None:
        message = unpack(payload, Enrolment)
        invitation = self._invitations.get(token_id)
        if invitation is None:
            raise PeerError(RejectReason.UNKNOWN_SITE, "an enrolment with a token that is not known, or ended")
        try:
            answer = self._membership.ask(invitation.site, message, self._clock.now_s())
        except (ConfigError, IntegrityError) as error:  # a damaged file of the register: the holder asks again
            LOG.error("register_damaged", extra={"detail": str(error)})
            return
        self._answer(token_id, answer)
        self._look_at_s = 0.0  # an automatic one is signed at once

    def on_status(self, site: str) -> None:
        """The site speaks with its own key: if a token brought it here, that has served."""
        invited = any(one.site == site for one in self._invitations.values())
        try:
            if invited and self._membership.settle(site):
                LOG.info("token_served", extra={"site": site})
                self._look_at_s = 0.0
        except IntegrityError as error:
            LOG.error("invitation_damaged", extra={"detail": str(error)})

    def on_renewal(self, site: str, message: Renewal) -> Renewed | None:
        """The answer, None where the authority is not at hand: the site asks again. Raises PeerError."""
        now_s = self._clock.monotonic_s()
        if now_s < self._sign_at_s:  # whatever signs did not answer just now: everybody would wait for it again
            return None
        try:
            certificate = self._membership.renew(site, message, self._clock.now_s())
        except (TransientError, ConfigError) as error:
            self._sign_at_s = now_s + SIGN_AGAIN_S
            LOG.warning("renewal_waits", extra={"site": site, "detail": str(error)})
            return None
        self._look_at_s = 0.0
        LOG.info("renewed", extra={"site": site, "ends_at_s": certificate.not_after_s})
        return Renewed(certificate=certificate.pem)

    def expires_s(self) -> float:
        """When the first certificate that is in use ends, a site's or the coordinator's own."""
        return min([self.own_expires_s(), *self.expiries_s().values()])

    def own_expires_s(self) -> float:
        """When the coordinator's own certificate ends."""
        return load_certificate(self._membership.folder / COORDINATOR_CERTIFICATE).not_after_s

    def expiries_s(self) -> dict[str, float]:
        """When each site's certificate ends."""
        return {site: certificate.not_after_s for site, certificate in self.sites.items()}

    def _holders(self) -> frozenset[TokenKeys]:
        now_s = self._clock.now_s()
        return frozenset(one.keys for one in self._invitations.values() if may_connect(one, now_s))

    def _see(self) -> bool:
        """Read the folder where it has changed; whether the register has."""
        stamp, now_s = self._membership.stamp(), self._clock.monotonic_s()
        if stamp != self._stamp:
            self._fresh_until_s = now_s + FRESH_S
        elif now_s >= self._fresh_until_s:
            return False
        self._stamp = stamp
        self._invitations = self._read_invitations()
        before, self.sites = self.sites, self._membership.register.sites()
        for site in before.keys() - self.sites.keys():
            LOG.warning("revoked", extra={"site": site})
        return before.keys() != self.sites.keys()

    def _read_invitations(self) -> dict[str, Invitation]:
        """None of them where one is damaged: nobody enrols until the operator has looked, and all else goes on."""
        try:
            return {one.token_id: one for one in self._membership.invitations.all()}
        except IntegrityError as error:
            LOG.error("invitation_damaged", extra={"detail": str(error)})
            return {}

    def _certify(self, now_s: float) -> bool:
        """Sign for those who are admitted; whether there was one."""
        waiting = uncertified(self._invitations.values(), self.sites)
        if not waiting or now_s < self._sign_at_s:
            return False
        for invitation in waiting:
            try:
                self._membership.certify(invitation, self._clock.now_s())
                LOG.info("enrolled", extra={"site": invitation.site, "fingerprint": invitation.fingerprint})
            except (TransientError, ConfigError) as error:
                self._sign_at_s = now_s + SIGN_AGAIN_S
                LOG.warning("enrolment_waits", extra={"site": invitation.site, "detail": str(error)})
        return True

    def _tell_decisions(self) -> None:
        """Who has asked hears what became of it as soon as it changes."""
        for token_id, invitation in self._invitations.items():
            certificate = self.sites.get(invitation.site)
            told = self._told.get(token_id)
            if invitation.fingerprint and (
                told is None or told.outcome is not outcome(invitation, invitation.fingerprint, certificate)
            ):
                answer = self._membership.answer(invitation, invitation.fingerprint)
                if self._answer(token_id, answer):
                    self._told[token_id] = answer

    def _answer(self, token_id: str, answer: Enrolled) -> bool:
        topic = topics.enrolment(self._federation, token_id, Enrol.ANSWER)
        return self._link.publish(topic, pack(answer), expiry_s=600)

    def _warn(self) -> None:
        now_s = self._clock.now_s()
        own = load_certificate(self._membership.folder / COORDINATOR_CERTIFICATE)
        for certificate in (own, *self.sites.values()):
            if life_left(certificate, now_s) < RENEW_BELOW:
                facts = {"party": certificate.name, "ends_at_s": certificate.not_after_s}
                LOG.warning("certificate_ends_soon", extra=facts)


def desk_of(config: FederationConfig, link: Link, clock: Clock) -> Desk | None:
    """The desk of a federation that enrols; None for one on this machine, where nobody has an identity."""
    if config.identity is None:
        return None
    membership = Membership(config.identity.folder, config.federation, config.authority)
    return Desk(membership, config, link, clock)
