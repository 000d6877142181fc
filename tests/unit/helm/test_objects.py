"""The objects of the chart: valid for Kubernetes, named and labelled, there when they are asked for and only then."""

import json
import shutil
from pathlib import Path
from typing import Any

import helm_python
import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.support.chart import CHART, NAMESPACE, RELEASE, ROOT, Manifest, named, pods, render, selects, the, values_of

KINDS = json.loads((Path(__file__).parent / "kinds.schema.json").read_text())["kinds"]
"""Those that are no part of Kubernetes itself: what the chart may say in them."""

MAX_OBJECT_BYTES = 1_000_000
RELEASES = ["1.30.0", "1.34.0", "1.37.0"]
SQL = "postgresql://fedward@db.example.org:5432/x"


@pytest.mark.slow
@pytest.mark.parametrize("release", RELEASES)
def test_kubernetes_knows_every_field(manifests: list[Manifest], release: str) -> None:
    own = [found for found in manifests if found["kind"] not in KINDS]
    assert own
    for found in own:
        kubernetes_validate.validate(found, release, strict=True)


def test_a_field_that_kubernetes_does_not_know_would_be_found() -> None:
    service = the(render(values_of("small")), "Service", "coordinator")
    service["spec"]["prots"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service, RELEASES[0], strict=True)


@pytest.mark.parametrize("kind", ["Certificate", "ServiceMonitor"])
def test_another_kind_is_as_its_operator_expects_it(kind: str) -> None:
    found = [one for one in render(values_of("production")) if one["kind"] == kind]
    assert found
    for one in found:
        jsonschema.Draft202012Validator(KINDS[kind]).validate(one)


def test_everything_has_a_namespace_and_the_standard_labels(manifests: list[Manifest]) -> None:
    names = [(found["kind"], found["metadata"]["name"]) for found in manifests]
    assert len(set(names)) == len(names)
    for found in manifests:
        metadata = found["metadata"]
        assert metadata["namespace"] == NAMESPACE
        assert metadata["name"].startswith(f"{RELEASE}-")
        assert {
            "app.kubernetes.io/name": "fedward",
            "app.kubernetes.io/instance": RELEASE,
            "app.kubernetes.io/part-of": "fedward",
            "app.kubernetes.io/managed-by": "Helm",
            "app.kubernetes.io/version": "0.1.0",
        }.items() <= metadata["labels"].items()
        assert {"app.kubernetes.io/component", "helm.sh/chart"} <= metadata["labels"].keys()


def test_every_selector_finds_the_pods_of_its_own_component_and_no_others(manifests: list[Manifest]) -> None:
    found = list(pods(manifests))
    for one in manifests:
        if one["kind"] in ("Deployment", "StatefulSet", "PodDisruptionBudget", "NetworkPolicy"):
            key = "podSelector" if one["kind"] == "NetworkPolicy" else "selector"
            chosen = {whose for whose, labels, _ in found if selects(one["spec"][key], labels)}
        elif one["kind"] == "Service":
            chosen = {whose for whose, labels, _ in found if selects({"matchLabels": one["spec"]["selector"]}, labels)}
        elif one["kind"] == "ServiceMonitor":
            services = [service for service in manifests if service["kind"] == "Service"]
            chosen = {
                it["metadata"]["name"] for it in services if selects(one["spec"]["selector"], it["metadata"]["labels"])
            }
        else:
            continue
        assert [whose.rpartition("/")[2] for whose in chosen] == [one["metadata"]["name"]], one["kind"]


def ports_of(value: Any) -> list[dict[str, Any]]:
    """Every port that is described somewhere below."""
    if isinstance(value, list):
        return [found for item in value for found in ports_of(item)]
    if not isinstance(value, dict):
        return []
    own = [port for port in value.get("ports", ()) if isinstance(port, dict)]
    return own + [found for key, item in value.items() if key != "ports" for found in ports_of(item)]


def test_every_port_says_its_protocol(manifests: list[Manifest]) -> None:
    found = ports_of(manifests)
    assert len(found) >= 4
    assert not [port for port in found if port.get("protocol") not in ("TCP", "UDP")]


RULES = """\
groups:
  - name: fedward
    rules:
      - alert: SiteOffline
        expr: fed_site_online == 0
        for: 10m
        annotations: {summary: "{{ $labels.site }} is offline"}
"""
DASHBOARD = '{"title": "{{site}}"}\n'


@pytest.fixture
def packed(tmp_path: Path) -> helm_python.Chart:
    """The chart with one rule and one dashboard, whatever there are in the repository."""
    copy = shutil.copytree(CHART, tmp_path / "chart", ignore=shutil.ignore_patterns("files"))
    for name, text in {"rules/fedward.rules.yml": RULES, "dashboards/hospitals.json": DASHBOARD}.items():
        (copy / "files" / name).parent.mkdir(parents=True)
        (copy / "files" / name).write_text(text)
    return helm_python.Chart.load(copy)


def test_rules_and_dashboards_arrive_as_they_are_in_the_package(packed: helm_python.Chart) -> None:
    manifests = render(values_of("production", monitoring__rules__runbooks=""), packed)
    rule = the(manifests, "PrometheusRule", "fedward")
    assert rule["spec"] == yaml.safe_load(RULES)
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    jsonschema.Draft202012Validator(KINDS["PrometheusRule"]).validate(rule)
    dashboard = the(manifests, "ConfigMap", "dashboard-hospitals")
    assert dashboard["data"] == {"hospitals.json": DASHBOARD}
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_every_alert_of_the_repository_links_to_its_page_where_the_pages_are_served() -> None:
    base = "https://pages.example.org/fedward/"
    groups = the(render(values_of("production", monitoring__rules__runbooks=base)), "PrometheusRule", "fedward")[
        "spec"
    ]["groups"]
    alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    assert alerts
    for alert in alerts:
        url = alert["annotations"]["runbook_url"]
        assert url.startswith(base)
        assert (ROOT / url.removeprefix(base)).is_file(), url


def test_rules_and_dashboards_are_left_out_unless_they_are_asked_for(packed: helm_python.Chart) -> None:
    manifests = render(values_of("small"), packed)
    assert not named(manifests, "PrometheusRule", "fedward") + named(manifests, "ConfigMap", "dashboard-hospitals")


def test_every_rule_and_dashboard_of_the_repository_fits_into_its_object() -> None:
    for found in render(values_of("production")):
        if found["kind"] in KINDS:
            jsonschema.Draft202012Validator(KINDS[found["kind"]]).validate(found)
        assert len(json.dumps(found)) < MAX_OBJECT_BYTES, found["metadata"]["name"]


TOGGLES = [
    ("networkPolicy__enabled", "NetworkPolicy", {}),
    ("podDisruptionBudget__enabled", "PodDisruptionBudget", {}),
    ("monitoring__serviceMonitor__enabled", "ServiceMonitor", {}),
    ("certManager__enabled", "Certificate", {}),
    ("broker__enabled", "StatefulSet", {}),
]


@pytest.mark.parametrize(("path", "kind", "changes"), TOGGLES)
def test_what_can_be_left_out_is_there_when_it_is_asked_for_and_else_not(
    path: str, kind: str, changes: dict[str, Any]
) -> None:
    def kinds(wanted: bool) -> set[str]:
        return {found["kind"] for found in render(values_of("production", **changes, **{path: wanted}))}

    assert kind in kinds(True)
    assert kind not in kinds(False)


@pytest.mark.parametrize("name", ["backup", "replay"])
def test_a_job_is_there_when_it_is_asked_for_and_else_not(name: str) -> None:
    for wanted in (True, False):
        manifests = render(values_of("small", **{f"{name}__enabled": wanted}))
        assert bool(named(manifests, "CronJob", name)) is wanted
        assert bool(named(manifests, "NetworkPolicy", name)) is wanted


def test_a_restore_has_the_backups_and_no_coordinator_beside_it() -> None:
    def replicas(**changes: Any) -> int:
        found = the(render(values_of("airgapped", **changes)), "Deployment", "coordinator")["spec"]["replicas"]
        return int(found)

    assert (replicas(), replicas(restore__from="north-backup-1")) == (1, 0)
    assert not named(render(values_of("airgapped")), "Job", "restore")
    manifests = render(values_of("airgapped", restore__from="north-backup-1"))
    job, kept = the(manifests, "Job", "restore"), the(manifests, "CronJob", "backup")["spec"]["jobTemplate"]
    [restore], [backup] = (it["spec"]["template"]["spec"]["containers"] for it in (job, kept))
    assert "--from=/backups/north-backup-1" in restore["args"]
    assert "--out=/backups/$(POD_NAME)" in backup["args"]
    claims = [
        next(
            v["persistentVolumeClaim"]["claimName"]
            for v in it["spec"]["template"]["spec"]["volumes"]
            if v["name"] == "backups"
        )
        for it in (job, kept)
    ]
    assert claims == ["north-backups", "north-backups"]


def test_tables_are_migrated_before_the_coordinator_changes_where_the_ledger_is_on_a_server() -> None:
    assert not named(render(values_of("small")), "Job", "migrate")
    manifests = render(values_of("small", ledger__url=SQL))
    first = ("ConfigMap", "NetworkPolicy")  # those of the release before may lead to another server
    hooks = {kind: the(manifests, kind, "migrate")["metadata"].get("annotations", {}) for kind in (*first, "Job")}
    for kind, hook in hooks.items():
        assert hook.get("helm.sh/hook") == "pre-install,pre-upgrade", kind
        assert hook["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded", kind
    for kind in first:
        assert int(hooks[kind]["helm.sh/hook-weight"]) < int(hooks["Job"]["helm.sh/hook-weight"]), kind
    spec = the(manifests, "Job", "migrate")["spec"]["template"]["spec"]
    assert "serviceAccountName" not in spec, "there is none yet at an installation"
    made_before = {found["metadata"]["name"] for found in manifests if "helm.sh/hook" in str(found["metadata"])}
    used = {volume["configMap"]["name"] for volume in spec["volumes"] if "configMap" in volume}
    assert used <= made_before


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "Recreate"),
        ({"ledger__url": SQL}, "Recreate"),
        ({"state__accessMode": "ReadWriteMany"}, "Recreate"),
        ({"ledger__url": SQL, "state__accessMode": "ReadWriteMany"}, "RollingUpdate"),
    ],
)
def test_old_and_new_overlap_only_where_they_can(changes: dict[str, Any], kind: str) -> None:
    assert the(render(values_of("small", **changes)), "Deployment", "coordinator")["spec"]["strategy"]["type"] == kind


def test_a_budget_never_keeps_the_only_pod_on_its_node() -> None:
    assert not [found for found in render(values_of("small")) if found["kind"] == "PodDisruptionBudget"]
    manifests = render(values_of("production"))
    budgets = [found for found in manifests if found["kind"] == "PodDisruptionBudget"]
    assert [budget["spec"]["maxUnavailable"] for budget in budgets] == [1]
    assert the(manifests, "Deployment", "coordinator")["spec"]["replicas"] > 1


def test_a_standby_is_kept_on_another_node() -> None:
    def spread(**changes: Any) -> list[dict[str, Any]]:
        deployment = the(render(values_of("production", **changes)), "Deployment", "coordinator")
        found: list[dict[str, Any]] = deployment["spec"]["template"]["spec"].get("topologySpreadConstraints", [])
        return found

    assert [rule["topologyKey"] for rule in spread()] == ["kubernetes.io/hostname"]
    assert spread(coordinator__replicas=1) == []


def test_a_job_follows_a_volume_that_one_node_has_and_no_other() -> None:
    def follows(name: str) -> bool:
        job = the(render(values_of(name, replay__enabled=True)), "CronJob", "replay")
        return "affinity" in job["spec"]["jobTemplate"]["spec"]["template"]["spec"]

    assert (follows("small"), follows("production")) == (True, False)


def test_an_uninstall_leaves_the_federation_and_its_backups() -> None:
    claims = [f for f in render(values_of("small", backup__enabled=True)) if f["kind"] == "PersistentVolumeClaim"]
    assert {claim["metadata"]["name"] for claim in claims} == {f"{RELEASE}-state", f"{RELEASE}-backups"}
    assert {claim["metadata"]["annotations"]["helm.sh/resource-policy"] for claim in claims} == {"keep"}


def test_the_coordinator_finds_the_broker_at_the_address_of_its_service() -> None:
    def aliases(**changes: Any) -> object:
        deployment = the(render(values_of("small", **changes)), "Deployment", "coordinator")
        return deployment["spec"]["template"]["spec"].get("hostAliases")

    assert aliases() == [{"ip": "10.96.100.10", "hostnames": ["broker.example.org"]}]
    assert aliases(broker__service__clusterIP="") is None
