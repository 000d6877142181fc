"""Keeps the held version up with the announced one: asks for chunks, and hands out the download that is complete.

Who holds nothing may make version 0 in place of downloading a snapshot, and goes on from there.
"""

import logging
from collections.abc import Callable

from edge_agent.asking import Asking
from edge_agent.download import Download
from edge_agent.models import Held, ModelFolder
from edge_agent.voice import Pack
from fedward import topics
from fedward.layout import Layout
from fedward.messages import Announcement, Chunk, Get, Initial
from fedward.pack import pack
from fedward.ports import Link
from fedward.recipe import initial_to_make
from fedward.topics import Up

LOG = logging.getLogger(__name__)

Opened = Callable[[Chunk, bytes | None], Chunk]
"""A chunk as it travelled, and the id of the announced model key -> the chunk. Raises PeerError (CANNOT_OPEN)."""


class Fetcher:
    """Keeps the held version up with the announced one, one download at a time."""

    def __init__(
        self,
        link: Link,
        site: str,
        folder: ModelFolder,
        pack: Pack = pack,
        opened: Opened = lambda chunk, _key_id: chunk,
    ) -> None:
        self._link = link
        self._pack = pack
        self._opened = opened
        self._site = site
        self._folder = folder
        self._asking = Asking()
        self._download: Download | None = None
        self._looked_on_disk = False
        self._tried: Initial | None = None
        self.held: Held | None = None
        self.num_fetched = 0

    def recall(self, announcement: Announcement, layout: Layout) -> None:
        """Take what an earlier process left on disk, once; drop what only shares its number with the announced one."""
        if not self._looked_on_disk:
            self._looked_on_disk = True
            self.held = self._folder.load(layout)
        held = self.held
        if held is None:
            return
        same_number = held.version == announcement.version
        if held.vector_P.size != layout.size or (same_number and held.digest != announcement.model_digest):
            self.forget()

    def take_initial(self, announcement: Announcement) -> Initial | None:
        """How to make version 0 here, where nothing is held and fewer bytes lead on from there.

        Told once, and `made` takes what comes of it: if another model came out, or what it leads to is wrong, only a
        snapshot helps. Raises PeerError when the announcement leads nowhere.
        """
        initial = initial_to_make(announcement) if self.held is None else None
        if initial is None or initial == self._tried:
            return None
        self._tried = initial
        return initial

    def made(self, held: Held | None) -> None:
        """Version 0 was made and is on disk; None where another model came out: another torch, or other options."""
        if held is None:
            LOG.warning("initial_model_differs")  # from the announced one, which is downloaded now
            return
        self.held = held
        LOG.info("made", extra={"version": held.version})

    def step(self, announcement: Announcement, layout: Layout, now_s: float) -> Download | None:
        """Go on with the download of this version; the download itself once it is complete, to be assembled.

        `hold` or `forget` takes what comes of that. Raises PeerError when the announcement leads nowhere.
        """
        if self._download is None or not self._download.leads_to(announcement):
            self._begin(announcement, layout)
        download = self._download
        if download is None:
            return None
        if download.complete:
            self._download = None
            self._asking.begin(())
            self._link.unsubscribe(*download.filters())
            return download
        if download.announcement is not announcement:  # said again: by a coordinator that lost its link, for instance
            download.announcement = announcement
            self._asking.ask_now()
        for digest, missing in self._asking.due(now_s, download.missing).items():
            get = Get(federation=announcement.federation, digest=digest, missing=missing)
            self._link.publish(topics.up(announcement.federation, self._site, Up.GET), self._pack(get), expiry_s=60)
        return None

    def hold(self, held: Held) -> None:
        """A version was assembled, and is on disk."""
        self.held = held
        self.num_fetched += 1
        LOG.info("fetched", extra={"version": held.version})

    def forget(self) -> None:
        """Drop the held version: the next download starts from a snapshot."""
        self.held = None
        self._folder.forget()

    def add(self, chunk: Chunk, now_s: float) -> None:
        """Take a chunk, if it is of the version being fetched. Raises PeerError for one that is not what it says."""
        if self._download and self._download.collects(chunk):
            self._asking.came(chunk.owner, chunk.index, now_s)
            self._download.add(self._opened(chunk, self._download.announcement.model_key_id))

    def ask_now(self) -> None:
        """The link or the coordinator is new."""
        self._asking.ask_now()

    def close(self) -> None:
        """Leave what was collected for the next process."""
        if self._download:
            self._download.close()

    def _begin(self, announcement: Announcement, layout: Layout) -> None:
        """The old download is closed first: the new one reads the parts that they share from disk."""
        before = self._download.filters() if self._download else set()
        self.close()
        self._download = None
        wanted: set[str] = set()
        try:
            self._download = Download(announcement, self.held, layout, self._folder)
            wanted = set() if self._download.complete else self._download.filters()
        finally:
            self._asking.begin(self._download.manifests() if self._download else ())
            self._link.unsubscribe(*(before - wanted))
            self._link.subscribe(*(wanted - before))
