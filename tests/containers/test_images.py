"""What is in the images, and what is not. The numbers are the points of the deployment checklist."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.containers import BUILT, ROOT, STATE, TOOLS, docker, files, inspect, python

pytestmark = [pytest.mark.containers, pytest.mark.slow, pytest.mark.timeout(400)]

Images = dict[str, dict[str, str]]

OURS = ("agent-cpu", "coordinator")
ALL = (*OURS, "broker", "proxy", "prometheus")
MB = 1_000_000
LARGEST_MB = {"agent-cpu": 1100, "coordinator": 200}
PROGRAMS = {
    "agent-cpu": {"python3", "python3.11", "fedward"},
    "coordinator": {"python3", "python3.11", "fedward"},
    "broker": {"mosquitto"},
    "proxy": {"tinyproxy"},
    "prometheus": {"prometheus"},
}
UNWANTED = re.compile(
    r"\.(key|pem|crt|whl|deb|h|a)$"
    r"|/(pip|ensurepip|setuptools)/"
    r"|/(gcc|cc1|ld|apt-get|dpkg|sh|bash|dash|perl|openssl|curl|wget)$"
)
COSIGN = TOOLS / "bin" / "cosign"


def lock_of(name: str) -> dict[str, str]:
    """The packages of a lock and their versions."""
    lines = (ROOT / "docker" / "locks" / f"{name}.txt").read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lines, re.MULTILINE))


def test_1_an_image_that_is_built_again_from_nothing_is_the_same_image(built: Images, tmp_path: Path) -> None:
    release = json.loads((BUILT / "images.json").read_text())
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(release["created_s"])}
    command = [sys.executable, str(ROOT / "docker" / "images.py"), "--no-cache", "--out", str(tmp_path)]
    command += ["--revision", release["revision"], "coordinator", "proxy"]
    subprocess.run(command, env=environment, capture_output=True, check=True)
    again = json.loads((tmp_path / "images.json").read_text())["images"]
    for label in ("coordinator", "proxy"):
        for name in ("archive_sha256", "digest", "image_id"):
            assert again[label][name] == built[label][name], label


@pytest.mark.parametrize("name", ["agent.Dockerfile", "coordinator.Dockerfile", "evaluation/Dockerfile"])
def test_2_the_linter_finds_nothing_in_a_dockerfile(name: str) -> None:
    linter = TOOLS / "venv" / "bin" / "hadolint"
    if not linter.exists():
        pytest.skip("hadolint is not there: `make tools`")
    done = subprocess.run([linter, ROOT / "docker" / name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("label", ALL)
def test_4_nothing_is_in_an_image_that_is_not_needed(built: Images, label: str) -> None:
    found = list(files(built[label]["tag"]))
    paths = {member.name for member in found if not member.isdir()}
    assert len(paths) > 20
    assert not [member.name for member in found if member.mode & (stat.S_ISUID | stat.S_ISGID)]
    folders = ("bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "opt/fedward/bin")
    assert {Path(path).name for path in paths if str(Path(path).parent) in folders} == PROGRAMS[label]
    assert not [path for path in paths if UNWANTED.search(path)]
    assert {member.name.rstrip("/") for member in found if not member.issym() and member.mode & 0o022} == {"tmp"}


@pytest.mark.parametrize("label", ALL)
def test_4_no_variable_of_an_image_is_of_the_machine_that_built_it(built: Images, label: str) -> None:
    variables = {one.split("=")[0] for one in inspect(built[label]["tag"], ".Config.Env") or ()}
    allowed = ("PATH", "HOME", "PYTHON", "FEDWARD_HTTP__", "NVIDIA_")
    assert not [name for name in variables if not name.startswith(allowed)]
    history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", built[label]["tag"])
    assert os.environ.get("PIP_CERT", "no certificate of this machine") not in history


@pytest.mark.parametrize("label", ALL)
def test_5_an_image_runs_as_nobody_in_particular(built: Images, label: str) -> None:
    assert inspect(built[label]["tag"], ".Config.User") == "10001:10001"


@pytest.mark.parametrize("label", OURS)
def test_5_a_hardened_container_can_do_nothing_but_write_where_it_should(built: Images, label: str) -> None:
    code = """
import os
status = dict(line.split(':', 1) for line in open('/proc/self/status').read().splitlines())
print(*(status[name].strip() for name in ('CapEff', 'CapBnd', 'NoNewPrivs', 'Seccomp')), os.getuid(), os.getgid())
for folder, _, _ in os.walk('/'):
    if not folder.startswith(('/proc', '/sys', '/dev')) and os.access(folder, os.W_OK):
        print(folder)
"""
    status, *writable = python(built[label]["tag"], code, f"--volume={STATE}").splitlines()
    none = "0" * 16
    assert status == f"{none} {none} 1 2 10001 10001"
    assert sorted(writable) == ["/tmp", STATE]  # noqa: S108


@pytest.mark.parametrize("label", OURS)
def test_29_the_doctor_sees_what_the_engine_allows_a_container(built: Images, label: str) -> None:
    code = "from fedward.doctor.measure import *; print(measure_memory().limit_bytes, measure_limits().cpus)"
    assert python(built[label]["tag"], code, "--cpus=0.5") == f"{2**30} 0.5\n"  # the memory is that of HARDENED


@pytest.mark.parametrize("label", sorted(LARGEST_MB))
def test_8_an_image_is_no_larger_than_promised(built: Images, label: str) -> None:
    assert inspect(built[label]["tag"], ".Size") / MB <= LARGEST_MB[label]


def test_8_everything_that_the_agent_imports_is_compiled_already(built: Images) -> None:
    code = """
import importlib.util, os, sys
import torch, edge_agent.cli, edge_agent.agent
paths = [getattr(module, '__file__', None) or '' for module in list(sys.modules.values())]
paths = [path for path in paths if path.startswith('/') and path.endswith('.py')]
missing = [path for path in paths if not os.path.exists(importlib.util.cache_from_source(path))]
print(len(paths), missing)
"""
    number, missing = python(built["agent-cpu"]["tag"], code).strip().split(" ", 1)
    assert int(number) > 500
    assert missing == "[]"


@pytest.mark.parametrize("label", OURS)
def test_8_the_health_check_imports_next_to_nothing(built: Images, label: str) -> None:
    code = "import sys; before = set(sys.modules); import fedward.health; print(len(set(sys.modules) - before))"
    assert int(python(built[label]["tag"], code)) < 40
    assert inspect(built[label]["tag"], ".Config.Healthcheck.Test") == ["CMD", "python3.11", "-m", "fedward.health"]


def test_8_the_coordinator_has_no_torch_and_neither_side_has_the_other(built: Images) -> None:
    code = "import importlib.util as u; print([n for n in {} if u.find_spec(n)])"
    sides = "('torch', 'edge_agent', 'coordinator', 'sandbox')"
    assert python(built["coordinator"]["tag"], code.format(sides)).strip() == "['coordinator']"
    assert python(built["agent-cpu"]["tag"], code.format(sides)).strip() == "['torch', 'edge_agent']"


@pytest.mark.parametrize("label", OURS)
def test_9_the_list_of_contents_has_every_line_of_the_lock_and_debian_s_packages(built: Images, label: str) -> None:
    listed = json.loads((BUILT / built[label]["contents"]).read_text())["components"]
    python_packages = {one["name"]: one["version"] for one in listed if one.get("purl", "").startswith("pkg:pypi/")}
    assert lock_of(label).items() <= python_packages.items()
    assert "fedward" in python_packages
    debian = {one["name"] for one in listed if one.get("purl", "").startswith("pkg:deb/debian/")}
    assert {"libc6", "libssl3", "python3.11-minimal"} <= debian
    assert not {"dpkg", "apt", "bash", "perl-base"} & debian


@pytest.fixture
def signed(built: Images, tmp_path: Path) -> Path:
    """A folder with a signed release and its keys, `cosign.key` and `cosign.pub`."""
    if not COSIGN.exists():
        pytest.skip("cosign is not there: `make tools`")
    environment = os.environ | {"COSIGN_PASSWORD": "only for this test"}
    command = [COSIGN, "generate-key-pair"]
    subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True)
    for name in ("images.json", *(built["proxy"][kind] for kind in ("archive", "contents"))):
        shutil.copy(BUILT / name, tmp_path)
    command = [sys.executable, str(ROOT / "docker" / "release.py"), "sign", "--cosign", str(COSIGN)]
    command += ["--key", str(tmp_path / "cosign.key"), "--folder", str(tmp_path)]
    subprocess.run(command, env=environment, capture_output=True, check=True)
    return tmp_path


def verified(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "docker" / "release.py", "verify", "--key", folder / "cosign.pub"]
    command += ["--cosign", COSIGN, "--folder", folder]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_9_what_was_signed_is_verified_without_a_network(signed: Path) -> None:
    assert verified(signed).returncode == 0


@pytest.mark.parametrize("name", ["images.json", "images.json.sig", "proxy.tar", "proxy.cdx.json"])
def test_9_one_changed_byte_is_refused(signed: Path, name: str) -> None:
    content = bytearray((signed / name).read_bytes())
    content[len(content) // 2] ^= 1
    (signed / name).write_bytes(content)
    done = verified(signed)
    assert done.returncode == 1
    assert name.removesuffix(".sig") in done.stderr
