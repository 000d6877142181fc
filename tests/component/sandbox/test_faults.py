"""Plans of faults are drawn from a seed, and a relay does what they ask of a link."""

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import get_args

import pytest

from sandbox.faults import (
    BROKER,
    COORDINATOR,
    LONGEST_CUT_S,
    LONGEST_DOWN_S,
    TELLING,
    AtMessage,
    AtStep,
    Cut,
    Kill,
    Moment,
    OnEvent,
    random_plan,
)
from sandbox.relay import Relay
from sandbox.steps import AGENT_STEPS, COORDINATOR_STEPS

SITES = ("hospital-a", "hospital-b", "hospital-c")
HOST = "127.0.0.1"
SOON_S = 10.0


def test_a_seed_gives_one_plan_and_another_seed_another() -> None:
    assert random_plan(Random(1), SITES, 50, 5) == random_plan(Random(1), SITES, 50, 5)
    assert random_plan(Random(1), SITES, 50, 5) != random_plan(Random(2), SITES, 50, 5)


@pytest.mark.parametrize("kills", [0, 1, 2, 3, 12, 100])
def test_a_plan_has_as_many_kills_and_cuts_as_were_asked_for(kills: int) -> None:
    plan = random_plan(Random(3), SITES, kills, 4)
    assert Counter(type(fault) for fault in plan) == Counter({Kill: kills, Cut: 4})


@pytest.mark.parametrize("seed", range(20))
def test_everybody_dies_even_in_a_short_plan(seed: int) -> None:
    targets = {fault.target for fault in random_plan(Random(seed), SITES, 3) if isinstance(fault, Kill)}
    assert {BROKER, COORDINATOR} < targets


def test_times_are_bounded_and_events_are_the_victims_own() -> None:
    for fault in random_plan(Random(4), SITES, 300, 50):
        assert 0 < (fault.down_s if isinstance(fault, Kill) else fault.seconds) <= max(LONGEST_DOWN_S, LONGEST_CUT_S)
        if isinstance(fault.at, OnEvent):
            assert fault.at.program == (fault.target if isinstance(fault, Kill) else fault.site)
            assert fault.at.event in TELLING[COORDINATOR if fault.at.program == COORDINATOR else "agent"]


def test_a_long_plan_has_every_kind_of_moment_and_replaces_brokers_only() -> None:
    plan = random_plan(Random(6), SITES, 200)
    kills = [fault for fault in plan if isinstance(fault, Kill)]
    assert {type(kill.at) for kill in kills} == set(get_args(Moment))
    assert {kill.target for kill in kills if kill.replaced} == {BROKER}
    for kill in kills:
        if isinstance(kill.at, AtStep):
            assert kill.at.step in (COORDINATOR_STEPS if kill.target == COORDINATOR else AGENT_STEPS)
        if isinstance(kill.at, AtMessage):
            assert kill.at.site in SITES


def test_cuts_may_last_for_minutes() -> None:
    cuts = [
        fault.seconds for fault in random_plan(Random(7), SITES, 0, 20, longest_cut_s=400.0) if isinstance(fault, Cut)
    ]
    assert len(cuts) == 20
    assert 360 < max(cuts) <= 400


def test_a_long_plan_kills_every_site() -> None:
    targets = Counter(fault.target for fault in random_plan(Random(5), SITES, 100) if isinstance(fault, Kill))
    assert set(targets) == {BROKER, COORDINATOR, *SITES}
    assert min(targets.values()) >= 5


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    with socket.create_server((HOST, 0)) as server:
        threading.Thread(target=_accept, args=(server,), daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def _accept(server: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed: the test is over
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_echo, args=(connection,), daemon=True).start()


def _echo(connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError):
        while piece := connection.recv(65_536):
            connection.sendall(piece)


@pytest.fixture
def relay(echo: int) -> Iterator[Relay]:
    with Relay(HOST, echo) as relay:
        yield relay


def connected(relay: Relay) -> socket.socket:
    return socket.create_connection((HOST, relay.port), timeout=SOON_S)


def answer(connection: socket.socket, sent: bytes) -> bytes:
    connection.sendall(sent)
    received = b""
    while len(received) < len(sent):
        received += connection.recv(65_536)
    return received


@pytest.mark.network
def test_a_relay_passes_bytes_both_ways(relay: Relay) -> None:
    content = Random(6).randbytes(300_000)
    with connected(relay) as connection:
        sender = threading.Thread(target=connection.sendall, args=(content,))
        sender.start()
        received = b""
        while len(received) < len(content):
            received += connection.recv(65_536)
        sender.join()
    assert received == content


@pytest.mark.network
def test_a_relay_counts_the_messages_that_it_passes_on(relay: Relay) -> None:
    connect, publish = bytes.fromhex("1003 000000"), bytes.fromhex("3002 0000")
    with connected(relay) as connection:
        answer(connection, connect + 3 * publish)
    with connected(relay) as connection:
        answer(connection, connect + publish)
    assert relay.num_published == 4


@pytest.mark.network
def test_a_relay_counts_connections_and_bytes_each_way(relay: Relay) -> None:
    for sent in (b"four", b"eleven more"):
        with connected(relay) as connection:
            assert answer(connection, sent) == sent
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b"", "both ways have ended, and are counted"
    assert (relay.num_connections, relay.bytes_up, relay.bytes_down) == (2, 15, 15)


@pytest.mark.network
def test_a_cut_ends_connections_and_turns_new_ones_away_until_it_is_over(relay: Relay) -> None:
    with connected(relay) as old:
        assert answer(old, b"before") == b"before"
        relay.cut()
        assert old.recv(1) == b""
    with connected(relay) as refused:
        assert refused.recv(1) == b""
    relay.clear()
    with connected(relay) as later:
        assert answer(later, b"after") == b"after"


@pytest.mark.network
def test_a_stalled_connection_stays_and_goes_on_later(relay: Relay) -> None:
    with connected(relay) as connection:
        assert answer(connection, b"before") == b"before"
        relay.stall()
        connection.sendall(b"late")
        connection.settimeout(0.1)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(SOON_S)
        relay.clear()
        assert connection.recv(4) == b"late"


@pytest.mark.network
def test_a_throttled_connection_takes_its_time(relay: Relay) -> None:
    with connected(relay) as connection:
        relay.throttle(bytes_per_s=1e9)
        assert answer(connection, b"fast") == b"fast"
        relay.throttle(bytes_per_s=20)
        connection.sendall(b"slow")
        connection.settimeout(0.1)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(SOON_S)
        assert connection.recv(4) == b"slow"


@pytest.mark.network
def test_a_relay_whose_target_is_down_turns_connections_away(relay: Relay) -> None:
    with socket.create_server((HOST, 0)) as gone:
        port = gone.getsockname()[1]
    with Relay(HOST, port) as dangling, connected(dangling) as connection:
        assert connection.recv(1) == b""
