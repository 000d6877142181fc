"""Who holds the model key: it is made here, given to members only, and replaced when one of them is none any more.

It is in memory only. A new process makes a new one, which reaches every member as soon as its status comes. So it can't
be lost, come back from an old copy of the state, or be read from a disk, and no death matters to it.
"""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from coordinator.config import FederationConfig
from fedward.chunks import is_promised
from fedward.identity.certificates import Certificate
from fedward.identity.model_key import ModelKey, check_receiver
from fedward.messages import Manifest, SealedKey, Status

LOG = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
"""Between two looks for certificates that have ended; who is enrolled is looked at as soon as that changes."""


@dataclass(frozen=True)
class Receiver:
    """A process that the key can be given to, and the fingerprint of the member that has said so."""

    fingerprint: str
    boot_id: bytes
    public: bytes


class KeyKeeper:
    """The model key of one federation, in one process of its coordinator."""

    def __init__(self, federation: str, listed: Collection[str]) -> None:
        """`listed` are the sites of the configuration. Nobody is a member before the first `look`."""
        self._federation = federation
        self._listed = frozenset(listed)
        self._seen: tuple[Mapping[str, Certificate], float] = {}, 0.0
        self._members: Mapping[str, str] = {}
        self._receivers: dict[str, Receiver] = {}
        self._key = ModelKey.new()
        self._holders: dict[str, str] = {}

    @property
    def key_id(self) -> bytes:
        """What announcements call the key in use."""
        return self._key.key_id

    def look(self, sites: Mapping[str, Certificate], now_s: float) -> bool:
        """Take in who is enrolled now; whether the key is another one since. `now_s` is what certificates go by.

        `sites` may be replaced and never changed: it is called often.
        """
        before, looked_at_s = self._seen
        if sites is before and 0 <= now_s - looked_at_s < LOOK_EVERY_S:
            return False
        self._seen = sites, now_s
        self._members = {
            site: certificate.fingerprint
            for site, certificate in sites.items()
            if site in self._listed and now_s <= certificate.not_after_s
        }
        if not is_spent(self._holders, self._members):
            return False
        self._key, self._holders = ModelKey.new(), {}
        LOG.info("model_key_replaced", extra={"key_id": self.key_id.hex()})
        return True

    def heard(self, site: str, status: Status) -> None:
        """Note which process of a member there is. Raises PeerError for a key that nothing can be sealed to."""
        known = self._receivers.get(site)
        if not status.online:
            if known and known.boot_id == status.boot_id:
                del self._receivers[site]
            return
        if status.receiving_key is None or site not in self._members:
            return
        check_receiver(status.receiving_key)
        self._receivers[site] = Receiver(self._members[site], status.boot_id, status.receiving_key)

    def hand_out(self, *sites: str) -> dict[str, SealedKey]:
        """The key for each of these sites that is there, or for all without an argument."""
        given = {}
        for site, receiver in self._receivers.items():
            if (not sites or site in sites) and self._members.get(site) == receiver.fingerprint:
                self._holders[site] = receiver.fingerprint
                given[site] = self._key.sealed_to(receiver.public, receiver.boot_id, self._federation, site)
        return given

    def close(self, manifest: Manifest, index: int, chunk: bytes) -> bytes | None:
        """A chunk of a part, sealed; None for bytes that are not the promised ones: those may not have its nonce."""
        if not is_promised(manifest, index, chunk):
            LOG.error("blob_damaged", extra={"digest": manifest.digest.hex(), "chunk": index})
            return None
        return self._key.close(manifest.digest, index, chunk)


def is_spent(holders: Mapping[str, str], members: Mapping[str, str]) -> bool:
    """Whether somebody has the key who is no member any more. Both are by site, of fingerprints."""
    return not holders.items() <= members.items()


def keeper_of(config: FederationConfig) -> KeyKeeper | None:
    """None where the model travels open."""
    return KeyKeeper(config.federation, config.sites) if config.sealed_model else None
