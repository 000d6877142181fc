import json
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from coordinator.tables import StoredEvaluation, StoredUpdate
from sandbox.chart import write_chart
from sandbox.report import Contribution, Report, SiteFigures, VersionFigures, contribution, mean, sites_metrics
from sandbox.summary import print_summary
from sandbox.traffic import Traffic

UPDATE = StoredUpdate(
    number=1,
    update_id=bytes(32),
    site="alpha",
    sequence=0,
    base_version=3,
    codec="eden4",
    num_examples=10,
    num_steps=4,
    work_s=1.0,
    size_bytes=100,
    digest=bytes(32),
    received_at_s=0.0,
    arrived_s=0.0,
    norm=1.0,
    reason=None,
    version=6,
    weight=0.5,
)


def evaluation(site, metric, numerator, denominator):
    return StoredEvaluation(
        version=2,
        site=site,
        metric=metric,
        numerator=numerator,
        denominator=denominator,
        num_examples=10,
        received_at_s=0.0,
    )


def report():
    moved = Traffic(1000, 2000, 8000, 8000)
    return Report(
        task="breast-cancer",
        settings={"codec": "eden4"},
        ended_by="the time for training was over",
        wall_s=41.0,
        num_parameters=1000,
        final_metrics={"loss": 0.2, "auc": 0.99},
        versions=[VersionFigures(0, 3.0, {"auc": 0.5}, {}), VersionFigures(1, 9.0, {"auc": 0.99}, {"auc": 0.98})],
        contributions=[Contribution("alpha", 1, 0, 1.5, 9.0)],
        sites=[
            SiteFigures("alpha", 194, 65, 1.0, 1, 0, 0.0, 1.5, moved),
            SiteFigures("beta", 43, 15, 10.0, 0, 0, None, None, Traffic()),
        ],
        refused={"finished": 2},
        traffic=moved,
        saved_bytes=moved.saved_bytes,
        saved_ratio=moved.saved_ratio,
        files={"model": "/kept/model.safetensors"},
    )


def told(of):
    console = Console(file=StringIO(), width=100)
    print_summary(of, "auc", console)
    return console.file.getvalue()


def test_staleness_counts_to_the_version_that_an_update_was_folded_into():
    assert contribution(UPDATE, {6: 12.5}) == Contribution("alpha", 6, 2, 0.5, 12.5)


def test_an_update_in_the_buffer_contributed_to_nothing_yet():
    with pytest.raises(ValueError, match="in no version"):
        contribution(replace(UPDATE, version=None, weight=None), {})


def test_the_metric_of_the_sites_adds_up_and_a_site_of_one_class_adds_nothing():
    rows = [evaluation("alpha", "auc", 9, 10), evaluation("beta", "auc", 3, 10), evaluation("gamma", "auc", 0, 0)]
    assert sites_metrics(rows) == {2: {"auc": 0.6}}
    assert sites_metrics(rows[2:]) == {2: {}}


def test_the_mean_of_nothing_is_nothing():
    assert mean([]) is None
    assert mean([1, 2]) == 1.5


def test_the_summary_tells_metric_versions_updates_bytes_and_files():
    text = told(report())
    for part in (
        "AUC        0.9900",
        "versions   1, made of 1",
        "updates 1",
        "81%",
        "/kept/model.safetensors",
        "10x slower",
    ):
        assert part in text


def test_only_refusals_that_are_news_are_told():
    assert "refused" not in told(report())
    assert "3 stale" in told(replace(report(), refused={"finished": 2, "stale": 3}))


def test_the_report_is_json_with_every_version_and_its_time():
    versions = json.loads(report().to_json())["versions"]
    assert [(row["version"], row["at_s"], row["metrics"]["auc"]) for row in versions] == [(0, 3.0, 0.5), (1, 9.0, 0.99)]


@pytest.mark.slow
def test_the_chart_is_a_small_png(tmp_path):
    write_chart(report(), "auc", tmp_path / "chart.png")
    written = (tmp_path / "chart.png").read_bytes()
    assert written.startswith(b"\x89PNG")
    assert len(written) < 200_000
