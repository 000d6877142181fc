"""Two of the chart's coordinator pods on one database and one volume: the second is Ready, and takes over."""

from collections.abc import Iterator

import pytest

from tests.support.chart import render
from tests.support.containers import wait_for
from tests.support.installation import install, make_keys, node_for, small_values, spec_of
from tests.support.network import door
from tests.support.pod import Node, Pod
from tests.support.postgres import server

pytestmark = [pytest.mark.containers, pytest.mark.slow, pytest.mark.timeout(300)]

NAME = "fedward-chart-standby-test"
SUBNET, NODE_AT, BROKER_AT = "10.213.46.0/24", "10.213.46.1", "10.213.46.10"
PODS_AT = ("10.213.46.11", "10.213.46.12")
CHANGE_S = 30.0


def leads(pod: Pod) -> bool:
    return "fed_coordinator_leads 1.0" in (pod.page("/metrics") or "")


@pytest.fixture(scope="module")
def replicas(
    built: dict[str, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Node, str, list[Pod]]]:
    """Both, started one after the other once the hook has made the tables; and what the hook said."""
    keys = tmp_path_factory.mktemp("operator")
    make_keys(keys, small_values(BROKER_AT))
    with server() as database, node_for(NAME, SUBNET, keys, built).running() as node:
        name = database.new_url().rpartition("/")[2]
        with door(NODE_AT, database.port) as port:
            values = small_values(
                BROKER_AT,
                ledger__url=f"postgresql://fedward@{NODE_AT}:{port}/{name}?sslmode=disable",  # no certificate: a test's
                state__accessMode="ReadWriteMany",
                coordinator__replicas=len(PODS_AT),
            )
            manifests = render(values)
            install(node, manifests)
            said = node.job(spec_of(manifests, "Job/migrate"))
            node.start(spec_of(manifests, "StatefulSet/broker"), BROKER_AT)
            spec = spec_of(manifests, "Deployment/coordinator")
            pods = []
            for number, address in enumerate(PODS_AT):
                pods.append(node.start(spec | {"of": f"coordinator-{number}"}, address))
            yield node, said, pods


def test_the_hook_makes_the_tables_of_a_new_database(replicas: tuple[Node, str, list[Pod]]) -> None:
    _, said, _ = replicas
    assert "the ledger's tables are of revision" in said


def test_the_second_pod_is_ready_while_it_stands_by_and_leads_when_the_first_was_killed(
    replicas: tuple[Node, str, list[Pod]],
) -> None:
    _, _, (first, second) = replicas
    for pod in (first, second):
        wait_for(lambda pod=pod: pod.passes("readinessProbe"), CHANGE_S, f"readiness of {pod.container.name}")
    assert (leads(first), leads(second)) == (True, False)
    first.container.kill()
    wait_for(lambda: leads(second), CHANGE_S, "the second to lead")
    wait_for(lambda: second.passes("readinessProbe"), CHANGE_S, "the second's broker")
