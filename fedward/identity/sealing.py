"""Sealing: bytes that only the holder of one X25519 key can read, and that nobody can change.

A fresh X25519 key agrees with the receiver's on a secret (RFC 7748), HKDF-SHA256 (RFC 5869) makes an AES-256-GCM key of
it, and the payload is encrypted in segments whose nonce holds their number and whether they are the last one: the
STREAM construction (Hoang, Reyhanitabar, Rogaway and Vizar, CRYPTO 2015), so segments can't be dropped, repeated,
reordered or cut off. What the bytes are for goes into the key: sealed for one update, they can't be opened as another.

    sealed = fresh public key (32 bytes), then each segment of at most SEGMENT_BYTES with its tag of 16 bytes
"""

from collections.abc import Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedward.errors import PeerError, RejectReason
from fedward.limits import CHUNK_BYTES

SEGMENT_BYTES = CHUNK_BYTES
TAG_BYTES = 16
KEY_BYTES = 32
LABEL = b"fedward seal 1\0"


def public_half(key: X25519PrivateKey) -> bytes:
    """The 32 bytes that others seal with."""
    return key.public_key().public_bytes_raw()


def sealed_size(num_bytes: int) -> int:
    """Of a payload of so many bytes."""
    return KEY_BYTES + num_bytes + TAG_BYTES * max(1, -(-num_bytes // SEGMENT_BYTES))


def unsealed_size(num_bytes: int) -> int:
    """Of the payload in so many sealed bytes. Raises PeerError (CANNOT_OPEN) where no payload has that size sealed."""
    rest = num_bytes - KEY_BYTES
    size = rest - TAG_BYTES * max(1, -(-rest // (SEGMENT_BYTES + TAG_BYTES)))
    if size < 0 or sealed_size(size) != num_bytes:
        raise PeerError(RejectReason.CANNOT_OPEN, f"no payload has {num_bytes} bytes when it is sealed")
    return size


def seal(payload: bytes | memoryview, receiver: bytes, purpose: bytes) -> Iterator[bytes]:
    """The sealed payload in pieces. Raises ValueError for a `receiver` that is no X25519 public key of 32 bytes."""
    fresh = X25519PrivateKey.generate()
    public = public_half(fresh)
    cipher = _cipher(fresh.exchange(X25519PublicKey.from_public_bytes(receiver)), public, receiver, purpose)
    yield public
    view = memoryview(payload)
    count = max(1, -(-len(view) // SEGMENT_BYTES))
    for number in range(count):
        segment = view[number * SEGMENT_BYTES : (number + 1) * SEGMENT_BYTES]
        yield cipher.encrypt(_nonce(number, last=number == count - 1), segment, None)


def unseal(sealed: bytes | memoryview, key: X25519PrivateKey, purpose: bytes) -> Iterator[bytes]:
    """The payload in pieces; none of them may be used before all have come.

    Raises PeerError (CANNOT_OPEN) for bytes that were not sealed to this key for this purpose, or were changed.
    """
    view = memoryview(sealed)
    public, rest = bytes(view[:KEY_BYTES]), view[KEY_BYTES:]
    step = SEGMENT_BYTES + TAG_BYTES
    count = max(1, -(-len(rest) // step))
    try:
        shared = key.exchange(X25519PublicKey.from_public_bytes(public))
        cipher = _cipher(shared, public, public_half(key), purpose)
        for number in range(count):
            segment = rest[number * step : (number + 1) * step]
            yield cipher.decrypt(_nonce(number, last=number == count - 1), segment, None)
    except (InvalidTag, ValueError):
        raise PeerError(RejectReason.CANNOT_OPEN, "not sealed to this coordinator, for this update, as it is") from None


def _cipher(shared: bytes, fresh: bytes, receiver: bytes, purpose: bytes) -> AESGCM:
    derive = HKDF(hashes.SHA256(), length=32, salt=fresh + receiver, info=LABEL + purpose)
    return AESGCM(derive.derive(shared))


def _nonce(number: int, *, last: bool) -> bytes:
    """Each key seals one payload only, so the number alone makes the nonce unique."""
    return number.to_bytes(11, "big") + bytes([last])
