"""The pods of helm/coordinator, run by Docker as the chart renders them: they pass their probes, and two agents train.

Every command is one of docs/kubernetes.md. Without a kubelet: what that would do is in `tests/support/pod.py`.
"""

import re
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
import yaml

from sandbox.datasets import split
from tests.support.chart import Manifest, changed, render
from tests.support.containers import wait_for
from tests.support.installation import (
    API_TOKEN,
    FEDERATION,
    HOST,
    SITES,
    TASK,
    install,
    make_keys,
    node_for,
    small_values,
    spec_of,
)
from tests.support.pod import Node, Pod

pytestmark = [pytest.mark.containers, pytest.mark.slow, pytest.mark.timeout(300)]

NAME = "fedward-chart-test"
SUBNET, BROKER_AT, COORDINATOR_AT = "10.213.45.0/24", "10.213.45.10", "10.213.45.11"
AGENT_USER = (10001, 10001)
TRAINED_S = 120.0
SOME_VERSIONS, MORE_VERSIONS = 2, 3
VALUES = small_values(
    BROKER_AT,
    backup__enabled=True,
    api={"enabled": True, "tokenSecret": "chest-xray-api-token", "from": [{"podSelector": {}}]},
    config__api={"plain": True},
)
API_PORT = 8443


@dataclass
class Installation:
    """The chart, installed."""

    node: Node
    manifests: list[Manifest]
    coordinator: Pod
    broker: Pod

    def spec(self, whose: str) -> dict[str, Any]:
        """As `spec_of`."""
        return spec_of(self.manifests, whose)

    def trains_on(self, versions: int) -> None:
        """Wait for so many further versions."""
        first = self.coordinator.state().get("version", 0)
        reached = lambda: self.coordinator.state().get("version", 0) >= first + versions  # noqa: E731 - said once
        wait_for(reached, TRAINED_S, f"version {first + versions}")


@pytest.fixture(scope="module")
def installed(built: dict[str, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Broker and coordinator as the chart renders them."""
    keys = tmp_path_factory.mktemp("operator")
    make_keys(keys, VALUES)
    manifests = render(VALUES)
    with node_for(NAME, SUBNET, keys, built).running() as node:
        install(node, manifests)
        broker = node.start(spec_of(manifests, "StatefulSet/broker"), BROKER_AT)
        coordinator = node.start(spec_of(manifests, "Deployment/coordinator"), COORDINATOR_AT)
        yield Installation(node, manifests, coordinator, broker)


def hospital(installed: Installation, site: str, records: Path, image: str) -> None:
    """A hospital's agent, enrolled over the broker's port for tokens and started. It is no part of the chart."""
    token = installed.coordinator.execute(
        "fedward", "coordinator", "invite", site, "--automatic", "--config", "/etc/fedward/federation.yaml"
    )
    files = {
        "token.txt": token.encode(),
        "site.yaml": yaml.safe_dump(
            {
                "site": site,
                "federation": FEDERATION,
                "tasks": {TASK: {"train": "train.csv", "held_out": "held_out.csv"}},
                "state_folder": "state",
                "broker": {"host": HOST, "reconnect_max_s": 1},
                "identity": {"folder": "identity"},
                "policy_file": "policy.yaml",
                "threads": 1,
            }
        ).encode(),
        "policy.yaml": yaml.safe_dump(
            {"federations": [FEDERATION], "tasks": {TASK: "any"}, "approval": "automatic"}
        ).encode(),
        **{name: (records / name).read_bytes() for name in ("train.csv", "held_out.csv")},
    }
    volume = installed.node.volume(f"hospital-{site}", files, AGENT_USER, (0o700, 0o600))
    usual: dict[str, Any] = {
        "labels": {NAME: ""},
        "network": NAME,
        "extra_hosts": {HOST: BROKER_AT},
        "volumes": {volume: {"bind": "/var/lib/fedward"}},
        "detach": True,
    }
    enrol = ["agent", "enroll", "--config", "site.yaml", "--token-file", "token.txt"]
    installed.node.ended(installed.node.client.containers.run(image, enrol, **usual))
    installed.node.client.containers.run(image, ["agent", "run", "--config", "site.yaml"], init=True, **usual)


@pytest.fixture(scope="module")
def training(
    installed: Installation, built: dict[str, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Installation:
    """With two hospitals whose agents have made a version together."""
    records = tmp_path_factory.mktemp("records")
    for part, site in zip(split(TASK, len(SITES), None, records), SITES, strict=True):
        hospital(installed, site, records / part.name, built["agent-cpu"]["tag"])
    installed.trains_on(SOME_VERSIONS)
    return installed


def test_19_the_pods_pass_their_own_probes(installed: Installation) -> None:
    for pod in (installed.broker, installed.coordinator):
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            wait_for(lambda pod=pod, probe=probe: pod.passes(probe), 30, f"{probe} of {pod.container.name}")


def test_the_coordinator_holds_no_copy_of_a_key_and_no_right_that_it_does_not_need(installed: Installation) -> None:
    looks = (
        "from pathlib import Path; folder = Path('/var/lib/fedward/identity');"
        "print([str(p.readlink()) for p in sorted(folder.glob('*.key'))],"
        "[line.split()[1] for line in open('/proc/self/status') if line.startswith(('CapEff', 'NoNewPrivs'))])"
    )
    links = ["/secrets/identity/coordinator.key", "/secrets/identity/sealing.key"]
    assert installed.coordinator.execute("python3.11", "-c", looks).strip() == f"{links} {['0' * 16, '1']}"


def test_two_agents_enrol_and_train_through_the_rendered_pods(training: Installation) -> None:
    assert training.coordinator.state()["version"] >= SOME_VERSIONS
    assert "fed_model_version" in (training.coordinator.page("/metrics") or "")


def test_the_api_answers_those_who_have_the_token_and_nobody_else(installed: Installation) -> None:
    def ask(**headers: str) -> int:
        address = f"http://{COORDINATOR_AT}:{API_PORT}/v1/federations/{FEDERATION}"
        try:
            with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=10) as answer:
                return int(answer.status)
        except HTTPError as error:
            return error.code

    assert ask(Authorization=f"Bearer {API_TOKEN}") == HTTPStatus.OK
    assert ask() == ask(Authorization="Bearer " + "x" * len(API_TOKEN)) == HTTPStatus.UNAUTHORIZED


def test_the_replay_ends_well_beside_the_coordinator_which_tells_so(training: Installation) -> None:
    assert "every digest is as recorded" in training.node.job(training.spec("CronJob/replay"))
    assert "fed_replay_matches 1.0" in (training.coordinator.page("/metrics") or "")


def test_the_test_of_the_release_asks_the_coordinator(training: Installation) -> None:
    spec = training.spec("Pod/test")
    *_, service = spec["containers"][0]["command"]
    spec["hostAliases"] = [{"ip": COORDINATOR_AT, "hostnames": [service]}]  # in place of the cluster's DNS
    assert training.node.job(spec).strip() == "ok"


def test_a_broker_and_a_coordinator_that_start_again_go_on_with_the_same_hospitals(training: Installation) -> None:
    assert training.broker.end(30) == 0
    training.broker = training.node.start(training.spec("StatefulSet/broker"), BROKER_AT)
    grace_s = training.spec("Deployment/coordinator")["terminationGracePeriodSeconds"]
    assert training.coordinator.end(grace_s) == 0
    training.coordinator = training.node.start(training.spec("Deployment/coordinator"), COORDINATOR_AT)
    wait_for(lambda: training.coordinator.passes("readinessProbe"), 30, "readiness")
    training.trains_on(MORE_VERSIONS)


def test_a_backup_that_the_job_has_made_is_restored_by_the_chart_and_the_hospitals_go_on(
    training: Installation,
) -> None:
    version = training.coordinator.state()["version"]
    training.node.job(training.spec("CronJob/backup"))
    training.trains_on(1)
    training.coordinator.end(60)
    restoring = render(changed(VALUES, restore__from="backup"))  # the folder has the name of its pod
    said = training.node.job(spec_of(restoring, "Job/restore"))
    [restored] = re.findall(r"version (\d+) with .* restored, chain head", said)
    assert int(restored) >= version
    training.coordinator = training.node.start(training.spec("Deployment/coordinator"), COORDINATOR_AT)
    training.trains_on(MORE_VERSIONS)
