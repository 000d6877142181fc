"""The publisher's signature of what a hospital installs: ECDSA over P-256 with SHA-256, in base64.

`cosign sign-blob` and `cosign verify-blob` speak the same, and so does `openssl dgst -sha256` once the base64 is off.
"""

import base64
import binascii

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey

from fedward.errors import ConfigError, IntegrityError
from fedward.identity.signing import ALGORITHM

PublisherKey = EllipticCurvePublicKey
"""What a hospital has of a publisher."""
SigningKey = EllipticCurvePrivateKey


def sign_release(key: SigningKey, document: bytes) -> str:
    """The signature of exactly these bytes."""
    return base64.b64encode(key.sign(document, ALGORITHM)).decode()


def read_release_key(text: bytes) -> PublisherKey:
    """A publisher's public key. Raises ConfigError for anything but a P-256 public key as PEM."""
    try:
        key = serialization.load_pem_public_key(text)
    except ValueError:
        key = None
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise ConfigError("the publisher's key: expected a P-256 public key as PEM")
    return key


def check_release(key: PublisherKey, document: bytes, signature: str) -> None:
    """Raises IntegrityError unless the holder of the key has signed exactly these bytes.

    There is one way to write a signature: base64 whose last letter has bits to spare, or spaces in it, is another text.
    """
    try:
        decoded = base64.b64decode(signature, validate=True)
        if base64.b64encode(decoded) != signature.encode():
            raise ValueError("not as it is written")
        key.verify(decoded, document, ALGORITHM)
    except (InvalidSignature, binascii.Error, ValueError):
        raise IntegrityError("not signed by the publisher whose key this is, or changed since") from None
