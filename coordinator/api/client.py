"""Asks the API of a coordinator that is elsewhere, with what the server answers as values."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import ValidationError

from coordinator.api.answers import Answer, Federation, Federations, Head, Sites, VersionDetail, Versions
from fedward.errors import ConfigError, IntegrityError, TransientError
from fedward.layout import vector_digest
from fedward.limits import MIB
from fedward.modelfile import load_model
from fedward.settings import TrustSettings, is_loopback
from fedward.tls import make_context

Told = TypeVar("Told", bound=Answer)

TIMEOUT_S = 120.0
"""Longest silence: a large model takes its time until it is ready to be sent."""

LARGEST_ANSWER = 64 * MIB
PIECE_BYTES = 1 * MIB


class ApiClient:
    """The API at one address, of its one federation.

    Everything raises ConfigError for what the operator has to change, TransientError for what may go better later.
    """

    def __init__(self, url: str, token: str | None, files: TrustSettings | None) -> None:
        """`files` say whom to believe, and who we are, for an https address. Raises ConfigError."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ConfigError(f"--api {url}: expected http://HOST:PORT or https://HOST:PORT")
        if parts.scheme == "http" and token is not None and not is_loopback(parts.hostname):
            raise ConfigError(f"--api {url}: the token would be open to all on the way; use an https address")
        if parts.scheme == "https" and files is None:
            raise ConfigError(f"--api {url}: name the authority of its certificate with --ca-file")
        self._host, self._port, self._root = parts.hostname, parts.port, parts.path.rstrip("/")
        self._context = make_context(files) if files and parts.scheme == "https" else None
        self._headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        self._name: str | None = None

    def federation(self) -> Federation:
        (federation,) = self._ask("/v1/federations", Federations).federations
        self._name = federation.name
        return federation

    def versions(self, before: int | None, limit: int) -> Versions:
        start = "" if before is None else f"&before={before}"
        return self._ask(f"{self._path()}/versions?limit={limit}{start}", Versions)

    def sites(self) -> Sites:
        return self._ask(f"{self._path()}/sites", Sites)

    def head(self) -> Head:
        return self._ask(f"{self._path()}/ledger/head", Head)

    def download(self, version: int, out: Path) -> str:
        """Write the model at `version` to `out`, proven by its digests; returns the file's SHA-256.

        Raises IntegrityError, and leaves nothing, where the file or the model in it is not the promised one.
        """
        promised = self._ask(f"{self._path()}/versions/{version}", VersionDetail).model_digest
        partial = out.with_name(f".{out.stem}.part.safetensors")
        try:
            digest = self._fetch(f"{self._path()}/versions/{version}/model", partial)
            _, vector_P = load_model(partial)
            if vector_digest(vector_P).hex() != promised:
                raise IntegrityError(f"version {version}: the model in the file is not the one of the ledger")
            partial.replace(out)
        finally:
            partial.unlink(missing_ok=True)
        return digest

    def _path(self) -> str:
        return f"/v1/federations/{self._name or self.federation().name}"

    def _fetch(self, path: str, out: Path) -> str:
        digest = hashlib.sha256()
        with self._answer(path) as answer, out.open("wb") as file:
            while piece := answer.read(PIECE_BYTES):
                digest.update(piece)
                file.write(piece)
        if answer.getheader("ETag") != f'"{digest.hexdigest()}"':
            raise IntegrityError("what was downloaded is not what the coordinator has; try again")
        return digest.hexdigest()

    def _ask(self, path: str, kind: type[Told]) -> Told:
        with self._answer(path) as answer:
            content = answer.read(LARGEST_ANSWER)
        try:
            return kind.model_validate_json(content)
        except ValidationError:
            raise ConfigError(f"{self._host}: what answers there is not the API of this release") from None

    @contextmanager
    def _answer(self, path: str) -> Iterator[HTTPResponse]:
        connection = self._connection()
        try:
            connection.request("GET", f"{self._root}{path}", headers=self._headers)
            answer = connection.getresponse()
            if answer.status != 200:
                raise _refusal(answer)
            yield answer
        except (OSError, HTTPException) as error:
            raise TransientError(f"the API at {self._host} can't be asked: {error}") from error
        finally:
            connection.close()

    def _connection(self) -> HTTPConnection:
        if self._context:
            return HTTPSConnection(self._host, self._port, timeout=TIMEOUT_S, context=self._context)
        return HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)


def _refusal(answer: HTTPResponse) -> ConfigError | TransientError:
    try:
        problem: Any = json.loads(answer.read(LARGEST_ANSWER))
        detail = str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        detail = answer.reason
    text = f"the API answers {answer.status}: {detail}"
    return TransientError(text) if answer.status >= 500 else ConfigError(text)
