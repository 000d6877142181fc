"""What is sent to a Docker Engine, and what is made of its answers: the real SDK, and a server that answers as told."""

import errno
import io
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("docker", reason="the SDK is not installed: pip install 'fedward[appliance]'")

from edge_agent.appliance.engine import Engine, EngineRefusedError, Errand
from edge_agent.appliance.plan import once_options
from edge_agent.appliance.preparing import publisher
from edge_agent.appliance.preparing.bundle import IMAGE, write_bundle
from edge_agent.appliance.steps import Deployment, Release
from fedward.errors import ConfigError
from fedward.identity.keys import make_signing_key
from fedward.identity.release import PublisherKey

FULL = "write /var/lib/docker/tmp: no space left on device"

OPTIONS: dict[str, Any] = {"image": "sha256:1", "mounts": [], "environment": {"https_proxy": "http://ours:3128"}}

CONTAINER = {
    "Id": "c1",
    "Config": {"Labels": {}, "Tty": False},
    "State": {"Status": "created", "ExitCode": 0},
    "HostConfig": {"LogConfig": {"Type": "json-file"}},
}


@dataclass
class Stub:
    """Answers by the end of a path; what is not there is a 404. `asked` has the bodies of what was posted, by path."""

    answers: dict[str, bytes]
    asked: dict[str, list[bytes]] = field(default_factory=dict)


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    stub = Stub(
        {
            "/version": _json({"ApiVersion": "1.43", "MinAPIVersion": "1.24", "Version": "24.0.0"}),
            "/_ping": b"OK",
            "/volumes/create": _json({"Name": "north-state"}),
            "/containers/create": _json({"Id": "c1", "Warnings": []}),
            "/containers/c1/json": _json(CONTAINER),
            "/containers/c1/archive": b"",
            "/containers/c1/start": b"",
            "/containers/c1/logs": b"",
            "/containers/c1/wait": _json({"StatusCode": 0}),
            "/containers/c1": b"",
        }
    )

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            content = self._body()
            path = self.path.partition("?")[0]
            name = "/" + path.split("/", 2)[2] if path.startswith("/v1.") else path
            stub.asked.setdefault(name, []).append(content)
            answer = stub.answers.get(name)
            self.send_response(404 if answer is None else 200)
            answer = _json({"message": f"No such image: {name}"}) if answer is None else answer
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            content = b""
            while size := int(self.rfile.readline() or b"0", 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's signature
            pass

    for method in ("GET", "POST", "PUT", "DELETE"):
        setattr(Handler, f"do_{method}", Handler._answer)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.server_port}")
    yield stub
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def engine(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Of somebody whose `docker` goes through a proxy with a password."""
    proxy = "http://mueller:hunter2@proxy.example.org:3128"
    (tmp_path / "config.json").write_text(json.dumps({"proxies": {"default": {"httpProxy": proxy, "noProxy": "ours"}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    engine = Engine("north", "north-state")
    yield engine
    engine.close()


def test_a_container_is_given_no_proxy_but_ours(engine: Engine, stub: Stub) -> None:
    """The SDK would add the one of ~/.docker/config.json, with its password, which the engine shows to whoever asks."""
    engine.create(Deployment(1, Release("sha256:1", "agent:1", "1"), OPTIONS))
    outcome, _ = engine.run_once(once_options(OPTIONS, ["agent", "doctor"]), Errand())
    assert outcome.exit_code == 0
    sent = [json.loads(body) for body in stub.asked["/containers/create"]]
    assert [each["Env"] for each in sent] == [["https_proxy=http://ours:3128"]] * 2


def test_a_full_disk_is_told_as_the_engine_tells_it_while_an_image_is_loaded(engine: Engine, stub: Stub) -> None:
    stub.answers["/images/load"] = _json({"error": FULL, "errorDetail": {"message": FULL}})
    with pytest.raises(EngineRefusedError, match=f"load the image: the Docker Engine says: {FULL}"):
        engine.load(iter([b"archive"]))


def test_a_full_disk_is_told_as_the_engine_tells_it_while_an_image_is_pulled(engine: Engine, stub: Stub) -> None:
    stub.answers["/images/create"] = _json({"error": FULL, "errorDetail": {"message": FULL}})
    image = "registry.example.org/agent@sha256:" + "ab" * 32
    with pytest.raises(EngineRefusedError, match=f"pull {image}: the Docker Engine says: {FULL}"):
        engine.pull(image)


class WornFile(io.FileIO):
    """A file that can be read once."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._sought: list[int] = []

    def seek(self, offset: int, whence: int = 0) -> int:
        self._sought += [offset] if whence == 0 else []
        return super().seek(offset, whence)

    def read(self, size: int | None = -1) -> bytes:
        if len(self._sought) > len(set(self._sought)):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(size) or b""


@pytest.fixture
def key(tmp_path: Path) -> PublisherKey:
    """Of the publisher of fedward.bundle."""
    (tmp_path / IMAGE).write_bytes(bytes(5000))
    private = make_signing_key(tmp_path / "publisher.key")
    write_bundle(tmp_path / "fedward.bundle", tmp_path / IMAGE, b"{}", ("1.0", "agent:1.0"), private)
    return private.public_key()


def test_a_bundle_whose_disk_fails_while_it_is_loaded_is_named(
    engine: Engine, key: PublisherKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not told as an engine that gives no answer."""
    monkeypatch.setattr(publisher, "open_bundle", WornFile)
    path = tmp_path / "fedward.bundle"
    with pytest.raises(ConfigError, match=f"--bundle {path}: Input/output error"):
        publisher.from_bundle(path, engine, key)


def test_a_bundle_whose_disk_fails_at_once_is_named(engine: Engine, key: PublisherKey) -> None:
    with pytest.raises(ConfigError, match="--bundle /proc/self/mem: Input/output error"):
        publisher.from_bundle(Path("/proc/self/mem"), engine, key)
