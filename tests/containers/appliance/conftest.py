"""An appliance on the real Docker Engine, with images of a few kilobytes that stand in for the agent's."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from edge_agent.appliance.engine import LABEL
from fedward.identity.release import read_release_key, release_key_line
from sandbox.child import start_child, takes_connections
from sandbox.ports import HOST, free_port

docker = pytest.importorskip("docker", reason="the SDK is not installed: pip install 'fedward[appliance]'")

ROOT = Path(__file__).parents[3]
PROGRAM = Path(__file__).with_name("fedward.sh")
IMAGE = f"fedward-test-agent-{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"
"""All images of this name are deleted when the tests end, so each process of tests has one of its own."""
LINKS = ("cat", "cp", "echo", "ls", "mkdir", "rm", "sh", "sleep", "test", "touch")
"""What of busybox the program uses."""

MODES = {"good": "1", "better": "2", "end": "3", "hang": "4", "sick": "5", "refuse": "6"}

SITE = {
    "site": "north",
    "federation": "ward",
    "tasks": {"breast-cancer": {"train": "/data/records.csv"}},
    "state_folder": "/var/lib/fedward",
    "broker": {"host": "127.0.0.1", "port": 1883},
}


@pytest.fixture(scope="session")
def engine() -> Iterator["docker.DockerClient"]:
    """The real one; without it these tests are skipped, and say so."""
    program = shutil.which("docker")  # the SDK leaves its socket open where nobody answers
    if program is None or subprocess.run([program, "info"], capture_output=True, check=False).returncode:
        pytest.skip("no Docker Engine answers: start dockerd, as root")
    client = docker.from_env()
    yield client
    for image in client.images.list():
        if any(IMAGE in name for name in [*image.tags, *(image.attrs["RepoDigests"] or ())]):
            client.images.remove(image.id, force=True)
    client.close()


@dataclass(frozen=True)
class Publisher:
    """Who makes releases: a pair of keys, and a bundle for each way in which an image behaves."""

    folder: Path

    @property
    def private_key(self) -> Path:
        return self.folder / "publisher.key"

    @property
    def public_key(self) -> Path:
        return self.folder / "publisher.pub"

    @property
    def public_line(self) -> str:
        return release_key_line(read_release_key(self.public_key.read_bytes()))

    def bundle(self, mode: str) -> Path:
        return self.folder / f"{mode}.bundle"

    def signature(self, image: str) -> str:
        """By the real command."""
        signed = run("fedward.cli", self.folder, "appliance", "sign", image, "--key", self.private_key)
        assert signed.code == 0, signed.err
        return signed.out.strip()


@pytest.fixture(scope="session")
def publisher(engine: "docker.DockerClient", tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    """Bundles, made by the real command; the images themselves are gone again, as on a machine of a hospital."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed: apt-get install busybox-static")
    publisher = Publisher(tmp_path_factory.mktemp("publisher"))
    made = run("fedward.cli", publisher.folder, "appliance", "release-key", "--out", publisher.private_key)
    assert made.code == 0, made.err
    archive = file_system(Path(busybox).read_bytes())
    sbom = publisher.folder / "sbom.cdx.json"
    sbom.write_text('{"bomFormat": "CycloneDX"}')
    for mode, version in MODES.items():
        engine.api.import_image_from_data(archive, IMAGE, version, changes=changes(mode))
        files = ("--sbom", sbom, "--key", publisher.private_key, "--out", publisher.bundle(mode))
        made = run("fedward.cli", publisher.folder, "appliance", "bundle", "--image", f"{IMAGE}:{version}", *files)
        assert made.code == 0, made.err
        engine.images.remove(f"{IMAGE}:{version}")
    return publisher


def changes(mode: str) -> list[str]:
    """As docker/agent.Dockerfile has it, and quicker."""
    times = f"--interval=500ms --timeout=2s --start-period={'1s' if mode == 'sick' else '20s'} --retries=2"
    return [
        "USER 10001:10001",
        f"ENV PATH=/bin MODE={mode}",
        'ENTRYPOINT ["fedward"]',
        'CMD ["agent", "run", "--config", "/etc/fedward/site.yaml"]',
        f'HEALTHCHECK {times} CMD ["test", "-f", "/tmp/alive"]',
        f"LABEL org.opencontainers.image.version={MODES[mode]}",
    ]


def file_system(busybox: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:

        def add(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "", uid: int = 0) -> None:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.uid, member.gid, member.size = kind, link, uid, uid, len(content)
            member.mode = 0o1777 if name == "tmp" else 0o755
            archive.addfile(member, io.BytesIO(content))

        for folder in ("bin", "etc", "proc", "sys", "dev", "run", "tmp", "var", "var/lib"):
            add(folder, kind=tarfile.DIRTYPE)
        add("var/lib/fedward", kind=tarfile.DIRTYPE, uid=10001)
        add("bin/busybox", busybox)
        for name in LINKS:
            add(f"bin/{name}", kind=tarfile.SYMTYPE, link="busybox")
        add("bin/fedward", PROGRAM.read_bytes())
    return buffer.getvalue()


@dataclass(frozen=True)
class Ran:
    """How a command of ours ended."""

    code: int
    out: str
    err: str


def run(module: str, folder: Path, *arguments: object) -> Ran:
    """One of our programs, as a process of its own."""
    ran = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


@dataclass
class Desk:
    """A hospital's IT desk: a folder with its files, and the commands."""

    folder: Path
    name: str
    engine: "docker.DockerClient"
    publisher: Publisher

    @property
    def home(self) -> Path:
        """Where the appliance keeps its journal and snapshots."""
        return self.folder / "appliance" / self.name

    def configure(self, **settings: object) -> None:
        """Write appliance.yaml, with these settings over the usual ones."""
        usual = {
            "name": self.name,
            "config_folder": "config",
            "data": {"/data": "records"},
            "folder": "appliance",
            "release_key_file": str(self.publisher.public_key),
            "memory_gib": 0.25,
            "health_s": 8,
        }
        (self.folder / "appliance.yaml").write_text(yaml.safe_dump(usual | settings))

    def site(self, **settings: object) -> None:
        """Write site.yaml, with these settings over the usual ones."""
        (self.folder / "config" / "site.yaml").write_text(yaml.safe_dump(SITE | settings))

    def bundle(self, mode: str) -> Path:
        return self.publisher.bundle(mode)

    def fedward(self, *arguments: object) -> Ran:
        """`fedward appliance ...`, as a process of its own."""
        return run("fedward.cli", self.folder, "appliance", *arguments)

    def die(self, step: str, side: str, *arguments: object) -> None:
        """The same, killed at a step."""
        ran = run("tests.containers.appliance.die", self.folder, step, side, "appliance", *arguments)
        assert ran.code == -9, (ran.out, ran.err)

    def install(self, mode: str = "good") -> None:
        ran = self.fedward("install", "--bundle", self.bundle(mode))
        assert ran.code == 0, (ran.out, ran.err)

    def containers(self) -> list["docker.models.containers.Container"]:
        return list(self.engine.containers.list(all=True, filters={"label": f"{LABEL}={self.name}"}))

    def modes(self) -> list[str]:
        """How the agents behave that run; a container that does not run is an orphan, and fails the test."""
        found = self.containers()
        assert all(each.status == "running" for each in found), [(each.name, each.status) for each in found]
        return [_mode(each) for each in found]

    def read(self, name: str) -> str | None:
        """A file of the state, through the container that is there; None where there is none."""
        [container] = self.containers()
        ran = container.exec_run(["cat", f"/var/lib/fedward/{name}"])
        return ran.output.decode() if ran.exit_code == 0 else None

    def clean(self) -> None:
        for container in self.containers():
            container.remove(force=True, v=True)
        for volume in self.engine.volumes.list(filters={"label": f"{LABEL}={self.name}"}):
            volume.remove(force=True)


def _mode(container: "docker.models.containers.Container") -> str:
    return next(each.partition("=")[2] for each in container.attrs["Config"]["Env"] if each.startswith("MODE="))


@pytest.fixture
def desk(tmp_path: Path, engine: "docker.DockerClient", publisher: Publisher) -> Iterator[Desk]:
    """A desk with its files, where nothing is installed yet."""
    desk = Desk(tmp_path, f"fedward-test-{uuid4().hex[:8]}", engine, publisher)
    (tmp_path / "config").mkdir()
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "records.csv").write_text("age,label\n")
    desk.configure()
    desk.site()
    yield desk
    desk.clean()


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real one; the engine speaks to one on this machine without TLS."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed: apt-get install docker-registry")
    folder, port = tmp_path_factory.mktemp("registry"), free_port(HOST)
    storage = {"filesystem": {"rootdirectory": str(folder / "images")}}
    settings = folder / "registry.yml"
    settings.write_text(yaml.safe_dump({"version": 0.1, "storage": storage, "http": {"addr": f"{HOST}:{port}"}}))
    command = [program, "serve", str(settings)]
    child = start_child(command, folder / "registry.log", lambda: takes_connections(HOST, port), 10)
    yield f"{HOST}:{port}"
    child.terminate()
    child.wait(10)
