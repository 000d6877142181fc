"""docs/tutorial.md, run as written: its files, its commands, in its order."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sandbox.child import Child
from sandbox.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.network]

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(r"```(\w+)(?: file=(\S+))?\n(.*?)```", re.DOTALL)
PORT_IN_TEXT = "18830"
FINISHED_S = 100.0
"""Several programs import torch at once, on two busy cores."""


def test_the_tutorial_works_as_written(tmp_path: Path) -> None:
    port = str(free_port("127.0.0.1"))
    packages = tmp_path / "packages"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FEDWARD_")} | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(packages),
        "PIP_TARGET": str(packages),  # the environment that runs the tests stays as it is
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "OMP_NUM_THREADS": "1",
    }
    background: list[Child] = []
    printed: dict[str, str] = {}
    try:
        for language, file, text in BLOCK.findall(TUTORIAL.read_text().replace(PORT_IN_TEXT, port)):
            if file:
                (tmp_path / file).parent.mkdir(exist_ok=True)
                (tmp_path / file).write_text(text)
            elif language == "console":
                for line in text.splitlines():
                    command = line.removeprefix("$ ")
                    if command.endswith("&"):
                        log = tmp_path / f"log-{len(background)}"
                        arguments = ["sh", "-c", f"cd {tmp_path} && exec {command.removesuffix('&')}"]
                        background.append(Child(arguments, log, environment))
                    else:
                        printed[command] = run_until_finished(command, tmp_path, environment)
    finally:
        for child in reversed(background):
            child.terminate()
            child.wait(10)
    accuracy = float(printed["python use.py"].split()[-1])
    assert accuracy > 0.9
    assert "| north |" in (tmp_path / "nuclei.md").read_text()


def run_until_finished(command: str, folder: Path, environment: dict[str, str]) -> str:
    """What the command prints; `status` is repeated until the federation is finished, as the text says."""
    deadline_s = time.monotonic() + FINISHED_S
    while True:
        done = subprocess.run(
            ["sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        waiting = "status" in command and "finished" not in done.stdout and time.monotonic() < deadline_s
        if not waiting:
            assert done.returncode == 0, f"{command}: {done.stderr}"
            return done.stdout
