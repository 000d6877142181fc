"""`fedward coordinator doctor`: the way to the broker, and whether this machine can keep the federation."""

from collections.abc import Callable
from pathlib import Path

from coordinator.config import FederationConfig
from coordinator.engine.buffer import buffer_size
from coordinator.intake import VERSION_BYTES
from coordinator.precision import AUTO
from fedward import topics
from fedward.codec import codec
from fedward.doctor.check import Check, failed, ok
from fedward.doctor.deadline import Deadline
from fedward.doctor.examine import Examination, Needs, examine_identity, party_of
from fedward.doctor.measure import now_s
from fedward.doctor.session import NOBODY, Wanted
from fedward.errors import ConfigError
from fedward.identity.folder import CoordinatorIdentity
from fedward.layout import Layout
from fedward.limits import MIB
from fedward.modelfile import load_model
from fedward.mqtt import MqttSettings

MODEL = "model"

MODEL_S = 15.0
"""Longest time to read the initial model."""

UNKNOWN_PARAMETERS = 64 * MIB
"""Of a model that can't be read: 256 MiB as float32."""

LEAST_MEMORY_BYTES = 256 * MIB
MEMORY_BYTES = 14
"""What a version needs at its peak, for each parameter (README, "Measured")."""

KEPT_BEYOND = 9
STATE_EVERY = 10
"""Versions that are kept beyond `retention.versions` at most; every tenth one has its state (docs/runbook.md)."""


def examine(config: FederationConfig, settings: Callable[[], MqttSettings], deadline: Deadline) -> list[Check]:
    """Every check of a coordinator. `settings` are those that it connects with; it may raise ConfigError."""
    user = config.broker.username
    who = "the coordinator" + (f" (user {user})" if user else "")
    wanted = wanted_by(config.federation, config.sites[0])
    examination = Examination(party_of(who, wanted, config.state_folder, settings), deadline)
    checks = examination.way()
    checks.append(_examine_identity(config))
    late = failed(MODEL, "the file does not answer", "repair the mount that the model file is on")
    model, needs = deadline.within(MODEL_S, lambda: _examine_model(config), (late, _needs(config, None)))
    return [*checks, *examination.disk_and_memory(needs), model, *examination.limits_and_clock()]


def wanted_by(federation: str, site: str) -> Wanted:
    """What a coordinator needs of the broker; `site` is any of its sites."""
    up = topics.up_all(federation)
    to_all, to_sites = topics.announce(federation).rpartition("/")[0], topics.down_all(federation, "+")
    return Wanted(
        filters={up: f"subscribe to {up}"},
        topics={
            topics.part_chunk(federation, NOBODY, 0): f"publish to {to_all}/#",
            topics.down_chunk(federation, site, NOBODY, 0): f"publish to {to_sites}",
        },
    )


def _examine_identity(config: FederationConfig) -> Check:
    folder = config.identity.folder if config.identity else None
    return examine_identity(folder, lambda: CoordinatorIdentity.load(folder or Path(), config.federation, now_s()))


def _examine_model(config: FederationConfig) -> tuple[Check, Needs]:
    try:
        layout, _ = load_model(config.model)
    except ConfigError as error:
        remedy = "correct `model`, or let the user of this program read the file"
        return failed(MODEL, str(error), remedy), _needs(config, None)
    return ok(MODEL, f"{config.model}: {layout.size} parameters"), _needs(config, layout)


def _needs(config: FederationConfig, layout: Layout | None) -> Needs:
    size = layout.size if layout else UNKNOWN_PARAMETERS
    version_bytes = _version_bytes(config, layout) if layout else size
    kept = config.retention.versions + KEPT_BEYOND
    whole = kept * version_bytes + kept // STATE_EVERY * (VERSION_BYTES // 2) * size
    return Needs(VERSION_BYTES * size, whole, LEAST_MEMORY_BYTES + MEMORY_BYTES * size)


def _version_bytes(config: FederationConfig, layout: Layout) -> int:
    """A version's delta and its updates, as large as they may be."""
    update = "q8" if config.codec == AUTO else config.codec
    num_updates = buffer_size(config.engine, len(config.sites))
    return codec(config.model_codec).most_bytes(layout) + num_updates * codec(update).most_bytes(layout)
