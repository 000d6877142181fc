"""What the coordinator sends: announcements, grants, receipts, control, and the model's chunks to those who ask.

Requests for a part are gathered for `gather_s`, or until there is nobody left who could ask. A chunk that several
sites asked for by then is published once for all of them; one that a single site lacks goes to that site alone. So
what leaves the coordinator does not grow with the number of hospitals. Sites take turns: one that asks for everything
again and again delays the others by its own share.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from coordinator.blobs import BlobFolder
from fedward import topics
from fedward.chunks import chunk_of, indices_of
from fedward.identity.signing import EVERYBODY
from fedward.messages import Announcement, Control, Get, Grant, Manifest, Part, Receipt, Renewed, SealedKey
from fedward.pack import Sign, pack
from fedward.ports import Link
from fedward.topics import Down

SHARED_FROM = 2
"""Sites that ask for a chunk at which it is published for all."""

CHUNKS_AT_ONCE = 64
"""Chunks sent before other events are looked at again."""

SignTo = Callable[[str], Sign]
"""Receiver -> what signs the coordinator's messages to it."""

Close = Callable[[Manifest, int, bytes], bytes | None]
"""A part, the index of a chunk and its bytes -> what travels; None: it may not."""


@dataclass
class _Asked:
    """The chunks of one part that are asked for, each with who lacks it."""

    manifest: Manifest
    send_at_s: float
    sites: set[str] = field(default_factory=set)
    chunks: dict[int, set[str]] = field(default_factory=dict)


Lacking = dict[bytes, dict[int, None]]
"""Digest of a part -> the chunks of it that a site lacks; both in the order of its requests."""


class Publisher:
    """Sends over the link; keeps nothing that a restart would have to know: whoever lacks something asks again."""

    def __init__(
        self,
        link: Link,
        federation: str,
        blobs: BlobFolder,
        gather_s: float,
        sign_to: SignTo | None = None,
        close: Close | None = None,
    ) -> None:
        """Without `sign_to` nothing is signed, and without `close` chunks travel as they are."""
        self._link = link
        self._sign_to = sign_to
        self._close = close
        self._federation = federation
        self._blobs = blobs
        self._gather_s = gather_s
        self._asked: dict[bytes, _Asked] = {}
        """By the digest of the part."""
        self._turns: dict[str, Lacking] = {}
        """Of each site, in the order of their turns."""

    def announce(self, announcement: Announcement) -> None:
        self._link.publish(topics.announce(self._federation), self._packed(announcement, EVERYBODY), retain=True)

    def grant(self, site: str, grant: Grant) -> None:
        self._link.publish(topics.down(self._federation, site, Down.GRANT), self._packed(grant, site), expiry_s=600)

    def receipt(self, site: str, receipt: Receipt) -> None:
        self._link.publish(
            topics.down(self._federation, site, Down.RECEIPT), self._packed(receipt, site), expiry_s=7 * 86_400
        )

    def control(self, site: str, control: Control) -> None:
        self._link.publish(topics.down(self._federation, site, Down.CONTROL), self._packed(control, site), retain=True)

    def renewed(self, site: str, renewed: Renewed) -> None:
        self._link.publish(topics.down(self._federation, site, Down.RENEWED), self._packed(renewed, site), expiry_s=600)

    def key(self, site: str, key: SealedKey) -> None:
        self._link.publish(topics.down(self._federation, site, Down.KEY), self._packed(key, site), expiry_s=600)

    def ask(self, site: str, get: Get, part: Part, now_s: float, online: Collection[str]) -> None:
        """Note which chunks of `part` the site lacks; they leave with `send_chunks`.

        They are gathered until now when all sites that are `online` have asked for this part; where that is empty, it
        is not known yet who is there, and they are gathered for the whole `gather_s`.
        """
        indices = list(indices_of(get.missing, part.manifest))
        if not indices:
            return
        asked = self._asked.setdefault(part.manifest.digest, _Asked(part.manifest, now_s + self._gather_s))
        asked.sites.add(site)
        lacking = self._turns.setdefault(site, {}).setdefault(part.manifest.digest, {})
        for index in indices:
            asked.chunks.setdefault(index, set()).add(site)
            lacking[index] = None
        if online and asked.sites.issuperset(online):
            asked.send_at_s = min(asked.send_at_s, now_s)

    def send_chunks(self, now_s: float) -> None:
        """Send the chunks of the parts that are gathered, one for each site in turn, as far as the link has room."""
        for _ in range(CHUNKS_AT_ONCE):
            found = self._next_chunk(now_s) if self._link.room() > 0 else None
            if found is None:
                break
            self._send_chunk(*found)

    def next_at_s(self) -> float | None:
        """When `send_chunks` has something to do; with the window full, the link's `Room` event tells."""
        if not self._asked or self._link.room() == 0:
            return None
        return min(asked.send_at_s for asked in self._asked.values())

    def forget_asked(self) -> None:
        """The link was lost: whoever still lacks a chunk asks again."""
        self._asked.clear()
        self._turns.clear()

    def _packed(self, message: object, receiver: str) -> bytes:
        return pack(message, self._sign_to and self._sign_to(receiver))

    def _next_chunk(self, now_s: float) -> tuple[Manifest, int, set[str]] | None:
        """What the next site lacks first, for all that lack it: it is asked for no more, and that site goes last."""
        for site, lacking in self._turns.items():
            for digest, indices in lacking.items():
                if self._asked[digest].send_at_s <= now_s:
                    self._turns[site] = self._turns.pop(site)
                    return self._take(digest, next(iter(indices)))
        return None

    def _take(self, digest: bytes, index: int) -> tuple[Manifest, int, set[str]]:
        asked = self._asked[digest]
        sites = asked.chunks.pop(index)
        for site in sites:
            lacking = self._turns[site]
            del lacking[digest][index]
            if not lacking[digest]:
                del lacking[digest]
            if not lacking:
                del self._turns[site]
        if not asked.chunks:
            del self._asked[digest]
        return asked.manifest, index, sites

    def _send_chunk(self, manifest: Manifest, index: int, sites: set[str]) -> None:
        """Sealed once, where chunks are sealed, however many sites it is for."""
        path = self._blobs.path(manifest.digest)
        if not path.exists():
            return  # so old by now that it was deleted: the sites follow a newer announcement
        chunk = chunk_of(path, index)
        sent = self._close(manifest, index, chunk) if self._close else chunk
        if sent is None:
            return
        for topic in self._topics(manifest.digest, index, sites):
            self._link.publish(topic, sent, expiry_s=3600)

    def _topics(self, digest: bytes, index: int, sites: set[str]) -> list[str]:
        if len(sites) >= SHARED_FROM:
            return [topics.part_chunk(self._federation, digest, index)]
        return [topics.down_chunk(self._federation, site, digest, index) for site in sites]
