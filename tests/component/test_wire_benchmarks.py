"""What the benchmarks of the wire make of logs, counts and states; and the task that they train without training."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.codecs import resnet_like
from benchmarks.egress import egress
from benchmarks.joiner import Joining
from benchmarks.null_training import STEP, NullTask, install, stands_still
from benchmarks.timed import AGENT_STEPS, COORDINATOR_STEPS, EVENT, find
from benchmarks.version_time import Logs, durations, profile, read, stages, times_of
from benchmarks.wire import Count, cost
from edge_agent.training.module import layout_of, read_vector

SMALL = 30_000


def line(event: str, at_s: float, **fields: Any) -> dict[str, Any]:
    return {"event": event, "at_s": at_s, **fields}


def test_a_version_lasts_from_its_line_to_that_of_the_next_one_and_those_of_the_warm_up_do_not_count() -> None:
    made_s = times_of(
        [line("version", at_s, version=number) for number, at_s in enumerate((0, 9, 10, 12))], "version", "version"
    )
    assert durations(made_s, first=1) == [1, 2]


def test_the_stages_of_a_version_follow_the_lines_of_both_sides() -> None:
    coordinator = [
        line("version", 10.0, version=7),
        line("accepted", 16.0, base_version=7),
        line("accepted", 17.0, base_version=7),
        line("version", 20.0, version=8),
    ]
    agent = [
        line("announced", 10.5, version=7),
        line("fetched", 11.5, version=7),
        line("training", 12.0, version=7),
        line("saved", 14.0, base_version=7, update="ab"),
        line("receipt", 17.5, update="ab"),
    ]
    assert stages(Logs(coordinator, [agent]), first=7) == {
        "announce": 0.5,
        "get, chunks, assemble": 1.0,
        "evaluate": 0.5,
        "train, encode, save": 2.0,
        "offer to receipt": 3.5,
        "fold, persist": 3.0,
    }


def test_versions_of_the_warm_up_are_in_no_stage() -> None:
    agent = [line("announced", 1.0, version=1), line("fetched", 2.0, version=1)]
    assert stages(Logs([line("version", 0.5, version=1)], [agent]), first=2) == {}


def test_the_profile_adds_the_calls_of_each_step_up() -> None:
    events = [line(EVENT, 0.0, step="fold", seconds=seconds) for seconds in (0.25, 0.75)]
    assert profile(events, ["fold", "persist"], num_versions=2) == {"fold": 0.5, "persist": 0.0}


@pytest.mark.parametrize("place", [*AGENT_STEPS.values(), *COORDINATOR_STEPS.values()])
def test_every_step_with_a_stopwatch_is_a_function_of_the_programs(place: str) -> None:
    owner, name = find(place)
    assert callable(getattr(owner, name))


def test_a_log_is_read_with_the_time_of_each_line_in_seconds(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text('{"at": "1970-01-01T00:01:00.250Z", "event": "version"}\n')
    assert [entry["at_s"] for entry in read(path)] == [60.25]


def test_bits_a_parameter_are_those_of_the_updates_and_versions_between_two_counts() -> None:
    first = Count(bytes_up=1000, bytes_down=5000, updates=3, versions=2, parameters=100)
    last = Count(bytes_up=1400, bytes_down=5200, updates=7, versions=4, parameters=100)
    assert cost(first, last) == (8.0, 8.0)


def test_egress_is_what_was_sent_between_two_states_a_version() -> None:
    def state(version: int, bytes_sent: int) -> dict[str, Any]:
        return {"version": version, "bytes_sent": bytes_sent, "sites": {"a": {}, "b": {}}, "num_parameters": 5}

    result = egress(state(2, 100), state(6, 900))
    assert (result.num_sites, result.num_versions, result.bytes_a_version) == (2, 4, 200.0)


def test_the_useful_shares_of_a_line_are_of_what_crossed_it_and_of_what_it_could_have_carried() -> None:
    joined = Joining(model_bytes=120, snapshot_bytes=90, crossed_bytes=100, bytes_per_s=10.0, up_s=12.0, num_cuts=1)
    assert (joined.useful_of_crossed, joined.useful_of_line) == (0.9, 0.75)


def test_a_model_that_was_joined_is_told_with_its_size_and_with_that_of_its_snapshot() -> None:
    joined = Joining(
        model_bytes=500_000_000, snapshot_bytes=423_000_000, crossed_bytes=1, bytes_per_s=1.0, up_s=1.0, num_cuts=0
    )
    assert joined.sizes == "a model of 500.0 MB float32 as a snapshot of 423.0 MB"


@pytest.mark.parametrize(
    ("phase", "evaluated", "still"), [("paused", 4, True), ("paused", 3, False), ("publishing", 4, False)]
)
def test_a_federation_stands_still_when_every_site_is_paused_at_the_newest_version(
    phase: str, evaluated: int, still: bool
) -> None:
    sites = {"a": {"phase": "paused", "evaluated_version": 4}, "b": {"phase": phase, "evaluated_version": evaluated}}
    assert stands_still({"version": 4, "sites": sites}) is still


def test_training_of_nothing_moves_every_weight_by_a_drawn_step_and_asks_for_no_gradient_of_it() -> None:
    task = NullTask(SMALL, seed=3)
    model = task.model()
    layout = layout_of(model)
    assert layout == resnet_like(SMALL)
    loss = task.loss(model, None)
    loss.backward()
    moved_P = read_vector(model, layout)[: layout.num_weights]
    assert float(np.std(moved_P)) == pytest.approx(STEP, rel=0.05)
    assert sum(parameter.grad is not None for parameter in model.parameters()) == 1
    again = task.model()
    task.loss(again, None)
    np.testing.assert_array_equal(read_vector(again, layout)[: layout.num_weights], moved_P)


def test_the_task_is_offered_as_a_hospitals_own_package_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_agent.training.task import installed, load_task  # noqa: PLC0415 - after the path was changed

    monkeypatch.syspath_prepend(str(install(tmp_path)))
    assert isinstance(load_task("null-training", {"parameters": SMALL}), NullTask)
    assert installed("null-training").release == "fedward-null-training 1.0"
