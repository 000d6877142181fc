"""What the agent tells of itself: presence, and telemetry at intervals and soon after a change."""

from collections.abc import Collection, Mapping
from typing import Any

from edge_agent.config import SiteConfig
from edge_agent.policy import told
from edge_agent.progress import Progress
from edge_agent.states import Situation, phase
from edge_agent.voice import Pack
from fedward import __version__, topics
from fedward.messages import Phase, Status, Telemetry
from fedward.pack import pack
from fedward.ports import Link, Will
from fedward.topics import Up

SOON_S = 0.2
"""Least time between two reports when the phase changes."""


def will_of(config: SiteConfig, boot_id: bytes, pack: Pack = pack) -> Will:
    """What the broker says in our name when we are gone without a word."""
    topic = topics.up(config.federation, config.site, Up.STATUS)
    return Will(topic, pack(Status(boot_id=boot_id, online=False)), config.broker.will_delay_s)


def page_of(config: SiteConfig, now: Situation, progress: Progress) -> dict[str, Any]:
    """Where the agent stands, as its page shows it; what its parts count is added by them."""
    return {
        "site": config.site,
        "federation": config.federation,
        "phase": str(phase(now)),
        "announced": now.announced,
        "held": now.held,
        "outbox": int(now.outbox),
        "num_accepted": progress.num_accepted,
        "num_refused": progress.num_refused,
    }


def telemetry_of(page: Mapping[str, Any], boot_id: bytes, tells: Collection[str]) -> Telemetry:
    """The agent's page as the message that leaves: presence, phase, and of these fields what the policy tells."""
    telemetry = Telemetry(
        boot_id=boot_id,
        phase=Phase(page["phase"]),
        version=page["held"],
        step=page["step"],
        num_steps=page["num_steps"],
        num_updates=page["num_accepted"],
        num_refused=page["num_refused"],
        num_fetched=page["num_fetched"],
        bytes_sent=page["bytes_sent"],
        bytes_received=page["bytes_received"],
        step_s=page["step_s"],
        train_loss=page["train_loss"],
        uplink_bytes_s=page["uplink_bytes_s"],
        sent_at_s=page["now_s"],
        device=page["device"],
        num_gpus=page["num_gpus"],
    )
    return told(telemetry, tells)


class Reporter:
    """Sends status and telemetry; lost telemetry is not sent again."""

    def __init__(
        self,
        link: Link,
        config: SiteConfig,
        boot_id: bytes,
        pack: Pack = pack,
        receiving_key: bytes | None = None,
    ) -> None:
        """`receiving_key` is what model keys for this process are sealed to."""
        self._link = link
        self._pack = pack
        self._config = config
        self._boot_id = boot_id
        self._receiving_key = receiving_key
        self._told_phase: str | None = None
        self._told_at_s = 0.0

    def arrive(self) -> None:
        """Tell that this process is here, and everything again."""
        software = f"fedward {__version__}"
        here = Status(boot_id=self._boot_id, online=True, software=software, receiving_key=self._receiving_key)
        self._status(here)
        self._told_phase = None

    def leave(self) -> None:
        """Tell that this process goes on purpose."""
        self._status(Status(boot_id=self._boot_id, online=False, leaving=True))

    def step(self, page: Mapping[str, Any], tells: Collection[str], now_s: float) -> None:
        """Send telemetry if it is time, with what of the page may be told."""
        due_s = SOON_S if page["phase"] != self._told_phase else self._config.telemetry_s
        if self._told_phase is not None and now_s - self._told_at_s < due_s:
            return
        topic = topics.up(self._config.federation, self._config.site, Up.TELEMETRY)
        if self._link.publish(topic, self._pack(telemetry_of(page, self._boot_id, tells)), qos=0, expiry_s=60):
            self._told_phase, self._told_at_s = page["phase"], now_s

    def _status(self, status: Status) -> None:
        topic = topics.up(self._config.federation, self._config.site, Up.STATUS)
        self._link.publish(topic, self._pack(status), retain=True)
