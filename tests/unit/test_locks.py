"""docker/locks pins what the tests ran with, and all that an image's side asks for: after a change, `make locks`."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)", re.MULTILINE)


def pins(path: Path) -> dict[str, str]:
    """Versions by name; which build of one it is (`+cpu`) is left out."""
    return {canonicalize_name(name): pinned.partition("+")[0] for name, pinned in PIN.findall(path.read_text())}


TESTED = pins(ROOT / "constraints.txt")


@pytest.mark.parametrize(
    ("lock", "extra"), [("agent-cpu", "agent"), ("agent-cuda", "agent"), ("coordinator", "coordinator")]
)
def test_all_that_a_side_asks_for_is_pinned_at_the_version_that_was_tested(lock: str, extra: str) -> None:
    pinned = pins(ROOT / "docker" / "locks" / f"{lock}.txt")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [Requirement(line) for line in (*project["dependencies"], *project["optional-dependencies"][extra])]
    assert len(asked) > 5
    for each in asked:
        found = pinned[canonicalize_name(each.name)]
        assert each.specifier.contains(found), f"{lock}: {each} is locked at {found}: `make locks`"
    shared = pinned.keys() & TESTED.keys()
    assert {name: pinned[name] for name in shared} == {name: TESTED[name] for name in shared}, "`make locks`"
    assert lock == "agent-cuda" or shared == pinned.keys(), "CUDA's own packages are the only ones no test ran with"


def test_the_tests_run_with_the_versions_of_the_constraints() -> None:
    for name in ("torch", "numpy", "pytest", "sqlalchemy", "paho-mqtt"):
        assert version(name).partition("+")[0] == TESTED[name]
