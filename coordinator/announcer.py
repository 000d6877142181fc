"""What all sites are told: which version is current, and what to do with it; and single ones, what is wanted of them.

State, not commands: told again when anything of it changes, and now and then, for what a broker drops.
"""

import secrets

from coordinator.config import FederationConfig
from coordinator.ledger import Ledger
from coordinator.members import Members
from coordinator.model_key import KeyKeeper
from coordinator.operation import Operation
from coordinator.precision import UpdateCodecs
from coordinator.publish import Publisher
from coordinator.versions import Versions
from fedward.messages import Announcement, Control, FederationState
from fedward.ports import Clock

ANNOUNCE_EVERY_S = 300.0
"""The announcement is repeated: a broker whose queue was full has dropped it for somebody."""

ANNOUNCE_SOON_S = 10.0
"""For the new process of a site, whose broker may not deliver what is retained a second time to a session."""


class Announcer:
    """Says what is so now, as the other rooms know it."""

    def __init__(  # noqa: PLR0913 - the rooms that an announcement is put together from
        self,
        config: FederationConfig,
        versions: Versions,
        operation: Operation,
        members: Members,
        publisher: Publisher,
        clock: Clock,
        *,
        sealing_key: bytes | None = None,
        keys: KeyKeeper | None = None,
    ) -> None:
        """`sealing_key` is what updates are sealed with; `keys` gives the model key to members. None: nothing is."""
        self._config = config
        self._versions = versions
        self._ledger: Ledger = versions.store.ledger
        self._operation = operation
        self._members = members
        self._publisher = publisher
        self._clock = clock
        self._sealing_key = sealing_key
        self._keys = keys
        self.codecs = UpdateCodecs.of(config.codec, config.codecs, config.precision, versions.layout.size)
        self._boot_id = secrets.token_bytes(8)
        self._said_at_s = 0.0
        self._due_at_s = float("inf")

    def is_due(self, now_s: float) -> bool:
        """Whether all is to be said again."""
        return now_s >= self._due_at_s

    def say_soon(self) -> None:
        """A site has a new process: it may not have heard."""
        self._due_at_s = min(self._due_at_s, self._said_at_s + ANNOUNCE_SOON_S)

    def announce(self) -> None:
        """The announcement alone."""
        self._said_at_s = self._clock.monotonic_s()
        self._due_at_s = self._said_at_s + ANNOUNCE_EVERY_S
        current = self._versions.current
        self._publisher.announce(
            Announcement(
                federation=self._config.federation,
                sequence=self._ledger.next_sequence(),
                boot_id=self._boot_id,
                state=self._operation.state,
                version=current.version,
                model_digest=current.model_digest,
                layout_digest=self._versions.layout.digest,
                parts=self._versions.parts(),
                task=self._config.task,
                work=self._config.work,
                codec=self.codecs.asked(current.version),
                max_staleness=self._config.engine.max_staleness,
                repeat_base=self._config.engine.repeat_base,
                epoch=self._ledger.epoch,
                codecs=self.codecs.allowed,
                sealing_key=self._sealing_key,
                initial=self._versions.initial,
                model_key_id=self._keys.key_id if self._keys else None,
            )
        )

    def announce_all(self) -> None:
        """The announcement, and what single sites need for it, before, and what is wanted of them."""
        self.hand_out_keys()
        self.announce()
        for site, state in self._operation.of_sites().items():
            if site in self._members:
                paused = state is FederationState.PAUSED
                self._publisher.control(site, Control(sequence=self._ledger.next_sequence(), paused=paused))

    def hand_out_keys(self, *sites: str) -> None:
        """The model key, to these members or to all that are there; who says again that it is there gets it again."""
        for site, key in self._keys.hand_out(*sites).items() if self._keys else ():
            self._publisher.key(site, key)
