"""`fedward demo` as a user runs it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(240)]

LINUX = Path("/proc/self").exists()


def start(folder, *arguments):
    command = [sys.executable, "-m", "fedward.cli", "demo", "--keep", str(folder), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder.parent)


def running_in(folder):
    """Processes whose command line names the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().decode(errors="replace")
        except OSError:  # it ended a moment ago
            continue
        if f"{folder}/" in line:
            found.append(line)
    return found


@pytest.mark.skipif(not LINUX, reason="looks for processes in /proc")
def test_the_demo_learns_tells_its_figures_and_leaves_nothing_running(tmp_path):
    folder, copy = tmp_path / "kept", tmp_path / "figures.json"
    demo = start(folder, "--seconds", "20", "--json", str(copy))
    output, errors = demo.communicate(timeout=200)
    assert demo.returncode == 0, errors
    assert errors == ""
    assert running_in(folder) == []

    report = json.loads((folder / "report.json").read_text())
    assert json.loads(copy.read_text()) == report
    assert report["final_metrics"]["auc"] >= 0.98
    assert report["versions"][0]["metrics"]["auc"] < 0.8
    assert [row["version"] for row in report["versions"]] == list(range(len(report["versions"])))
    assert sum(site["updates"] for site in report["sites"]) >= len(report["contributions"]) > 0
    assert {site["slowness"] for site in report["sites"]} == {1.0, 10.0}
    for name in ("model.safetensors", "model.md", "chart.png"):
        assert (folder / name).stat().st_size > 0
    assert "AUC" in output


@pytest.mark.skipif(not LINUX, reason="looks for processes in /proc")
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_everything(tmp_path, number, exit_code):
    folder = tmp_path / "kept"
    demo = start(folder, "--seconds", "60")
    wait_for(lambda: len(running_in(folder)) >= 6, 90, "every process runs")
    demo.send_signal(number)
    _, errors = demo.communicate(timeout=60)
    assert demo.returncode == exit_code
    assert errors == f"fedward: {number.name}: stopped, nothing is left running\n"
    assert running_in(folder) == []


@pytest.mark.skipif(not LINUX, reason="looks for processes in /proc")
def test_a_hospital_that_dies_ends_the_demo_and_names_its_log(tmp_path):
    folder = tmp_path / "kept"
    demo = start(folder, "--seconds", "60")
    log = folder / "logs" / "hospital-b.log"
    wait_for(lambda: log.exists() and log.stat().st_size > 0, 90, "the hospital has begun")
    kill(f"{folder}/hospital-b.yaml")
    _, errors = demo.communicate(timeout=60)
    assert demo.returncode == 3
    assert f"hospital-b ended unexpectedly, see {log}, which ends with: {{" in errors
    assert running_in(folder) == []


def kill(config):
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        if config in path.read_bytes().decode(errors="replace"):
            os.kill(int(path.parent.name), signal.SIGKILL)


def test_a_wrong_option_is_one_clear_error(tmp_path):
    demo = start(tmp_path / "kept", "--slow", "hospital-z=3")
    _, errors = demo.communicate(timeout=60)
    assert demo.returncode == 2
    assert "no such site" in errors
