"""Every message that leaves an agent is in its egress log, before it leaves, byte for byte by its digest."""

import errno
import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from edge_agent import egress_log
from edge_agent.cli import EGRESS
from edge_agent.egress_lines import What
from edge_agent.egress_log import lines_in
from edge_agent.egress_report import messages_since, verify
from edge_agent.report import will_of
from fedward.messages import Grant, Offer, Range
from fedward.topics import CARRIED, Down
from tests.support.hospital import Hospital
from tests.support.office import site_config

CHUNKED = 300_000
"""Parameters of a model whose float32 update travels in five chunks."""


def folder_of(hospital: Hospital) -> Path:
    return Path(hospital.config.state_folder / EGRESS)


def fields_in(hospital: Hospital) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines_in(folder_of(hospital))]


def left(hospital: Hospital) -> Counter[tuple[str, int]]:
    """By digest and size, what the log says that left."""
    lines = messages_since(folder_of(hospital))
    return Counter((line["sha256"], line["size"]) for line in lines if line["what"] == What.MESSAGE)


def heard(hospital: Hospital) -> Counter[tuple[str, int]]:
    """What arrived."""
    hospital.office.listen()
    return Counter((hashlib.sha256(payload).hexdigest(), len(payload)) for _, payload in hospital.office.heard)


def upload_all(hospital: Hospital) -> Offer:
    """Until every chunk of the update in the outbox has left."""
    offer: Offer = hospital.office.messages(Offer)[-1]
    num_chunks = len(offer.manifest.chunk_digests) // 32
    hospital.office.tell(Down.GRANT, Grant(update_id=offer.update_id, missing=(Range(start=0, stop=num_chunks),)))
    hospital.settle()
    return offer


def test_what_arrived_is_what_the_log_says_left(tmp_path: Path, broker: Any) -> None:
    hospital = Hospital(site_config(tmp_path), broker, CHUNKED)
    hospital.office.announce()
    hospital.settle()
    offer = upload_all(hospital)
    hospital.link.drop()
    hospital.wait(60)
    hospital.restart()
    hospital.settle()
    hospital.office.receipt(offer)
    hospital.settle()
    hospital.egress.close()
    assert left(hospital) == heard(hospital) - Counter([will_digest(hospital, boot=1)])
    found = verify(folder_of(hospital))
    assert (found.num_killed, found.torn_bytes) == (1, 0)
    kinds = {line["kind"] for line in messages_since(folder_of(hospital)) if line["what"] == What.MESSAGE}
    assert kinds == {"offer", "u", "get", "evaluation", "status", "telemetry"}


def test_what_the_metrics_say_left_is_what_the_log_says(tmp_path: Path, broker: Any) -> None:
    hospital = Hospital(site_config(tmp_path), broker, CHUNKED)
    hospital.office.announce()
    hospital.settle()
    upload_all(hospital)
    hospital.link.went_down()
    assert not hospital.egress.publish("fl/v1/f/up/st-anna/nowhere", b"not sent")
    shown = hospital.page
    num_left: Counter[str] = Counter(dict.fromkeys(CARRIED, 0))
    bytes_left = Counter(num_left)
    for line in messages_since(folder_of(hospital)):
        if line["what"] == What.MESSAGE:
            carried = {"offer": "update", "u": "update"}.get(line["kind"], line["kind"])
            carried = carried if carried in CARRIED else "other"
            num_left[carried] += 1
            bytes_left[carried] += line["size"]
    assert all(num_left.values())
    assert (shown["num_left"], shown["bytes_left"]) == (num_left, bytes_left)
    assert sum(bytes_left.values()) == hospital.link.bytes_sent


def will_digest(hospital: Hospital, boot: int) -> tuple[str, int]:
    payload = will_of(hospital.config, boot.to_bytes(8, "big")).payload
    return hashlib.sha256(payload).hexdigest(), len(payload)


def test_the_will_that_a_killed_agent_leaves_is_in_the_log_since_it_connected(hospital: Hospital) -> None:
    hospital.kill()
    wills = [line for line in fields_in(hospital) if line["what"] == What.WILL]
    assert [(line["sha256"], line["size"]) for line in wills] == [will_digest(hospital, boot=1)]
    assert will_digest(hospital, boot=1) in heard(hospital)


def test_a_line_names_the_version_that_a_message_is_about_and_holds_no_payload(tmp_path: Path, broker: Any) -> None:
    hospital = Hospital(site_config(tmp_path), broker, CHUNKED)
    hospital.office.next_version()
    hospital.office.announce()
    hospital.settle()
    upload_all(hospital)
    hospital.wait(60)
    versions = {line["kind"]: line.get("version") for line in messages_since(folder_of(hospital))}
    assert versions == {"status": None, "get": None, "evaluation": 1, "telemetry": 1, "offer": 1, "u": 1}
    allowed = {"n", "at", "what", "kind", "federation", "version", "size", "sha256", "previous"}
    assert {name for line in messages_since(folder_of(hospital)) for name in line} == allowed


def test_a_line_is_written_before_its_message_and_an_offer_waits_until_it_is_synced(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, str]] = []
    publish, sync = hospital.link.publish, os.fdatasync

    def published(topic: str, payload: bytes, **options: Any) -> bool:
        line = fields_in(hospital)[-1]
        assert line["sha256"] == hashlib.sha256(payload).hexdigest()
        events.append(("sent", topic.split("/")[6]))
        return publish(topic, payload, **options)

    def synced(file: int) -> None:
        events.append(("synced", fields_in(hospital)[-1].get("kind", "")))
        sync(file)

    monkeypatch.setattr(hospital.link, "publish", published)
    monkeypatch.setattr(os, "fdatasync", synced)
    hospital.office.announce()
    hospital.settle()
    offered = events.index(("sent", "offer"))
    assert events[offered - 1] == ("synced", "offer")


def test_what_could_not_be_logged_does_not_leave_and_leaves_when_there_is_room(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_file: int, _content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    hospital.settle()
    before = heard(hospital)
    with monkeypatch.context() as disk:
        disk.setattr(os, "write", full)
        hospital.office.announce()
        for _ in range(20):
            hospital.wait(10)
        assert heard(hospital) == before
        assert [record.msg for record in caplog.records].count("egress_log_full") == 1
    hospital.wait(60)
    assert hospital.office.messages(Offer)
    assert left(hospital) == heard(hospital)


def test_a_message_that_found_no_connection_is_said_not_to_have_left(hospital: Hospital) -> None:
    hospital.office.answers_gets = False
    hospital.office.announce()
    hospital.settle()
    hospital.link.went_down()
    hospital.wait(300)  # asks for chunks all the while
    assert What.UNSENT in [line["what"] for line in fields_in(hospital)]
    assert left(hospital) == heard(hospital)
    hospital.office.answers_gets = True
    hospital.link.open()
    hospital.settle()


def test_the_log_is_synced_while_nothing_happens(hospital: Hospital) -> None:
    hospital.settle()
    hospital.wait(egress_log.SYNC_S)
    (head, _) = egress_log.read_head(folder_of(hospital)) or (None, None)
    assert head is not None
    assert head.n == fields_in(hospital)[-1]["n"]
