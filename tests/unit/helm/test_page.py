"""docs/kubernetes.md against the chart: what it tells people to make is what the pods ask for."""

import re
from pathlib import Path

from coordinator.config import FederationConfig
from fedward.settings import load_settings
from tests.support.chart import CI, ROOT, pods, render, values_of

PAGE = (ROOT / "docs" / "kubernetes.md").read_text()
COMMANDS = PAGE.replace("\\\n", " ")
TLS = {"tls.crt", "tls.key"}


def made() -> dict[str, set[str]]:
    """The keys of each secret and ConfigMap that the page makes."""
    found: dict[str, set[str]] = {}
    for name, files in re.findall(r"create (?:secret generic|configmap) (\S+)([^\n`]*)", COMMANDS):
        keys = re.findall(r"--from-file=([^\s=]+)", files)
        assert found.setdefault(name, set(keys)) == set(keys), f"{name} is made twice, differently"
    return found | dict.fromkeys(re.findall(r"create secret tls (\S+)", COMMANDS), TLS)


def test_every_secret_of_the_page_holds_what_the_pods_ask_for() -> None:
    asked: dict[str, set[str]] = {}
    values = values_of("small", authority__existingSecret="chest-xray-authority")
    for _, _, spec in pods(render(values)):
        for volume in spec.get("volumes", ()):
            sources = [
                it["secret"] | {"secretName": it["secret"]["name"]}
                for it in volume.get("projected", {}).get("sources", ())
            ]
            for secret in (*sources, *([volume["secret"]] if "secret" in volume else [])):
                asked.setdefault(secret["secretName"], set()).update(item["key"] for item in secret["items"])
    asked[values["model"]["existingConfigMap"]] = {"initial.safetensors"}
    assert made() == asked


def test_the_configuration_of_the_page_is_one(tmp_path: Path) -> None:
    [text] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "federation.yaml").write_text(text)
    loaded = load_settings(FederationConfig, tmp_path / "federation.yaml", {})
    small = values_of("small")
    assert (loaded.federation, loaded.sites) == (small["config"]["federation"], small["config"]["sites"])
    assert loaded.broker.host == small["broker"]["host"]


def test_the_page_names_every_example_and_every_job() -> None:
    assert {f"`{path.name}`" for path in CI.values()} <= set(re.findall(r"`[^`\n]+`", PAGE))
    for whose, _, _ in pods(render(values_of("production", backup__enabled=True, restore__from="b"))):
        assert f"`{whose.rpartition('/')[2]}`" in PAGE, whose
