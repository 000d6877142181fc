"""One connection to the API: nobody keeps one for longer than it is of use.

    HEADER_S   until a whole request is there
    STALL_S    for a reader that takes nothing of what was sent

Who is slower is cut off. How many there are is bounded where they are accepted (server.py).
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

LOG = logging.getLogger(__name__)

HEADER_S = 10.0
STALL_S = 30.0


class Timer:
    """Calls once, `after_s` after its start, unless it is stopped; started again while it runs, it runs on."""

    def __init__(self, loop: asyncio.AbstractEventLoop, after_s: float, call: Callable[[], None]) -> None:
        self._loop, self._after_s, self._call = loop, after_s, call
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        if self._handle is None:
            self._handle = self._loop.call_later(self._after_s, self._call)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class Connection(H11Protocol):
    """uvicorn's own, with these bounds, and the name in the caller's certificate as `certified` of the state."""

    header_s = HEADER_S
    stall_s = STALL_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lost = self.loop.create_future()
        """Done when the connection has ended."""
        self._asking = Timer(self.loop, self.header_s, lambda: self._cut_off("no whole request"))
        self._stalled = Timer(self.loop, self.stall_s, lambda: self._cut_off("takes nothing"))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "certified": _name_in(transport.get_extra_info("peercert"))}
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled.start()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stalled.stop()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._asking.stop()
        self._stalled.stop()
        if not self.lost.done():
            self.lost.set_result(None)

    def _watch(self) -> None:
        """While no request is being answered one has to come; more bytes of it do not buy more time."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._asking.stop()
        else:
            self._asking.start()

    def _cut_off(self, why: str) -> None:
        LOG.info("api_cut_off", extra={"caller": self.client[0] if self.client else "unknown", "why": why})
        self.transport.abort()


def _name_in(certificate: Any) -> str | None:
    """The common name in a verified certificate, as the ssl module tells it; None without one."""
    subject = (certificate or {}).get("subject", ())
    names = [value for pairs in subject for kind, value in pairs if kind == "commonName"]
    return names[0] if len(names) == 1 else None
