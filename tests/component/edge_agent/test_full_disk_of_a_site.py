"""A site's disk that really is full: what the agent left there itself goes away, and what it needs stays free."""

from pathlib import Path

import pytest

from fedward.disk import RESERVE_BYTES, free_bytes
from fedward.testing import MemoryBroker
from tests.support.disk import fill, small_disk
from tests.support.hospital import Hospital
from tests.support.office import site_config


def test_an_agent_starts_on_a_disk_that_is_full_of_what_it_left_half_written(
    tmp_path: Path, broker: MemoryBroker
) -> None:
    with small_disk(tmp_path / "state"):
        config = site_config(tmp_path)
        rubbish = config.state_folder / "training" / ".checkpoint.safetensors.7.part"
        rubbish.parent.mkdir(parents=True)
        try:
            with rubbish.open("wb") as file:
                file.write(bytes(free_bytes(config.state_folder)))
        except OSError:
            pass  # the rest of a page
        hospital = Hospital(config, broker)
        hospital.office.announce()
        hospital.settle()
        assert not rubbish.exists()
        assert hospital.page["phase"] == "publishing"
        hospital.kill()


def test_a_checkpoint_leaves_free_what_the_update_and_the_counters_need(
    tmp_path: Path, broker: MemoryBroker, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "state" / "training"
    with small_disk(folder):
        hospital = Hospital(site_config(tmp_path, checkpoint_s=0.0), broker)
        filler = fill(folder)
        hospital.office.announce()
        hospital.settle()
        assert [record.msg for record in caplog.records].count("checkpoint_not_saved") > 0
        assert free_bytes(folder) == RESERVE_BYTES
        assert [path.name for path in folder.iterdir()] == [filler.name]
        assert hospital.page["phase"] == "publishing"
        hospital.kill()
