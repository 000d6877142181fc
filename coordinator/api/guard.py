"""What every request passes before it is answered: is its sender let in, and is what it asks for bounded."""

import json
import logging
from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from coordinator.api.access import Access
from coordinator.api.answers import Problem
from fedward.ports import Clock

LOG = logging.getLogger(__name__)

TELL_EVERY_S = 10.0
"""How often refused callers are told of in the log: one that tries tokens must not fill the disk."""

LONGEST_RANGE = 64
"""Bytes of a Range header; a longer one, or one of several ranges, is not looked at, which HTTP allows."""

Headers = Iterable[tuple[bytes, bytes]]


class Guard:
    """The app behind the guard sees the requests of those who are let in, and who that is in `scope["state"]`."""

    def __init__(self, app: ASGIApp, access: Access, clock: Clock) -> None:
        self._app = app
        self._access = access
        self._clock = clock
        self._num_refused = 0
        self._told_at_s: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        shown = [value for name, value in headers if name == b"authorization"]
        state = scope.get("state", {})
        reader = self._access.of(shown[0] if len(shown) == 1 else b"", state.get("certified"))
        if reader is None:
            self._tell(scope)
            await _refuse(send)
            return
        bounded = {**scope, "headers": list(_without_long_ranges(headers)), "state": {**state, "reader": reader}}
        await self._app(bounded, receive, send)

    def _tell(self, scope: Scope) -> None:
        self._num_refused += 1
        now_s = self._clock.monotonic_s()
        if self._told_at_s is None or now_s - self._told_at_s >= TELL_EVERY_S:
            caller = (scope.get("client") or ("unknown", 0))[0]
            LOG.warning("api_refused", extra={"caller": caller, "num_refused": self._num_refused})
            self._told_at_s, self._num_refused = now_s, 0


def _without_long_ranges(headers: Headers) -> Headers:
    return (
        (name, value)
        for name, value in headers
        if name != b"range" or (len(value) <= LONGEST_RANGE and b"," not in value)
    )


async def _refuse(send: Send) -> None:
    problem = Problem(error="unauthorized", detail="a token or a certificate is needed, and this is none that counts")
    content = json.dumps(problem.model_dump()).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"www-authenticate", b"Bearer"),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": content})
