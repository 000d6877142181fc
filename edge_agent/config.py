"""The agent's configuration: one hospital in one federation. `fedward agent run --help` prints every setting."""

from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from fedward.settings import (
    BrokerSettings,
    HttpSettings,
    IdentitySettings,
    NameSetting,
    Settings,
    SiteNameSetting,
    check_identity,
)


class SiteConfig(Settings):
    """One hospital's agent."""

    site: SiteNameSetting
    """Name of this hospital in the federation: a topic level, so a-z, 0-9 and '-'."""
    federation: NameSetting
    """The federation that this agent takes part in."""
    tasks: dict[NameSetting, dict[str, Any]] = Field(min_length=1)
    """The allowed tasks by name, each with its options, such as where its records are. No other task is run."""
    state_folder: Path
    """Where the agent keeps the model, the outbox and its counters; must survive restarts."""
    broker: BrokerSettings
    """Where the MQTT broker is."""
    identity: IdentitySettings | None = None
    """This hospital's key and certificates. Unset, messages are neither signed nor sealed, which is allowed only with a
    broker on this machine, to try things out."""
    http: HttpSettings = HttpSettings()
    """The HTTP endpoint, for the hospital's own monitoring."""
    policy_file: Path | None = None
    """The hospital's policy, a file of its own (docs/policy.md); without one its defaults hold."""
    egress_log_mib: int = Field(default=1024, ge=32, le=1_048_576)
    """MiB of the disk that the log of everything that left may take; the oldest lines are deleted beyond."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: str = "auto"
    """auto, float32, bf16 or fp16."""
    threads: int | None = Field(default=None, ge=1, le=1024)
    """CPU threads of training; unset: torch's own choice."""
    telemetry_s: float = Field(default=15.0, ge=0.1, le=3600)
    """Seconds between two reports to the coordinator."""
    checkpoint_s: float = Field(default=30.0, ge=0, le=3600)
    """Seconds of training that a crash may cost, or one step if that is longer; a checkpoint is written as often."""

    @model_validator(mode="after")
    def _signed_where_it_leaves(self) -> Self:
        check_identity(self.identity, self.broker)
        return self
