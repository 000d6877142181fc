"""SIGKILL at random, over agents, coordinator and broker: every update that was trained counts once, or was refused."""

from pathlib import Path

import pytest

from benchmarks.chaos import run

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(240)]

INLINE = (64,)
TEN_CHUNKS = (800, 800)


@pytest.mark.parametrize(("hidden", "chunks", "kills"), [(INLINE, 0, 7), (TEN_CHUNKS, 10, 6)])
def test_no_update_is_lost_and_none_counts_twice(
    tmp_path: Path, hidden: tuple[int, ...], chunks: int, kills: int
) -> None:
    outcome = run(tmp_path, seed=4, kills=kills, hidden=hidden, seconds=60)
    assert outcome.difference == []
    assert outcome.moving == []
    assert outcome.kills == kills
    updates = outcome.updates
    assert len(updates.trained) == len(updates.accepted) + len(updates.refused) > 0
    assert updates.accepted == updates.applied
    assert outcome.chunks_received >= chunks * outcome.kills
    assert "every digest is as recorded" in outcome.replay
