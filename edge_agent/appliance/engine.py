"""The Docker Engine of this machine, through its SDK: the only importer of docker.

Everything that is made carries the appliance's label, and nothing else is looked at or touched.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import PurePosixPath
from typing import IO, Any

import docker
from docker.errors import APIError, DockerException, ImageLoadError, ImageNotFound, NotFound

from edge_agent.appliance.archives import folder_archive, only_file
from edge_agent.appliance.steps import Container, Deployment, Release
from fedward.errors import ConfigError, FedwardError, TransientError

LABEL = "org.fedward.appliance"
GENERATION = "org.fedward.generation"
VERSION = "org.opencontainers.image.version"

LEAST_API = (1, 41)
"""Of Docker 20.10: the first that passes GPUs, and loads what newer ones save."""

ANSWER_S = 600
"""Longest silence of the engine: it says nothing while it unpacks the last layer of an image."""

READ_BYTES = 1 << 20

EXCHANGE, FILES = PurePosixPath("/run/exchange"), "files"
"""Where a container for a single command finds files, and leaves one: a volume that is gone with it."""


class EngineRefusedError(FedwardError):
    """The engine can't do what it was asked: the container's own settings or this machine are in the way."""


@dataclass(frozen=True)
class Outcome:
    """How a single command in a container ended."""

    exit_code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Errand:
    """What a container for a single command gets and gives: `files` that it finds, the name of the one that it leaves,
    and who is told what it prints as it comes."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    fetch: str | None = None
    told: Callable[[bytes], None] | None = None


def exchanged(name: str) -> PurePosixPath:
    """Where the container for a single command sees a file of its errand."""
    return EXCHANGE / FILES / name


@contextmanager
def _named(what: str) -> Iterator[None]:
    """The SDK's errors as ours. What the engine says is told: it holds no secret, for it was never given one."""
    try:
        yield
    except APIError as error:
        raise _refusal(what, error.explanation or error) from error
    except ImageLoadError as error:
        raise _refusal(what, error) from error
    except (DockerException, OSError) as error:  # OSError: all that the SDK's HTTP library raises
        raise TransientError(
            f"{what}: the Docker Engine gives no answer ({type(error).__name__}); start it (systemctl start docker), "
            "and run this as root or as a user in the group docker"
        ) from error


def _refusal(what: str, said: object) -> EngineRefusedError:
    return EngineRefusedError(f"{what}: the Docker Engine says: {said}")


class Engine:
    """The containers and the volume of one appliance."""

    def __init__(self, name: str, state: str) -> None:
        """`state` is the volume's name. Raises TransientError when no engine answers, ConfigError for an old one."""
        self._name = name
        self._state = state
        with _named("connect"):
            self._client = docker.from_env(timeout=ANSWER_S)
            self._client.ping()
            told = self._client.api.api_version
        if tuple(map(int, told.split("."))) < LEAST_API:
            least = ".".join(map(str, LEAST_API))
            raise ConfigError(f"the Docker Engine speaks API {told}, {least} is needed: install Docker 20.10 or newer")

    def close(self) -> None:
        self._client.close()

    def facts(self) -> dict[str, Any]:
        """What `docker info` tells."""
        with _named("info"):
            return dict(self._client.info())

    # images

    def find(self, reference: str) -> Release | None:
        """An image that is here, by its name, digest or id."""
        with _named(reference):
            try:
                image = self._client.images.get(reference)
            except ImageNotFound:
                return None
        return Release(str(image.id), reference, (image.labels or {}).get(VERSION, "unknown"))

    def pull(self, reference: str) -> Release:
        """An image from its registry, unless it is here."""
        if found := self.find(reference):
            return found
        with _named(f"pull {reference}"):
            for line in self._client.api.pull(reference, stream=True, decode=True):
                if "error" in line:  # a full disk, too: what follows the first line is no answer's status
                    raise _refusal(f"pull {reference}", line["error"])
        found = self.find(reference)
        if found is None:
            raise EngineRefusedError(f"pull {reference}: it came under another digest")
        return found

    def load(self, archive: Iterable[bytes]) -> Release:
        """The one image that an archive of `docker save` holds."""
        with _named("load the image"):
            images = self._client.images.load(archive)
        if len(images) != 1:
            raise EngineRefusedError(f"load the image: the archive holds {len(images)} images, expected 1")
        image = images[0]
        reference = image.tags[0] if image.tags else str(image.id)
        return Release(str(image.id), reference, (image.labels or {}).get(VERSION, "unknown"))

    def save(self, reference: str) -> Iterator[bytes]:
        """The archive of an image, under the name that it was asked for by."""
        with _named(f"save {reference}"):
            return iter(self._client.images.get(reference).save(chunk_size=READ_BYTES, named=reference))

    def drop_image(self, image: str) -> None:
        """Delete an image, unless a container uses it or it has several names."""
        with _named(f"delete {image}"):
            try:
                self._client.images.remove(image)
            except (ImageNotFound, APIError):
                pass  # gone, or somebody else's, too

    # containers

    def containers(self) -> tuple[Container, ...]:
        """All of this appliance, whatever became of them."""
        with _named("list"):
            found = self._client.containers.list(all=True, filters={"label": f"{LABEL}={self._name}"})
            return tuple(_container(each.attrs) for each in found)

    def has_state(self) -> bool:
        """Whether the volume is there."""
        with _named("look for the state"):
            try:
                self._client.volumes.get(self._state)
            except NotFound:
                return False
            return True

    def state_folder(self) -> str | None:
        """Where the volume lies on this machine; None where there is none."""
        with _named("look for the state"):
            try:
                return str(self._client.volumes.get(self._state).attrs["Mountpoint"])
            except NotFound:
                return None

    def create(self, deployment: Deployment) -> None:
        """Make a deployment's container, and the volume with it; again changes nothing."""
        labels = {LABEL: self._name, GENERATION: str(deployment.generation)}
        with _named("create the container"):
            self._make_state()
            self._make(deployment.options, name=f"{self._name}-{deployment.generation}", labels=labels)

    def _make(self, options: dict[str, Any], **named: Any) -> Any:
        """A container with no environment but ours: the SDK would add the proxy of ~/.docker/config.json, password and
        all."""
        return self._client.containers.create(**options, **named, use_config_proxy=False)

    def _make_state(self) -> None:
        """Before its first container, so that it has the label; the engine fills and owns it as the image says."""
        self._client.volumes.create(self._state, labels={LABEL: self._name})

    def start(self, container: Container) -> None:
        with _named("start the container"):
            self._client.containers.get(container.id).start()

    def stop(self, container: Container, limit_s: int) -> None:
        """Ask it to leave, and kill it after `limit_s`. One that is gone has left."""
        with _named("stop the container"):
            try:
                self._client.containers.get(container.id).stop(timeout=limit_s)
            except NotFound:
                pass

    def remove(self, container: Container) -> None:
        """With what only it has, and without the state. One that is gone is removed."""
        with _named("remove the container"):
            try:
                self._client.containers.get(container.id).remove(v=True, force=True)
            except NotFound:
                pass

    def delete_state(self) -> None:
        with _named("delete the state"):
            try:
                self._client.volumes.get(self._state).remove()
            except NotFound:
                pass

    def wait(self, since_s: float, limit_s: float) -> None:
        """Return when something has happened to one of the containers since a time, or after `limit_s`."""
        until_s = time.time() + limit_s
        wanted = {"label": f"{LABEL}={self._name}", "event": ["start", "die", "health_status"], "type": "container"}
        with _named("wait"):
            events = self._client.events(since=since_s, until=until_s, filters=wanted, decode=True)
            try:
                next(iter(events), None)
            finally:
                events.close()

    def logs(self, container: Container, tail: int, *, follow: bool = False) -> Iterator[bytes]:
        """The last lines of both streams; with `follow` also what comes, until the container ends."""
        with _named("read the log"):
            found = self._client.containers.get(container.id)
            if follow:
                yield from found.logs(stream=True, follow=True, tail=tail)
            else:
                yield found.logs(tail=tail)

    def inspect(self, container: Container) -> dict[str, Any]:
        """What `docker inspect` shows."""
        with _named("inspect"):
            return dict(self._client.containers.get(container.id).attrs)

    # single commands

    def execute(self, container: Container, command: list[str]) -> Outcome:
        """A command in a container that runs."""
        with _named("run a command"):
            code, (out, err) = self._client.containers.get(container.id).exec_run(command, demux=True)
        return Outcome(code, _text(out), _text(err))

    def run_once(self, options: dict[str, Any], errand: Errand) -> tuple[Outcome, bytes | None]:
        """A container for one command, removed when it ends, and the file that it was to leave, if it ended with 0."""
        volume = {"Type": "volume", "Target": str(EXCHANGE)}
        with _named("run a command"):
            self._make_state()
            labels = {LABEL: self._name}
            container = self._make(options | {"mounts": [*options["mounts"], volume]}, labels=labels)
            try:
                container.put_archive(str(EXCHANGE), folder_archive(FILES, errand.files))
                container.start()
                for piece in container.logs(stream=True, follow=True):
                    if errand.told:
                        errand.told(piece)
                code = container.wait()["StatusCode"]
                outcome = Outcome(code, _text(container.logs(stderr=False)), _text(container.logs(stdout=False)))
                fetched = None
                if errand.fetch and code == 0:
                    fetched = only_file(container.get_archive(str(exchanged(errand.fetch)))[0])
                return outcome, fetched
            finally:
                container.remove(v=True, force=True)

    # the state

    def read_state(self, container: Container, folder: PurePosixPath) -> Iterator[bytes]:
        """A tar of a folder, as a container sees it, its own name the first part of each member's."""
        with _named("copy the state"):
            stream, _ = self._client.containers.get(container.id).get_archive(str(folder), chunk_size=READ_BYTES)
            yield from stream

    def write_state(self, container: Container, folder: PurePosixPath, archive: IO[bytes]) -> None:
        """Write the members of a tar below a folder, with the owners that it says."""
        with _named("put the state back"):
            self._client.containers.get(container.id).put_archive(str(folder), archive)


def _container(attributes: dict[str, Any]) -> Container:
    state = attributes["State"]
    generation = attributes["Config"]["Labels"].get(GENERATION)
    check = state.get("Health") or {}
    health = check.get("Status")
    passes = takewhile(lambda probe: probe["ExitCode"] == 0, reversed(check.get("Log") or []))
    return Container(
        id=attributes["Id"],
        generation=None if generation is None else int(generation),
        status=state["Status"],
        health=None if health == "none" else health,
        exit_code=state["ExitCode"],
        restarts=attributes["RestartCount"],
        running_s=max(0.0, time.time() - datetime.fromisoformat(state["StartedAt"]).replace(tzinfo=UTC).timestamp()),
        passes=len(list(passes)),
    )


def _text(output: bytes | None) -> str:
    return (output or b"").decode(errors="replace")
