"""A hospital joins the federation of docker/compose.yaml by the three commands that its invitation shows, and trains.

Its container is on an internal network: the broker, with mutual TLS and dynamic security, is reached through the
hospital's HTTP proxy alone. It is killed, upgraded and badly upgraded in the middle, and nothing is lost.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edge_agent.appliance.engine import LABEL
from sandbox.datasets import split
from sandbox.logs import parsed
from sandbox.ports import HOST, free_port
from tests.containers.appliance.conftest import Publisher
from tests.support.containers import Evaluation, wait_for

docker = pytest.importorskip("docker", reason="the SDK is not installed: pip install 'fedward[appliance]'")

pytestmark = [pytest.mark.containers, pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[3]
SITE, OTHERS = "hospital-c", ("hospital-a", "hospital-b")
TASK = "breast-cancer"
LEAST_AUC = 0.98
LEAST_VERSION = 40
STEP_S = 120.0

LEDGER = """
import json, pathlib
from coordinator.ledger import Ledger
rows = Ledger.in_folder(pathlib.Path('state')).updates()
rows = [row for row in rows if row.site == 'hospital-c']
print(json.dumps([(row.update_id.hex(), row.base_version, row.reason) for row in rows]))
"""


@dataclass
class Shop:
    """Where the publisher's images are to be had."""

    engine: "docker.DockerClient"
    publisher: Publisher
    name: str
    built: str

    def push(self, version: str, *variables: str) -> tuple[str, str]:
        """The agent's image under a version, with more environment: its reference by digest, and the signature."""
        container = self.engine.containers.create(self.built)
        changes = [f"LABEL org.opencontainers.image.version={version}", *(f"ENV {each}" for each in variables)]
        container.commit(self.name, version, changes=changes)
        container.remove()
        self.engine.images.push(self.name, version)
        [digest] = self.engine.images.get(f"{self.name}:{version}").attrs["RepoDigests"]
        return str(digest), self.publisher.signature(digest)


@pytest.fixture
def shop(
    engine: "docker.DockerClient", publisher: Publisher, registry: str, built: dict[str, dict[str, str]]
) -> Iterator[Shop]:
    shop = Shop(engine, publisher, f"{registry}/fedward-agent", built["agent-cpu"]["tag"])
    yield shop
    for image in engine.images.list(shop.name):
        engine.images.remove(image.id, force=True)


@dataclass
class Machine:
    """The hospital's: a folder, a network without a way out but the proxy, and the environment of its commands."""

    folder: Path
    variables: dict[str, str]
    shop: Shop

    def run(self, command: list[str], code: int | None = 0) -> str:
        """A command to its end; what it printed. Fails unless it ends with `code`, if there is one."""
        with self.begin(command) as running:
            text = running.stdout.read() if running.stdout else ""
        self.keep(command, text)
        assert code is None or running.returncode == code, text
        return text

    def begin(self, command: list[str]) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def keep(self, command: list[str], printed: str) -> None:
        """What a command has printed last, for docker/pictures.py."""
        folder = self.folder / "shown"
        folder.mkdir(exist_ok=True)
        words = command[1:4] if len(command) == 4 else command[1:3]
        (folder / f"{'-'.join(words)}.txt").write_text(f"$ {shlex.join(command)}\n{printed}")

    def fedward(self, *arguments: str, code: int | None = 0) -> str:
        """`fedward appliance ...`"""
        return self.run(["fedward", "appliance", *arguments], code)

    def status(self) -> dict[str, Any]:
        """What `fedward appliance status` says."""
        found: dict[str, Any] = json.loads(self.fedward("status", "--json"))
        return found

    def container(self) -> "docker.models.containers.Container":
        """The one that is there; another one would be an orphan."""
        labelled = {"label": f"{LABEL}={self.variables['FEDWARD_NAME']}"}
        [found] = self.shop.engine.containers.list(all=True, filters=labelled)
        return found

    def saved(self) -> set[str]:
        """The updates that the container that is there trained, as its log names them when each is in the outbox."""
        events = map(parsed, self.container().logs().splitlines())
        return {event["update"] for event in events if event and event["event"] == "saved"}

    def use(self, image: str, signature: str) -> None:
        """Write another image into appliance.yaml."""
        path = self.folder / "appliance.yaml"
        kept = [line for line in path.read_text().splitlines() if not line.startswith("image")]
        path.write_text("\n".join([*kept, f"image: {image}", f"image_signature: {signature}", ""]))


@pytest.fixture
def evaluation(built: dict[str, dict[str, str]]) -> Iterator[Evaluation]:
    """Broker, coordinator and the proxies; no hospital has started."""
    with Evaluation("fedward-joining", 100_000, by_hand=SITE) as running:
        yield running


@pytest.fixture
def machine(tmp_path: Path, evaluation: Evaluation, shop: Shop) -> Iterator[Machine]:
    """With an empty Python, as at a hospital. What `pip` installs by our name is this repository."""
    python = tmp_path / "python"
    subprocess.run([sys.executable, "-m", "venv", python], check=True)
    source = tmp_path / "source"  # a build leaves files beside what it builds
    for side in ("fedward", "edge_agent"):
        shutil.copytree(ROOT / side, source / side, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    wheel = [python / "bin" / "pip", "wheel", "-q", "--no-deps", "--wheel-dir", tmp_path, source]
    subprocess.run(wheel, check=True, stderr=subprocess.PIPE)
    name = f"fedward-test-{tmp_path.parent.name[-4:]}-joining"
    of_the_machine = {
        "PATH": f"{python / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PIP_FIND_LINKS": str(tmp_path),
        "FEDWARD_NAME": name,
        "FEDWARD_FOLDER": str(tmp_path / "appliance"),
        "FEDWARD_NETWORK": f"{evaluation.name}_{SITE}",
        "FEDWARD_MEMORY_GIB": "1",
        "FEDWARD_HTTP_PORT": str(free_port(HOST)),
    }
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    yield Machine(tmp_path, kept | of_the_machine, shop)
    engine = shop.engine
    for container in engine.containers.list(all=True, filters={"label": f"{LABEL}={name}"}):
        sys.stderr.write(container.logs(tail=20).decode())
        container.remove(force=True, v=True)
    for volume in engine.volumes.list(filters={"label": f"{LABEL}={name}"}):
        volume.remove(force=True)


def invited(evaluation: Evaluation, machine: Machine, release: dict[str, str]) -> list[list[str]]:
    """The operator invites; the token is in the hospital's file. Returns the commands that were shown."""
    told = evaluation.fedward(
        "coordinator", "coordinator", "invite", SITE, "--config", "federation.yaml", variables=release
    )
    [token] = re.findall(r"^fedward1\S+$", told, re.MULTILINE)
    (machine.folder / "token.txt").touch(0o600)
    (machine.folder / "token.txt").write_text(token)
    return [shlex.split(line) for line in told.splitlines() if line.startswith("  ")]


def installed_and_admitted(evaluation: Evaluation, machine: Machine, command: list[str]) -> None:
    """The desk installs; the operator compares the fingerprint that it reads out by phone, and admits."""

    def operator(*arguments: str) -> str:
        return evaluation.fedward("coordinator", "coordinator", *arguments, "--config", "federation.yaml")

    with machine.begin(command) as installing:
        shown = []
        for line in installing.stdout or ():
            shown.append(line)
            if found := re.search(r"fingerprint of this hospital's key: (\S+)", line):
                wait_for(lambda said=found[1]: said in operator("requests"), STEP_S, "the request")  # type: ignore[misc]
                operator("admit", SITE, "--fingerprint", found[1])
    machine.keep(command, "".join(shown))
    assert installing.returncode == 0, "".join(shown)


def accepted(evaluation: Evaluation) -> int:
    return int(evaluation.state().get("sites", {}).get(SITE, {}).get("num_accepted", 0))


def trained_on(evaluation: Evaluation, when: str) -> None:
    """Return when the coordinator has taken one more update of the hospital."""
    before = accepted(evaluation)
    wait_for(lambda: accepted(evaluation) > before, STEP_S, f"an update {when}")


def joined(evaluation: Evaluation, machine: Machine) -> list[str]:
    """From nothing to an agent that waits for approval, by the commands that were shown; the last one of them."""
    image, signature = machine.shop.push("1")
    release = {"RELEASE_KEY": machine.shop.publisher.public_line, "IMAGE": image, "IMAGE_SIGNATURE": signature}
    commands = invited(evaluation, machine, {f"FEDWARD_INSTALLATION__{name}": text for name, text in release.items()})
    assert len(commands) == 3
    [site] = [each for each in split(TASK, 3, None, machine.folder / "export") if each.name == SITE]
    records = machine.folder / "export" / site.name
    pip, init, install = commands
    machine.run(pip)
    filled = [{"FOLDER": str(records), "NAME=FILE": "train=train.csv"}.get(word, word) for word in init]
    machine.run([*filled, "--option", "held_out=held_out.csv", "--proxy", "http://proxy:3128"])
    installed_and_admitted(evaluation, machine, install)
    assert machine.status()["state"] == "healthy"
    return install


def killed(machine: Machine, install: list[str]) -> None:
    """As the kernel does it where memory ends, after which the engine starts it; else as `docker kill` does it."""
    if os.geteuid() == 0:
        os.kill(machine.container().attrs["State"]["Pid"], signal.SIGKILL)
    else:
        machine.container().kill("SIGKILL")
        machine.run(install)


def badly_upgraded(machine: Machine) -> None:
    """To an image that never reaches the broker: the one before comes back by itself."""
    before = machine.container()
    machine.use(*machine.shop.push("bad", "FEDWARD_BROKER__PORT=9"))
    assert "not healthy within" in machine.fedward("upgrade", "--force", code=1)
    assert "not healthy within" in machine.fedward("status")
    after = machine.container()
    assert after.id == before.id
    state = after.attrs["State"]
    passed = [datetime.fromisoformat(each["End"]) for each in state["Health"]["Log"] if each["ExitCode"] == 0]
    left, came = datetime.fromisoformat(state["FinishedAt"]), datetime.fromisoformat(state["StartedAt"])
    away = min(end for end in passed if end > came) - left
    assert away < timedelta(seconds=60), "the bar itself, not a measurement"


def finished(evaluation: Evaluation, machine: Machine) -> None:
    """Return when the last version is made, and the hospital has a receipt for all that it sent."""
    wait_for(lambda: evaluation.state()["version"] >= LEAST_VERSION, 2 * STEP_S, "some versions")
    evaluation.fedward("coordinator", "coordinator", "finish", "--config", "federation.yaml")
    wait_for(lambda: evaluation.state()["state"] == "finished", STEP_S, "the end")
    wait_for(lambda: "0 in the outbox" in machine.fedward("agent", "status"), STEP_S, "receipts")


def test_10_three_commands_lead_to_a_trained_model_whatever_happens_to_the_container(
    evaluation: Evaluation, machine: Machine
) -> None:
    install = joined(evaluation, machine)

    # Who answers for the data approves; only then is trained.
    wait_for(lambda: TASK in machine.fedward("agent", "pending"), STEP_S, "an order to approve")
    assert accepted(evaluation) == 0
    machine.fedward("agent", "approve")
    evaluation.start(*OTHERS)
    trained_on(evaluation, "after the installation")

    killed(machine, install)
    trained_on(evaluation, "after the kill")

    trained = machine.saved()
    machine.use(*machine.shop.push("better"))
    machine.fedward("upgrade")
    assert machine.status()["version"] == "better"
    trained_on(evaluation, "after the upgrade")

    badly_upgraded(machine)
    trained_on(evaluation, "after the return")

    finished(evaluation, machine)
    assert evaluation.state()["metrics"]["auc"] >= LEAST_AUC
    trained |= machine.saved()
    rows = json.loads(evaluation.python("coordinator", LEDGER))
    assert trained <= {update for update, _, _ in rows}, "nothing is lost"
    assert len({base for _, base, _ in rows}) == len(rows), "each counts once"
    reasons = {reason for _, _, reason in rows if reason is not None}
    assert reasons <= {"stale", "finished"}, "those that were late are the only ones that do not count"
    assert "each as it was written" in machine.fedward("agent", "egress", "--verify")
