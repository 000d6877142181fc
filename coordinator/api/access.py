"""Who may ask: whoever has the token, or a certificate of a name that the operator lists. Pure."""

import hmac
from dataclasses import dataclass, field

ANYBODY = "anybody"
TOKEN = "token"  # noqa: S105 - what a log calls those who have it

SCHEME = b"bearer "


@dataclass(frozen=True)
class Access:
    """What lets a caller in. With neither token nor readers everybody is let in: whoever is on this machine."""

    token: str | None = field(default=None, repr=False)
    readers: frozenset[str] = frozenset()

    def of(self, authorization: bytes, certified: str | None) -> str | None:
        """Whom the log calls the caller by: its certificate's name, TOKEN or ANYBODY; None for one that is refused.

        `authorization` is the header of that name, empty without one; nothing else may hold the token. How long the
        comparison takes says nothing of it.
        """
        if certified is not None and certified in self.readers:
            return certified
        if self.token is None:
            return None if self.readers else ANYBODY
        shown = authorization[len(SCHEME) :].strip() if authorization[: len(SCHEME)].lower() == SCHEME else b""
        return TOKEN if hmac.compare_digest(shown, self.token.encode()) else None
