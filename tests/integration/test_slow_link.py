"""A hospital on a poor link beside one on a good link: it sends fewer bits, and counts as the other one does."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from coordinator.ledger import Ledger
from sandbox.federation import Federation
from sandbox.ports import HOST, free_port
from sandbox.relay import Relay
from sandbox.wide import wide_federation
from tests.integration.conftest import READY_S

pytestmark = [pytest.mark.slow, pytest.mark.network]

SLOW, FAST = "hospital-a", "hospital-b"
HIDDEN = (1024, 1024)
"""An update of 530 kB in eden4, of 266 kB in eden2, of 133 kB in eden1."""

UPLOAD_S = 1.5
SLOW_BYTES_S = 120_000.0
"""What carries eden4 in more than four seconds; the other hospital's link carries it in a fraction of one.

Longer, too, than the barrier waits by itself: twice the longest training time, which is none to speak of here.
"""


@pytest.fixture
def uneven(tmp_path: Path) -> Iterator[tuple[Federation, Relay]]:
    """Two hospitals that make each version together; one has its own link, and waits with version 0 to be let train."""
    port = free_port(HOST)
    with ExitStack() as stack:
        link = stack.enter_context(Relay(HOST, port))
        link.cut()
        federation = wide_federation(
            tmp_path / "federation",
            HIDDEN,
            Random(5),
            2,
            codec="eden4",
            engine={"preset": "fedavg", "flush_after_s": READY_S},
            precise_versions=0,
            policy={"upload_s": UPLOAD_S},
            routes={SLOW: link.port},
            broker_port=port,
        )
        running = stack.enter_context(federation)
        running.wait_for(lambda state: state["connected"], READY_S, "the coordinator")
        wish(running, "pause")
        link.clear()
        running.wait_for(lambda state: state["sites"][SLOW]["version"] == 0, READY_S, "version 0 at the slow site")
        yield running, link


def wish(running: Federation, verb: str) -> None:
    running.fedward("coordinator", verb, "--site", SLOW, "--config", str(running.config_path("coordinator")))


def test_a_slow_link_takes_fewer_bits_a_fast_one_keeps_them_and_both_count(uneven: tuple[Federation, Relay]) -> None:
    running, link = uneven
    link.throttle(SLOW_BYTES_S)
    wish(running, "resume")
    state = running.wait_for(lambda state: state["version"] >= 2, READY_S, "two versions of both hospitals")
    ledger = Ledger.in_folder(running.state_folder("coordinator"))
    codecs = {
        site: [row.codec for row in ledger.accepted() if row.site == site and row.version is not None][:2]
        for site in (SLOW, FAST)
    }
    assert codecs == {SLOW: ["eden4", "eden1"], FAST: ["eden4", "eden4"]}
    assert 0.3 * SLOW_BYTES_S < state["sites"][SLOW]["uplink_bytes_s"] < 1.2 * SLOW_BYTES_S
    assert state["sites"][FAST]["uplink_bytes_s"] > 3 * SLOW_BYTES_S
