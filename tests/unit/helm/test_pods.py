"""What the pods may do, hooks and jobs among them: Kubernetes' profile `restricted`, and no secret is made."""

from typing import Any

import pytest

from tests.support.chart import Manifest, containers, pods, render, the, values_of

CREDENTIALS = {
    "identity__existingSecret": {"Deployment/north-coordinator"},
    "authority__existingSecret": {"Deployment/north-coordinator"},
    "broker__existingSecret": {"StatefulSet/north-broker"},
    "broker__passwordSecret": {"Deployment/north-coordinator"},
    "api__tokenSecret": {"Deployment/north-coordinator"},
    "api__tlsSecret": {"Deployment/north-coordinator"},
    "ledger__existingSecret": {
        "Deployment/north-coordinator",
        "Job/north-migrate",
        "CronJob/north-backup",
        "CronJob/north-replay",
        "Job/north-restore",
    },
}
"""Each credential of the values, and whose pods get it."""


def test_every_pod_is_restricted(manifests: list[Manifest]) -> None:
    found = list(pods(manifests))
    assert found
    for whose, _, spec in found:
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True, whose
        assert security["runAsUser"] == security["runAsGroup"] == security["fsGroup"] == 10001, whose
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, whose
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), whose
        kinds = {kind for volume in spec.get("volumes", ()) for kind in volume if kind != "name"}
        assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}, whose
        for container in containers(spec):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }, f"{whose} {container['name']}"
            assert not [port for port in container.get("ports", ()) if "hostPort" in port], whose


def test_no_pod_knows_the_cluster(manifests: list[Manifest]) -> None:
    """No token, and no variables of services: FEDWARD_COORDINATOR_PORT would be taken for a setting."""
    for whose, _, spec in pods(manifests):
        assert spec["automountServiceAccountToken"] is False, whose
        assert spec["enableServiceLinks"] is False, whose
    for account in (found for found in manifests if found["kind"] == "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


def test_every_container_has_resources_and_bounded_scratch_space(manifests: list[Manifest]) -> None:
    for whose, _, spec in pods(manifests):
        assert not [v for v in spec.get("volumes", ()) if "emptyDir" in v and not v["emptyDir"].get("sizeLimit")], whose
        for container in containers(spec):
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), whose
            assert "memory" in container["resources"]["limits"], whose


def test_what_runs_for_long_has_probes_and_what_ends_has_none(manifests: list[Manifest]) -> None:
    for whose, _, spec in pods(manifests):
        lasting = whose.startswith(("Deployment", "StatefulSet"))
        for container in spec["containers"]:
            probes = {"startupProbe", "livenessProbe", "readinessProbe"}
            assert probes & container.keys() == (probes if lasting else set()), whose
            names = {port["name"] for port in container.get("ports", ())}
            for probe in probes & container.keys():
                [asked] = [container[probe][way] for way in ("httpGet", "tcpSocket") if way in container[probe]]
                assert asked["port"] in names, whose
        assert lasting or spec["restartPolicy"] == "Never", whose


def test_no_secret_is_rendered(manifests: list[Manifest]) -> None:
    assert not [found for found in manifests if found["kind"] == "Secret"]
    assert not [
        variable["name"]
        for _, _, spec in pods(manifests)
        for container in containers(spec)
        for variable in container.get("env", ())
        if "secretKeyRef" in str(variable)
    ], "a secret is a file, never a variable"


def secrets_of(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The secrets that a pod mounts, by name, with the volume that has each."""
    found = {}
    for volume in spec.get("volumes", ()):
        if "secret" in volume:
            found[volume["secret"]["secretName"]] = volume["secret"]
        for source in volume.get("projected", {}).get("sources", ()):
            found[source["secret"]["name"]] = volume["projected"]
    return found


@pytest.mark.parametrize("path", CREDENTIALS)
def test_a_credential_is_an_existing_secret_that_goes_to_those_who_need_it(path: str) -> None:
    changes: dict[str, Any] = {
        "authority__existingSecret": "chest-xray-authority",
        "restore__from": "b",
        path: "the-credential",
    }
    manifests = render(values_of("production", certManager__enabled=False, **changes))
    assert {whose for whose, _, spec in pods(manifests) if "the-credential" in secrets_of(spec)} == CREDENTIALS[path]


def test_every_secret_is_for_the_group_alone(manifests: list[Manifest]) -> None:
    """The program refuses a key that all can read."""
    volumes = [volume for _, _, spec in pods(manifests) for volume in secrets_of(spec).values()]
    assert volumes
    assert {volume["defaultMode"] for volume in volumes} == {0o440}


def test_every_mount_has_its_volume_and_every_volume_is_mounted(manifests: list[Manifest]) -> None:
    for whose, _, spec in pods(manifests):
        claims = [
            template["metadata"]["name"]
            for found in manifests
            if f"{found['kind']}/{found['metadata']['name']}" == whose
            for template in found["spec"].get("volumeClaimTemplates", ())
        ]
        mounts = [mount for container in containers(spec) for mount in container.get("volumeMounts", ())]
        volumes = {volume["name"] for volume in spec.get("volumes", ())} | set(claims)
        assert {mount["name"] for mount in mounts} == volumes, whose


def test_every_file_that_the_configuration_names_is_mounted(installation: str, manifests: list[Manifest]) -> None:
    text = the(manifests, "ConfigMap", "config")["data"]["federation.yaml"]
    spec = the(manifests, "Deployment", "coordinator")["spec"]["template"]["spec"]
    mounted = {mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}
    folders = {path for path in mounted if path.startswith(("/model", "/secrets")) and path != "/secrets/identity"}
    for folder in folders | {f"/secrets/{name}" for name in ("api-tls", "api-token", "authority", "broker", "ledger")}:
        named = any(f"{mark}{folder}{end}" in text for mark in '"=' for end in '/"')
        assert named == (folder in mounted), f"{installation}: {folder}"


def test_an_image_is_named_by_its_digest_where_there_is_one_and_by_a_tag_otherwise() -> None:
    def images(**changes: Any) -> set[str]:
        manifests = render(values_of("small", **changes))
        return {container["image"] for _, _, spec in pods(manifests) for container in containers(spec)}

    digest = "sha256:" + 64 * "a"
    base = "registry.example.org/fedward"
    assert images() == {f"{base}/fedward-coordinator:0.1.0", f"{base}/fedward-broker:0.1.0"}
    both = {"images__coordinator": {"tag": "1.2.3", "digest": digest}, "images__broker": {"tag": "1.2.3"}}
    assert images(**both) == {f"{base}/fedward-coordinator@{digest}", f"{base}/fedward-broker:1.2.3"}


def test_an_existing_claim_is_used_and_none_is_made_beside_it() -> None:
    manifests = render(values_of("small", state__existingClaim="mine", backup__enabled=True, backup__existingClaim="b"))
    assert not [found for found in manifests if found["kind"] == "PersistentVolumeClaim"]
    claims = {
        (whose, volume["persistentVolumeClaim"]["claimName"])
        for whose, _, spec in pods(manifests)
        for volume in spec.get("volumes", ())
        if "persistentVolumeClaim" in volume
    }
    jobs = ("CronJob/north-backup", "CronJob/north-replay")
    assert claims == {("Deployment/north-coordinator", "mine"), *((job, "mine") for job in jobs), (jobs[0], "b")}
