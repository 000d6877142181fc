"""How the agent's container is run, and what of site.yaml can't be so in a container."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from edge_agent.appliance.config import ApplianceConfig
from edge_agent.appliance.machine import GpuFacts, gpus_for, judge_engine, judge_gpu, judge_groups
from edge_agent.appliance.plan import Plan, once_options, problems_of, run_options
from edge_agent.appliance.steps import Release
from edge_agent.config import SiteConfig
from fedward.doctor.check import Verdict
from fedward.errors import ConfigError
from fedward.settings import load_settings

RELEASE = Release("sha256:1", "fedward-agent:1", "1")
INFO = {
    "ServerVersion": "28.0",
    "OSType": "linux",
    "MemTotal": 2**34,
    "MemoryLimit": True,
    "SwapLimit": True,
    "CpuCfsQuota": True,
    "PidsLimit": True,
}


def config_of(**settings: Any) -> ApplianceConfig:
    return ApplianceConfig.model_validate({"config_folder": "/srv/config", "data": {"/data": "/srv/export"}} | settings)


def site_of(**settings: Any) -> SiteConfig:
    usual = {
        "site": "north",
        "federation": "ward",
        "tasks": {"breast-cancer": {"train": "/data/records.csv", "seed": 1}},
        "state_folder": "/var/lib/fedward",
        "broker": {"host": "127.0.0.1"},
    }
    return SiteConfig.model_validate(usual | settings)


def options_of(gpus: str = "none", **settings: Any) -> dict[str, Any]:
    return run_options(Plan(config_of(**settings), RELEASE, gpus))


def test_a_container_is_hardened_whatever_is_configured() -> None:
    options = options_of(gpu="all", cpus=2, memory_gib=4, secrets_folder="/srv/secrets", network="hospital")
    expected = {
        "user": "10001:10001",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "pids_limit": 512,
        "mem_limit": 2**32,
        "memswap_limit": 2**32,
        "nano_cpus": 2_000_000_000,
        "log_config": {"type": "json-file", "config": {"max-size": "10m", "max-file": "3"}},
        "restart_policy": {"Name": "unless-stopped"},
    }
    assert expected.items() <= options.items()
    assert "privileged" not in options
    assert "noexec,nosuid,nodev" in options["tmpfs"].popitem()[1]


def test_only_the_state_can_be_written_and_the_engines_socket_is_never_there() -> None:
    mounts = options_of(secrets_folder="/srv/secrets")["mounts"]
    assert [mount["Target"] for mount in mounts if not mount["ReadOnly"]] == ["/var/lib/fedward"]
    assert [mount["Target"] for mount in mounts if mount["ReadOnly"]] == ["/etc/fedward", "/run/secrets", "/data"]


def test_options_survive_the_journal_unchanged() -> None:
    options = options_of("0,1", proxy="http://proxy:3128", no_proxy="a,b", http_port=9100)
    assert json.loads(json.dumps(options)) == options
    assert options["environment"] == {"https_proxy": "http://proxy:3128", "no_proxy": "a,b"}
    assert options["ports"] == {"9100/tcp": {"HostIp": "127.0.0.1", "HostPort": "9100"}}


@pytest.mark.parametrize(("gpus", "chosen"), [("all", {"count": -1}), ("0,1", {"device_ids": ["0", "1"]})])
def test_gpus_are_asked_for_as_the_engine_wants_it(gpus: str, chosen: dict[str, object]) -> None:
    assert options_of(gpus)["device_requests"] == [{"driver": "nvidia", "capabilities": [["gpu"]], **chosen}]
    assert "device_requests" not in options_of()


def test_a_container_for_one_command_is_as_hardened_and_nobody_starts_it_again() -> None:
    once = once_options(options_of(http_port=9100), ["agent", "doctor"])
    assert not {"ports", "restart_policy"} & once.keys()
    assert once["read_only"]
    assert once["healthcheck"] == {"test": ["NONE"]}


@pytest.mark.parametrize(
    "wrong",
    [
        {"image": "registry/fedward-agent:latest"},
        {"image_signature": "MEUC"},
        {"data": {"/etc/fedward": "/srv"}},
        {"data": {"/data/../etc": "/srv"}},
        {"gpu": "some"},
        {"proxy": "http://user:secret@proxy:3128"},
        {"proxy": "none", "no_proxy": "a"},
        {"config_dir": "/srv"},
    ],
    ids=str,
)
def test_a_setting_that_can_not_be_meant_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        config_of(**wrong)


def test_the_environment_overrides_the_file_and_relative_paths_begin_at_the_file(tmp_path: Path) -> None:
    (tmp_path / "appliance.yaml").write_text(yaml.safe_dump({"config_folder": "config", "memory_gib": 4}))
    environment = {"FEDWARD_MEMORY_GIB": "2", "FEDWARD_GPU": "none"}
    config = load_settings(ApplianceConfig, tmp_path / "appliance.yaml", environment).resolved(tmp_path)
    assert (config.memory_gib, config.gpu) == (2, "none")
    assert config.config_folder == tmp_path / "config"
    with pytest.raises(ConfigError, match="unknown setting"):
        load_settings(ApplianceConfig, tmp_path / "appliance.yaml", {"FEDWARD_MEMORY": "2"})


def test_a_site_that_fits_its_container_has_no_problem() -> None:
    fitting = site_of(identity={"folder": "/var/lib/fedward/identity"}, policy_file="/etc/fedward/policy.yaml")
    assert problems_of(config_of(), fitting) == []


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"state_folder": "/srv/state"}, "state_folder: /srv/state is not in the container"),
        ({"policy_file": "/srv/policy.yaml"}, "policy_file"),
        ({"identity": {"folder": "/home/x"}}, "identity.folder"),
        ({"broker": {"host": "127.0.0.1", "password_file": "/run/secrets/p"}}, "set secrets_folder"),
        ({"tasks": {"x": {"train": "/srv/export/a.csv"}}}, "tasks.x.train: /srv/export/a.csv is not in the container"),
    ],
    ids=str,
)
def test_a_path_of_the_host_in_site_yaml_is_a_problem(settings: dict[str, object], problem: str) -> None:
    [found] = problems_of(config_of(), site_of(**settings))
    assert problem in found


@pytest.mark.parametrize(
    ("choice", "driver", "toolkit", "passed", "verdict"),
    [
        ("auto", None, False, "none", Verdict.OK),
        ("auto", "550.1", True, "all", Verdict.OK),
        ("auto", "550.1", False, "none", Verdict.WARNING),
        ("all", None, False, "all", Verdict.FAILED),
        ("0,1", "550.1", False, "0,1", Verdict.FAILED),
        ("0", "550.1", True, "0", Verdict.OK),
        ("none", "550.1", True, "none", Verdict.SKIPPED),
    ],
)
def test_a_gpu_is_passed_where_driver_and_toolkit_are(
    choice: str, driver: str | None, toolkit: bool, passed: str, verdict: Verdict
) -> None:
    facts = GpuFacts(driver, toolkit)
    assert gpus_for(choice, facts) == passed
    assert judge_gpu(choice, facts).verdict is verdict


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, Verdict.OK),
        ({"OSType": "windows"}, Verdict.FAILED),
        ({"SecurityOptions": ["name=seccomp", "name=rootless"]}, Verdict.WARNING),
    ],
)
def test_the_engine_is_judged(change: dict[str, object], verdict: Verdict) -> None:
    assert judge_engine(INFO | change).verdict is verdict


def test_a_kernel_without_limits_and_a_limit_above_the_machine_are_told() -> None:
    assert judge_groups(INFO, 8).verdict is Verdict.OK
    assert "no swap" in judge_groups(INFO | {"SwapLimit": False}, 8).found
    assert "lower memory_gib" in judge_groups(INFO, 32).remedy
