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
    """A publisher's public key, as PEM or as `release_key_line` writes it. Raises ConfigError for anything else."""
    try:
        if text.lstrip().startswith(b"-----"):
            key = serialization.load_pem_public_key(text)
        else:
            key = serialization.load_der_public_key(base64.b64decode(text.strip(), validate=True))
    except (binascii.Error, ValueError):
        key = None
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise ConfigError("the publisher's key: expected a P-256 public key, as PEM or as one line of base64")
    return key


def public_pem(key: PublisherKey) -> bytes:
    """A publisher's public key as PEM, for cosign and openssl."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def release_key_line(key: PublisherKey) -> str:
    """A publisher's public key as one line, for settings and commands: what stands between the lines of its PEM."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return base64.b64encode(key.public_bytes(serialization.Encoding.DER, form)).decode()


def release_key_setting(text: str) -> str:
    """The text itself. Raises ValueError unless it is a publisher's public key."""
    try:
        read_release_key(text.encode())
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return text


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
