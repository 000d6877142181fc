"""The codec that an update leaves in: by the link's rate, by what the federation takes, by the hospital's policy."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from edge_agent.attempts import TRY_AGAIN_S
from edge_agent.config import SiteConfig
from edge_agent.training.checkpoint import CheckpointFile
from fedward.chunks import num_chunks
from fedward.codec import codec, decode
from fedward.messages import Grant, Offer, Range, Work
from fedward.testing import MemoryBroker
from fedward.topics import Down
from tests.support.hospital import Hospital
from tests.support.office import site_config

NUM_INPUTS = 600_000
"""An update of 300 kB in eden4, of 150 kB in eden2, of 75 kB in eden1."""

WORK = Work(local_epochs=1, batch_size=4, local_lr=1e-12)
CODECS = ("q8", "eden4", "eden2", "eden1")
THREE_STEPS = Work(local_epochs=3, batch_size=8, local_lr=0.1)


@pytest.fixture
def wide(broker: MemoryBroker, tmp_path: Path) -> Iterator[Callable[..., Hospital]]:
    """A hospital whose model takes several chunks, with this policy; on the same folder and wire each time."""

    running = list[Hospital]()

    def start(**policy: Any) -> Hospital:
        running.append(Hospital(site_config(tmp_path, policy=policy), broker, NUM_INPUTS))
        return running[-1]

    yield start
    for hospital in running:
        hospital.compute.stop(10.0)


def announce(hospital: Hospital, asked: str = "eden4", codecs: tuple[str, ...] | None = CODECS) -> None:
    hospital.office.announce(work=WORK, codec=asked, codecs=codecs)
    hospital.settle()


def newest_offer(hospital: Hospital) -> Offer:
    return hospital.office.messages(Offer)[-1]  # type: ignore[no-any-return]  # of any kind of message


def grant(hospital: Hospital, offer: Offer) -> None:
    """All of its chunks are on their way then."""
    chunks = Range(start=0, stop=num_chunks(offer.manifest))
    hospital.office.tell(Down.GRANT, Grant(update_id=offer.update_id, missing=(chunks,)))
    hospital.take_events()


def upload(hospital: Hospital, broker: MemoryBroker, seconds: float) -> None:
    """The offered update, granted whole, takes this long to the broker; and then it is accepted."""
    offer = newest_offer(hospital)
    broker.pause()
    grant(hospital, offer)
    hospital.clock.advance(seconds)
    broker.resume()
    hospital.take_events()
    hospital.office.receipt(offer)
    hospital.settle()
    assert hospital.page["outbox"] == 0


def next_offer(hospital: Hospital, asked: str = "eden4") -> Offer:
    hospital.office.next_version()
    announce(hospital, asked)
    return newest_offer(hospital)


def test_a_site_whose_link_is_not_known_yet_sends_what_is_asked_for(wide: Any) -> None:
    hospital = wide()
    announce(hospital)
    offer = newest_offer(hospital)
    assert offer.codec == hospital.page["codec"] == "eden4"
    assert offer.manifest.size_bytes == codec("eden4").most_bytes(hospital.office.layout)


def test_a_slow_link_gets_updates_of_fewer_bits_and_a_fast_one_does_not(wide: Any, broker: MemoryBroker) -> None:
    hospital = wide()
    announce(hospital)
    upload(hospital, broker, seconds=10.0)
    assert next_offer(hospital).codec == "eden4"
    upload(hospital, broker, seconds=600.0)  # 0.5 kB/s, after 30 kB/s
    assert hospital.page["uplink_bytes_s"] == pytest.approx(3900, rel=0.05)
    offer = next_offer(hospital)
    assert offer.codec == hospital.page["codec"] == "eden2"
    payload = (hospital.config.state_folder / "outbox" / f"{offer.update_id.hex()}.payload").read_bytes()
    decode(payload, codec("eden2"), hospital.office.layout, offer.update_id)  # it is what it says


def test_the_rate_of_the_link_outlives_the_process(wide: Any, broker: MemoryBroker) -> None:
    hospital = wide()
    announce(hospital)
    upload(hospital, broker, seconds=250.0)
    known = hospital.page["uplink_bytes_s"]
    hospital.restart()
    hospital.settle()
    assert hospital.page["uplink_bytes_s"] == known > 0
    assert next_offer(hospital).codec == "eden1"


def test_a_connection_that_is_lost_does_not_count_as_an_upload(wide: Any, broker: MemoryBroker) -> None:
    hospital = wide()
    announce(hospital)
    broker.pause()
    grant(hospital, newest_offer(hospital))
    hospital.clock.advance(100.0)
    hospital.link.drop()
    hospital.take_events()
    broker.resume()
    hospital.wait(1.0)
    assert hospital.page["uplink_bytes_s"] is None


def test_a_receipt_that_comes_before_the_news_of_its_connection_does_not_count_as_an_upload(
    wide: Any, broker: MemoryBroker
) -> None:
    hospital = wide()
    announce(hospital)
    offer = newest_offer(hospital)
    broker.pause()
    grant(hospital, offer)
    hospital.clock.advance(100.0)
    hospital.link.went_down()
    hospital.take_events()
    broker.resume()
    hospital.office.receipt(offer)  # kept in the session, and the first that a new connection brings
    hospital.link.open()
    hospital.settle()
    assert hospital.page["num_accepted"] == 1
    assert hospital.page["uplink_bytes_s"] is None


def test_what_was_sent_before_the_offer_does_not_count_as_its_arrival(broker: MemoryBroker, tmp_path: Path) -> None:
    config = site_config(tmp_path)
    hospital = Hospital(config, broker)
    announce(hospital)
    hospital.kill()
    (config.state_folder / "progress.json").write_text(json.dumps({"uplink_bytes_s": 1.0}))
    hospital.office.next_version()
    hospital.office.announce(work=WORK)
    broker.pause()
    hospital.start()
    hospital.inbox.put(hospital.inbox.get_nowait())  # brokers hand out what is retained before they let us know
    hospital.take_events()  # Get and Status go, and then the offer that waits in the outbox, with its payload
    broker.take_one()
    broker.take_one()
    hospital.wait(0.25)
    assert hospital.page["uplink_bytes_s"] == 1.0
    broker.resume()
    hospital.wait(1.0)
    assert hospital.page["uplink_bytes_s"] > 1.0


def test_beside_a_long_training_an_upload_may_take_a_quarter_of_its_time(wide: Any, config: SiteConfig) -> None:
    config.state_folder.mkdir()
    (config.state_folder / "progress.json").write_text(json.dumps({"uplink_bytes_s": 1000.0, "work_s": 1600.0}))
    hospital = wide()
    announce(hospital, asked="q8")
    assert newest_offer(hospital).codec == "eden4", "300 s of 400 s; q8 would take 600 s"


def test_the_hospital_decides_how_long_an_upload_may_take(wide: Any, broker: MemoryBroker) -> None:
    hospital = wide(upload_s=300.0)
    announce(hospital)
    upload(hospital, broker, seconds=250.0)
    assert next_offer(hospital).codec == "eden4"


def test_a_version_that_asks_for_more_precision_gets_it_where_the_link_is_fast_enough(
    wide: Any, broker: MemoryBroker
) -> None:
    hospital = wide()
    announce(hospital)
    upload(hospital, broker, seconds=20.0)  # 15 kB/s: 600 kB in 40 s
    assert next_offer(hospital, asked="q8").codec == "q8"
    upload(hospital, broker, seconds=160.0)  # 3.75 kB/s: 7.5 by now, 80 s
    assert next_offer(hospital, asked="q8").codec == "eden4"


def test_the_policy_narrows_what_the_federation_allows(wide: Any) -> None:
    hospital = wide(codecs=["eden2", "f32"])
    announce(hospital)
    assert newest_offer(hospital).codec == "eden2"


def test_a_site_that_may_use_none_of_the_codecs_does_not_train_and_says_why(wide: Any) -> None:
    hospital = wide(codecs=["f32"])
    announce(hospital)
    assert hospital.page["refused"]["unknown_codec"] == 1
    assert hospital.page["announced"] is None
    assert hospital.office.messages(Offer) == []
    announce(hospital, codecs=("f32",))
    assert newest_offer(hospital).codec == "f32"


def test_an_older_coordinator_gets_the_one_codec_that_it_announces(wide: Any, broker: MemoryBroker) -> None:
    hospital = wide()
    announce(hospital)
    upload(hospital, broker, seconds=600.0)
    hospital.office.next_version()
    announce(hospital, codecs=None)
    assert newest_offer(hospital).codec == "eden4"


@pytest.fixture
def interrupted(broker: MemoryBroker, tmp_path: Path) -> Hospital:
    """A training of three steps for f32 that failed in the last one, with the other two in its checkpoint."""
    hospital = Hospital(site_config(tmp_path, checkpoint_s=0.0), broker)
    hospital.task.held_out = TensorDataset(torch.zeros(0, 2), torch.zeros(0, 1))
    hospital.task.before_loss = failing_in_the_third_step()
    hospital.office.announce(codec="f32", work=THREE_STEPS)
    hospital.settle()
    assert hospital.office.messages(Offer) == []
    return hospital


@pytest.mark.parametrize(
    ("codecs", "expected"),
    [(("f32", "eden1"), "f32"), (("eden1",), "eden1")],
    ids=["still allowed", "not allowed any more"],
)
def test_an_unfinished_update_goes_on_and_keeps_its_codec_as_long_as_that_is_allowed(
    interrupted: Hospital, codecs: tuple[str, ...], expected: str
) -> None:
    interrupted.kill()
    interrupted.office.announce(codec="eden1", codecs=codecs, work=THREE_STEPS)
    steps = counted_steps(interrupted)
    interrupted.start()
    interrupted.settle()
    assert newest_offer(interrupted).codec == expected
    assert len(steps) == 1


def test_an_unfinished_update_for_a_codec_that_this_release_does_not_know_goes_on(interrupted: Hospital) -> None:
    interrupted.kill()
    file = CheckpointFile(interrupted.config.state_folder / "training", 0.0)
    checkpoint = file.load()
    assert checkpoint is not None
    file.save(replace(checkpoint, order=replace(checkpoint.order, codec="eden9")))
    steps = counted_steps(interrupted)
    interrupted.start()
    interrupted.settle()
    assert newest_offer(interrupted).codec == "f32"
    assert len(steps) == 1


def test_a_retry_in_another_codec_goes_on_from_the_checkpoint(interrupted: Hospital) -> None:
    interrupted.office.announce(codec="eden1", codecs=("eden1",), work=THREE_STEPS)
    steps = counted_steps(interrupted)
    interrupted.settle()
    interrupted.wait(TRY_AGAIN_S)
    assert newest_offer(interrupted).codec == "eden1"
    assert len(steps) == 1


def counted_steps(hospital: Hospital) -> list[None]:
    """One item for each step from now on."""
    steps: list[None] = []
    hospital.task.before_loss = lambda: steps.append(None)
    return steps


def failing_in_the_third_step() -> Callable[[], object]:
    steps = count(1)

    def look() -> None:
        if next(steps) == 3:
            raise ValueError

    return look
