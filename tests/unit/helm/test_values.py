"""What values the chart takes, and which it refuses."""

import json
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import helm_python
import prepare
import pytest
import yaml

from coordinator.api.settings import ApiSettings
from coordinator.config import FederationConfig
from fedward import __version__
from fedward.settings import load_settings
from tests.support.chart import CHART, NAMESPACE, Manifest, chart, render, the, values_of

WORDS = 2
"""Words that a description has at least."""
API = {"api__enabled": True, "api__from": [{"podSelector": {}}]}


def test_the_linter_finds_nothing_to_complain_about(installation: str) -> None:
    report = helm_python.lint(CHART, values_of(installation), strict=True, namespace=NAMESPACE)
    complaints = [found for found in report["messages"] if "icon is recommended" not in found["error"]]
    assert (report["total_charts_linted"], complaints, report["errors"]) == (1, [], [])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("typo", 1),
        ("broker__hots", "broker.example.org"),
        ("config__enigne", {}),
        ("config__work__local_epoch", 1),
        ("config__model", "elsewhere.safetensors"),
        ("config__broker__host", "elsewhere.example.org"),
        ("config__api", {"port": 8443}),
        ("config__ledger", {"url": "postgresql://a@b/c"}),
        ("images__registry", ""),
        ("images__coordinator__tag", "latest"),
        ("images__broker__digest", "sha256:0123"),
        ("images__broker__digest", "sha512:" + 64 * "0"),
        ("coordinator__replicas", 0),
        ("coordinator__replicas", "1"),
        ("identity__existingSecret", ""),
        ("broker__host", ""),
        ("broker__port", 65_536),
        ("state__accessMode", "ReadWriteOncePod"),
        ("state__size", "20 GB"),
        ("ledger__url", "postgresql://fedward:secret@db.example.org/x"),
        ("backup__schedule", "nightly"),
        ("restore__from", "../state"),
        ("config__codec", 4),
        ("config__retention", {"versions": 0}),
    ],
)
def test_the_schema_refuses(path: str, value: object) -> None:
    key = path.rsplit("__", maxsplit=1)[-1]
    with pytest.raises(helm_python.HelmError) as caught:
        render(values_of("small", **{path: value}))
    assert "schema" in str(caught.value)
    assert key in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model__inImage": "/m.safetensors"}, "set one of inImage"),
        ({"model__existingConfigMap": ""}, "set one of inImage"),
        ({"coordinator__replicas": 2}, "needs ledger.url"),
        ({"coordinator__replicas": 2, "ledger__url": "postgresql://a@b/c"}, "needs state.accessMode ReadWriteMany"),
        ({"broker__existingSecret": ""}, "broker.existingSecret: missing"),
        ({"broker__enrolmentPort": 8883}, "the same as broker.port"),
        ({"api__enabled": True, "api__tokenSecret": "token"}, "api.from: missing"),
        ({**API, "api__tokenSecret": "token"}, "api.tlsSecret: missing.*or config.api.plain behind"),
        (
            {**API, "api__tlsSecret": "tls"},
            "neither api.tokenSecret nor config.api.readers is given.*set api.tokenSecret",
        ),
        ({**API, "api__tokenSecret": "token", "api__tlsSecret": "tls", "config__api": {"plain": True}}, "leave one of"),
        ({"config__api": {"readers": ["dashboard"]}}, "config.api.readers: given, but no TLS.*set api.enabled"),
        ({"restore__from": "north-backup-1"}, "restore.from: needs backup.enabled"),
        ({"certManager__enabled": True}, "certManager.issuer.name: missing"),
        (
            {"authority__existingSecret": "authority", "config__authority": {"command": ["sign"]}},
            "exclude each other",
        ),
    ],
)
def test_values_that_contradict_each_other_are_refused_in_words(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(helm_python.HelmError, match=words):
        render(values_of("small", **changes))


def settings(manifests: list[Manifest], folder: Path, name: str = "config") -> FederationConfig:
    path = folder / "federation.yaml"
    path.write_text(the(manifests, "ConfigMap", name)["data"]["federation.yaml"])
    return load_settings(FederationConfig, path, {})


def test_the_program_takes_the_configuration_that_is_rendered(
    installation: str, manifests: list[Manifest], tmp_path: Path
) -> None:
    loaded, given = settings(manifests, tmp_path), values_of(installation)
    assert (loaded.federation, loaded.sites) == (given["config"]["federation"], given["config"]["sites"])
    assert (loaded.broker.host, loaded.broker.port) == (given["broker"]["host"], given["broker"].get("port", 8883))
    assert loaded.state_folder == Path("/var/lib/fedward/state")
    assert (loaded.http.host, loaded.http.port) == ("0.0.0.0", 8080)  # noqa: S104 - the pod's own network


def test_large_numbers_arrive_as_they_were_given(tmp_path: Path) -> None:
    limits = settings(render(values_of("production")), tmp_path).limits
    assert (limits.storage_bytes, limits.bytes_s) == (4_000_000_000, 1_000_000_000)


def test_the_ledger_s_server_has_to_prove_its_name(tmp_path: Path) -> None:
    loaded = settings(render(values_of("production")), tmp_path)
    root = "sslrootcert=/secrets/ledger-ca/ca.crt"
    assert loaded.ledger.url == f"postgresql://fedward@db.example.org:5432/chest_xray?{root}&sslmode=verify-full"
    external = render(values_of("external", ledger__existingCaConfigMap="database-ca"))
    assert f"?connect_timeout=5&{root}&" in str(settings(external, tmp_path).ledger.url)


def test_the_api_is_off_unless_it_is_asked_for_and_then_for_those_who_are_named(tmp_path: Path) -> None:
    assert settings(render(values_of("small")), tmp_path).api.port is None
    api = settings(render(values_of("production")), tmp_path).api
    assert (api.port, api.readers, api.guarded) == (8443, ["dashboard"], True)
    assert api.tls is not None
    assert api.tls.key_file == Path("/secrets/api-tls/tls.key")


@pytest.mark.parametrize("given", list(product([False, True], repeat=5)))
def test_the_api_is_rendered_where_the_program_takes_its_settings_and_else_not(given: tuple[bool, ...]) -> None:
    enabled, token, tls, readers, plain = given
    own = {"readers": ["dashboard"] * readers, "plain": plain}
    files = dict.fromkeys(("certificate_file", "key_file", "ca_file"), "file.pem")
    served = {
        "host": "0.0.0.0",  # noqa: S104 - the pod's own network
        "port": 8443,
        "token_file": "token" if token else None,
        "tls": files if tls else None,
    }
    values = values_of("small", **API, config__api=own, api__tokenSecret="token" * token, api__tlsSecret="tls" * tls)
    values["api"]["enabled"] = enabled

    def taken(use: Callable[[], object], refusal: type[Exception]) -> bool:
        try:
            use()
        except refusal:
            return False
        return True

    program = taken(lambda: ApiSettings.model_validate(own | (served if enabled else {})), ValueError)
    assert taken(lambda: render(values), helm_python.HelmError) is program


def test_the_migration_has_the_same_configuration_as_the_coordinator_that_follows() -> None:
    manifests = render(values_of("production"))
    first, then = (the(manifests, "ConfigMap", name) for name in ("migrate", "config"))
    assert first["data"] == then["data"]


def test_a_change_of_the_configuration_restarts_the_coordinator() -> None:
    def mark(sites: list[str]) -> str:
        deployment = the(render(values_of("small", config__sites=sites)), "Deployment", "coordinator")
        return str(deployment["spec"]["template"]["metadata"]["annotations"]["checksum/config"])

    assert mark(["north"]) == mark(["north"]) != mark(["north", "south"])


def described(part: dict[str, Any], path: str = "") -> list[tuple[str, str]]:
    found = [(f"{path}{name}", value.get("description", "")) for name, value in part.get("properties", {}).items()]
    for name, value in part.get("properties", {}).items():
        if name != "config":  # that is the program's: its descriptions are those of its --help
            found += described(value, f"{path}{name}.")
    return found


def test_every_value_has_a_description_and_every_default_is_a_value_of_the_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    descriptions = dict(described(schema))
    assert not [path for path, text in descriptions.items() if len(text.split()) < WORDS]

    def paths(values: dict[str, Any], path: str = "") -> set[str]:
        inner = [paths(value, f"{path}{name}.") for name, value in values.items() if isinstance(value, dict)]
        return {f"{path}{name}" for name in values} | {one for more in inner for one in more}

    free = re.compile(r"\.(requests|limits|labels|annotations)\.")  # keys that are the operator's
    defaults = {path for path in paths(yaml.safe_load((CHART / "values.yaml").read_text())) if not free.search(path)}
    assert defaults == {path for path in descriptions if not path.startswith("config.")}


def test_what_is_made_is_up_to_date() -> None:
    made = prepare.texts()
    assert [str(path) for path, text in made.items() if path.read_text() != text] == [], "make chart"
    there = {path for path in (CHART / "files").rglob("*") if path.is_file()}
    assert there <= made.keys(), "make chart"


def test_a_package_of_the_chart_installs_the_same(tmp_path: Path) -> None:
    values = values_of("production")
    package = helm_python.Chart.load(chart().save(tmp_path))
    assert render(values, package) == render(values)


def test_the_chart_installs_the_release_that_it_comes_with() -> None:
    assert chart_facts()["appVersion"] == __version__


def chart_facts() -> dict[str, str]:
    facts: dict[str, str] = yaml.safe_load((CHART / "Chart.yaml").read_text())
    return facts
