"""Downloads: any order, any interruption, and only what the digest of the whole confirms is ever held."""

import queue
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.asking import ASK_AGAIN_S
from edge_agent.download import Download
from edge_agent.fetch import Fetcher
from edge_agent.models import ModelFolder
from fedward import topics
from fedward.chunks import manifest_of
from fedward.codec import codec
from fedward.errors import PeerError, RejectReason
from fedward.limits import CHUNK_BYTES
from fedward.messages import Announcement, Chunk, Get, Manifest, Part, PartKind
from fedward.testing import MemoryBroker, MemoryLink


class Site:
    """One fetcher on a folder, and what it asked for."""

    def __init__(self, broker: MemoryBroker, office: Any, folder: Path) -> None:
        self.office = office
        self.folder = folder
        self.inbox: queue.Queue[Any] = queue.Queue()
        self.link = MemoryLink(broker, "st-anna", self.inbox)
        self.link.open()
        self.fetcher = Fetcher(self.link, "st-anna", ModelFolder(folder))
        office.answers_gets = False

    def step(self, announcement: Announcement, now_s: float = 0.0) -> None:
        self.fetcher.recall(announcement, self.office.layout)
        held = self.fetcher.held
        if held is None or held.version != announcement.version:
            complete = self.fetcher.step(announcement, self.office.layout, now_s)
            if complete:
                self.assemble(complete)

    def assemble(self, complete: Download) -> None:
        try:
            self.fetcher.hold(complete.assemble())
        except PeerError:
            self.fetcher.forget()
            raise

    def asked(self) -> list[tuple[bytes, list[tuple[int, int]]]]:
        """Since the last look: of which part, which ranges."""
        gets = self.office.messages(Get)
        self.office.heard.clear()
        return [(get.digest, [(part.start, part.stop) for part in get.missing]) for get in gets]

    def give(self, part: Part, *indices: int, now_s: float = 0.0) -> None:
        payload = self.office.payloads[part.manifest.digest]
        for index in indices:
            content = payload[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
            self.fetcher.add(Chunk(part.manifest.digest, index, content), now_s)

    def collect(self, announcement: Announcement) -> Download:
        """The whole download, from request to the last chunk."""
        self._answer(announcement)
        complete = self.fetcher.step(announcement, self.office.layout, 0.0)
        assert complete is not None
        return complete

    def fetch(self, announcement: Announcement) -> None:
        """The whole download, from request to the held version."""
        self._answer(announcement)
        self.step(announcement)

    def _answer(self, announcement: Announcement) -> None:
        self.step(announcement)
        for digest, ranges in self.asked():
            (part,) = {part for part in announcement.parts if part.manifest.digest == digest}
            for start, stop in ranges:
                self.give(part, *range(start, stop))

    def parts_on_disk(self) -> set[str]:
        return {path.name for path in (self.folder / "parts").iterdir()}

    def hears(self, part: Part) -> bool:
        """Would a chunk for all reach this site now?"""
        while not self.inbox.empty():
            self.inbox.get_nowait()
        self.office.send_chunk(part.manifest.digest, 0, alone=False)
        return not self.inbox.empty()


@pytest.fixture
def new_site(broker: MemoryBroker, office: Any, tmp_path: Path) -> Iterator[Callable[[], Site]]:
    """A site on the same folder at each call: a restart."""
    sites: list[Site] = []

    def start() -> Site:
        sites.append(Site(broker, office, tmp_path))
        return sites[-1]

    yield start
    for site in sites:
        site.fetcher.close()


@pytest.fixture
def site(new_site: Callable[[], Site]) -> Site:
    return new_site()


def assert_holds(site: Site, version: int) -> None:
    held = site.fetcher.held
    assert held is not None
    assert held.version == version
    np.testing.assert_array_equal(held.vector_P, site.office.vector_P)


def test_the_first_version_comes_as_a_snapshot(site: Site) -> None:
    site.fetch(site.office.announcement())
    assert_holds(site, 0)
    assert site.fetcher.num_fetched == 1
    assert site.parts_on_disk() == set()


def test_a_site_that_is_behind_takes_the_chain_of_deltas(site: Site) -> None:
    site.fetch(site.office.announcement())
    site.office.next_version()
    site.office.vector_P = site.office.vector_P + np.float32(0.25)
    site.office.version = 2
    site.office.add(PartKind.DELTA, "f32", np.full(site.office.layout.size, 0.25, np.float32))
    announcement = site.office.announcement()
    site.step(announcement)
    assert {digest for digest, _ in site.asked()} == {part.manifest.digest for part in announcement.parts[1:]}
    for part in announcement.parts[1:]:
        site.give(part, *range(4))
    site.step(announcement)
    assert_holds(site, 2)


def test_two_deltas_that_are_the_same_payload_are_fetched_once_and_applied_twice(site: Site) -> None:
    site.fetch(site.office.announcement())
    site.office.next_version()
    site.office.next_version()
    site.step(announcement := site.office.announcement())
    assert len(site.asked()) == 1
    site.give(announcement.parts[1], *range(4))
    site.step(announcement)
    assert_holds(site, 2)


def test_a_snapshot_that_is_fewer_bytes_than_the_chain_is_taken(site: Site) -> None:
    site.fetch(site.office.announcement())
    site.office.next_version()
    site.office.vector_P = np.zeros(site.office.layout.size, np.float32)
    snapshot = site.office.add(PartKind.SNAPSHOT, "q8", site.office.vector_P)
    site.step(site.office.announcement())
    assert [digest for digest, _ in site.asked()] == [snapshot.manifest.digest]


@pytest.mark.parametrize("behind", [False, True], ids=["the first version", "a snapshot in place of a chain"])
def test_a_snapshot_is_assembled_in_the_memory_of_one_model(site: Site, behind: bool) -> None:
    if behind:
        site.fetch(site.office.announcement())
        site.office.version = 9
        site.office.parts.clear()
        site.office.add_snapshot()
    complete = site.collect(site.office.announcement())
    tracemalloc.start()
    complete.assemble()
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    model_bytes = 4 * site.office.layout.size
    assert model_bytes < peak_bytes < 1.75 * model_bytes  # and two blocks of a quarter


def test_chunks_may_come_in_any_order_and_twice(site: Site) -> None:
    site.step(announcement := site.office.announcement())
    site.give(announcement.parts[0], 3, 1, 1, 0, 3, 2)
    site.step(announcement)
    assert_holds(site, 0)


def test_a_damaged_chunk_is_refused_and_asked_for_again(site: Site) -> None:
    site.step(announcement := site.office.announcement())
    part = announcement.parts[0]
    site.give(part, 0, 2)
    with pytest.raises(PeerError) as error:
        site.fetcher.add(Chunk(part.manifest.digest, 1, bytes(CHUNK_BYTES)[:-1] + b"x"), 0.0)
    assert error.value.reason is RejectReason.DIGEST_MISMATCH
    site.asked()
    site.step(announcement, ASK_AGAIN_S)
    assert site.asked() == [(part.manifest.digest, [(3, 4)])], "whoever answers will answer this"
    site.give(part, 3, now_s=ASK_AGAIN_S)
    site.step(announcement, 2 * ASK_AGAIN_S)
    assert site.asked() == [(part.manifest.digest, [(1, 2)])]


def test_chunks_of_other_parts_are_ignored(site: Site) -> None:
    site.fetcher.add(Chunk(bytes(32), 0, b"x"), 0.0)
    site.step(site.office.announcement())
    site.fetcher.add(Chunk(bytes(32), 0, b"x"), 0.0)
    assert site.fetcher.held is None


def test_a_restart_in_the_middle_asks_for_what_is_missing_only(site: Site, new_site: Callable[[], Site]) -> None:
    site.step(announcement := site.office.announcement())
    site.give(announcement.parts[0], 1, 3)
    site.fetcher.close()
    site.asked()
    after = new_site()
    after.step(announcement)
    assert after.asked() == [(announcement.parts[0].manifest.digest, [(0, 1), (2, 3)])]
    after.give(announcement.parts[0], 0, 2)
    after.step(announcement)
    assert_holds(after, 0)


def test_a_restart_after_the_last_chunk_asks_for_nothing(site: Site, new_site: Callable[[], Site]) -> None:
    site.step(announcement := site.office.announcement())
    site.give(announcement.parts[0], *range(4))
    site.asked()
    after = new_site()
    after.step(announcement)
    assert after.asked() == []
    assert_holds(after, 0)


def test_a_held_version_survives_a_restart(site: Site, new_site: Callable[[], Site]) -> None:
    site.fetch(announcement := site.office.announcement())
    after = new_site()
    after.step(announcement)
    assert_holds(after, 0)
    assert after.asked() == []


def test_a_newer_announcement_in_the_middle_keeps_the_parts_that_both_need_and_asks_for_new_ones(site: Site) -> None:
    site.step(old := site.office.announcement())
    snapshot = old.parts[0]
    site.give(snapshot, 0, 3)  # the last one is short: it waits in a buffer until the file is closed
    site.asked()
    site.office.next_version()
    site.step(new := site.office.announcement())
    assert site.asked() == [(new.parts[1].manifest.digest, [(0, 4)])], "the others are on their way"
    site.give(snapshot, 1, 2)
    site.give(new.parts[1], *range(4))
    site.step(new)
    assert_holds(site, 1)


def test_parts_that_no_announcement_needs_any_more_leave_the_disk(site: Site) -> None:
    site.step(old := site.office.announcement())
    site.give(old.parts[0], 0)
    site.office.start_over(3.0)
    site.step(new := site.office.announcement())
    assert site.parts_on_disk() == {new.parts[0].manifest.digest.hex()}
    site.give(old.parts[0], 1)  # still on its way: ignored


def test_the_same_version_with_another_digest_is_another_download(site: Site) -> None:
    site.step(site.office.announcement())
    site.office.start_over(3.0)
    site.asked()
    site.fetch(site.office.announcement())
    assert_holds(site, 0)


def test_a_wrong_whole_drops_the_held_version_and_the_next_attempt_takes_a_snapshot(site: Site) -> None:
    site.fetch(site.office.announcement())
    site.office.next_version()
    wrong = site.office.announcement(model_digest=bytes(32))
    with pytest.raises(PeerError) as error:
        site.fetch(wrong)
    assert error.value.reason is RejectReason.DIGEST_MISMATCH
    assert site.fetcher.held is None
    assert site.parts_on_disk() == set()
    site.fetch(announcement := site.office.announcement())
    assert announcement.parts[0].kind is PartKind.SNAPSHOT
    assert_holds(site, 1)


def test_a_part_on_disk_that_a_power_cut_tore_is_asked_for_where_it_is_torn(
    site: Site, new_site: Callable[[], Site]
) -> None:
    site.step(announcement := site.office.announcement())
    site.give(announcement.parts[0], *range(4))
    site.asked()
    (path,) = (site.folder / "parts").iterdir()
    with path.open("r+b") as file:
        file.seek(CHUNK_BYTES)
        file.write(bytes(CHUNK_BYTES))
    after = new_site()
    after.step(announcement)
    assert after.asked() == [(announcement.parts[0].manifest.digest, [(1, 2)])]
    after.give(announcement.parts[0], 1)
    after.step(announcement)
    assert_holds(after, 0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"codec": "zip"}, RejectReason.UNKNOWN_CODEC),
        ({"codec": "q8"}, RejectReason.LAYOUT_MISMATCH),
        ({"manifest": Manifest(size_bytes=2**31, digest=bytes(32), chunk_digests=bytes(32))}, RejectReason.MALFORMED),
        ({"version": 7}, RejectReason.MALFORMED),
    ],
)
def test_an_announcement_that_leads_nowhere_is_refused_before_a_byte_is_asked_for(
    site: Site, changes: dict[str, Any], reason: RejectReason
) -> None:
    part = Part(**{**vars(site.office.parts[0]), **changes})
    with pytest.raises(PeerError) as error:
        site.step(site.office.announcement(parts=(part,)))
    assert error.value.reason is reason
    assert site.asked() == []
    assert site.parts_on_disk() == set()


def test_a_part_that_may_not_carry_a_model_is_refused_before_a_byte_is_asked_for_and_costs_no_held_version(
    site: Site,
) -> None:
    site.fetch(site.office.announcement())
    payload = codec("eden4").encode(site.office.vector_P, site.office.layout, bytes(32))
    part = Part(kind=PartKind.SNAPSHOT, version=1, codec="eden4", manifest=manifest_of(payload))
    with pytest.raises(PeerError) as error:
        site.step(site.office.announcement(version=1, parts=(part,)))
    assert error.value.reason is RejectReason.UNKNOWN_CODEC
    assert site.asked() == []
    assert_holds(site, 0)


def test_a_refused_announcement_in_the_middle_costs_nothing_of_what_was_collected(site: Site) -> None:
    site.step(old := site.office.announcement())
    site.give(old.parts[0], 0)
    site.asked()
    with pytest.raises(PeerError):
        site.step(site.office.announcement(version=1))
    site.give(old.parts[0], 1)
    site.step(old)
    assert site.asked() == [(old.parts[0].manifest.digest, [(1, 4)])]


def test_a_chunk_that_comes_twice_is_a_sign_of_life(site: Site) -> None:
    site.step(announcement := site.office.announcement())
    site.give(announcement.parts[0], 0)
    site.give(announcement.parts[0], 0, now_s=ASK_AGAIN_S - 1)
    site.asked()
    site.step(announcement, ASK_AGAIN_S)
    assert site.asked() == []


def test_of_two_parts_that_are_lacked_silence_probes_for_the_last_chunk_of_the_last_one(site: Site) -> None:
    site.office.next_version()
    site.step(announcement := site.office.announcement())
    snapshot, delta = announcement.parts
    site.give(snapshot, 0)
    site.asked()
    site.step(announcement, ASK_AGAIN_S)
    assert site.asked() == [(delta.manifest.digest, [(3, 4)])]
    site.give(delta, 3, now_s=ASK_AGAIN_S)
    site.step(announcement, 2 * ASK_AGAIN_S)
    assert site.asked() == [(snapshot.manifest.digest, [(1, 4)]), (delta.manifest.digest, [(0, 3)])]


def test_an_announcement_that_says_the_same_again_is_answered_with_a_probe_at_once(site: Site) -> None:
    """Its coordinator may have lost its link, and all that it was asked for."""
    site.step(announcement := site.office.announcement())
    site.asked()
    again = site.office.announcement()
    for _ in range(2):
        site.step(again, 1.0)
    assert site.asked() == [(announcement.parts[0].manifest.digest, [(3, 4)])]


def test_a_part_that_was_fetched_once_is_asked_for_whole_when_it_is_needed_again(site: Site) -> None:
    site.fetch(announcement := site.office.announcement())
    site.fetcher.forget()
    site.step(announcement)
    assert site.asked() == [(announcement.parts[0].manifest.digest, [(0, 4)])]


def test_a_new_link_is_asked_at_once(site: Site) -> None:
    site.fetcher.ask_now()  # nothing is being fetched yet
    site.step(announcement := site.office.announcement())
    site.fetcher.ask_now()
    site.step(announcement, 0.1)
    assert len(site.asked()) == 2


def test_the_chunks_for_all_reach_a_site_only_while_it_downloads(site: Site) -> None:
    announcement = site.office.announcement()
    (part,) = announcement.parts
    heard = [site.hears(part)]
    site.step(announcement)
    heard.append(site.hears(part))
    site.give(part, *range(4))
    site.step(announcement)
    heard.append(site.hears(part))
    assert heard == [False, True, False]


def test_a_part_that_is_not_needed_any_more_is_unsubscribed(site: Site) -> None:
    site.step(old := site.office.announcement())
    site.office.start_over(3.0)
    site.step(site.office.announcement())
    site.office.payloads.setdefault(old.parts[0].manifest.digest, b"x")
    assert not site.hears(old.parts[0])


def test_requests_go_up_on_this_sites_topic(site: Site) -> None:
    site.step(site.office.announcement())
    site.office.listen()
    assert [topic for topic, _ in site.office.heard] == [topics.up("ward", "st-anna", topics.Up.GET)]
