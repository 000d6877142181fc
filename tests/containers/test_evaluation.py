"""The federation of docker/compose.yaml, in containers. The numbers are the points of the deployment checklist."""

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.containers import STATE, Evaluation, docker, wait_for

pytestmark = [pytest.mark.containers, pytest.mark.slow, pytest.mark.timeout(400)]

KILLED = "hospital-b"
MIDDLE_VERSION = 5
LEARNT_S, CHANGE_S = 240.0, 90.0
LEAST_AUC = 0.98

LEDGER = f"""
import json, pathlib
from coordinator.ledger import Ledger
rows = Ledger.in_folder(pathlib.Path('{STATE}/state')).updates()
print(json.dumps([(row.update_id.hex(), row.reason is None) for row in rows]))
"""


@pytest.fixture(scope="module")
def finished(federation: Evaluation) -> dict[str, Any]:
    """The coordinator's last state, after one agent was killed in the middle and came back."""
    wait_for(lambda: federation.state().get("version", 0) >= MIDDLE_VERSION, LEARNT_S, "some versions")
    docker("kill", federation.container(KILLED))
    assert federation.state()["state"] == "running", "that was the middle"
    docker("start", federation.container(KILLED))
    wait_for(lambda: federation.state().get("state") == "finished", LEARNT_S, "the last version")
    wait_for(lambda: all(has_settled(federation, site) for site in federation.SITES), CHANGE_S, "receipts")
    return federation.state()


def has_settled(federation: Evaluation, site: str) -> bool:
    return "0 in the outbox" in federation.fedward(site, "agent", "status", "--config", "site.yaml")


def saved(federation: Evaluation, site: str) -> list[str]:
    """The updates that a site trained, as its log names them when each is in the outbox."""
    return [event["update"] for event in federation.events(site) if event["event"] == "saved"]


def test_11_compose_brings_everything_up_and_healthy(federation: Evaluation) -> None:
    states = {service: federation.inspect(service, ".State.Status") for service in federation.SERVICES}
    assert set(states.values()) == {"running"}, states
    assert all(federation.health(service) == "healthy" for service in (*federation.SITES, "coordinator"))


def test_10_the_federation_learns_through_the_proxies_and_a_killed_agent_costs_nothing(
    federation: Evaluation, finished: dict[str, Any]
) -> None:
    assert finished["metrics"]["auc"] >= LEAST_AUC
    trained = {site: saved(federation, site) for site in federation.SITES}
    ended: dict[str, bool] = dict(json.loads(federation.python("coordinator", LEDGER)))
    for site, updates in trained.items():
        assert len(updates) > MIDDLE_VERSION, f"{site} took part"
        assert len(set(updates)) == len(updates), f"{site} trained nothing twice"
        assert set(updates) <= set(ended), f"of {site} nothing is lost"
    starts = [event for event in federation.events(KILLED) if event["event"] == "started"]
    assert len(starts) == 2, "it was killed, and came back"
    replayed = federation.fedward("coordinator", "coordinator", "replay", "--config", "federation.yaml")
    assert "every digest is as recorded" in replayed


def test_10_a_hospital_has_no_way_out_but_its_proxy(federation: Evaluation) -> None:
    places = {"broker": 8883, "coordinator": 8080, "prometheus": 9090, "proxy-b": 3128}
    addresses = [
        (one["IPAddress"], port) for name, port in places.items() for one in federation.networks(name).values()
    ]
    code = f"""
import socket
for place in {[*addresses, ("192.0.2.1", 443)]}:
    try:
        socket.create_connection(place, 1).close()
        print('reached', place)
    except OSError:
        pass
socket.create_connection(('proxy', 3128), 5).close()
"""
    assert len(addresses) == 6
    assert federation.python("hospital-a", code) == ""


def test_10_a_hospital_is_on_one_network_and_it_is_its_own(federation: Evaluation) -> None:
    for site in federation.SITES:
        assert list(federation.networks(site)) == [f"{federation.name}_{site}"]


@pytest.mark.parametrize(
    ("request_line", "answer"),
    [
        ("CONNECT broker:8883 HTTP/1.1", b"HTTP/1.0 200"),
        ("CONNECT broker:1883 HTTP/1.1", b"HTTP/1.1 403"),
        ("CONNECT coordinator:8883 HTTP/1.1", b"HTTP/1.1 403"),
    ],
)
def test_10_the_proxy_lets_a_hospital_reach_the_broker_and_nobody_else(
    federation: Evaluation, request_line: str, answer: bytes
) -> None:
    code = f"""
import socket
with socket.create_connection(('proxy', 3128), 5) as proxy:
    proxy.sendall({request_line!r}.encode() + b'\\r\\n\\r\\n')
    print(proxy.recv(100))
"""
    assert federation.python("hospital-a", code).startswith(f"b'{answer.decode()}"), request_line


def test_10_prometheus_has_what_the_agents_report(federation: Evaluation, finished: dict[str, Any]) -> None:
    def scraped() -> bool:
        page = federation.page(federation.prometheus_port, "/api/v1/query?query=fed_site_heard_timestamp_seconds")
        return page is not None and len(json.loads(page)["data"]["result"]) == len(federation.SITES)

    wait_for(scraped, CHANGE_S, "the sites at Prometheus")


def test_22_prometheus_computes_every_rule_and_nobody_is_called(federation: Evaluation) -> None:
    def rules() -> list[dict[str, Any]]:
        page = federation.page(federation.prometheus_port, "/api/v1/rules")
        groups = json.loads(page)["data"]["groups"] if page else []
        return [rule for group in groups for rule in group["rules"]]

    wait_for(lambda: {rule["health"] for rule in rules()} == {"ok"}, CHANGE_S, "all rules computed")
    assert [rule["name"] for rule in rules() if rule.get("state") == "firing"] == ["FedwardWatchdog"]


def test_31_every_container_s_log_is_bounded(federation: Evaluation) -> None:
    for service in federation.SERVICES:
        found = federation.inspect(service, ".HostConfig.LogConfig")
        assert found == {"Type": "json-file", "Config": {"max-file": "3", "max-size": "10m"}}, service


def test_5_every_container_is_hardened(federation: Evaluation) -> None:
    for service in federation.SERVICES:
        found = federation.inspect(service, ".HostConfig")
        assert found["ReadonlyRootfs"], service
        assert found["CapDrop"] == ["ALL"], service
        assert found["SecurityOpt"] == ["no-new-privileges:true"], service
        assert not found["Privileged"], service
        assert not [bind for bind in found["Binds"] or () if "docker.sock" in bind], service
        assert found["PidsLimit"] == 128, service
        assert found["Memory"] > 0, service


@pytest.fixture
def without_broker(federation: Evaluation, finished: dict[str, Any]) -> Iterator[None]:
    docker("stop", federation.container("broker"))
    yield
    docker("start", federation.container("broker"))
    places = (*federation.SITES, "coordinator")
    wait_for(lambda: all(federation.health(place) == "healthy" for place in places), CHANGE_S, "health")


@pytest.mark.usefixtures("without_broker")
def test_6_all_are_unhealthy_without_the_broker_and_say_why(federation: Evaluation) -> None:
    for service in (*federation.SITES, "coordinator"):
        wait_for(lambda service=service: federation.health(service) == "unhealthy", CHANGE_S, service)  # type: ignore[misc]
        assert federation.inspect(service, ".State.Health.Log")[-1]["Output"].strip() == "not connected to the broker"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can kill a process of a container")
def test_32_a_process_that_dies_comes_back_unattended(federation: Evaluation, finished: dict[str, Any]) -> None:
    before = federation.inspect("hospital-c", ".State.StartedAt")
    os.kill(federation.inspect("hospital-c", ".State.Pid"), signal.SIGKILL)

    def is_back() -> bool:
        is_new = federation.inspect("hospital-c", ".State.StartedAt") != before
        return is_new and federation.health("hospital-c") == "healthy"

    wait_for(is_back, CHANGE_S, "a healthy agent")
    assert federation.inspect("hospital-c", ".RestartCount") == 1


@pytest.mark.parametrize("service", ["hospital-a", "coordinator"])
def test_7_a_container_that_is_stopped_ends_by_itself(
    federation: Evaluation, finished: dict[str, Any], service: str
) -> None:
    docker("stop", "--time=60", federation.container(service))
    assert federation.inspect(service, ".State.ExitCode") == 0
    assert federation.events(service)[-1]["event"] == "stopped"
    docker("start", federation.container(service))
    wait_for(lambda: federation.health(service) == "healthy", CHANGE_S, service)


@pytest.mark.parametrize("service", ["hospital-a", "coordinator"])
def test_7_a_container_that_is_stopped_while_it_starts_ends_by_itself(
    federation: Evaluation, finished: dict[str, Any], service: str
) -> None:
    docker("stop", federation.container(service))
    docker("start", federation.container(service))
    docker("stop", "--time=60", federation.container(service))
    assert federation.inspect(service, ".State.ExitCode") in (0, 128 + signal.SIGTERM)  # it was not killed: 137
    docker("start", federation.container(service))
    wait_for(lambda: federation.health(service) == "healthy", CHANGE_S, service)
