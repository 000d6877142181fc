"""docs/doctor.md against the code: every check has its row, and no row is of a check that is gone."""

import re
from pathlib import Path

from coordinator.doctor import MODEL
from edge_agent.devices import GPU
from edge_agent.doctor import POLICY, TASKS
from fedward.doctor import broker, machine, way
from fedward.doctor.examine import IDENTITY

DOCUMENT = Path(__file__).parents[3] / "docs" / "doctor.md"


def test_every_check_has_its_row_in_the_document() -> None:
    shared = {way.SETTINGS, way.NAME, way.PROXY, way.TCP, way.OWN, way.TLS, IDENTITY}
    shared |= {broker.MQTT, broker.RIGHTS, broker.SIZES, machine.DISK, machine.MEMORY, machine.LIMITS, machine.CLOCK}
    expected = {(name, "both") for name in shared}
    expected |= {
        (broker.ANNOUNCEMENT, "agent"),
        (POLICY, "agent"),
        (TASKS, "agent"),
        (GPU, "agent"),
        (MODEL, "coordinator"),
    }
    assert set(re.findall(r"^\| `(\w+)` \| (\w+) \|", DOCUMENT.read_text(), re.MULTILINE)) == expected
