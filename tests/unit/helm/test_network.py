"""Who may speak with whom: the policies list the ports that pods listen on, and no others."""

from typing import Any

import pytest

from tests.support.chart import Manifest, containers, pods, render, selects, the, values_of

DNS = [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]


def policy_of(manifests: list[Manifest], labels: dict[str, str]) -> dict[str, Any]:
    [found] = [
        one["spec"]
        for one in manifests
        if one["kind"] == "NetworkPolicy" and selects(one["spec"]["podSelector"], labels)
    ]
    return dict(found)


def test_every_pod_is_closed_but_for_the_ports_that_it_listens_on(manifests: list[Manifest]) -> None:
    for whose, labels, spec in pods(manifests):
        policy = policy_of(manifests, labels)
        assert policy["policyTypes"] == ["Ingress", "Egress"], whose
        listens = {(port["name"], port["protocol"]) for one in containers(spec) for port in one.get("ports", ())}
        opened = {(port["port"], port["protocol"]) for rule in policy["ingress"] for port in rule["ports"]}
        assert opened == listens, whose


def test_services_lead_to_ports_that_pods_listen_on(manifests: list[Manifest]) -> None:
    for service in (found for found in manifests if found["kind"] == "Service"):
        [spec] = [it for _, labels, it in pods(manifests) if service["spec"]["selector"].items() <= labels.items()]
        listens = {port["name"] for one in containers(spec) for port in one.get("ports", ())}
        assert {port["targetPort"] for port in service["spec"]["ports"]} == listens


def test_nobody_says_anything_to_everybody(manifests: list[Manifest]) -> None:
    rules = [rule for found in manifests if found["kind"] == "NetworkPolicy" for rule in found["spec"]["egress"]]
    assert not [rule for rule in rules if not rule.get("ports")]


def egress(manifests: list[Manifest], name: str) -> list[Any]:
    return list(the(manifests, "NetworkPolicy", name)["spec"]["egress"])


def test_the_coordinator_reaches_dns_broker_and_ledger() -> None:
    manifests = render(values_of("production"))
    dns, broker, ledger = egress(manifests, "coordinator")
    assert dns == {"ports": DNS}
    assert broker["ports"] == [{"port": "mqtts", "protocol": "TCP"}]
    [peer] = broker["to"]
    [reached] = [whose for whose, labels, _ in pods(manifests) if selects(peer["podSelector"], labels)]
    assert reached == "StatefulSet/north-broker"
    assert ledger == {"ports": [{"port": 5432, "protocol": "TCP"}], "to": [{"ipBlock": {"cidr": "203.0.113.5/32"}}]}


def test_an_external_broker_is_reached_at_its_port_and_a_key_service_as_the_operator_says() -> None:
    dns, broker, ledger, key_service = egress(render(values_of("external")), "coordinator")
    assert (dns["ports"], broker) == (DNS, {"ports": [{"port": 8883, "protocol": "TCP"}]})
    assert ledger == {"ports": [{"port": 5432, "protocol": "TCP"}]}
    assert key_service["ports"] == [{"port": 443, "protocol": "TCP"}]


def test_a_job_reaches_the_ledger_s_server_or_nothing() -> None:
    assert egress(render(values_of("small", backup__enabled=True)), "backup") == []
    manifests = render(values_of("production"))
    for name in ("backup", "replay", "migrate"):
        assert [rule["ports"][0]["port"] for rule in egress(manifests, name)] == [53, 5432]


def test_the_broker_calls_nobody() -> None:
    assert egress(render(values_of("production")), "broker") == []


@pytest.mark.parametrize(("url", "port"), [("postgresql://a@db/x", 5432), ("postgresql://a@db:6543/x?b=c", 6543)])
def test_the_ledger_s_port_is_that_of_its_url(url: str, port: int) -> None:
    rules = egress(render(values_of("small", ledger__url=url)), "migrate")
    assert rules[-1] == {"ports": [{"port": port, "protocol": "TCP"}]}


def test_the_metrics_are_for_the_named_namespaces_and_the_test() -> None:
    def sources(namespaces: list[str]) -> list[Any]:
        manifests = render(values_of("small", networkPolicy__monitoring=namespaces))
        [rule] = the(manifests, "NetworkPolicy", "coordinator")["spec"]["ingress"]
        return list(rule["from"])

    [test] = sources([])
    assert test["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "test"
    [chosen] = sources(["ops", "sre"])[1]["namespaceSelector"]["matchExpressions"]
    assert chosen == {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["ops", "sre"]}


def test_the_broker_is_open_to_all_hospitals_or_to_those_that_are_named() -> None:
    def rule(name: str) -> dict[str, Any]:
        [found] = the(render(values_of(name)), "NetworkPolicy", "broker")["spec"]["ingress"]
        return dict(found)

    assert "from" not in rule("small")
    blocks = [peer["ipBlock"]["cidr"] for peer in rule("production")["from"] if "ipBlock" in peer]
    assert blocks == ["192.0.2.0/24", "198.51.100.7/32"]
