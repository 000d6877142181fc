"""A federation that is set up by the commands of docs/enrolment.md: a broker with rights, a coordinator, hospitals.

Every party has its own folder, as it would have its own machine, and nothing gets from one to another but by a command,
a token, or over the broker.
"""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from coordinator.broker_config import MOSQUITTO_CONFIG
from sandbox.broker import MOSQUITTO_STAY_ROOT, find_mosquitto
from sandbox.child import Child, start_child, takes_connections
from sandbox.datasets import Split, split
from sandbox.federation import WORK, environment
from sandbox.ports import HOST, free_port
from tests.support.waiting import wait_for

FEDERATION, TASK = "region", "breast-cancer"
PATIENCE_S = 60.0


def fedward(*arguments: object, code: int = 0) -> str:
    """A command to its end: what it printed, on standard error where it should fail."""
    command = [sys.executable, "-m", "fedward.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, env=environment(), check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


class Region:
    """Starts and ends every process; in a `with` block of `start`."""

    def __init__(self, folder: Path) -> None:
        """Authority, identities and configurations, by the commands; nothing runs yet."""
        self.folder = folder
        self.port, self.enrolment_port, self.http_port = (free_port(HOST) for _ in range(3))
        self.records: Split = split(TASK, 4, None, folder / "records")
        self.children: dict[str, Child] = {}
        self.model = folder / "initial.safetensors"
        self.config = self._write("federation", self._federation())
        with ThreadPoolExecutor() as meanwhile:  # it imports torch, which takes seconds
            model = meanwhile.submit(fedward, "agent", "init-model", "--task", TASK, "--out", self.model)
            fedward("coordinator", "ca", "--out", folder / "authority")
            self.operator("identity")
            self.operator("identity", "--broker", HOST)
            self._configure_broker()
            model.result()

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(site.name for site in self.records)

    def _federation(self) -> dict[str, Any]:
        identity = self.folder / "coordinator"
        return {
            "federation": FEDERATION,
            "sites": list(self.sites),
            "task": TASK,
            "model": str(self.model),
            "work": dict(WORK[TASK]),
            "state_folder": str(self.folder / "coordinator-state"),
            "broker": {
                **self._broker(identity, "coordinator"),
                "authorisation": "dynamic-security",
                "enrolment_port": self.enrolment_port,
            },
            "identity": {"folder": str(identity)},
            "authority": {"folder": str(self.folder / "authority")},
            "engine": {"preset": "default", "buffer_size": 1},
            "http": {"host": HOST, "port": self.http_port},
        }

    def _broker(self, identity: Path, name: str) -> dict[str, Any]:
        """TLS is asked for, as it goes without saying only to other machines."""
        files = {"ca_file": "ca.crt", "certificate_file": f"{name}.crt", "key_file": f"{name}.key"}
        tls = {setting: str(identity / file) for setting, file in files.items()}
        return {"host": HOST, "port": self.port, "tls": tls, "reconnect_max_s": 1}

    def _write(self, name: str, settings: Mapping[str, object]) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(dict(settings)))
        return path

    def _configure_broker(self) -> None:
        out = self.folder / "broker"
        place = ("--host", HOST, "--address", HOST, "--port", self.port, "--enrolment-port", self.enrolment_port)
        identity = self.folder / "coordinator" / "broker"
        fedward(
            "coordinator", "broker-config", "--federation", FEDERATION, "--out", out, "--identity", identity, *place
        )
        if os.geteuid() == 0:
            with (out / MOSQUITTO_CONFIG).open("a") as config:
                config.write(MOSQUITTO_STAY_ROOT)

    def operator(self, verb: str, *arguments: object, code: int = 0) -> str:
        return fedward("coordinator", verb, *arguments, "--config", self.config, code=code)

    # processes

    def start_broker(self) -> None:
        command = [find_mosquitto() or "mosquitto", "-c", str(self.folder / "broker" / MOSQUITTO_CONFIG)]
        self.children["broker"] = start_child(
            command, self.log("broker"), lambda: takes_connections(HOST, self.port), PATIENCE_S
        )

    def start_coordinator(self) -> None:
        """Return when it has given the rights at the broker."""
        self._start("coordinator", "coordinator", "run", "--config", self.config)
        wait_for(lambda: "broker_provisioned" in self.said("coordinator"), PATIENCE_S, "provisioned")

    def start_agent(self, site: str) -> None:
        self._start(site, "agent", "run", "--config", self.folder / f"{site}.yaml")

    def _start(self, name: str, *arguments: object) -> Child:
        command = [sys.executable, "-u", "-m", "fedward.cli", *map(str, arguments)]
        self.children[name] = Child(command, self.log(name), environment())
        return self.children[name]

    def end(self, name: str) -> None:
        child = self.children.pop(name)
        child.terminate()
        child.wait(10.0)

    def stop(self) -> None:
        for child in self.children.values():
            child.terminate()
        for child in self.children.values():
            child.wait(10.0)

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def said(self, name: str) -> str:
        """All that a process has written so far."""
        return self.log(name).read_text() if self.log(name).exists() else ""

    def state(self) -> dict[str, Any]:
        """The coordinator's page."""
        with urllib.request.urlopen(f"http://{HOST}:{self.http_port}/v1/state", timeout=PATIENCE_S) as answer:
            return dict(json.loads(answer.read()))

    # hospitals

    def invite(self, site: str, *arguments: object) -> str:
        return self.operator("invite", site, *arguments).strip()

    def configure_site(self, site: str, place: str | None = None, **way: object) -> None:
        """A hospital's files, at another place than its own if that is named; `way` is more of its `broker`."""
        place = place or site
        identity, policy = self.folder / place, self._write(f"{place}.policy", {"approval": "automatic"})
        settings = {
            "site": site,
            "federation": FEDERATION,
            "tasks": {TASK: next(one.options for one in self.records if one.name == site)},
            "state_folder": str(self.folder / f"{place}-state"),
            "broker": {**self._broker(identity, site), "will_delay_s": 0, **way},
            "identity": {"folder": str(identity)},
            "policy_file": str(policy),
            "device": "cpu",
            "threads": 1,
            "telemetry_s": 0.5,
        }
        self._write(place, settings)

    def enroll(self, site: str, token: str, *arguments: object, code: int = 0) -> str:
        """A hospital's command, to its end."""
        return fedward(*self._enroll(site, token), *arguments, code=code)

    def enrolling(self, site: str, token: str) -> Child:
        """A hospital's command, in the background; its output is the log `<site> enrols`."""
        return self._start(f"{site} enrols", *self._enroll(site, token))

    def _enroll(self, site: str, token: str) -> list[object]:
        path = self.folder / f"{site}.token"
        path.write_text(token)
        path.chmod(0o600)
        return ["agent", "enroll", "--config", self.folder / f"{site}.yaml", "--token-file", path]

    def compare_and_admit(self, site: str) -> None:
        """The phone call: what the hospital's command has printed, and what the operator admits."""
        wait_for(
            lambda: "waits for its operator" in self.said(f"{site} enrols"),
            PATIENCE_S,
            "its first answer",
        )
        lines = self.said(f"{site} enrols").splitlines()
        fingerprint = next(line.split()[-1] for line in lines if "fingerprint" in line)
        assert fingerprint in self.operator("requests")
        self.operator("admit", site, "--fingerprint", fingerprint[:19])

    def has_enrolled(self, site: str) -> None:
        """Wait for the end of the hospital's command."""
        child = self.children.pop(f"{site} enrols")
        assert child.wait(PATIENCE_S) == 0, self.said(f"{site} enrols")

    def reload_broker(self) -> None:
        """What `systemctl reload mosquitto` does: the list of revoked certificates is read again."""
        os.kill(self.children["broker"].pid, signal.SIGHUP)
