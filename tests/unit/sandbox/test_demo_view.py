from io import StringIO

import pytest
from rich.console import Console

from sandbox.traffic import Traffic, human_bytes, total_traffic, traffic
from sandbox.view import Frame, Hospital, PictureView, PlainView, bar, doing, draw, line, megabytes, sparkline, view_for
from sandbox.watch import has_begun, has_settled, is_finished


def site(**given):
    plain = {
        "phase": "idle",
        "online": True,
        "heard_at_s": 1.0,
        "step": 0,
        "num_steps": 0,
        "bytes_sent": 0,
        "bytes_received": 0,
        "num_fetched": 0,
        "num_accepted": 0,
        "staleness": None,
        "weight": None,
        "evaluated_version": None,
    }
    return plain | given


def state(version=7, **sites):
    return {
        "state": "running",
        "version": version,
        "num_parameters": 1000,
        "buffer": 1,
        "buffer_size": 2,
        "metrics": {"auc": 0.95},
        "sites": sites,
    }


def frame(page, stage="training", climb=(0.5, 0.95)):
    hospitals = {"alpha": Hospital(num_train=194), "beta": Hospital(num_train=43, slowness=10.0)}
    return Frame(title="demo", stage=stage, elapsed_s=12.34, state=page, hospitals=hospitals, metric="auc", climb=climb)


def text_of(renderable):
    console = Console(file=StringIO(), width=100)
    console.print(renderable)
    return console.file.getvalue()


RUNNING = state(
    alpha=site(
        phase="training", step=30, num_steps=400, num_accepted=3, staleness=1, weight=1.25, bytes_sent=1_500_000
    ),
    beta=site(phase="offline"),
)


def test_the_table_shows_versions_buffer_hospitals_and_bytes_in_100_columns():
    shown = text_of(draw(frame(RUNNING)))
    for part in ("version  7", "1 of 2 updates", "0.9500", "training", "30/400", "1.25", "1.50/0.01", "beta 10x slow"):
        assert part in shown
    assert "…" not in shown
    assert {len(row) for row in shown.splitlines()} == {100}


def test_a_coordinator_that_does_not_answer_yet_is_shown_as_starting():
    assert "the coordinator is starting" in text_of(draw(frame(None)))
    assert line(frame(None)) == " 12.3 s  training"


def test_a_line_tells_the_version_the_metric_and_the_phases():
    expected = " 12.3 s  training  version 7  buffer 1/2  AUC 0.9500  1 offline, 1 training  updates 3 0"
    assert line(frame(RUNNING)) == expected


def test_a_hospital_that_was_never_heard_of_is_starting_and_one_that_went_is_offline():
    assert doing(site(phase="offline", heard_at_s=None)).plain == "starting"
    assert doing(site(phase="offline")).plain == "offline"


def test_training_without_a_known_step_shows_no_bar():
    assert doing(site(phase="training")).plain == "training"


def test_a_plain_view_tells_a_version_once_and_not_at_once_after_another():
    console = Console(file=StringIO(), width=100)
    with PlainView(console) as view:
        for page in (RUNNING, RUNNING, {**RUNNING, "version": 8}):
            view.show(frame(page))
        view.show(frame(RUNNING, stage="finishing"))
    assert [row.split("  ")[1] for row in console.file.getvalue().splitlines()] == ["training", "finishing"]


def test_lines_are_shown_where_there_is_no_terminal():
    assert isinstance(view_for(Console(file=StringIO()), None), PlainView)


def test_the_picture_is_of_a_frame_with_training_and_names_no_other_host(tmp_path):
    idle = state(alpha=site(), beta=site())
    climb = [index / 20 for index in range(20)]
    with PictureView(PlainView(Console(file=StringIO())), tmp_path / "view.svg") as view:
        for page in (idle, RUNNING, idle):
            view.show(frame(page, climb=climb))
    svg = (tmp_path / "view.svg").read_text()
    assert "30/400" in svg
    assert "url(" not in svg.replace("url(#", "")


@pytest.mark.parametrize(
    ("values", "expected"), [([], ""), ([0.5], "▁"), ([0, 1], "▁█"), ([9, 0, 0.5, 1], "▁▅█"), ([1, 1], "▁▁")]
)
def test_a_sparkline_spans_the_last_values(values, expected):
    assert sparkline(values, 3) == expected


def test_a_bar_is_never_more_than_full():
    assert [bar(0, 0, 4), bar(1, 2, 4), bar(9, 2, 4)] == ["╌╌╌╌", "━━╌╌", "━━━━"]


def test_traffic_sets_updates_and_fetched_versions_beside_float32():
    moved = traffic(site(bytes_sent=500, bytes_received=900, num_accepted=2, num_fetched=3), 1000)
    assert moved == Traffic(500, 900, 8000, 12_000)
    assert moved.saved_bytes == 18_600
    assert moved.saved_ratio == pytest.approx(0.93)
    assert Traffic().saved_ratio == 0


def test_traffic_of_all_hospitals_is_their_sum():
    page = state(alpha=site(bytes_sent=1, num_accepted=1), beta=site(bytes_received=2, num_fetched=1))
    assert total_traffic(page) == Traffic(1, 2, 4000, 4000)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (20_480, "20.5 kB"), (999_990, "1.0 MB"), (3e9, "3.0 GB"), (-2000, "-2.0 kB")],
)
def test_bytes_are_written_short(count, text):
    assert human_bytes(count) == text


def test_megabytes_stay_narrow():
    assert megabytes(1_234_567, 123_456_789) == "1.23/123.5"


def test_the_demo_sees_when_training_begins_and_ends():
    assert not has_begun(state(alpha=site()))
    assert has_begun(state(alpha=site(phase="training")))
    assert has_begun(state(alpha=site(num_accepted=1)))
    assert not is_finished(RUNNING)
    assert is_finished(RUNNING | {"state": "finished"})


def test_a_federation_has_settled_when_every_hospital_that_is_online_measured_the_last_version_and_rests():
    assert not has_settled(state(7, alpha=site(evaluated_version=7), beta=site(evaluated_version=6)))
    assert not has_settled(state(7, alpha=site(evaluated_version=7, phase="publishing")))
    assert has_settled(state(7, alpha=site(evaluated_version=7), beta=site(online=False)))
