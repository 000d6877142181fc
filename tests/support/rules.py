"""The rules and their tests as Prometheus and promtool read them, and promtool itself."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "monitoring" / "rules" / "fedward.rules.yml"
CASES = sorted((ROOT / "monitoring" / "tests").glob("*.yml"))
FINISHED = ROOT / "monitoring" / "tests" / "finished.yml"
PAGES = ROOT / "docs" / "runbooks"
MISSING = "no promtool here; `apt-get install prometheus` brings it"

_FAILED = re.compile(r"alertname: (\w+), time:")


def rules() -> Iterator[dict[str, Any]]:
    """Every record and alert."""
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        yield from group["rules"]


def alerts() -> dict[str, dict[str, Any]]:
    """Every alert by its name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def cases(path: Path) -> Iterator[dict[str, Any]]:
    """Every question of a promtool test: alert, time, and what is to fire then."""
    for test in yaml.safe_load(path.read_text())["tests"]:
        yield from test["alert_rule_test"]


def promtool(*arguments: object) -> subprocess.CompletedProcess[str]:
    """What promtool says. Skips where there is none."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip(MISSING)
    command = [program, *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def alerts_that_fail(text: str, paths: list[Path], folder: Path) -> set[str]:
    """The alerts for which a test of `paths` fails, were `text` the rules. `folder` is an empty one."""
    (folder / "rules").mkdir()
    (folder / "tests").mkdir()
    (folder / "rules" / RULES.name).write_text(text)
    copies = [shutil.copy(path, folder / "tests") for path in paths]
    with ThreadPoolExecutor() as runs:
        said = "".join(
            done.stdout + done.stderr for done in runs.map(lambda copy: promtool("test", "rules", copy), copies)
        )
    assert "parse" not in said, said
    return set(_FAILED.findall(said))
