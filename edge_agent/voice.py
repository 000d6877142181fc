"""How this site speaks and listens: signed where it has an identity, each message with a number of its own.

The number never goes back, so the coordinator knows a message that somebody repeats. Numbers are taken from disk in
blocks: what a crash leaves of a block is never used. All statuses of a process have one number, as the last will is
signed before anything happens.
"""

import errno
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from edge_agent.config import SiteConfig
from edge_agent.receive import CheckOf
from fedward.files import write_durably
from fedward.identity.folder import SiteIdentity
from fedward.identity.signing import COORDINATOR, checker, signer
from fedward.messages import Status
from fedward.pack import pack

LOG = logging.getLogger(__name__)

BLOCK = 10_000
"""Numbers that one write to disk covers."""

Pack = Callable[[object], bytes]


class CounterFile:
    """Numbers that grow with every call, over restarts, lost files and clocks that go back as far as one can tell.

    They begin at the microseconds since 1970: a site whose state was lost, or set back to an old copy, goes on above
    what it has used.
    """

    def __init__(self, path: Path, now_s: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._next = self._reserved = max(_read(path), int(now_s * 1e6))

    def next(self) -> int:
        """The next number; durably never given again.

        On a full disk the clock alone stands for that, and it takes one that went back to break the promise.
        """
        if self._next >= self._reserved:
            self._reserved = self._next + BLOCK
            try:
                write_durably(self._path, json.dumps({"reserved": self._reserved}).encode())
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                LOG.warning("counter_not_saved")
        self._next += 1
        return self._next


@dataclass(frozen=True)
class Voice:
    """How this process speaks to the coordinator, and knows what is the coordinator's."""

    boot_id: bytes
    pack: Pack = pack
    check_of: CheckOf | None = None
    """Receiver -> what lets the coordinator's messages to it pass; None: nothing is signed."""

    @classmethod
    def of(cls, boot_id: bytes, identity: SiteIdentity, config: SiteConfig, counter: CounterFile) -> Self:
        """Signed by the site, and only what the coordinator has signed is listened to."""
        federation, site, number = config.federation, config.site, counter.next()
        sign = signer(identity.key, federation, site, COORDINATOR, counter.next)
        sign_status = signer(identity.key, federation, site, COORDINATOR, lambda: number)
        return cls(
            boot_id,
            lambda message: pack(message, sign_status if isinstance(message, Status) else sign),
            lambda receiver: checker(identity.coordinator.public_key, federation, COORDINATOR, receiver),
        )


def _read(path: Path) -> int:
    try:
        return int(json.loads(path.read_text())["reserved"])
    except FileNotFoundError:
        return 0
    except (ValueError, TypeError, KeyError):
        LOG.warning("counter_unreadable")
        return 0
