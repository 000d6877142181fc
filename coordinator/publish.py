"""What the coordinator sends: announcements, grants, receipts, control, and the model's chunks to those who ask.

Requests for a part are gathered for `gather_s`, or until there is nobody left who could ask. A chunk that several
sites asked for by then is published once for all of them; one that a single site lacks goes to that site alone. So
what leaves the coordinator does not grow with the number of hospitals.
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
    """The chunks of one part that are asked for, in the order in which they are sent, each with who lacks it."""

    manifest: Manifest
    send_at_s: float
    sites: set[str] = field(default_factory=set)
    chunks: dict[int, set[str]] = field(default_factory=dict)


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
        """By the digest of the part, in the order of the requests."""

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
        for index in indices:
            asked.chunks.setdefault(index, set()).add(site)
        if online and asked.sites.issuperset(online):
            asked.send_at_s = min(asked.send_at_s, now_s)

    def send_chunks(self, now_s: float) -> None:
        """Send the chunks of the parts that are gathered, oldest request first, as far as the link has room."""
        for _ in range(CHUNKS_AT_ONCE):
            digest = next((digest for digest, asked in self._asked.items() if asked.send_at_s <= now_s), None)
            if digest is None or self._link.room() == 0:
                break
            self._send_chunk(self._asked[digest].manifest, self._asked[digest].chunks)
            if not self._asked[digest].chunks:
                del self._asked[digest]

    def next_at_s(self) -> float | None:
        """When `send_chunks` has something to do; with the window full, the link's `Room` event tells."""
        if not self._asked or self._link.room() == 0:
            return None
        return min(asked.send_at_s for asked in self._asked.values())

    def forget_asked(self) -> None:
        """The link was lost: whoever still lacks a chunk asks again."""
        self._asked.clear()

    def _packed(self, message: object, receiver: str) -> bytes:
        return pack(message, self._sign_to and self._sign_to(receiver))

    def _send_chunk(self, manifest: Manifest, chunks: dict[int, set[str]]) -> None:
        """Sealed once, where chunks are sealed, however many sites it is for."""
        index = next(iter(chunks))
        sites = chunks.pop(index)
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
