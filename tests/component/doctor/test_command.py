"""`fedward agent doctor` as an IT desk runs it: each failure's line, its remedy and the exit code, word by word."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedward.doctor.facts import TlsFiles
from fedward.identity.certificates import Role
from sandbox.broker import find_mosquitto
from sandbox.datasets import split
from sandbox.federation import environment
from sandbox.ports import free_port
from tests.support.certificates import Vouching
from tests.support.disk import fill, small_disk
from tests.support.network import HOST, listening, mosquitto, tls_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.network,
    pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed: apt-get install mosquitto"),
]

DAY_S = 86_400.0

Broker = dict[str, Any]
Place = Callable[[Path], AbstractContextManager[Broker]]


def told(file: TlsFiles) -> dict[str, str]:
    """As `broker.tls` of site.yaml."""
    return {name: str(path) for name, path in vars(file).items() if path is not None}


@contextmanager
def nobody(_folder: Path) -> Iterator[Broker]:
    yield {"port": free_port(HOST)}


@contextmanager
def broker(folder: Path) -> Iterator[Broker]:
    with mosquitto(folder / "broker", "listener {port} 127.0.0.1\nallow_anonymous true") as port:
        yield {"port": port}


@contextmanager
def broker_that_lets_nobody_in(folder: Path) -> Iterator[Broker]:
    with mosquitto(folder / "broker", "listener {port} 127.0.0.1\nallow_anonymous false") as port:
        yield {"port": port}


@contextmanager
def no_proxy(_folder: Path) -> Iterator[Broker]:
    yield {"port": 8883, "proxy": f"http://{HOST}:{free_port(HOST)}"}


@contextmanager
def another_authority(folder: Path) -> Iterator[Broker]:
    theirs, ward = Vouching(folder / "theirs", "Hospital Web Gateway"), Vouching(folder / "ward")
    with listening(tls_server(theirs.files(HOST, Role.BROKER))) as port:
        yield {"port": port, "tls": told(ward.files("st-anna"))}


@contextmanager
def certificate_of_another_time(folder: Path, made_s: float) -> Iterator[Broker]:
    ward = Vouching(folder / "ward")
    with listening(tls_server(ward.files(HOST, Role.BROKER, made_s=made_s, days=5))) as port:
        yield {"port": port, "tls": told(ward.files("st-anna"))}


def that_has_ended(folder: Path) -> AbstractContextManager[Broker]:
    return certificate_of_another_time(folder, -10 * DAY_S)


def of_tomorrow(folder: Path) -> AbstractContextManager[Broker]:
    return certificate_of_another_time(folder, 3 * DAY_S)


@contextmanager
def own_certificate_that_has_ended(folder: Path) -> Iterator[Broker]:
    ward = Vouching(folder / "ward")
    mine = ward.files("st-anna", made_s=-10 * DAY_S, days=5)
    with listening(tls_server(ward.files(HOST, Role.BROKER))) as port:
        yield {"port": port, "tls": told(mine)}


@contextmanager
def full_disk(folder: Path) -> Iterator[Broker]:
    with small_disk(folder / "state"), broker(folder) as reached:
        fill(folder / "state")
        yield reached


NTP = "synchronise this machine's clock (NTP: chrony, systemd-timesyncd, or the host of the virtual machine)"

CASES: dict[str, tuple[Place, dict[str, tuple[str, str]]]] = {
    "nobody listens": (
        nobody,
        {
            "tcp": (
                "127.0.0.1 port PORT: the connection is refused",
                (
                    "correct broker.port, or start the broker there; "
                    "a firewall that answers with a reset must allow outgoing TCP to 127.0.0.1 port PORT"
                ),
            )
        },
    ),
    "the broker refuses": (
        broker_that_lets_nobody_in,
        {
            "mqtt": (
                "the broker refuses site st-anna: Not authorized",
                (
                    "the broker's operator must let site st-anna in; "
                    "check broker.username, broker.password_file and broker.tls"
                ),
            )
        },
    ),
    "the proxy is down": (
        no_proxy,
        {
            "proxy": (
                "127.0.0.1 port PORT: the connection is refused",
                "correct broker.proxy (or https_proxy), or let this machine connect to 127.0.0.1 port PORT",
            )
        },
    ),
    "another authority": (
        another_authority,
        {
            "tls": (
                (
                    "the certificate was issued by CN=Hospital Web Gateway: "
                    "something between here and the broker opens TLS"
                ),
                (
                    "ask for an exception of 127.0.0.1 port PORT from TLS inspection "
                    "(if this is the federation's own authority, broker.tls.ca_file is an old or a wrong one)"
                ),
            )
        },
    ),
    "the broker's certificate has ended": (
        that_has_ended,
        {
            "tls": (
                "the broker's certificate ended at MOMENT, and by this machine's clock it is MOMENT",
                "ask the broker's operator to renew its certificate; if the clock is ahead, correct it (NTP)",
            )
        },
    ),
    "the clock is behind": (
        of_tomorrow,
        {
            "tls": (
                "the broker's certificate begins at MOMENT, and by this machine's clock it is MOMENT",
                "correct this machine's clock (NTP)",
            ),
            "clock": ("it is MOMENT here, and a certificate begins at MOMENT", NTP),
        },
    ),
    "this side's certificate has ended": (
        own_certificate_that_has_ended,
        {
            "certificate": (
                "CN=st-anna, issued by CN=ward authority, until DAY: it has ended",
                "renew this side's certificate (or correct this machine's clock)",
            )
        },
    ),
    "the disk is full": (
        full_disk,
        {
            "disk": (
                "state_folder FOLDER/state: 67 MB free, 68 MB needed for the next step",
                "free disk space below FOLDER/state",
            )
        },
    ),
}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("records")
    [site, *_] = split("breast-cancer", 2, None, folder, 7)
    return folder / site.name


@pytest.mark.parametrize(("place", "expected"), CASES.values(), ids=CASES)
def test_29_each_failure_has_its_line_its_remedy_and_ends_with_1(
    place: Place, expected: dict[str, tuple[str, str]], records: Path, tmp_path: Path
) -> None:
    with place(tmp_path) as reached:
        site = {
            "site": "st-anna",
            "federation": "ward",
            "tasks": {"breast-cancer": {"train": str(records / "train.csv")}},
            "state_folder": str(tmp_path / "state"),
            "broker": {"host": HOST, **reached},
        }
        config = tmp_path / "site.yaml"
        config.write_text(yaml.safe_dump(site))
        command = [sys.executable, "-m", "fedward.cli", "agent", "doctor", "--json", "--config", str(config)]
        ran = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    lines = [line for line in json.loads(ran.stdout) if line["verdict"] == "failed"]
    said = {line["name"]: (general(line["found"], tmp_path), general(line["remedy"], tmp_path)) for line in lines}
    assert said == expected
    assert (ran.returncode, ran.stderr) == (1, "")


def general(text: str, folder: Path) -> str:
    """Without what differs from run to run."""
    text = text.replace(str(folder), "FOLDER")
    text = re.sub(r"20\d\d-\d\d-\d\d \d\d:\d\d UTC", "MOMENT", text)
    return re.sub(r"port \d+", "port PORT", re.sub(r"20\d\d-\d\d-\d\d", "DAY", text))
