"""A site's way to brokers, proxies and firewalls of every kind, on loopback."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.doctor import wanted_by
from fedward.doctor.check import Check
from fedward.doctor.deadline import Deadline
from fedward.doctor.examine import Examination, Party
from fedward.doctor.facts import Proxy, Reach, TlsFiles
from fedward.mqtt import MqttSettings
from tests.support.network import HOST

Examine = Callable[..., dict[str, Check]]


@pytest.fixture
def examine(tmp_path: Path) -> Examine:
    """The checks of the way to a port, by name, and of this machine's limits and clock after them."""

    def run(
        port: int, *, proxy: Proxy | None = None, tls: TlsFiles | None = None, run_s: float = 20.0
    ) -> dict[str, Check]:
        party = Party(
            who="site st-anna",
            settings=MqttSettings(host=HOST, port=port, client_id="ward-st-anna", session_expiry_s=600),
            reach=Reach(HOST, port, proxy, tls),
            wanted=wanted_by("ward", "st-anna"),
            state_folder=tmp_path / "state",
        )
        examination = Examination(party, Deadline(run_s))
        return {check.name: check for check in [*examination.way(), *examination.limits_and_clock()]}

    return run
