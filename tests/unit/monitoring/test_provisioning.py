"""What a plain Grafana is given to find its Prometheus and our dashboards, and the evaluation's that gets it."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
PROVISIONING = ROOT / "monitoring" / "grafana" / "provisioning"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def grafana() -> dict[str, Any]:
    service: dict[str, Any] = read(ROOT / "docker" / "compose.yaml")["services"]["grafana"]
    return service


def test_grafana_finds_the_dashboards_where_they_are_mounted() -> None:
    (provider,) = read(PROVISIONING / "dashboards" / "fedward.yaml")["providers"]
    mounted = dict(volume.split(":")[:2] for volume in grafana()["volumes"])
    assert mounted["../monitoring/dashboards"] == provider["options"]["path"]
    assert mounted["../monitoring/grafana/provisioning"] == "/etc/grafana/provisioning"
    for source in ("../monitoring/dashboards", "../monitoring/grafana/provisioning"):
        assert (ROOT / "docker" / source).is_dir()


def test_grafana_is_told_where_prometheus_is_and_how_often_it_scrapes() -> None:
    (source,) = read(PROVISIONING / "datasources" / "prometheus.yaml")["datasources"]
    assert source["type"] == "prometheus"
    environment = grafana()["environment"]
    assert source["url"] == "${PROMETHEUS_URL}"
    assert environment["PROMETHEUS_URL"] == "http://prometheus:9090"
    assert source["jsonData"]["timeInterval"] == "${SCRAPE_INTERVAL}"
    scrapes = read(ROOT / "docker" / "evaluation" / "prometheus.yml")["global"]["scrape_interval"]
    assert environment["SCRAPE_INTERVAL"] == scrapes


def test_grafana_starts_only_when_it_is_asked_for_and_is_as_hardened_as_the_rest() -> None:
    service = grafana()
    assert service["profiles"] == ["grafana"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
