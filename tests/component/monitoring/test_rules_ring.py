"""The alerts ring and are silent as their promtool tests say; and these tests see it when a rule is changed.

A mutation changes all alerts at once, so that promtool need not start for each: what it prints names those that a test
has seen.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.support.rules import CASES, FINISHED, ROOT, RULES, alerts, alerts_that_fail, promtool

pytestmark = pytest.mark.slow

GATE = re.compile(r"^\s*(?:and|unless) on \(namespace, job\) \S*fed:(?:running|finished)\S* == 1\n?", re.MULTILINE)
INLINE_GATE = re.compile(r" (?:and|unless) on \(namespace, job\) fed:(?:running|finished) == 1$")
BELOW, ABOVE = re.compile(r"(<=?) ([\d.]+)"), re.compile(r"> ([\d.]+)")


def test_prometheus_can_read_the_rules() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_evaluation_s_prometheus_loads_them(tmp_path: Path) -> None:
    settings = yaml.safe_load((ROOT / "docker" / "evaluation" / "prometheus.yml").read_text())
    [pattern] = settings["rule_files"]
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    mounts = [mount.split(":") for mount in compose["services"]["prometheus"]["volumes"]]
    [source] = [ROOT / "docker" / source for source, target, *_ in mounts if target == str(Path(pattern).parent)]
    assert [path.resolve() for path in source.glob(Path(pattern).name)] == [RULES]
    config = tmp_path / "prometheus.yml"
    config.write_text(yaml.safe_dump(settings | {"rule_files": [f"{source}/{Path(pattern).name}"]}))
    done = promtool("check", "config", config)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rules found" in done.stdout


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_the_alerts_fire_and_are_silent_as_is_said(path: Path) -> None:
    done = promtool("test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


def never(_expr: str) -> str:
    return "vector(0) == 1"


def looser(expr: str) -> str:
    """Every limit a tenth looser, and none where it is 0: what was just on the good side is on the bad one."""
    expr = BELOW.sub(lambda found: f"{found[1]} {float(found[2]) * 1.1!r}", expr)
    return ABOVE.sub(lambda found: f"> {float(found[1]) * 0.9 or -1.0!r}", expr)


def ungated(expr: str) -> str:
    """... also where the federation is paused or finished."""
    return INLINE_GATE.sub("", GATE.sub("", expr))


def mutated(change: Callable[[str], str], *, at_once: bool = False) -> tuple[str, set[str]]:
    """The rules with every alert's expression changed, and the alerts in which that makes a difference."""
    document = yaml.safe_load(RULES.read_text())
    changed = set()
    for rule in (rule for group in document["groups"] for rule in group["rules"] if "alert" in rule):
        before = (rule["expr"], rule.get("for"))
        rule["expr"] = change(rule["expr"])
        if at_once:
            rule.pop("for", None)
        if (rule["expr"], rule.get("for")) != before:
            changed.add(rule["alert"])
    return yaml.safe_dump(document, width=1000), changed


OTHERS = [path for path in CASES if path != FINISHED]


def test_an_alert_that_never_fires_is_noticed(tmp_path: Path) -> None:
    text, changed = mutated(never)
    assert changed == set(alerts())
    assert alerts_that_fail(text, OTHERS, tmp_path) == changed


def test_an_alert_that_does_not_wait_is_noticed(tmp_path: Path) -> None:
    text, changed = mutated(str, at_once=True)
    assert changed == {name for name, alert in alerts().items() if "for" in alert}
    assert alerts_that_fail(text, OTHERS, tmp_path) == changed


def test_an_alert_with_a_looser_limit_is_noticed(tmp_path: Path) -> None:
    text, changed = mutated(looser)
    assert len(changed) > len(alerts()) / 2
    assert alerts_that_fail(text, OTHERS, tmp_path) == changed


def test_an_alert_that_rings_for_a_finished_or_a_paused_federation_is_noticed(tmp_path: Path) -> None:
    text, changed = mutated(ungated)
    assert changed == {name for name, alert in alerts().items() if re.search(r"fed:(running|finished)", alert["expr"])}
    assert alerts_that_fail(text, [FINISHED], tmp_path) == changed
