"""The chart of helm/coordinator, rendered by Helm's own library: no cluster, no `helm` program."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "coordinator"
CI = {path.name.removesuffix("-values.yaml"): path for path in sorted((CHART / "ci").glob("*-values.yaml"))}
RELEASE, NAMESPACE = "north", "fedward-test"

Manifest = dict[str, Any]


def values_of(name: str, **changes: Any) -> dict[str, Any]:
    """The values of a file in ci/; `broker__port=1` changes what is deeper."""
    return changed(yaml.safe_load(CI[name].read_text()), **changes)


def changed(values: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The values with these in their places, themselves."""
    for path, value in changes.items():
        *sections, last = path.split("__")
        inner = values
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    return values


@cache
def chart() -> helm_python.Chart:
    """As it is on the disk now."""
    return helm_python.Chart.load(CHART)


def render(values: Mapping[str, Any], loaded: helm_python.Chart | None = None) -> list[Manifest]:
    """Every object, hooks among them. Raises HelmError where schema or templates refuse the values."""
    texts = (loaded or chart()).render(dict(values), name=RELEASE, namespace=NAMESPACE)
    parts = (text for path, text in texts.items() if not path.endswith("NOTES.txt"))
    return [found for text in parts for found in yaml.safe_load_all(text) if found]


def the(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """The one object of this kind whose name, after the release's, is `name`."""
    [found] = named(manifests, kind, name)
    return found


def named(manifests: list[Manifest], kind: str, name: str) -> list[Manifest]:
    """As `the`, where there may be none."""
    wanted = (kind, f"{RELEASE}-{name}")
    return [found for found in manifests if (found["kind"], found["metadata"]["name"]) == wanted]


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, dict[str, str], dict[str, Any]]]:
    """Every pod that comes of the objects: whose, its labels, its spec."""
    for found in manifests:
        template = {
            "Pod": lambda it: it,
            "Job": lambda it: it["spec"]["template"],
            "Deployment": lambda it: it["spec"]["template"],
            "StatefulSet": lambda it: it["spec"]["template"],
            "CronJob": lambda it: it["spec"]["jobTemplate"]["spec"]["template"],
        }.get(found["kind"])
        if template:
            pod = template(found)
            yield f"{found['kind']}/{found['metadata']['name']}", pod["metadata"]["labels"], pod["spec"]


def containers(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of a pod, those that only prepare it first."""
    return [*spec.get("initContainers", ()), *spec["containers"]]


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether `matchLabels` are these labels'."""
    return selector["matchLabels"].items() <= labels.items()
