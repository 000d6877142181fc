"""The outbox: what is saved survives a death at any line, and leaves on its receipt only."""

from pathlib import Path
from typing import Any

import pytest

from edge_agent.outbox import Outbox
from fedward.messages import Offer
from fedward.pack import pack

PAYLOAD = b"trained on eight records"


def saved(folder: Path, offer: Offer, payload: bytes = PAYLOAD) -> Outbox:
    outbox = Outbox(folder)
    outbox.save(offer, [payload])
    return outbox


def names(folder: Path) -> set[str]:
    return {path.suffix for path in folder.iterdir()}


def after_a_restart(folder: Path) -> Outbox:
    outbox = Outbox(folder)
    outbox.tidy()
    return outbox


def test_a_saved_update_is_found_by_the_next_process(tmp_path: Path, new_offer: Any) -> None:
    offer = new_offer(payload=PAYLOAD)
    saved(tmp_path, offer)
    (entry,) = after_a_restart(tmp_path).entries()
    assert entry.offer == offer
    assert entry.payload.read_bytes() == PAYLOAD


def test_updates_come_in_the_order_of_their_sequence(tmp_path: Path, new_offer: Any) -> None:
    outbox = Outbox(tmp_path)
    for sequence in (3, 1, 2):
        outbox.save(new_offer(payload=PAYLOAD, sequence=sequence), [PAYLOAD])
    assert [entry.offer.sequence for entry in outbox.entries()] == [1, 2, 3]


def test_a_small_update_rides_inside_its_offer_and_a_large_one_does_not(tmp_path: Path, new_offer: Any) -> None:
    for payload, inside in ((PAYLOAD, PAYLOAD), (bytes(200_000), None)):
        offer = new_offer(payload=payload)
        (entry,) = saved(tmp_path / str(len(payload)), offer, payload).entries()
        assert entry.offer_to_send().payload == inside
        assert entry.chunk(0) == payload


def test_what_is_deleted_is_held_no_more(tmp_path: Path, new_offer: Any) -> None:
    offer = new_offer(payload=PAYLOAD)
    outbox = saved(tmp_path, offer)
    assert outbox.holds(offer.update_id)
    outbox.delete(offer.update_id)
    assert not outbox.holds(offer.update_id)
    assert list(tmp_path.iterdir()) == []


def test_killed_while_saving_before_the_offer_the_update_does_not_count(tmp_path: Path, new_offer: Any) -> None:
    offer = new_offer(payload=PAYLOAD)
    saved(tmp_path, offer)
    (tmp_path / f"{offer.update_id.hex()}.offer").rename(tmp_path / f".{offer.update_id.hex()}.offer.7.part")
    assert after_a_restart(tmp_path).entries() == ()
    assert list(tmp_path.iterdir()) == []


def test_killed_while_deleting_the_update_stays_deleted(tmp_path: Path, new_offer: Any) -> None:
    offer = new_offer(payload=PAYLOAD)
    saved(tmp_path, offer)
    (tmp_path / f"{offer.update_id.hex()}.offer").unlink()
    assert after_a_restart(tmp_path).entries() == ()
    assert list(tmp_path.iterdir()) == []


def test_one_who_only_looks_deletes_nothing_while_another_process_saves(tmp_path: Path, new_offer: Any) -> None:
    offer = new_offer(payload=PAYLOAD)
    payload = tmp_path / f"{offer.update_id.hex()}.payload"
    partial = tmp_path / f".{offer.update_id.hex()}.offer.7.part"
    payload.write_bytes(PAYLOAD)
    partial.write_bytes(pack(offer))
    assert Outbox(tmp_path).entries() == ()
    assert payload.exists()
    assert partial.exists()


@pytest.mark.parametrize("damage", [b"", b"\xc1", b"\x81\xa1v\x02"])
def test_an_offer_of_another_format_is_kept_aside_with_its_payload(
    tmp_path: Path, new_offer: Any, damage: bytes
) -> None:
    offer = new_offer(payload=PAYLOAD)
    saved(tmp_path, offer)
    (tmp_path / f"{offer.update_id.hex()}.offer").write_bytes(damage)
    for _ in range(2):
        assert after_a_restart(tmp_path).entries() == ()
        assert names(tmp_path) == {".unreadable", ".payload"}


@pytest.mark.parametrize("damage", [b"", b"trained on eight RECORDS", None])
def test_an_update_whose_payload_is_damaged_is_kept_aside_and_never_offered(
    tmp_path: Path, new_offer: Any, damage: bytes | None
) -> None:
    offer = new_offer(payload=PAYLOAD)
    saved(tmp_path, offer)
    payload = tmp_path / f"{offer.update_id.hex()}.payload"
    payload.unlink() if damage is None else payload.write_bytes(damage)
    assert after_a_restart(tmp_path).entries() == ()
    assert ".unreadable" in names(tmp_path)
