"""The model keys that this process was given: what opens the chunks of a model that is sealed to the members.

Nothing is kept on disk. A new process makes a new key to receive with, its status names that, and the coordinator
answers each status of a member with the model key; so a site that lacks the key says again that it is there.
"""

import logging
from collections.abc import Iterator
from dataclasses import replace

from fedward.errors import PeerError, RejectReason
from fedward.identity.model_key import KeyReceiver, ModelKey
from fedward.messages import Chunk, SealedKey

LOG = logging.getLogger(__name__)

KEPT = 3
"""Keys that are remembered: chunks of the one before may be on their way when a key is replaced."""

KEY_AGAIN_S = 4.0
"""Seconds after which a key that did not come is asked for, at first; doubles up to LONGEST_KEY_S."""

LONGEST_KEY_S = 60.0


class ModelKeys:
    """The keys of one process, the newest last, and when to ask for one."""

    def __init__(self, federation: str, site: str, boot_id: bytes) -> None:
        self._receiver = KeyReceiver(federation, site)
        self._boot_id = boot_id
        self._keys: dict[bytes, ModelKey] = {}
        self._wait_s = KEY_AGAIN_S
        self._ask_at_s: float | None = None

    @property
    def receiving_key(self) -> bytes:
        """What the status names: model keys for this process are sealed to it."""
        return self._receiver.public

    def take(self, message: SealedKey) -> None:
        """Remember a key. Raises PeerError (CANNOT_OPEN) for one that is meant for this process, and is not."""
        if message.boot_id != self._boot_id:
            return  # for the process before, and late
        key = self._receiver.open(message)
        if key.key_id not in self._keys:
            self._ask_at_s = None
            LOG.info("model_key", extra={"key_id": key.key_id.hex()})
        self._keys.pop(key.key_id, None)
        self._keys[key.key_id] = key
        for known in list(self._keys)[:-KEPT]:
            del self._keys[known]

    def lacks(self, key_id: bytes | None) -> bool:
        """Whether the key that is announced by this name, if any, did not come yet."""
        return key_id is not None and key_id not in self._keys

    def asks(self, now_s: float) -> bool:
        """Whether to ask now for the key that is lacked: called as long as it is."""
        if self._ask_at_s is None:
            self._ask_at_s, self._wait_s = now_s + KEY_AGAIN_S, KEY_AGAIN_S
        if now_s < self._ask_at_s:
            return False
        self._wait_s = min(2 * self._wait_s, LONGEST_KEY_S)
        self._ask_at_s = now_s + self._wait_s
        return True

    def opened(self, chunk: Chunk, key_id: bytes | None) -> Chunk:
        """A chunk of what is announced with this key, or with none.

        Raises PeerError (CANNOT_OPEN) for what was changed, or sealed with a key that is not known here.
        """
        if key_id is None:
            return chunk
        for key in self._likely_first(key_id):
            try:
                return replace(chunk, payload=key.open(chunk.owner, chunk.index, chunk.payload))
            except PeerError:
                continue  # sealed with another one, shortly before or after a key was replaced
        raise PeerError(RejectReason.CANNOT_OPEN, f"chunk {chunk.index}: sealed with no key that is known here")

    def _likely_first(self, key_id: bytes) -> Iterator[ModelKey]:
        yield from sorted(self._keys.values(), key=lambda key: key.key_id != key_id)
