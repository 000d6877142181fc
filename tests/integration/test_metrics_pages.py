"""What both programs serve to Prometheus, as its own tool judges it."""

import shutil
import subprocess
import urllib.request
from collections.abc import Callable

import pytest

from sandbox.federation import Federation
from sandbox.ports import HOST
from tests.integration.conftest import READY_S

pytestmark = [pytest.mark.slow, pytest.mark.network]


def judged(text: str) -> str:
    """All that promtool finds wrong with names, types and help texts; empty for nothing."""
    command = [shutil.which("promtool") or "promtool", "check", "metrics"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)
    found = done.stdout + done.stderr
    assert (done.returncode == 0) == (not found), found
    return found


@pytest.mark.skipif(
    not shutil.which("promtool"), reason="promtool is not installed: `apt-get install prometheus` runs this test"
)
def test_promtool_finds_nothing_wrong_with_the_metrics_of_either_program(
    federation: Callable[..., Federation],
) -> None:
    running = federation(finish={"version": 200}, agent_http=True)
    running.wait_for(lambda state: state["version"] >= 1, READY_S, "a version")
    site = running.sites[0]
    with urllib.request.urlopen(f"http://{HOST}:{running.agent_ports[site]}/metrics", timeout=5) as answer:
        of_agent = answer.read().decode()
    of_coordinator = running.page("/metrics")
    assert of_coordinator is not None
    assert f'fed_site_egress_bytes_total{{kind="update",site="{site}"}}' in of_coordinator
    assert 'fed_agent_egress_bytes_total{kind="update"}' in of_agent
    assert judged(of_coordinator) == ""
    assert judged(of_agent) == ""
    assert "no help text" in judged("# TYPE fed_x gauge\nfed_x 1\n"), "and it would tell"
