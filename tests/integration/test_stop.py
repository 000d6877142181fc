"""SIGTERM at the worst moments: a coordinator ends soon, what it had in hand is whole, and the next one goes on."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from random import Random

import pytest

from benchmarks.chaos import settle
from sandbox.account import account
from sandbox.broker import find_mosquitto
from sandbox.datasets import site_name
from sandbox.faults import COORDINATOR
from sandbox.federation import Federation
from sandbox.ports import HOST, free_port
from sandbox.relay import Relay
from sandbox.wide import wide_federation
from tests.integration.conftest import READY_S
from tests.integration.test_federation import ledger_of
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.network]

ENDS_WITHIN_S = 10.0
HIDDEN = (1500, 1500)
"""An update has 35 chunks and takes a slow link seconds, a version some hundred milliseconds."""

SLOW_BYTES_PER_S = 4e6


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Two sites on slow links, at least two versions."""
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed: `apt-get install mosquitto` runs this test")
    folder, port = tmp_path_factory.mktemp("federation"), free_port(HOST)
    with ExitStack() as stack:
        relays = {site_name(index): stack.enter_context(Relay(HOST, port)) for index in range(2)}
        routes = {site: relay.port for site, relay in relays.items()}
        federation = wide_federation(folder, HIDDEN, Random(6), 2, broker="mosquitto", broker_port=port, routes=routes)
        stack.enter_context(federation)
        federation.wait_for(lambda state: state["version"] >= 2, READY_S, "two versions")
        for relay in relays.values():
            relay.throttle(SLOW_BYTES_PER_S)
        yield federation


def an_upload_is_under_way(running: Federation) -> bool:
    """The file that collects its chunks holds some of them."""
    try:
        files = list((running.state_folder(COORDINATOR) / "incoming").iterdir())
        return any(path.stat().st_size > 0 for path in files)
    except FileNotFoundError:  # it became a blob while we looked
        return False


def a_version_is_being_made(running: Federation) -> bool:
    """One of its blobs is being written: the ledger names none of them yet."""
    return any((running.state_folder(COORDINATOR) / "blobs").glob(".*.part"))


@pytest.mark.parametrize("moment", [an_upload_is_under_way, a_version_is_being_made])
def test_a_coordinator_ends_within_seconds_and_the_next_one_goes_on(
    running: Federation, moment: Callable[[Federation], bool]
) -> None:
    child = running.children[COORDINATOR]
    wait_for(lambda: moment(running), READY_S, moment.__name__)
    asked_s = time.monotonic()
    child.terminate()
    assert child.process.wait(ENDS_WITHIN_S) == 0
    assert time.monotonic() - asked_s < ENDS_WITHIN_S
    log = child.log.read_text()
    assert json.loads(log.splitlines()[-1])["event"] == "stopped"
    assert "Traceback" not in log

    ledger = ledger_of(running)
    ledger.check_chain()
    before, buffered = ledger.versions()[-1].version, {row.update_id for row in ledger.buffered()}
    ledger.close()
    now = account(running)
    assert not now.lost
    assert not now.saved_again
    assert not now.torn_versions

    running.start(COORDINATOR)
    running.wait_for(lambda state: state["version"] >= before + 2, READY_S, "versions as before")
    ledger = ledger_of(running)
    assert buffered <= {row.update_id for row in ledger.accepted() if row.version is not None}
    ledger.close()


def test_after_all_stops_every_update_counts_once(running: Federation) -> None:
    assert settle(running) == []
    end = account(running)
    assert end.difference() == []
    assert end.accepted == end.applied
    config = str(running.config_path(COORDINATOR))
    assert "every digest is as recorded" in running.fedward("coordinator", "replay", "--config", config)


def test_an_agent_that_is_stopped_has_left_and_one_that_is_killed_is_offline(running: Federation) -> None:
    leaving, killed = running.sites
    running.children[leaving].terminate()
    assert running.children.pop(leaving).process.wait(ENDS_WITHIN_S) == 0
    left = running.wait_for(lambda state: state["sites"][leaving]["phase"] == "leaving", READY_S, "the goodbye")
    assert not left["sites"][leaving]["online"]
    running.kill(killed)
    gone = running.wait_for(lambda state: state["sites"][killed]["phase"] == "offline", READY_S, "the last will")
    assert gone["sites"][leaving]["phase"] == "leaving"
