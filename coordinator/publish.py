"""What the coordinator sends: announcements, grants, receipts, control, and the model's chunks to those who ask.

A chunk that several sites ask for within `gather_s` is published once for all of them; one that a single site
lacks goes to that site alone. So what leaves the coordinator does not grow with the number of hospitals.
"""

from collections import OrderedDict

from coordinator.blobs import BlobFolder
from fedward import topics
from fedward.chunks import chunk_of, indices_of
from fedward.messages import Announcement, Control, Get, Grant, Part, Receipt
from fedward.pack import pack
from fedward.ports import Link
from fedward.topics import Down

SHARED_FROM = 2
"""Sites that ask for a chunk at which it is published for all."""

CHUNKS_AT_ONCE = 64
"""Chunks sent before other events are looked at again."""


class Publisher:
    """Sends over the link; keeps nothing that a restart would have to know: whoever lacks something asks again."""

    def __init__(self, link: Link, federation: str, blobs: BlobFolder, gather_s: float) -> None:
        self._link = link
        self._federation = federation
        self._blobs = blobs
        self._gather_s = gather_s
        self._asked: OrderedDict[tuple[bytes, int], set[str]] = OrderedDict()
        self._send_at_s: float | None = None

    def announce(self, announcement: Announcement) -> None:
        self._link.publish(topics.announce(self._federation), pack(announcement), retain=True)

    def grant(self, site: str, grant: Grant) -> None:
        self._link.publish(topics.down(self._federation, site, Down.GRANT), pack(grant), expiry_s=600)

    def receipt(self, site: str, receipt: Receipt) -> None:
        self._link.publish(topics.down(self._federation, site, Down.RECEIPT), pack(receipt), expiry_s=7 * 86_400)

    def control(self, site: str, control: Control) -> None:
        self._link.publish(topics.down(self._federation, site, Down.CONTROL), pack(control), retain=True)

    def ask(self, site: str, get: Get, part: Part, now_s: float) -> None:
        """Note which chunks of `part` the site lacks; they leave with `send_chunks`."""
        for index in indices_of(get.missing, part.manifest):
            self._asked.setdefault((part.manifest.digest, index), set()).add(site)
        if self._send_at_s is None:
            self._send_at_s = now_s + self._gather_s

    def send_chunks(self, now_s: float) -> None:
        """Send asked chunks, oldest request first, as far as the link has room."""
        if self._send_at_s is None or now_s < self._send_at_s:
            return
        for _ in range(CHUNKS_AT_ONCE):
            if not self._asked or self._link.room() == 0:
                break
            (digest, index), sites = self._asked.popitem(last=False)
            if not self._blobs.path(digest).exists():
                continue  # so old by now that it was deleted: the sites follow a newer announcement
            chunk = chunk_of(self._blobs.path(digest), index)
            for topic in self._topics(digest, index, sites):
                self._link.publish(topic, chunk, expiry_s=3600)
        if not self._asked:
            self._send_at_s = None

    def next_at_s(self) -> float | None:
        """When `send_chunks` has something to do; with the window full, the link's `Room` event tells."""
        return self._send_at_s if self._asked and self._link.room() > 0 else None

    def forget_asked(self) -> None:
        """The link was lost: whoever still lacks a chunk asks again."""
        self._asked.clear()
        self._send_at_s = None

    def _topics(self, digest: bytes, index: int, sites: set[str]) -> list[str]:
        if len(sites) >= SHARED_FROM:
            return [topics.part_chunk(self._federation, digest, index)]
        return [topics.down_chunk(self._federation, site, digest, index) for site in sites]
