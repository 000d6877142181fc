"""A secured broker with the coordinators of two federations, provisioned, and papers for whoever comes."""

import queue
import random
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from coordinator.access import coordinator_name
from coordinator.provision import BrokerAccess, Provision
from fedward import topics
from fedward.identity.token import TokenKeys
from fedward.mqtt import MqttLink, MqttSettings
from fedward.ports import Connected, Delivery, Disconnected, LinkInbox
from fedward.process import SystemClock
from fedward.settings import TlsSettings
from sandbox.secured import SecuredBroker
from tests.support.party import Papers, papers

DEADLINE_S = 20.0


class Office:
    """A coordinator as far as the broker sees it: the real link and the real provisioning, pumped by the test."""

    def __init__(self, link: MqttLink, inbox: LinkInbox, federation: str, sites: Collection[str]) -> None:
        self.link = link
        self.sites = set(sites)
        self.holders: set[TokenKeys] = set()
        self.received: list[tuple[str, bytes]] = []
        self.connections = 0
        self.provision = Provision(link, SystemClock(), federation, wanted=True)
        self._inbox = inbox
        self._federation = federation

    def open(self) -> None:
        self.provision.begin()
        self.link.subscribe(topics.up_all(self._federation), topics.enrolment_requests(self._federation))
        self.link.open()

    def work(self, until: Callable[[], bool], what: str) -> None:
        """Handle what comes in until it is so."""
        give_up_s = time.monotonic() + DEADLINE_S
        while not until():
            assert time.monotonic() < give_up_s, f"not {what} within {DEADLINE_S} s"
            try:
                event = self._inbox.get(timeout=0.02)
            except queue.Empty:
                event = None
            match event:
                case Delivery():
                    if not self.provision.takes(event):
                        self.received.append((event.topic, event.payload))
                    self.link.acknowledge(event)
                case Connected():
                    self.connections += 1
                    self.provision.on_connected()
                case Disconnected():
                    self.provision.on_disconnected()
            self.provision.tick(self.sites, self.holders)

    def provide(self) -> None:
        """Until the broker holds the rights of the sites and of the tokens' holders."""
        self.provision.tick(self.sites, self.holders)
        self.work(lambda: self.provision.state is BrokerAccess.PROVISIONED, "provisioned")

    def hear(self, topic: str) -> bytes:
        """The payload of the first message on this topic, once it is there."""
        self.work(lambda: any(found == topic for found, _ in self.received), f"heard on {topic}")
        return next(payload for found, payload in self.received if found == topic)


class Ward:
    """The broker of federations f1, of hosp-a and hosp-b, and f2, of hosp-c; in a `with` block."""

    def __init__(self, folder: Path, federations: Collection[str] = ("f1", "f2")) -> None:
        self.folder = folder
        self.broker = SecuredBroker(folder / "broker", federations)
        self.trusted = folder / "broker" / "authority" / "ca.crt"
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.broker)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def port(self) -> int:
        return self.broker.port

    def papers(self, name: str, **how: float) -> Papers:
        """Of the federation's own authority, for any name."""
        return papers(self.folder, self.broker.authority, self.trusted, name, **how)

    def office(self, federation: str, sites: Collection[str], *, provided: bool = True) -> Office:
        """A coordinator of its own link, open; provisioned unless told otherwise."""
        name = coordinator_name(federation)
        own = self.papers(name)
        inbox: LinkInbox = queue.Queue(10_000)
        settings = MqttSettings(
            host="127.0.0.1",
            port=self.port,
            tls=TlsSettings(ca_file=own.authority, certificate_file=own.certificate, key_file=own.key),
            client_id=name,
            session_expiry_s=600,
            reconnect_min_s=0.05,
            reconnect_max_s=0.2,
        )
        link = MqttLink(settings, inbox, random.Random(0))
        self._stack.callback(link.close)
        office = Office(link, inbox, federation, sites)
        office.open()
        if provided:
            office.provide()
        return office
