"""The API's paths: what each answers, and docs/openapi.json, which is made of them. docs/api.md has examples.

All of it reads. Whoever gets here was let in (guard.py); which federation's names are real is told to nobody else.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from anyio import to_thread
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import Receive, Scope, Send

from coordinator.api.answers import (
    Answer,
    Federation,
    Federations,
    Head,
    Problem,
    Site,
    SiteDetail,
    Sites,
    VersionDetail,
    Versions,
)
from coordinator.api.exports import ExportError, Exports
from coordinator.api.reading import Reading
from fedward.errors import IntegrityError, TransientError

LOG = logging.getLogger(__name__)

Page = Callable[[], Mapping[str, Any]]
"""`page()` of the program that runs: what it alone knows."""

OfSite = TypeVar("OfSite", bound=Site)
Found = TypeVar("Found", bound=Answer)

DOWNLOADS = 4
"""Of models, at once."""

RETRY_S = "5"
LARGEST = 2**53 - 1
"""Of the numbers that are taken: what every JSON reader holds exactly."""

PAGE = 200
"""Versions on a page, at most."""

Number = Annotated[int, Path(ge=0, le=LARGEST, description="Number of a version.")]
Name = Annotated[str, Path(max_length=64, description="Name of a site.")]
PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "Neither a token nor a certificate that counts."},
    404: {"model": Problem, "description": "No such thing."},
    422: {"model": Problem, "description": "A parameter is none of those described here."},
    503: {"model": Problem, "description": "Not now: ask again after Retry-After seconds."},
}
MODEL_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The safetensors file. `ETag` is its SHA-256; the metadata names federation and version.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
    206: {"description": "The range that was asked for."},
    304: {"description": "The file is the one of If-None-Match."},
    410: {"model": Problem, "description": "There was such a version; its model is not kept any more."},
    416: {"description": "The range lies outside of the file."},
}
NAMES = {404: "not_found", 405: "method_not_allowed", 410: "not_kept"}


class Download(FileResponse):
    """A model on its way to a reader; `DOWNLOADS` of them at once."""

    room: asyncio.Semaphore

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self.room:
            await super().__call__(scope, receive, send)


NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""FastAPI's own would tell a collector of every request and exception, with paths and messages."""


class App(FastAPI):
    """Says, too, how to be let in: that is the guard's, in front of it."""

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        document["components"]["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer", "description": "The content of api.token_file."},
            "certificate": {"type": "mutualTLS", "description": "With a name of api.readers."},
        }
        document["security"] = [{"token": []}, {"certificate": []}]
        return document


def make_app(federation: str, reading: Reading, exports: Exports, page: Page) -> FastAPI:
    """The API of one federation."""
    app = App(
        title="Fedward coordinator",
        version="1",
        description="Read-only: federation, versions, sites, models and the ledger's head. Times are seconds since "
        "1970, UTC; digests are SHA-256 in hexadecimal.",
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
        telemetry=NO_TELEMETRY,
        generate_unique_id_function=lambda route: route.name,
    )
    app.include_router(_paths(federation, reading, page))
    app.include_router(_models(federation, reading, exports))
    app.add_exception_handler(StarletteHTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(TransientError, _on_transient)
    app.add_exception_handler(IntegrityError, _on_damage)
    app.add_exception_handler(Exception, _on_bug)
    return app


def _known(federation: str) -> Any:
    """Lets pass who names the federation that is served."""

    def check(name: Annotated[str, Path(max_length=64, description="Name of the federation.")]) -> None:
        if name != federation:
            raise HTTPException(404, "no such federation here")

    return Depends(check)


def _paths(federation: str, reading: Reading, page: Page) -> APIRouter:
    top = APIRouter(prefix="/v1/federations", tags=["federation"], responses=PROBLEMS)

    @top.get("")
    def federations() -> Federations:
        """The federations of this coordinator."""
        return Federations(federations=[with_live_federation(reading.federation(), page())])

    one = APIRouter(prefix="/{name}", dependencies=[_known(federation)])

    @one.get("")
    def federation_of() -> Federation:
        """State, current version and measurements of a federation."""
        return with_live_federation(reading.federation(), page())

    @one.get("/versions")
    def versions(
        before: Annotated[int | None, Query(ge=0, le=LARGEST, description="Only versions below this one.")] = None,
        limit: Annotated[int, Query(ge=1, le=PAGE, description="Versions on the page.")] = 50,
    ) -> Versions:
        """The versions, newest first, a page at a time."""
        return reading.versions(before, limit)

    @one.get("/versions/{version}")
    def version_of(version: Number) -> VersionDetail:
        """A version: the updates that it was made of, and what the sites measured."""
        return _found(reading.version(version), "no record of such a version")

    @one.get("/sites")
    def sites() -> Sites:
        """The admitted sites."""
        live = page()
        return Sites(sites=[with_live_site(site, live) for site in reading.sites().sites])

    @one.get("/sites/{site}")
    def site_of(site: Name) -> SiteDetail:
        """A site: its updates, refusals, and latest measurements."""
        return with_live_site(_found(reading.site(site), "no such site is admitted"), page())

    @one.get("/ledger/head")
    def head() -> Head:
        """The end of the ledger's chain."""
        return reading.head()

    top.include_router(one)
    return top


def _models(federation: str, reading: Reading, exports: Exports) -> APIRouter:
    router = APIRouter(prefix="/v1/federations/{name}", tags=["model"], dependencies=[_known(federation)])
    room = asyncio.Semaphore(DOWNLOADS)

    @router.get("/versions/{version}/model", response_class=Response, responses=PROBLEMS | MODEL_ANSWERS)
    async def model(version: Number, request: Request) -> Response:
        """Download the model at a version, as a safetensors file; a single Range may be asked for."""
        digest, is_kept = _there(await to_thread.run_sync(reading.model, version))
        if not is_kept:
            raise HTTPException(410, "the model of this version is not kept any more")
        if room.locked():
            raise TransientError("as many models as may be are being downloaded")
        export = await exports.of(version, digest)
        etag = f'"{export.digest}"'
        if etag in [tag.strip() for tag in request.headers.get("if-none-match", "").split(",")]:
            return Response(status_code=304, headers={"ETag": etag})
        LOG.info("model_download", extra={"version": version, "reader": request.scope["state"].get("reader")})
        name = f"{federation}-{version}.safetensors"
        download = Download(export.path, headers={"ETag": etag}, media_type="application/octet-stream", filename=name)
        download.room = room
        return download

    return router


def with_live_federation(answer: Federation, page: Mapping[str, Any]) -> Federation:
    """With what the program that runs knows; one that stands by knows little."""
    live = {"num_parameters": page.get("num_parameters"), "leads": page["leads"], "connected": page.get("connected")}
    return answer.model_copy(update=live)


def with_live_site(answer: OfSite, page: Mapping[str, Any]) -> OfSite:
    """The same of a site."""
    live = page.get("sites", {}).get(answer.site)
    if live is None:
        return answer
    names = {"online": "online", "phase": "phase", "heard_at_s": "heard_at_s", "held_version": "version"}
    return answer.model_copy(update={name: live[key] for name, key in names.items()})


def _found(answer: Found | None, otherwise: str) -> Found:
    if answer is None:
        raise HTTPException(404, otherwise)
    return answer


def _there(model: tuple[str, bool] | None) -> tuple[str, bool]:
    if model is None:
        raise HTTPException(404, "no record of such a version")
    return model


def _problem(status: int, error: str, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(Problem(error=error, detail=detail).model_dump(), status, headers)


def _on_http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)  # noqa: S101 - registered for it
    phrase = HTTPStatus(error.status_code).phrase
    return _problem(error.status_code, NAMES.get(error.status_code, "invalid"), error.detail or phrase, error.headers)


def _on_invalid(_request: Request, _error: Exception) -> Response:
    """What was sent is not repeated."""
    return _problem(422, "invalid", "a parameter is none of those described in /openapi.json")


def _on_transient(_request: Request, error: Exception) -> Response:
    if isinstance(error, ExportError):
        LOG.warning("export_failed", extra={"detail": error.said})
    return _problem(503, "away", str(error), {"Retry-After": RETRY_S})


def _on_damage(_request: Request, error: Exception) -> Response:
    """The message names files: it is for the operator's log."""
    LOG.error("api_damage", extra={"detail": str(error)})
    return _problem(500, "damaged", "what is stored can't be read; the coordinator's log says more")


def _on_bug(_request: Request, _error: Exception) -> Response:
    """Raised on after the answer: the log has it."""
    return _problem(500, "failed", "this is a fault of the coordinator; its log says more")
