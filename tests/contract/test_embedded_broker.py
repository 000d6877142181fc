"""The broker of demos and tests: starts, restarts, ends with its parent, and stays on loopback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedward.errors import ConfigError
from sandbox.broker import EmbeddedBroker, Kind, find_mosquitto

KINDS = [
    pytest.param(
        "mosquitto",
        marks=pytest.mark.skipif(
            find_mosquitto() is None, reason="mosquitto is not installed: apt-get install mosquitto runs these tests"
        ),
    ),
    "iotcore",
]

# A process that starts a broker, tells its process id, and waits to be killed.
PARENT = """
import sys
from pathlib import Path
from sandbox.broker import EmbeddedBroker
broker = EmbeddedBroker(Path(sys.argv[1]), prefer=sys.argv[2])
broker.start()
print(broker.pid, flush=True)
sys.stdin.read()
"""


def is_running(pid: int) -> bool:
    """Is there such a process that has not ended? A zombie, which only waits for its parent, has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.network
@pytest.mark.parametrize("kind", KINDS)
def test_a_broker_starts_and_leaves_no_process(kind: Kind, tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path, prefer=kind) as broker:
        pid = broker.pid
        assert broker.kind == kind
        assert pid is not None
        assert is_running(pid)
        assert broker.log_path.exists()
    assert broker.pid is None
    assert not is_running(pid)


@pytest.mark.network
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_broker_starts_again_on_the_same_port(kind: Kind, tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path, prefer=kind) as broker:
        port, first_pid = broker.port, broker.pid
        broker.kill()
        broker.start()
        assert broker.port == port
        assert broker.pid != first_pid


@pytest.mark.network
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process die with its parent")
@pytest.mark.parametrize("kind", KINDS)
def test_a_broker_dies_with_a_parent_that_is_killed(kind: Kind, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path), kind]
    root = Path(__file__).parent.parent.parent
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.kill()
    give_up_s = time.monotonic() + 5.0
    while is_running(pid):
        assert time.monotonic() < give_up_s, "the broker outlived its parent"
        time.sleep(0.01)


@pytest.mark.network
@pytest.mark.parametrize("kind", KINDS)
def test_a_broker_that_hangs_is_stopped_by_force(kind: Kind, tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path, prefer=kind) as broker:
        pid = broker.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        broker.stop(patience_s=0.1)
        assert not is_running(pid)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "broker.example.org", ""])  # noqa: S104  # refused
@pytest.mark.parametrize("kind", KINDS)
def test_a_host_that_is_not_loopback_is_refused(kind: Kind, host: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="loopback"):
        EmbeddedBroker(tmp_path, host=host, prefer=kind)
