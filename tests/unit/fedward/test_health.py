"""The containers' health check against the endpoint that it asks."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from fedward.health import is_ready
from fedward.http import HttpServer, Page
from fedward.settings import HttpSettings
from sandbox.ports import HOST, free_port

pytestmark = pytest.mark.network


@pytest.fixture
def endpoint() -> Iterator[tuple[HttpServer, list[Page]]]:
    """A program's endpoint, and what it answers next."""
    answers = [Page("ok\n")]
    with HttpServer(HttpSettings(port=0), {"/readyz": lambda: answers[-1]}) as server:
        yield server, answers


def test_a_program_that_can_work_is_healthy(endpoint: tuple[HttpServer, list[Page]]) -> None:
    server, _ = endpoint
    assert is_ready(server.port or 0) == (True, "ok")


def test_a_program_that_can_t_work_is_not_and_says_why(endpoint: tuple[HttpServer, list[Page]]) -> None:
    server, answers = endpoint
    answers.append(Page("not connected to the broker\n", status=503))
    assert is_ready(server.port or 0) == (False, "not connected to the broker")


def test_a_program_that_does_not_answer_is_not_healthy() -> None:
    ready, words = is_ready(free_port(HOST))
    assert not ready
    assert "no answer" in words


@pytest.mark.slow
def test_a_program_elsewhere_can_be_asked_too(endpoint: tuple[HttpServer, list[Page]]) -> None:
    server, _ = endpoint

    def ask(host: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "fedward.health", host]
        environment = os.environ | {"FEDWARD_HTTP__PORT": str(server.port)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.strip()

    assert ask("localhost") == (0, "ok")
    code, words = ask("127.0.0.2")  # this machine too, but nobody listens there
    assert code == 1
    assert "no answer" in words


@pytest.mark.slow
@pytest.mark.parametrize("port", ["", "9100x"])
def test_the_check_says_when_its_port_is_missing(port: str) -> None:
    command = [sys.executable, "-m", "fedward.health"]
    done = subprocess.run(command, env={"FEDWARD_HTTP__PORT": port}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (1, "FEDWARD_HTTP__PORT is not set to a port")
