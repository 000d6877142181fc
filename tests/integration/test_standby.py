"""Two coordinators on one ledger in PostgreSQL: one works, one stands by, and either, and the server, may die."""

import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from benchmarks.chaos import replay_all, settle
from sandbox.account import account
from sandbox.federation import COORDINATOR, STANDBY, Federation
from sandbox.postgres import PostgresServer
from tests.integration.conftest import READY_S
from tests.support.postgres import server

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(300)]

TAKEN_OVER_S = 15.0
"""What ops are promised: from the end of one coordinator to the other's work."""


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    with server() as running:
        yield running


@pytest.fixture
def pair(postgres: PostgresServer, federation: Callable[..., Federation]) -> Federation:
    """A federation whose first version is made, and whose second coordinator stands by."""
    running = federation(ledger={"url": postgres.new_url()}, standby=True)
    running.wait_for(lambda state: state["version"] >= 1, READY_S, "a first version")
    return running


def other(name: str) -> str:
    return STANDBY if name == COORDINATOR else COORDINATOR


def take_over(running: Federation) -> None:
    """Kill the one that works; the other one has to make a version in time; the killed one stands by then."""
    leader = running.leader()
    state = running.state()
    assert leader
    assert state
    running.kill(leader)
    running.wait_for(lambda new: new["version"] > state["version"], TAKEN_OVER_S, "a version of the other one")
    assert running.leader() == other(leader)
    running.start(leader)


def check(running: Federation) -> None:
    """Nothing lost, nothing twice, and every version comes out again."""
    assert settle(running) == []
    assert account(running).difference() == []
    proved, said = replay_all(running)
    assert proved, said


def test_the_one_that_stands_by_is_ready_and_does_nothing(pair: Federation) -> None:
    leader = pair.leader()
    assert leader
    assert pair.page("/readyz", of=other(leader)) == "ok\n"
    assert pair.page("/metrics", of=other(leader)) is not None
    assert "fed_coordinator_leads 0.0" in (pair.page("/metrics", of=other(leader)) or "")
    assert "fed_coordinator_leads 1.0" in (pair.page("/metrics", of=leader) or "")


def test_a_killed_coordinator_is_replaced_by_the_one_that_stood_by(pair: Federation) -> None:
    take_over(pair)
    check(pair)


@pytest.mark.sweep
def test_ten_coordinators_in_a_row_are_killed_and_replaced(pair: Federation) -> None:
    for _ in range(10):
        take_over(pair)
        pair.wait_for(lambda state: state["buffer"] == 0, READY_S, "a moment to stand by in")
    check(pair)


def test_a_killed_postgresql_server_takes_nothing_with_it(pair: Federation, postgres: PostgresServer) -> None:
    rng = Random(1)
    for _ in range(3):
        made = pair.wait_for(lambda _: True, READY_S, "a state")["version"] + rng.randint(1, 4)
        pair.wait_for(reaches(made), READY_S, "more versions")
        postgres.kill()
        deadline_s = time.monotonic() + READY_S
        while pair.leader():
            assert time.monotonic() < deadline_s, "a coordinator works without a ledger"
        postgres.start()
        pair.wait_for(reaches(made + 1), READY_S, "a version")
    check(pair)


def reaches(version: int) -> Callable[[dict[str, Any]], bool]:
    return lambda state: bool(state["version"] >= version)
