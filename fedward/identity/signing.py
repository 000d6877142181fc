"""Signatures of messages: ECDSA over P-256 with SHA-256 (FIPS 186-5), of exactly the bytes that travel.

What is signed is the body and all that gives it its meaning: federation, sender, receiver, kind, protocol version and
the sender's counter. So a message that is moved to another topic, federation or receiver is not signed there.
"""

from collections.abc import Callable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey, EllipticCurvePublicKey

from fedward.errors import PeerError, RejectReason
from fedward.pack import PROTOCOL_VERSION, Check, Envelope, Sign

LABEL = b"fedward message\0"
"""Tells these signatures from all others that the same key may make, in TLS for instance."""

ALGORITHM = ECDSA(hashes.SHA256())

EVERYBODY = ""
"""Receiver of what the coordinator says to all sites."""

COORDINATOR = "coordinator"
"""The coordinator as sender and receiver; no site may have this name."""


@dataclass(frozen=True)
class Context:
    """What gives a body its meaning."""

    federation: str
    sender: str
    receiver: str
    kind: str
    protocol_version: int
    counter: int

    def covers(self, body: bytes) -> bytes:
        """The bytes that are signed: each field with its length before it, so that no two contexts look alike."""
        fields = (
            self.federation.encode(),
            self.sender.encode(),
            self.receiver.encode(),
            self.kind.encode(),
            str(self.protocol_version).encode(),
            str(self.counter).encode(),
            body,
        )
        return LABEL + b"".join(len(field).to_bytes(8, "little") + field for field in fields)


def sign(key: EllipticCurvePrivateKey, context: Context, body: bytes) -> bytes:
    """The signature, DER, at most 72 bytes."""
    return key.sign(context.covers(body), ALGORITHM)


def check_signature(key: EllipticCurvePublicKey, context: Context, body: bytes, signature: bytes) -> None:
    """Raises PeerError (BAD_SIGNATURE) unless the holder of the key has signed this body in this context."""
    try:
        key.verify(signature, context.covers(body), ALGORITHM)
    except InvalidSignature:
        raise PeerError(
            RejectReason.BAD_SIGNATURE, f"a {context.kind} that {context.sender} has not signed as it stands"
        ) from None


def signer(
    key: EllipticCurvePrivateKey, federation: str, sender: str, receiver: str, counter: Callable[[], int]
) -> Sign:
    """What signs the messages from one party to another; `counter` gives the number of each."""

    def signed(kind: str, body: bytes) -> tuple[int, bytes]:
        number = counter()
        return number, sign(key, Context(federation, sender, receiver, kind, PROTOCOL_VERSION, number), body)

    return signed


def checker(key: EllipticCurvePublicKey, federation: str, sender: str, receiver: str) -> Check:
    """What lets the messages from one party to another pass, and raises PeerError (BAD_SIGNATURE) for all else."""

    def check(envelope: Envelope) -> None:
        context = Context(federation, sender, receiver, envelope.kind, PROTOCOL_VERSION, envelope.counter)
        check_signature(key, context, envelope.body, envelope.signature)

    return check
