"""Docker's command line for tests: the images of `make images`, containers that go when the test ends, a federation."""

import json
import os
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Iterator, Mapping
from functools import partial
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sandbox.logs import parsed
from sandbox.ports import HOST, free_port
from tests.support import waiting

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "build" / "images"
TOOLS = ROOT / "build" / "tools"
COMPOSE = ROOT / "docker" / "compose.yaml"
USER = "10001:10001"
STATE = "/var/lib/fedward"
HARDENED = (
    "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--pids-limit=128", "--memory=1g",
    "--network=none", "--tmpfs=/tmp:rw,noexec,nosuid,nodev,size=64m,mode=1777",
)  # fmt: skip
"""How docker/README.md says that an agent is run, but for its network."""

wait_for = partial(waiting.wait_for, every_s=0.2)
"""A look is a command of docker's."""
COMMAND_S = 180.0


def docker(*arguments: str, code: int | None = 0, variables: Mapping[str, str] | None = None) -> str:
    """Run a command of Docker to its end; what it printed. Fails unless it ends with `code`, if there is one."""
    plugins = {"DOCKER_CONFIG": str(TOOLS)} if (TOOLS / "cli-plugins" / "docker-compose").exists() else {}
    done = subprocess.run(
        ["docker", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | plugins | dict(variables or {}),
        timeout=COMMAND_S,
        check=False,
    )
    assert code is None or done.returncode == code, f"docker {' '.join(arguments)}: {done.stdout}"
    return done.stdout


def why_not() -> str | None:
    """Why nothing can be tested here, or None."""
    try:
        answers = subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        answers = False
    if not answers:
        return "no Docker daemon answers: `make test-containers` starts one, as root"
    return None if (BUILT / "images.json").exists() else "no images were built: `make images`"


def images() -> dict[str, dict[str, str]]:
    """What `make images` has made last, by its short names."""
    found: dict[str, dict[str, str]] = json.loads((BUILT / "images.json").read_text())["images"]
    return found


def inspect(name: str, what: str) -> Any:
    """A part of what Docker knows of a container or an image, as a template names it."""
    return json.loads(docker("inspect", "--format", f"{{{{json {what}}}}}", name))


def python(image: str, code: str, *options: str) -> str:
    """What a program prints that runs in a new container."""
    return docker("run", "--rm", *HARDENED, *options, "--entrypoint", "python3.11", image, "-c", code)


def files(image: str) -> Iterator[tarfile.TarInfo]:
    """Everything in an image, the layers one above the other."""
    name = docker("create", image, "x").strip()
    try:
        with (
            subprocess.Popen(["docker", "export", name], stdout=subprocess.PIPE) as exporting,
            tarfile.open(fileobj=exporting.stdout, mode="r|") as packed,
        ):
            yield from packed
        assert exporting.returncode == 0
    finally:
        docker("rm", name)


class Evaluation:
    """The federation of docker/compose.yaml under a name and ports of its own, in a `with` block."""

    SITES = ("hospital-a", "hospital-b", "hospital-c")
    SERVICES = (*SITES, "coordinator", "broker", "prometheus", "proxy-a", "proxy-b", "proxy-c")

    def __init__(self, name: str, finish_version: int, by_hand: str = "") -> None:
        """The site `by_hand` is invited by nobody, and has no container."""
        self.name = name
        self._by_hand = by_hand
        self.http_port, self.prometheus_port = free_port(HOST), free_port(HOST)
        self._settings = {
            "COORDINATOR_PORT": self.http_port,
            "PROMETHEUS_PORT": self.prometheus_port,
            "FINISH_VERSION": finish_version,
            "BY_HAND": by_hand,
        }

    def __enter__(self) -> Self:
        if self._by_hand:
            self.compose("up", "--detach", "broker", "coordinator", "proxy-a", "proxy-b", "proxy-c")
            wait_for(lambda: self.health("coordinator") == "healthy", COMMAND_S, "the coordinator")
        else:
            self.compose("up", "--detach", "--wait")
        return self

    def start(self, *services: str) -> None:
        """Start some that are not there yet, and return when they are healthy."""
        self.compose("up", "--detach", "--wait", *services)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            sys.stderr.write(self.compose("ps", "--all") + self.compose("logs", "--tail=20"))
        self.compose("down", "--volumes", "--timeout=5")

    def compose(self, *arguments: str) -> str:
        """Run a command of Compose."""
        given = {name: str(value) for name, value in self._settings.items()}
        return docker("compose", "-f", str(COMPOSE), "-p", self.name, *arguments, variables=given)

    def container(self, service: str) -> str:
        """Its name."""
        return f"{self.name}-{service}-1"

    def inspect(self, service: str, what: str) -> Any:
        """A part of what Docker knows of a service's container."""
        return inspect(self.container(service), what)

    def networks(self, service: str) -> dict[str, dict[str, Any]]:
        """The networks that a service is on, by name."""
        found: dict[str, dict[str, Any]] = self.inspect(service, ".NetworkSettings.Networks")
        return found

    def python(self, service: str, code: str) -> str:
        """What a program prints that runs in a service's container, beside its own."""
        return docker("exec", self.container(service), "python3.11", "-c", code)

    def fedward(
        self, service: str, *arguments: str, code: int | None = 0, variables: Mapping[str, str] | None = None
    ) -> str:
        """A command as people at that place type it; `variables` are of the environment."""
        given = [f"--env={name}={value}" for name, value in (variables or {}).items()]
        return docker("exec", *given, self.container(service), "fedward", *arguments, code=code)

    def health(self, service: str) -> str:
        """As Docker sees it: starting, healthy, unhealthy."""
        return str(self.inspect(service, ".State.Health.Status"))

    def events(self, service: str) -> list[dict[str, Any]]:
        """What a service has logged so far, over all its restarts."""
        lines = docker("logs", self.container(service)).encode().splitlines()
        return [event for event in map(parsed, lines) if event is not None]

    def page(self, port: int, path: str) -> str | None:
        """A page of a published port; None while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except (OSError, HTTPException):
            return None

    def state(self) -> dict[str, Any]:
        """The coordinator's state; empty while it does not answer."""
        page = self.page(self.http_port, "/v1/state")
        found: dict[str, Any] = json.loads(page) if page else {}
        return found
