"""A rendered pod, run by Docker as near as that comes to a kubelet: the same user, rights, limits, files and probes.

What is not the same: there is no DNS of services and no NetworkPolicy, and a claim is a volume of Docker.
"""

import io
import json
import socket
import tarfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any

import docker
from docker.models.containers import Container
from docker.models.networks import Network
from docker.types import IPAMConfig, IPAMPool, Mount

from tests.support.containers import wait_for

Files = Mapping[str, bytes]
UNITS = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
STARTED_S, DONE_S = 60.0, 60.0


def bytes_of(quantity: str) -> int:
    """As Kubernetes writes amounts."""
    number = quantity.rstrip("KMGi")
    return int(number) * UNITS[quantity.removeprefix(number)]


@dataclass
class Node:
    """What the pods of one release share, in a `with` block: a network, claims, secrets and ConfigMaps."""

    name: str
    """Of everything that is made here, and the label by which it is found and deleted again."""
    images: Mapping[str, str]
    """Of each image that a manifest names: the one on this machine."""
    secrets: Mapping[str, Files]
    config_maps: dict[str, Files]
    subnet: str
    client: docker.DockerClient = field(default_factory=docker.from_env)
    network: Network = None

    @contextmanager
    def running(self) -> Iterator["Node"]:
        """Nothing of it is left afterwards."""
        self.remove()
        pool = IPAMConfig(pool_configs=[IPAMPool(subnet=self.subnet)])
        self.network = self.client.networks.create(self.name, labels={self.name: ""}, ipam=pool)
        try:
            yield self
        finally:
            self.remove()
            self.client.close()

    def remove(self) -> None:
        """All containers, volumes and networks of this name."""
        mine = {"label": self.name}
        for container in self.client.containers.list(all=True, filters=mine):
            container.remove(force=True, v=True)
        for found in (*self.client.volumes.list(filters=mine), *self.client.networks.list(filters=mine)):
            found.remove()

    def volume(self, name: str, files: Files, owner: tuple[int, int], modes: tuple[int, int]) -> str:
        """A volume of Docker with these files in it; as it is where it is there. `modes`: of its top, of its files."""
        name = f"{self.name}-{name}"
        if name in {volume.name for volume in self.client.volumes.list(filters={"label": self.name})}:
            return name
        self.client.volumes.create(name, labels={self.name: ""})
        [image] = {tag for whose, tag in self.images.items() if "coordinator" in whose}
        owns = f"import os; os.chown('/filled', {owner[0]}, {owner[1]}); os.chmod('/filled', {modes[0]})"
        filler = self.client.containers.create(
            image,
            ["-c", owns],
            entrypoint="python3.11",
            user="0:0",
            labels={self.name: ""},
            mounts=[Mount("/filled", name, type="volume", no_copy=True)],
            network_mode="none",
        )
        filler.put_archive("/filled", packed(files, owner, modes[1]))
        filler.start()
        self.ended(filler)
        return name

    def mounts(self, spec: Mapping[str, Any], container: Mapping[str, Any]) -> tuple[list[Mount], dict[str, str]]:
        """Of a container: what it mounts, and which folders it has in memory."""
        mounts, memory = [], {}
        volumes = {volume["name"]: volume for volume in spec.get("volumes", ())}
        group = (0, spec["securityContext"]["fsGroup"])
        for mount in container.get("volumeMounts", ()):
            volume, path = volumes.get(mount["name"], {}), mount["mountPath"]
            if "emptyDir" in volume:
                size = bytes_of(volume["emptyDir"]["sizeLimit"])
                memory[path] = f"rw,nosuid,nodev,noexec,size={min(size, 2**28)},mode=1777"
                continue
            if "configMap" in volume:
                files: Files = self.config_maps[volume["configMap"]["name"]]
                made = self.volume(f"map-{mount['name']}-{spec['of']}", files, group, (0o2755, 0o644))
            elif "secret" in volume or "projected" in volume:
                files, mode = self.secret_files(volume)
                made = self.volume(f"secret-{mount['name']}-{spec['of']}", files, group, (0o2755, mode))
            else:
                claim = volume.get("persistentVolumeClaim", {}).get("claimName", f"{spec['of']}-{mount['name']}")
                made = self.volume(f"claim-{claim}", {}, group, (0o2775, 0))
            mounts.append(Mount(path, made, no_copy=True, read_only=mount.get("readOnly", False)))
        return mounts, memory

    def secret_files(self, volume: Mapping[str, Any]) -> tuple[Files, int]:
        """Of a volume of one secret or several, and the files' mode. KeyError for a key that a secret lacks."""
        if "secret" in volume:
            sources = [{"name": volume["secret"]["secretName"], "items": volume["secret"]["items"]}]
            mode = volume["secret"]["defaultMode"]
        else:
            sources = [source["secret"] for source in volume["projected"]["sources"]]
            mode = volume["projected"]["defaultMode"]
        files = {item["path"]: self.secrets[one["name"]][item["key"]] for one in sources for item in one["items"]}
        return files, int(mode)

    def container(self, spec: Mapping[str, Any], container: Mapping[str, Any], **more: Any) -> Container:
        """One container of a pod, as the pod and it ask for it, started."""
        security, pod = container["securityContext"], spec["securityContext"]
        mounts, memory = self.mounts(spec, container)
        environment = {one["name"]: one.get("value", spec["of"]) for one in container.get("env", ())}
        arguments = [expanded(text, environment) for text in container.get("args", ())]
        started: Container = self.client.containers.run(
            self.images[container["image"]],
            arguments or None,
            name=f"{self.name}-{spec['of']}-{container['name']}",
            labels={self.name: ""},
            detach=True,
            entrypoint=container.get("command"),
            environment=environment,
            user=f"{pod['runAsUser']}:{pod['runAsGroup']}",
            group_add=[pod["fsGroup"]],
            read_only=security["readOnlyRootFilesystem"],
            cap_drop=security["capabilities"]["drop"],
            security_opt=[] if security["allowPrivilegeEscalation"] else ["no-new-privileges:true"],
            mem_limit=bytes_of(container["resources"]["limits"]["memory"]),
            extra_hosts={name: alias["ip"] for alias in spec.get("hostAliases", ()) for name in alias["hostnames"]},
            mounts=mounts,
            tmpfs=memory,
            **more,
        )
        return started

    def job(self, spec: Mapping[str, Any]) -> str:
        """Run a pod to its end; what it said. Fails where it ends otherwise than with 0."""
        [container] = spec["containers"]
        return self.ended(self.container(spec, container, network=self.name))

    def ended(self, started: Container) -> str:
        """As `job`."""
        code = started.wait(timeout=DONE_S)["StatusCode"]
        said: str = started.logs().decode()
        assert code == 0, f"{started.name} ended with {code}: {said}"
        started.remove()
        return said

    def start(self, spec: Mapping[str, Any], address: str) -> "Pod":
        """A pod that lasts, once all that prepares it has ended well and its start is proven."""
        for container in spec.get("initContainers", ()):
            self.ended(self.container(spec, container, network=self.name))
        [container] = spec["containers"]
        config = self.client.api.create_endpoint_config(ipv4_address=address)
        pod = Pod(self.container(spec, container, network=self.name, networking_config={self.name: config}), container)
        pod.address = address
        try:
            wait_for(lambda: pod.passes("startupProbe"), STARTED_S, f"the start of {pod.container.name}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it says {pod.container.logs().decode()}") from None
        return pod


@dataclass
class Pod:
    """A container that runs, and how a kubelet asks after it."""

    container: Container
    manifest: Mapping[str, Any]
    address: str = ""

    def passes(self, probe: str) -> bool:
        """Whether it does now, asked as a kubelet does: from the node, at the pod's address."""
        asked, limit_s = self.manifest[probe], self.manifest[probe].get("timeoutSeconds", 1)
        way = next(way for way in ("httpGet", "tcpSocket") if way in asked)
        ports = {port["name"]: port["containerPort"] for port in self.manifest["ports"]}
        port = ports[asked[way]["port"]]
        try:
            if way == "tcpSocket":
                socket.create_connection((self.address, port), limit_s).close()
                return True
            return self.page(asked[way]["path"], port, limit_s) is not None
        except OSError:
            return False

    def page(self, path: str, port: int = 8080, limit_s: float = 5) -> str | None:
        """What a path answers; None where that is no success."""
        try:
            with urllib.request.urlopen(f"http://{self.address}:{port}{path}", timeout=limit_s) as answer:
                return str(answer.read().decode())
        except (OSError, HTTPException):
            return None

    def state(self) -> dict[str, Any]:
        """The coordinator's state; empty where it does not answer."""
        page = self.page("/v1/state")
        found: dict[str, Any] = json.loads(page) if page else {}
        return found

    def execute(self, *command: str) -> str:
        """What a command prints that is run in it, as by `kubectl exec`. Fails where it ends otherwise than with 0."""
        code, (said, complained) = self.container.exec_run(list(command), demux=True)
        assert code == 0, f"{command}: {complained}"
        return str(said.decode())

    def end(self, grace_s: int) -> int:
        """Ask it to end, and the code that it ended with."""
        self.container.stop(timeout=grace_s)
        code: int = self.container.wait()["StatusCode"]
        self.container.remove()
        return code


def expanded(text: str, environment: Mapping[str, str]) -> str:
    """As a kubelet puts variables into arguments."""
    for name, value in environment.items():
        text = text.replace(f"$({name})", value)
    return text


def packed(files: Files, owner: tuple[int, int], mode: int) -> bytes:
    """A tar of these files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            member.uid, member.gid = owner
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()
