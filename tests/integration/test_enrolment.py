"""Enrolment with real processes over a real broker: commands as people type them, killed at each step, typed again."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from fedward.cli import EXIT_CONFIG, EXIT_UNAVAILABLE
from fedward.identity.authorities import check_revocations
from fedward.identity.certificates import (
    FileAuthority,
    Role,
    check_certificate,
    load_certificate,
    make_request,
    parse_request,
)
from fedward.identity.folder import SiteIdentity
from fedward.identity.keys import load_signing_key
from fedward.identity.token import read_token, write_token
from fedward.modelfile import save_model
from sandbox.broker import EmbeddedBroker
from sandbox.child import Child
from sandbox.datasets import site_name
from sandbox.federation import FEDERATION as DEMO
from sandbox.federation import Federation
from sandbox.identities import make_identities
from tests.support.updates import SMALL, vector
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.network]

FEDERATION, READY_S = "ward", 60.0


class Town:
    """A broker, a coordinator that runs, and its operator beside it. Hospitals come by name."""

    def __init__(self, folder: Path, broker: EmbeddedBroker) -> None:
        self.folder, self.broker = folder, broker
        save_model(folder / "initial.safetensors", SMALL, vector(SMALL, 0, scale=1.0), {})
        self.config = self._write("federation", self._federation())
        self.fedward("coordinator", "ca", "--out", folder / "ca")
        self.operator("identity")
        self.child: Child | None = None

    def _federation(self) -> dict[str, object]:
        return {
            "federation": FEDERATION,
            "sites": ["north", "south"],
            "task": "tabular",
            "model": str(self.folder / "initial.safetensors"),
            "work": {"local_epochs": 1, "batch_size": 16, "local_lr": 0.1},
            "state_folder": str(self.folder / "state"),
            "broker": {"host": self.broker.host, "port": self.broker.port},
            "identity": {"folder": str(self.folder / "coordinator")},
            "authority": {"folder": str(self.folder / "ca")},
        }

    def _write(self, name: str, settings: dict[str, object]) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(settings))
        return path

    def set_authority(self, settings: dict[str, object]) -> None:
        self.config = self._write("federation", {**self._federation(), "authority": settings})

    def start(self) -> None:
        command = [sys.executable, "-m", "fedward.cli", "coordinator", "run", "--config", str(self.config)]
        self.child = Child(command, self.folder / "coordinator.log")

    def kill(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child = None

    def fedward(self, *arguments: object, code: int = 0) -> str:
        command = [sys.executable, "-m", "fedward.cli", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=READY_S, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    def operator(self, verb: str, *arguments: object, code: int = 0) -> str:
        return self.fedward("coordinator", verb, *arguments, "--config", self.config, code=code)

    def invite(self, site: str, *arguments: object) -> str:
        return self.operator("invite", site, *arguments).strip()

    def site_config(self, site: str) -> Path:
        settings = {
            "site": site,
            "federation": FEDERATION,
            "tasks": {"tabular": {}},
            "state_folder": str(self.folder / f"{site}-state"),
            "broker": {"host": self.broker.host, "port": self.broker.port},
            "identity": {"folder": str(self.identity(site))},
        }
        return self._write(site, settings)

    def identity(self, site: str) -> Path:
        return self.folder / site

    def hospital(self, site: str, token: str, *arguments: object, code: int = 0) -> str:
        config = self.site_config(site)
        return self.fedward("agent", "enroll", "--config", config, "--token", token, *arguments, code=code)

    def enrolling(self, site: str, token: str) -> Child:
        """A hospital's command that waits, in the background; its output is `<site>.log`."""
        config, log = self.site_config(site), self.folder / f"{site}.log"
        log.unlink(missing_ok=True)
        command = [
            sys.executable,
            "-u",
            "-m",
            "fedward.cli",
            "agent",
            "enroll",
            "--config",
            str(config),
            "--token",
            token,
        ]
        return Child(command, log)

    def fingerprint(self, site: str) -> str:
        """As the hospital's command has printed it."""
        wait_for(lambda: "fingerprint" in self.said(site), READY_S, "a fingerprint")
        return fingerprint_in(self.said(site))

    def said(self, site: str) -> str:
        log = self.folder / f"{site}.log"
        return log.read_text() if log.exists() else ""

    def has_asked(self, site: str) -> bool:
        return f"{site:24} requested" in self.operator("requests")

    def assert_enrolled(self, site: str) -> None:
        now_s, folder = time.time(), self.identity(site)
        authority = load_certificate(self.folder / "ca" / "ca.crt")
        check_certificate(load_certificate(folder / f"{site}.crt"), authority, site, now_s)
        identity = SiteIdentity.load(folder, FEDERATION, site, now_s)
        coordinator = load_certificate(self.folder / "coordinator" / "coordinator.crt")
        assert identity.coordinator.fingerprint == coordinator.fingerprint
        registered = load_certificate(self.folder / "coordinator" / "sites" / f"{site}.crt")
        assert registered.fingerprint == load_certificate(folder / f"{site}.crt").fingerprint
        assert not [path for path in folder.rglob("*") if path.suffix == ".key" and path.stat().st_mode & 0o077]


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with EmbeddedBroker(tmp_path / "broker") as broker:
        town = Town(tmp_path, broker)
        yield town
        town.kill()


def test_a_hospital_is_enrolled_by_a_token_and_a_compared_fingerprint(town: Town) -> None:
    town.start()
    token = town.invite("north")
    hospital = town.enrolling("north", token)
    fingerprint = town.fingerprint("north")
    wait_for(lambda: town.has_asked("north"), READY_S, "the request at the coordinator")
    assert fingerprint in town.operator("requests")
    wrong = "-".join(["0000"] * 4)
    assert "somebody else" in town.operator("admit", "north", "--fingerprint", wrong, code=EXIT_CONFIG)
    town.operator("admit", "north", "--fingerprint", fingerprint[:19])
    assert hospital.wait(READY_S) == 0, town.said("north")
    town.assert_enrolled("north")
    assert "is enrolled already" in town.hospital("north", token)


def test_a_hospital_and_a_coordinator_that_are_killed_at_each_step_end_it_when_run_again(town: Town) -> None:
    token = town.invite("north")
    hospital = town.enrolling("north", token)
    fingerprint = town.fingerprint("north")
    hospital.kill()  # with a key, and nobody has heard of it
    town.start()
    hospital = town.enrolling("north", token)
    assert town.fingerprint("north") == fingerprint
    wait_for(lambda: town.has_asked("north"), READY_S, "the request at the coordinator")
    hospital.kill()
    town.kill()
    town.operator("admit", "north", "--fingerprint", fingerprint)
    certificate = load_certificate(town.folder / "coordinator" / "sites" / "north.crt")
    town.operator("admit", "north", "--fingerprint", fingerprint)
    assert load_certificate(town.folder / "coordinator" / "sites" / "north.crt") == certificate
    town.start()
    assert "is enrolled" in town.hospital("north", token)
    town.assert_enrolled("north")


def test_a_token_with_another_secret_is_never_answered(town: Town) -> None:
    town.start()
    token = town.invite("north", "--automatic")
    guessed = write_token(replace(read_token(token), secret=bytes(32)))
    assert "no answer" in town.hospital("north", guessed, "--wait", 8, code=EXIT_UNAVAILABLE)
    wait_for(
        lambda: "bad_signature" in (town.folder / "coordinator.log").read_text(), READY_S, "the refusal in the log"
    )
    assert not list((town.folder / "coordinator" / "sites").iterdir())


def test_an_automatic_token_serves_once_and_one_that_has_ended_never(town: Town) -> None:
    town.start()
    token = town.invite("north", "--automatic")
    town.hospital("north", token)
    town.assert_enrolled("north")
    town.identity("north").rename(town.folder / "of the first")
    assert "has served another key" in town.hospital("north", token, code=EXIT_CONFIG)
    late = town.invite("south", "--automatic", "--days", 0)
    assert "not used in time" in town.hospital("south", late, code=EXIT_CONFIG)


def test_a_hospital_that_is_denied_is_told_so(town: Town) -> None:
    town.start()
    token = town.invite("north")
    hospital = town.enrolling("north", token)
    wait_for(lambda: town.has_asked("north"), READY_S, "the request at the coordinator")
    town.operator("deny", "north")
    assert hospital.wait(READY_S) == EXIT_CONFIG
    assert "has denied this request" in town.said("north")


def test_an_air_gapped_hospital_is_enrolled_by_files_with_an_offline_authority(town: Town) -> None:
    town.set_authority({})
    request, answer = town.folder / "request.json", town.folder / "answer.json"
    to_sign, signed = town.folder / "to-sign.json", town.folder / "signed.json"
    token = town.invite("north")
    fingerprint = fingerprint_in(town.hospital("north", token, "--request-out", request))
    assert "waiting" in town.operator("requests", "--in", request)
    town.operator("admit", "north", "--fingerprint", fingerprint)
    town.operator("answer", "north", "--out", answer)
    assert "not admitted yet" in town.hospital("north", token, "--answer", answer, code=EXIT_UNAVAILABLE)
    assert "1 requests and 0 revocations" in town.operator("requests", "--out", to_sign)
    assert fingerprint in town.fedward(
        "coordinator", "sign", "--ca", town.folder / "ca", "--in", to_sign, "--out", signed
    )
    town.operator("admit", "--in", signed)
    town.operator("admit", "--in", signed)  # twice changes nothing
    assert "admitted" in town.operator("answer", "north", "--out", answer)
    town.hospital("north", token, "--answer", answer)
    town.assert_enrolled("north")


def test_a_revoked_site_is_known_to_the_running_coordinator_within_seconds(town: Town) -> None:
    town.start()
    town.hospital("north", town.invite("north", "--automatic"))
    town.operator("revoke", "north", "--reason", "lost laptop")
    log = town.folder / "coordinator.log"
    wait_for(lambda: '"event": "revoked"' in log.read_text(), READY_S, "the revocation in the log")
    reason = json.loads((town.folder / "coordinator" / "revoked" / "north.json").read_text())["reason"]
    assert reason == "lost laptop"
    assert (town.folder / "coordinator" / "ca.crl").exists()
    assert "never enrolled" in town.operator("revoke", "south", code=EXIT_CONFIG)


def test_a_site_renews_its_certificate_without_a_restart_and_a_revoked_one_is_refused(
    federation: Callable[..., Federation], tmp_path: Path
) -> None:
    identities, site = tmp_path / "federation" / "identities", site_name(0)
    make_identities(identities, DEMO, [site, site_name(1)], time.time())
    authority = FileAuthority(identities / "authority")
    request = parse_request(make_request(load_signing_key(identities / site / f"{site}.key"), site))
    old = authority.sign(request, Role.CLIENT, time.time(), days=0.3)  # and a day behind it: a quarter is left
    for path in (identities / site / f"{site}.crt", identities / "coordinator" / "sites" / f"{site}.crt"):
        path.write_bytes(old.pem)
    running = federation(folder=tmp_path / "federation")
    pid = running.children[site].pid
    running.wait_for(
        lambda _: load_certificate(identities / site / f"{site}.crt").serial != old.serial, READY_S, "a new certificate"
    )
    renewed = load_certificate(identities / site / f"{site}.crt")
    assert renewed.fingerprint == old.fingerprint
    assert renewed.not_after_s > old.not_after_s
    version = running.state()["version"]
    running.wait_for(lambda state: state["version"] >= version + 2, READY_S, "two more versions")
    assert running.children[site].pid == pid
    running.fedward("coordinator", "revoke", site, "--config", str(running.config_path("coordinator")))
    running.wait_for(lambda state: state["refused"]["unknown_site"] > 0, READY_S, "a refusal of the revoked site")
    running.wait_for(lambda state: state["sites"][site]["phase"] == "offline", READY_S, "the revoked site offline")
    check_revocations(
        (identities / "coordinator" / "ca.crl").read_bytes(), authority.certificate, [old.serial, renewed.serial]
    )


def fingerprint_in(output: str) -> str:
    """As the hospital's command has printed it."""
    return next(line.split()[-1] for line in output.splitlines() if "fingerprint" in line)
