"""Sealing: bytes that only the holder of one X25519 key can read, and that nobody can change.

A fresh X25519 key agrees with the receiver's on a secret (RFC 7748), HKDF-SHA256 (RFC 5869) makes an AES-256-GCM key of
it, and the payload is encrypted in segments whose nonce holds their number and whether they are the last one: the
STREAM construction (Hoang, Reyhanitabar, Rogaway and Vizar, CRYPTO 2015), so segments can't be dropped, repeated,
reordered or cut off. What the bytes are for goes into the key: sealed for one update, they can't be opened as another.

A segment is a chunk of the payload as it travels, so each chunk is opened as it comes, and what is on disk is never
sealed. The fresh key's public half travels beside the payload.
"""

from collections.abc import Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedward.errors import PeerError, RejectReason
from fedward.limits import CHUNK_BYTES

TAG_BYTES = 16
SEGMENT_BYTES = CHUNK_BYTES - TAG_BYTES
"""Of the payload in a segment; the last one may have fewer."""

LABEL = b"fedward seal 1\0"


class Seal:
    """The key of one payload, at the one who sealed it or the one who may open it."""

    def __init__(self, cipher: AESGCM, public: bytes, num_segments: int) -> None:
        self.public = public
        """The fresh key's public half, 32 bytes."""
        self._cipher = cipher
        self._num_segments = num_segments

    def close(self, number: int, segment: bytes | memoryview) -> bytes:
        """A segment, sealed; the same bytes each time."""
        return self._cipher.encrypt(self._nonce(number), segment, None)

    def close_into(self, number: int, segment: bytes | memoryview, sealed: memoryview) -> None:
        """`close`, into memory of the right size."""
        self._cipher.encrypt_into(self._nonce(number), segment, None, sealed)

    def open_into(self, number: int, sealed: bytes | memoryview, opened: memoryview) -> None:
        """A segment again, into memory of the right size.

        Raises PeerError (CANNOT_OPEN) for what was not sealed as this segment of this payload.
        """
        try:
            self._cipher.decrypt_into(self._nonce(number), sealed, None, opened)
        except InvalidTag:
            raise PeerError(
                RejectReason.CANNOT_OPEN, "not sealed to this coordinator, for this update, as it is"
            ) from None

    def open(self, number: int, sealed: bytes | memoryview) -> bytes:
        """`open_into`, into memory of its own."""
        opened = bytearray(max(0, len(sealed) - TAG_BYTES))
        self.open_into(number, sealed, memoryview(opened))
        return bytes(opened)

    def _nonce(self, number: int) -> bytes:
        """Each key seals one payload only, so the number alone makes the nonce unique."""
        return number.to_bytes(11, "big") + bytes([number == self._num_segments - 1])


def public_half(key: X25519PrivateKey) -> bytes:
    """The 32 bytes that others seal with."""
    return key.public_key().public_bytes_raw()


def sealed_size(num_bytes: int) -> int:
    """Of a payload of so many bytes, at least one."""
    return num_bytes + TAG_BYTES * _num_segments(num_bytes)


def opened_size(num_bytes: int) -> int:
    """Of the payload in so many sealed bytes. Raises PeerError (CANNOT_OPEN) where none has that size when sealed."""
    size = num_bytes - TAG_BYTES * -(-num_bytes // CHUNK_BYTES)
    if size < 1 or sealed_size(size) != num_bytes:
        raise PeerError(RejectReason.CANNOT_OPEN, f"no payload has {num_bytes} bytes when it is sealed")
    return size


def new_seal(receiver: bytes, purpose: bytes, num_bytes: int) -> Seal:
    """For a payload of so many bytes. Raises ValueError for a `receiver` that is no X25519 public key of 32 bytes."""
    fresh = X25519PrivateKey.generate()
    shared = fresh.exchange(X25519PublicKey.from_public_bytes(receiver))
    return _seal(shared, public_half(fresh), receiver, purpose, num_bytes)


def known_seal(key: X25519PrivateKey, public: bytes, purpose: bytes, num_bytes: int) -> Seal:
    """Of a payload of so many bytes that was sealed to this key. Raises PeerError (CANNOT_OPEN)."""
    try:
        shared = key.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:  # a point of small order, which would make the secret known to all
        raise PeerError(RejectReason.CANNOT_OPEN, "sealed with no X25519 key") from None
    return _seal(shared, public, public_half(key), purpose, num_bytes)


def sealed_chunks(seal: Seal, payload: bytes | memoryview) -> Iterator[memoryview]:
    """The payload sealed, chunk after chunk, each valid until the next one; the same bytes each time."""
    view, sealed = memoryview(payload), memoryview(bytearray(CHUNK_BYTES))
    for number in range(_num_segments(len(view))):
        segment = view[number * SEGMENT_BYTES : (number + 1) * SEGMENT_BYTES]
        chunk = sealed[: len(segment) + TAG_BYTES]
        seal.close_into(number, segment, chunk)
        yield chunk.toreadonly()


def _num_segments(num_bytes: int) -> int:
    return -(-num_bytes // SEGMENT_BYTES)


def _seal(shared: bytes, fresh: bytes, receiver: bytes, purpose: bytes, num_bytes: int) -> Seal:
    derive = HKDF(hashes.SHA256(), length=32, salt=fresh + receiver, info=LABEL + purpose)
    return Seal(AESGCM(derive.derive(shared)), fresh, _num_segments(num_bytes))
