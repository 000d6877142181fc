"""The model key: what the members of a federation read the model with, and nobody else.

One key for all of them, so that a chunk is still sent once to all. Each part of the model has a key of its own, made of
the model key and the part's digest (HKDF-SHA256, RFC 5869), and the nonce of a chunk (AES-256-GCM) is its index: the
digest names the bytes, so the same key and nonce always seal the same chunk, to the same bytes. Manifests and digests
are of what is sealed, and prove it as they do where nothing is.

The key reaches a member sealed to a key of its process (sealing.py), which its signed status names.
"""

import secrets
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedward.errors import PeerError, RejectReason
from fedward.identity.sealing import known_seal, new_seal, public_half
from fedward.limits import KEY_ID_BYTES
from fedward.messages import SealedKey

SECRET_BYTES = 32

LABEL = b"fedward model 1\0"
PURPOSE = "fedward model key"


@dataclass(frozen=True)
class ModelKey:
    """A model key and the name that announcements call it by. Raises ValueError for another length of either."""

    key_id: bytes
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if (len(self.key_id), len(self.secret)) != (KEY_ID_BYTES, SECRET_BYTES):
            raise ValueError(f"expected an id of {KEY_ID_BYTES} bytes and a key of {SECRET_BYTES}")

    @classmethod
    def new(cls) -> "ModelKey":
        return cls(secrets.token_bytes(KEY_ID_BYTES), secrets.token_bytes(SECRET_BYTES))

    def close(self, part: bytes, index: int, chunk: bytes) -> bytes:
        """A chunk of the part with this digest, sealed: 16 bytes more, the same ones each time.

        The caller has compared the chunk with its digest: other bytes under the same nonce would give both away.
        """
        return self._cipher(part).encrypt(_nonce(index), chunk, None)

    def open(self, part: bytes, index: int, sealed: bytes) -> bytes:
        """A chunk again. Raises PeerError (CANNOT_OPEN) for what was not sealed with this key as this very chunk."""
        try:
            return self._cipher(part).decrypt(_nonce(index), sealed, None)
        except InvalidTag:
            raise PeerError(RejectReason.CANNOT_OPEN, f"chunk {index}: not sealed with this model key") from None

    def sealed_to(self, receiver: bytes, boot_id: bytes, federation: str, site: str) -> SealedKey:
        """The key for one process of a member, whose `receiver` was checked."""
        seal = new_seal(receiver, _purpose(federation, site, self.key_id), SECRET_BYTES)
        return SealedKey(boot_id=boot_id, key_id=self.key_id, seal=seal.public, sealed=seal.close(0, self.secret))

    def _cipher(self, part: bytes) -> AESGCM:
        return AESGCM(HKDF(hashes.SHA256(), length=32, salt=self.key_id, info=LABEL + part).derive(self.secret))


class KeyReceiver:
    """What model keys for one process of a member are sealed to. In memory only: a new process makes a new one."""

    def __init__(self, federation: str, site: str) -> None:
        self._key = X25519PrivateKey.generate()
        self._federation = federation
        self._site = site

    @property
    def public(self) -> bytes:
        """The 32 bytes that the coordinator seals with."""
        return public_half(self._key)

    def open(self, message: SealedKey) -> ModelKey:
        """Raises PeerError (CANNOT_OPEN) for what was not sealed to this process, as the key that it names."""
        purpose = _purpose(self._federation, self._site, message.key_id)
        try:
            secret = known_seal(self._key, message.seal, purpose, SECRET_BYTES).open(0, message.sealed)
        except PeerError:
            raise PeerError(RejectReason.CANNOT_OPEN, "a model key that was not sealed to this process") from None
        return ModelKey(message.key_id, secret)


def check_receiver(public: bytes) -> None:
    """Raises PeerError (MALFORMED) for 32 bytes that nothing can be sealed to: a point of small order."""
    try:
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise PeerError(RejectReason.MALFORMED, "a receiving key that is no X25519 key") from None


def _nonce(index: int) -> bytes:
    return index.to_bytes(12, "big")


def _purpose(federation: str, site: str, key_id: bytes) -> bytes:
    """What a model key is sealed for; no name holds a zero byte."""
    return "\0".join((PURPOSE, federation, site, "")).encode() + key_id
