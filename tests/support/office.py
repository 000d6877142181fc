"""The coordinator's end of an agent's wire, in memory, and the site that the tests of the agent configure."""

import queue
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from edge_agent.config import SiteConfig
from fedward import topics
from fedward.chunks import indices_of, manifest_of
from fedward.codec import codec, seed_of
from fedward.identity.model_key import ModelKey
from fedward.identity.signing import EVERYBODY
from fedward.layout import Layout, Vector, vector_digest
from fedward.messages import (
    Announcement,
    Control,
    FederationState,
    Get,
    Grant,
    Offer,
    Outcome,
    Part,
    PartKind,
    Receipt,
    Renewed,
    SealedKey,
    Status,
    Work,
)
from fedward.pack import Sign, pack, unpack
from fedward.ports import LinkInbox
from fedward.testing import MemoryBroker, MemoryLink
from fedward.topics import Down

FEDERATION, SITE, TASK = "ward", "st-anna", "tiny"
WORK = Work(local_epochs=1, batch_size=4, local_lr=0.1)


class Office:
    """The coordinator's end of the wire: announces versions, hands out their chunks, hears everything."""

    def __init__(self, broker: MemoryBroker, layout: Layout) -> None:
        self.layout = layout
        self.vector_P: Vector = np.random.default_rng(1).standard_normal(layout.size).astype(np.float32)
        self.version = 0
        self.sequence = 0
        self.boot_id = bytes(8)
        self.payloads: dict[bytes, bytes] = {}
        self.parts: list[Part] = []
        self.heard: list[tuple[str, bytes]] = []
        self.answers_gets = True
        self.sign_to: Callable[[str], Sign] | None = None
        """Receiver -> what signs messages to it."""
        self.model_key: ModelKey | None = None
        """What chunks are sealed with, and announced by its id."""
        self._broker = broker
        self._inbox: LinkInbox = queue.Queue()
        self._link = MemoryLink(broker, "office", self._inbox, window=1000)
        self._link.subscribe(topics.up_all(FEDERATION), "fl/v1/another/#")
        self._link.open()
        self.add_snapshot()

    def add(self, kind: PartKind, name: str, vector_P: Vector) -> Part:
        """Publishable bytes of the current version."""
        payload = codec(name).encode(vector_P, self.layout, b"")
        part = Part(kind=kind, version=self.version, codec=name, manifest=manifest_of(payload))
        self.payloads[part.manifest.digest] = payload
        self.parts.append(part)
        return part

    def add_snapshot(self) -> None:
        """The current version as a whole."""
        self.add(PartKind.SNAPSHOT, "f32", self.vector_P)

    def next_version(self) -> None:
        """One step further for every parameter, as a delta."""
        self.version += 1
        self.vector_P = self.vector_P + np.float32(0.5)
        self.add(PartKind.DELTA, "f32", np.full(self.layout.size, 0.5, np.float32))

    def start_over(self, value: float | Vector) -> None:
        """Version 0 of another federation, or of one that lost its ledger: of these values, or of one everywhere."""
        self.version = 0
        self.vector_P = np.full(self.layout.size, value, np.float32)
        self.parts.clear()
        self.add_snapshot()

    def announcement(self, **changes: Any) -> Announcement:
        self.sequence += 1
        fields: dict[str, Any] = {
            "federation": FEDERATION,
            "sequence": self.sequence,
            "boot_id": self.boot_id,
            "state": FederationState.RUNNING,
            "version": self.version,
            "model_digest": vector_digest(self.vector_P),
            "layout_digest": self.layout.digest,
            "parts": tuple(self.parts),
            "task": TASK,
            "work": WORK,
            "codec": "f32",
            "max_staleness": 10,
            "repeat_base": False,
            "model_key_id": self.model_key.key_id if self.model_key else None,
        }
        return Announcement(**{**fields, **changes})

    def announce(self, announcement: Announcement | None = None, **changes: Any) -> None:
        message = announcement or self.announcement(**changes)
        self._broker.publish(topics.announce(FEDERATION), self.packed(message, EVERYBODY), retain=True)

    def give_key(self, status: Status) -> None:
        """The model key, to the process that says so."""
        assert self.model_key is not None
        assert status.receiving_key is not None
        self.tell(Down.KEY, self.model_key.sealed_to(status.receiving_key, status.boot_id, FEDERATION, SITE))

    def tell(self, kind: Down, message: Grant | Receipt | Control | Renewed | SealedKey) -> None:
        self._broker.publish(topics.down(FEDERATION, SITE, kind), self.packed(message, SITE))

    def packed(self, message: object, receiver: str) -> bytes:
        return pack(message, self.sign_to and self.sign_to(receiver))

    def receipt(self, offer: Offer, outcome: Outcome = Outcome.ACCEPTED) -> None:
        self.tell(Down.RECEIPT, Receipt(update_id=offer.update_id, outcome=outcome))

    def pause_site(self, *, paused: bool) -> None:
        self.sequence += 1
        self.tell(Down.CONTROL, Control(sequence=self.sequence, paused=paused))

    def listen(self) -> None:
        """Take in what came up; answer the requests for chunks."""
        while not self._inbox.empty():
            event = self._inbox.get_nowait()
            topic, payload = getattr(event, "topic", None), getattr(event, "payload", b"")
            if topic is None:
                continue
            self._link.acknowledge(event)  # type: ignore[arg-type]  # it has a topic
            self.heard.append((topic, payload))
            if self.answers_gets and topic.endswith("/get"):
                self.send_chunks(unpack(payload, Get))

    def send_chunks(self, get: Get) -> None:
        payload = self.payloads[get.digest]
        for index in indices_of(get.missing, manifest_of(payload)):
            self.send_chunk(get.digest, index)

    def send_chunk(self, digest: bytes, index: int, *, alone: bool = True, flip: int = 0) -> None:
        """A chunk for this site alone or for all; `flip` damages its first byte on the way."""
        start = index * 256 * 1024
        content = bytearray(self.payloads[digest][start : start + 256 * 1024])
        if self.model_key:
            content = bytearray(self.model_key.close(digest, index, bytes(content)))
        content[0] ^= flip
        topic = (
            topics.down_chunk(FEDERATION, SITE, digest, index)
            if alone
            else topics.part_chunk(FEDERATION, digest, index)
        )
        self._broker.publish(topic, bytes(content))

    def messages(self, kind: type) -> list[Any]:
        """What was heard of this kind, oldest first."""
        self.listen()
        level = kind.__name__.lower()
        return [unpack(payload, kind) for topic, payload in self.heard if level in topic.split("/")[6:7]]


def site_config(folder: Path, *, policy: Mapping[str, object] | None = None, **changes: Any) -> SiteConfig:
    """The smallest configuration of a site, with a policy that asks nobody unless it says otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    policy_file = folder / "policy.yaml"
    policy_file.write_text(yaml.safe_dump({"approval": "automatic", **(policy or {})}))
    fields: dict[str, Any] = {
        "site": SITE,
        "federation": FEDERATION,
        "tasks": {TASK: {}},
        "state_folder": folder / "state",
        "broker": {"host": "localhost"},
        "policy_file": policy_file,
    }
    return SiteConfig.model_validate({**fields, **changes})


def offer_of(payload: bytes = b"update", sequence: int = 0, base_version: int = 0) -> Offer:
    """An offer of a payload; the id follows from sequence and payload."""
    return Offer(
        federation=FEDERATION,
        update_id=seed_of(payload, sequence),
        sequence=sequence,
        base_version=base_version,
        codec="f32",
        layout_digest=bytes(32),
        num_examples=8,
        num_steps=2,
        work_s=0.5,
        manifest=manifest_of(payload),
    )
