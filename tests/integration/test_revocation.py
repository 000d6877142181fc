"""Who is put out, with all that is real: the coordinator's process, mosquitto and its plugin, `revoke`, a flood."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from fedward import topics
from fedward.modelfile import save_model
from fedward.topics import Up
from sandbox.broker import find_mosquitto
from sandbox.child import Child
from sandbox.federation import environment
from sandbox.secured import SecuredBroker
from tests.support.party import Papers, Party, papers
from tests.support.updates import SMALL, vector

pytestmark = [
    pytest.mark.slow,
    pytest.mark.network,
    pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed: apt-get install mosquitto"),
]

FEDERATION, READY_S = "f1", 60.0
FLOOD = 20_000
"""Messages: ten times what a site may send at once, and as much again."""


class Town:
    """A secured broker, and the coordinator of hosp-a and hosp-b at it; in the `folder`."""

    def __init__(self, folder: Path, broker: SecuredBroker) -> None:
        self.folder, self.broker = folder, broker
        self.trusted = folder / "broker" / "authority" / "ca.crt"
        save_model(folder / "initial.safetensors", SMALL, vector(SMALL, 0, scale=1.0), {})
        identity = folder / "coordinator"
        files = {"ca_file": "ca.crt", "certificate_file": "coordinator.crt", "key_file": "coordinator.key"}
        settings = {
            "federation": FEDERATION,
            "sites": ["hosp-a", "hosp-b"],
            "task": "tabular",
            "model": str(folder / "initial.safetensors"),
            "work": {"local_epochs": 1, "batch_size": 16, "local_lr": 0.1},
            "state_folder": str(folder / "state"),
            "broker": {
                "host": broker.host,
                "port": broker.port,
                "tls": {setting: str(identity / name) for setting, name in files.items()},
                "authorisation": "dynamic-security",
            },
            "identity": {"folder": str(identity)},
            "authority": {"folder": str(self.trusted.parent)},
        }
        self.config = folder / "federation.yaml"
        self.config.write_text(yaml.safe_dump(settings))
        self.operator("identity")

    def command(self, verb: str, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "fedward.cli", "coordinator", verb, *arguments, "--config", str(self.config)]

    def operator(self, verb: str, *arguments: str) -> None:
        subprocess.run(self.command(verb, *arguments), env=environment(), check=True, timeout=READY_S)

    def member(self, site: str) -> Papers:
        """A certificate of the authority, which is in the register as enrolment leaves it."""
        own = papers(self.folder, self.broker.authority, self.trusted, site)
        register = self.folder / "coordinator" / "sites"
        register.mkdir(exist_ok=True)
        (register / f"{site}.crt").write_bytes(own.certificate.read_bytes())
        return own


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with SecuredBroker(tmp_path / "broker", [FEDERATION]) as broker:
        yield Town(tmp_path, broker)


def is_let_speak(town: Town, own: Papers) -> bool:
    with Party(town.broker.port, own) as party:
        return party.publish(topics.up(FEDERATION, own.name, Up.GET)) == "Success"


@pytest.fixture
def working(town: Town) -> Iterator[tuple[Town, Papers, Papers]]:
    """The town, with its coordinator at work, and the papers of hosp-a and hosp-b, which may speak."""
    own, other = town.member("hosp-a"), town.member("hosp-b")
    child = Child(town.command("run"), town.folder / "coordinator.log", environment())
    try:
        give_up_s = time.monotonic() + READY_S
        while not (is_let_speak(town, own) and is_let_speak(town, other)):
            assert time.monotonic() < give_up_s, child.log.read_text()
        yield town, own, other
    finally:
        child.terminate()
        child.wait(10)


def test_revoke_ends_the_live_connection_of_the_site_and_of_nobody_else(working: tuple[Town, Papers, Papers]) -> None:
    town, own, other = working
    with Party(town.broker.port, own) as a, Party(town.broker.port, other) as b:
        assert a.publish(topics.up(FEDERATION, "hosp-a", Up.GET)) == "Success"
        town.operator("revoke", "hosp-a", "--reason", "its key was stolen")
        assert a.wait_for_end() == "Administrative action"
        with Party(town.broker.port, own, resume=True) as back:
            assert back.publish(topics.up(FEDERATION, "hosp-a", Up.GET)) == "Not authorized"
            assert back.subscribe(topics.announce(FEDERATION)) == "Not authorized"
        assert b.publish(topics.up(FEDERATION, "hosp-b", Up.GET)) == "Success"
        assert b.connected


def test_a_flood_ends_the_connection_of_its_site_and_of_nobody_else(working: tuple[Town, Papers, Papers]) -> None:
    town, own, other = working
    with Party(town.broker.port, own) as a, Party(town.broker.port, other) as b:
        a.flood(topics.up(FEDERATION, "hosp-a", Up.TELEMETRY), FLOOD)
        a.wait_for_end(READY_S)  # in whatever words: what it still sends may keep it from reading the broker's
        give_up_s = time.monotonic() + READY_S
        while is_let_speak(town, own):
            assert time.monotonic() < give_up_s, "the site still has its rights"
        assert b.publish(topics.up(FEDERATION, "hosp-b", Up.GET)) == "Success"
        assert b.connected
