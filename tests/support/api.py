"""The API of a federation's folder, served and asked over real HTTP on loopback."""

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

from coordinator.api.server import ApiServer
from coordinator.config import FederationConfig
from fedward.process import SystemClock
from fedward.settings import load_settings
from tests.support.updates import FEDERATION

HOST = "127.0.0.1"
TOKEN = "t" * 64
STANDING_BY = {"federation": FEDERATION, "leads": False}
ROOT = f"/v1/federations/{FEDERATION}"


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    content: bytes

    def json(self) -> Any:
        return json.loads(self.content)


@dataclass
class Api:
    """A served API, asked with its token unless a test says otherwise."""

    port: int
    headers: dict[str, str] = field(default_factory=lambda: {"Authorization": f"Bearer {TOKEN}"})
    tls: ssl.SSLContext | None = None

    def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """A header's name is written with underscores; TOKEN is shown unless `Authorization` says otherwise."""
        if self.tls:
            connection: HTTPConnection = HTTPSConnection(HOST, self.port, timeout=30, context=self.tls)
        else:
            connection = HTTPConnection(HOST, self.port, timeout=30)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in {**self.headers, **headers}.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders()
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()


def write_token(folder: Path) -> Path:
    """TOKEN in a file that only its owner reads."""
    path = folder / "token"
    path.touch(0o600)
    path.write_text(f"{TOKEN}\n")
    return path


@contextmanager
def serving(folder: Path, page: dict[str, Any] | None = None, **api: Any) -> Iterator[ApiServer]:
    """The API of federation.yaml in the folder, with these settings; `page` is what the program that runs knows."""
    settings = json.dumps({"port": 0, **api}, default=str)
    config = load_settings(FederationConfig, folder / "federation.yaml", {"FEDWARD_API": settings})
    with ApiServer(config, lambda: page or STANDING_BY, SystemClock()) as server:
        yield server
