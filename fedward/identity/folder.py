"""A party's identity on disk: where its key and certificates are, read and checked at the start."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedward.errors import PeerError, RejectReason
from fedward.identity.certificates import AUTHORITY_CERTIFICATE, Certificate, check_certificate, load_certificate
from fedward.identity.keys import load_sealing_key, load_signing_key
from fedward.identity.sealing import Seal, known_seal, opened_size, public_half
from fedward.identity.signing import COORDINATOR, signer
from fedward.messages import Offer
from fedward.pack import Sign

COORDINATOR_CERTIFICATE = "coordinator.crt"
"""At a site: whose signatures count. At the coordinator: its own."""

COORDINATOR_KEY = "coordinator.key"
SEALING_KEY = "sealing.key"
REGISTER = "sites"
"""At the coordinator: a certificate for each enrolled site, `<site>.crt`."""


@dataclass(frozen=True)
class SiteIdentity:
    """A site's key, and the key of the coordinator that it obeys."""

    key: EllipticCurvePrivateKey = field(repr=False)
    coordinator: Certificate

    @classmethod
    def load(cls, folder: Path, federation: str, site: str, now_s: float) -> "SiteIdentity":
        """Raises ConfigError for what is missing, readable by others, of another name or authority, or has ended.

        The coordinator's certificate may have ended: it is its key that counts, and that does not change.
        """
        authority = load_certificate(folder / AUTHORITY_CERTIFICATE)
        check_certificate(load_certificate(folder / f"{site}.crt"), authority, site, now_s)
        coordinator = load_certificate(folder / COORDINATOR_CERTIFICATE)
        name = coordinator_name(federation)
        check_certificate(coordinator, authority, name, min(now_s, coordinator.not_after_s))
        return cls(load_signing_key(folder / f"{site}.key"), coordinator)


@dataclass(frozen=True)
class CoordinatorIdentity:
    """The coordinator's keys, and the authority whose certificates count."""

    key: EllipticCurvePrivateKey = field(repr=False)
    sealing_key: X25519PrivateKey = field(repr=False)
    authority: Certificate
    register: Path

    @property
    def sealed_to(self) -> bytes:
        """What sites seal their updates with."""
        return public_half(self.sealing_key)

    def seal_of(self, offer: Offer) -> Seal:
        """How the offered payload was sealed. Raises PeerError (CANNOT_OPEN) where it was not, to this coordinator."""
        if offer.seal is None:
            raise PeerError(RejectReason.CANNOT_OPEN, "the update is not sealed")
        return known_seal(self.sealing_key, offer.seal, offer.update_id, opened_size(offer.manifest.size_bytes))

    def sign_to(self, federation: str) -> Callable[[str], Sign]:
        """Receiver -> what signs messages to it. They have no numbers: each has a sequence or an id inside."""
        return lambda receiver: signer(self.key, federation, COORDINATOR, receiver, lambda: 0)

    @classmethod
    def load(cls, folder: Path, federation: str, now_s: float) -> "CoordinatorIdentity":
        """Raises ConfigError for what is missing, readable by others, of another name or authority, or has ended."""
        authority = load_certificate(folder / AUTHORITY_CERTIFICATE)
        name = coordinator_name(federation)
        check_certificate(load_certificate(folder / COORDINATOR_CERTIFICATE), authority, name, now_s)
        return cls(
            load_signing_key(folder / COORDINATOR_KEY),
            load_sealing_key(folder / SEALING_KEY),
            authority,
            folder / REGISTER,
        )


def coordinator_name(federation: str) -> str:
    """The coordinator's name in its certificate."""
    return f"coordinator-{federation}"
