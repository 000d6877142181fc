"""The API's server: a thread of its own with an event loop of its own, beside the coordinator's loop.

It shares nothing with that loop but the values of `Service.page()`, and can't keep it waiting: the ledger is read in
sessions of its own, models are made in a process of its own, and connections are few.
"""

import asyncio
import logging
import socket
import threading
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Self

import anyio.to_thread
import uvicorn

from coordinator.api.access import Access
from coordinator.api.app import Page, make_app
from coordinator.api.connection import Connection
from coordinator.api.exports import Exports
from coordinator.api.guard import Guard
from coordinator.api.reading import Reading
from coordinator.config import FederationConfig
from coordinator.database import reading
from coordinator.opening import engine_of
from fedward.errors import ConfigError
from fedward.ports import Clock
from fedward.tls import Callers, Renewing, make_server_context

LOG = logging.getLogger(__name__)

CONNECTIONS = 32
"""At once; who comes after them waits until one has ended."""

THREADS = 4
"""That read the ledger and files."""

GRACE_S = 1.0
"""For what is being answered when the coordinator is stopped; the rest is cut off."""

CROWDED_S = 1.0
"""Until it is tried again where the process can open no more files."""

HANDSHAKE_S = 5.0
KEEP_ALIVE_S = 5


class ApiServer:
    """Serves the API inside a `with` block; without a port nothing is served."""

    def __init__(self, config: FederationConfig, page: Page, clock: Clock) -> None:
        """Read the token and the certificates, and bind. Raises ConfigError."""
        self._listener: socket.socket | None = None
        settings = config.api
        if settings.port is None:
            return
        self._clock = clock
        access = Access(settings.token(), frozenset(settings.readers))
        self._tls: Renewing | None = None
        if settings.tls is not None:
            files, callers = settings.tls, callers_of(access)
            self._tls = Renewing(files, lambda: make_server_context(files, callers))
        self._reading = Reading(reading(engine_of(config)), config.sites)
        self._exports = Exports(config)
        self._app = Guard(make_app(config.federation, self._reading, self._exports, page), access, clock)
        self._listener = _listening(settings.host, settings.port)
        self._ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(target=self._work, name="api", daemon=True)

    @property
    def port(self) -> int | None:
        """The port that is really listened on."""
        return int(self._listener.getsockname()[1]) if self._listener else None

    def __enter__(self) -> Self:
        if self._listener:
            self._exports.begin(self._clock.now_s())
            self._thread.start()
            self._ready.result()
            LOG.info("api_started", extra={"port": self.port, "tls": self._tls is not None})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._listener:
            loop, stop = self._ready.result()
            with suppress(RuntimeError):  # it has ended by itself
                loop.call_soon_threadsafe(stop.set)
            self._thread.join()
            self._listener.close()
            self._reading.close()

    def _work(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)  # __enter__ waits

    async def _run(self) -> None:
        """Until the `with` block ends."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        config = uvicorn.Config(
            self._app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        config.load()
        server = uvicorn.Server(config)
        stopping = asyncio.create_task(stop.wait())
        serving = asyncio.create_task(server.serve(sockets=[]))
        accepting = asyncio.create_task(self._accept(config, server.server_state))
        self._ready.set_result((loop, stop))
        await asyncio.wait({stopping, serving, accepting}, return_when=asyncio.FIRST_COMPLETED)
        accepting.cancel()
        server.should_exit = True
        await self._exports.close()
        await asyncio.wait({serving}, timeout=GRACE_S)
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        stopping.cancel()
        ended = await asyncio.gather(stopping, serving, accepting, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                advice = "the coordinator goes on, without its API until it is started anew"
                LOG.error("api_ended", exc_info=error, extra={"advice": advice})

    async def _accept(self, config: uvicorn.Config, state: uvicorn.server.ServerState) -> None:
        """Not uvicorn's own: that accepts whoever comes, and each takes a file descriptor from the coordinator."""
        loop, room = asyncio.get_running_loop(), asyncio.Semaphore(CONNECTIONS)
        assert self._listener is not None  # noqa: S101 - __enter__ has looked
        async with asyncio.TaskGroup() as open_ones:
            while True:
                await room.acquire()
                try:
                    accepted, _ = await loop.sock_accept(self._listener)
                except OSError as error:  # no file descriptor is free
                    LOG.warning("api_cannot_accept", extra={"detail": error.strerror})
                    room.release()
                    await asyncio.sleep(CROWDED_S)
                    continue
                open_ones.create_task(self._serve(accepted, config, state)).add_done_callback(lambda _: room.release())

    async def _serve(self, accepted: socket.socket, config: uvicorn.Config, state: uvicorn.server.ServerState) -> None:
        """One connection until its end. One that fails its handshake is nobody's concern."""
        loop = asyncio.get_running_loop()
        connection = Connection(config, state, {}, loop)
        try:
            await loop.connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._tls.context() if self._tls else None,
                ssl_handshake_timeout=HANDSHAKE_S if self._tls else None,
            )
        except OSError:
            accepted.close()
            return
        await connection.lost


def callers_of(access: Access) -> Callers:
    """Whether callers show a certificate: only where a name lets somebody in is it looked at."""
    if not access.readers:
        return Callers.UNNAMED
    return Callers.NAMED if access.token is None else Callers.MAY_BE_NAMED


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=CONNECTIONS)
    except OSError as error:
        raise ConfigError(f"api: can't listen on {host}:{port}: {error.strerror}") from error
    listener.setblocking(False)
    return listener
