"""The dashboards on a real Prometheus, which has seen a real federation in which something happened."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from monitoring.draw import draw
from monitoring.prove import faults, moved
from monitoring.shown import NAMES, Shown, load
from monitoring.trial import LOST, SLOW, Trial, find_prometheus
from sandbox.broker import find_mosquitto
from sandbox.ports import HOST, free_port
from tests.integration.conftest import READY_S

pytestmark = [
    pytest.mark.slow,
    pytest.mark.network,
    pytest.mark.timeout(300),
    pytest.mark.skipif(find_prometheus() is None, reason="prometheus is not installed: apt-get install prometheus"),
    pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed: apt-get install mosquitto"),
]


@dataclass(frozen=True)
class Seen:
    """What Prometheus knows, and when it knew what: before anything was provoked, afterwards, and paused at the end."""

    trial: Trial
    before_s: float
    after_s: float
    paused_s: float

    def shown(self, **choice: str) -> Shown:
        return self.trial.shown(**choice).at(self.after_s)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    with Trial(tmp_path_factory.mktemp("trial")) as trial:
        before_s = trial.settle(READY_S)
        after_s = trial.provoke(READY_S)
        yield Seen(trial, before_s, after_s, trial.pause(READY_S))


@pytest.mark.parametrize("name", NAMES)
def test_every_query_of_every_panel_has_an_answer(seen: Seen, name: str) -> None:
    assert faults(load(name), seen.shown(site=SLOW)) == []


@pytest.mark.parametrize(
    ("name", "site", "tiles"),
    [
        ("federation", SLOW, {"Hospitals up", "Quorum", "Refused, last hour", "Version age", "Model version"}),
        ("hospitals", SLOW, {"Updates refused", "Last heard"}),
        ("hospitals", LOST, {"Phase", "Last heard", "Versions behind"}),
        ("coordinator", SLOW, {"Last replay", "Loop busy", "Disk free"}),
        ("egress", SLOW, {"Left all hospitals", "Messages", "A message", "Not updates"}),
    ],
    ids=["federation", "a hospital whose updates are refused", "a lost hospital", "coordinator", "egress"],
)
def test_tiles_show_what_happened(seen: Seen, name: str, site: str, tiles: set[str]) -> None:
    found = moved(load(name), seen.shown(site=site), seen.before_s, seen.after_s)
    assert tiles <= found


def test_the_tile_of_the_state_shows_a_pause(seen: Seen) -> None:
    assert "State" in moved(load("federation"), seen.shown(), seen.after_s, seen.paused_s)


def proven(url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "monitoring.prove", "--prometheus", url, "--minutes", "3", "--scrape-s", "1"]
    return subprocess.run(command, capture_output=True, text=True, timeout=READY_S, check=False)


def test_the_command_says_how_many_faults_there_are_and_fails_when_there_are_some(seen: Seen) -> None:
    done = proven(seen.trial.prometheus.url)
    *found, number = done.stdout.splitlines()
    assert number == f"{len(found)} faults"
    assert done.returncode == bool(found)
    assert all("Alerts firing" in fault for fault in found), "paused as it is now, it may have no other"


def test_the_command_says_that_there_is_no_prometheus() -> None:
    done = proven(f"http://{HOST}:{free_port(HOST)}")
    assert done.returncode == 1
    assert done.stderr.startswith("prove: no answer from")


Breaks = Callable[[dict[str, Any]], None]


def expr(panel: dict[str, Any]) -> str:
    return str(panel["targets"][0]["expr"])


def altered(old: str, new: str) -> Breaks:
    def alter(panel: dict[str, Any]) -> None:
        assert old in expr(panel)
        panel["targets"][0]["expr"] = expr(panel).replace(old, new)

    return alter


@pytest.mark.parametrize(
    ("name", "title", "alter", "said"),
    [
        ("federation", "Model version", altered("fed_model_version", "fed_model_versions"), "has no data"),
        ("federation", "Alerts firing", altered("Fedward.+", "Fedword.+"), "has no data"),
        ("federation", "State", altered('state="paused"', 'state="resting"'), "names what is not there"),
        ("federation", "Model version", altered("$job", "$jobs"), "can't be asked"),
        ("federation", "Model version", altered("max(", "max(("), "can't be asked"),
        ("egress", "Bytes by kind", altered("by (kind) (rate(", "by (kind) (0 / 0 * rate("), "has no data"),
    ],
    ids=["wrong name", "hidden by a fallback", "wrong label in a sum", "no such variable", "no PromQL", "not a number"],
)
def test_a_broken_query_is_found(seen: Seen, name: str, title: str, alter: Breaks, said: str) -> None:
    board: dict[str, Any] = json.loads(json.dumps(load(name)))
    (panel,) = (one for one in board["panels"] if one["title"] == title and one["type"] != "row")
    alter(panel)
    found = faults(board, seen.shown(site=SLOW))
    assert found
    assert all(title in fault for fault in found)
    assert any(said in fault for fault in found)


def test_a_variable_without_values_is_found(seen: Seen) -> None:
    board = json.loads(json.dumps(load("hospitals")).replace("fed_site_heard_timestamp_seconds{job", "fed_heard{job"))
    (fault,) = faults(board, seen.shown())
    assert "variable site" in fault


@pytest.mark.parametrize("name", NAMES)
def test_a_dashboard_can_be_drawn(seen: Seen, tmp_path: Path, name: str) -> None:
    path = tmp_path / "drawn.png"
    draw(load(name), seen.shown(site=SLOW), path)
    with Image.open(path) as image:
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 10, "an empty picture"
    assert path.stat().st_size < 150_000
