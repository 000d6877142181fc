"""The chart installed on this machine's Docker: what the operator makes before, and the pods that come of it."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support.chart import RELEASE, Manifest, pods, values_of
from tests.support.pod import Node

HOST = "broker.example.org"
FEDERATION, TASK = "chest-xray", "breast-cancer"
SITES = ("north", "south")
API_TOKEN = "0123456789abcdef" * 2


def small_values(broker_at: str, **changes: Any) -> dict[str, Any]:
    """Of a federation of two hospitals whose broker has this address."""
    config = {
        "federation": FEDERATION,
        "sites": list(SITES),
        "task": TASK,
        "work": {"local_epochs": 1, "batch_size": 32, "local_lr": 0.02},
        "engine": {"buffer_size": len(SITES)},
        "broker": {"reconnect_max_s": 1},
    }
    return values_of(
        "small",
        config=config,
        authority__existingSecret="chest-xray-authority",
        broker__service__clusterIP=broker_at,
        **changes,
    )


def fedward(folder: Path, *arguments: str) -> None:
    """A command of an operator, on the operator's own machine."""
    command = [sys.executable, "-m", "fedward.cli", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr


def make_keys(folder: Path, values: Mapping[str, Any]) -> None:
    """All keys, certificates and the initial model, as docs/kubernetes.md has them made beforehand."""
    config = values["config"] | {"model": "initial.safetensors", "state_folder": "state"}
    config |= {"identity": {"folder": "identity"}, "broker": {"host": HOST}}
    (folder / "federation.yaml").write_text(yaml.safe_dump(config))
    fedward(folder, "coordinator", "ca", "--out", "authority")
    own = ("coordinator", "identity", "--config", "federation.yaml", "--ca", "authority")
    fedward(folder, *own)
    fedward(folder, *own, "--broker", HOST)
    fedward(folder, "agent", "init-model", "--task", TASK, "--out", "initial.safetensors")


def contents(folder: Path, **names: str) -> dict[str, bytes]:
    """What `kubectl create secret generic --from-file=KEY=PATH` makes of files."""
    return {key.replace("__", "."): (folder / path).read_bytes() for key, path in names.items()}


def secrets_of(keys: Path) -> dict[str, dict[str, bytes]]:
    """Of the folder that `make_keys` has filled: the secrets of docs/kubernetes.md."""
    return {
        "chest-xray-coordinator": contents(
            keys / "identity",
            ca__crt="ca.crt",
            coordinator__crt="coordinator.crt",
            coordinator__key="coordinator.key",
            sealing__key="sealing.key",
        ),
        "chest-xray-api-token": {"token": API_TOKEN.encode()},
        "chest-xray-authority": contents(keys / "authority", tls__crt="ca.crt", tls__key="ca.key"),
        "chest-xray-broker": contents(
            keys / "identity" / "broker",
            ca__crt="ca.crt",
            ca__crl="ca.crl",
            tls__crt=f"{HOST}.crt",
            tls__key=f"{HOST}.key",
        ),
    }


def node_for(name: str, subnet: str, keys: Path, built: Mapping[str, Mapping[str, str]]) -> Node:
    """A node that has the secrets, the model and the images; the release's own ConfigMaps come with `install`."""
    image = f"{small_values('')['images']['registry']}/fedward-{{}}:0.1.0"
    return Node(
        name=name,
        images={image.format(part): built[part]["tag"] for part in ("coordinator", "broker")},
        secrets=secrets_of(keys),
        config_maps={"chest-xray-model": contents(keys, initial__safetensors="initial.safetensors")},
        subnet=subnet,
    )


def install(node: Node, manifests: list[Manifest]) -> None:
    """The ConfigMaps."""
    for found in manifests:
        if found["kind"] == "ConfigMap":
            node.config_maps[found["metadata"]["name"]] = {name: text.encode() for name, text in found["data"].items()}


def spec_of(manifests: list[Manifest], whose: str) -> dict[str, Any]:
    """The pod that comes of an object: its kind and its name after the release's, which is the pod's own here."""
    kind, name = whose.split("/")
    [spec] = [spec for owner, _, spec in pods(manifests) if owner == f"{kind}/{RELEASE}-{name}"]
    return spec | {"of": name}
