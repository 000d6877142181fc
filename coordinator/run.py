"""`fedward coordinator run`: the one that works; beside it others stand by, where the ledger is on a server."""

import logging
import os
import queue
import random
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext

from sqlalchemy.engine import Engine

from coordinator.blobs import BlobFolder
from coordinator.config import FederationConfig
from coordinator.database import LedgerAwayError, lead
from coordinator.journeys import Tell
from coordinator.making import Settings
from coordinator.metrics import exposition, exposition_of_standby
from coordinator.opening import engine_of, open_ledger
from coordinator.service import Service
from coordinator.versions import Versions
from fedward.errors import ConfigError, TransientError
from fedward.http import HttpServer, Program, pages_of
from fedward.identity.folder import CoordinatorIdentity, coordinator_name
from fedward.identity.signing import COORDINATOR
from fedward.modelfile import load_model, load_seed
from fedward.mqtt import MqttLink, MqttSettings
from fedward.ports import Clock, LinkInbox
from fedward.process import only_process_in
from fedward.reach import proxy_for, tls_for

LOG = logging.getLogger(__name__)

SESSION_EXPIRY_S = 30 * 86_400
INBOX_EVENTS = 10_000
"""More than the broker may have in flight to us, so that only QoS 0 messages can ever be dropped."""

COLLECTOR = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Variables of the OpenTelemetry standard that say where traces go."""

LOOK_S = 0.5
"""How often one that stands by asks for the lock."""


def run_coordinator(config: FederationConfig, clock: Clock, stop: threading.Event) -> None:
    """Work until `stop` is set; where another coordinator works on the same ledger, stand by until it ends.

    When the server that has the ledger is lost, all that this process knows is forgotten, and read again from the
    ledger when it leads again.
    """
    if config.ledger.url is None:
        with ExitStack() as held:
            held.enter_context(only_process_in(config.state_folder))
            _serve(config, engine_of(config), clock, stop, held)
    else:
        while not stop.is_set():
            try:
                _serve_in_turn(config, clock, stop)
            except LedgerAwayError as error:
                LOG.warning("ledger_away", extra={"detail": str(error)})
    LOG.info("stopped")


def _serve_in_turn(config: FederationConfig, clock: Clock, stop: threading.Event) -> None:
    with ExitStack() as held:
        standby = Standby(config, clock)
        with HttpServer(config.http, pages_of(standby, exposition_of_standby, clock)), api_of(config, standby, clock):
            engine = standby.wait(stop, held)
        if engine is not None:
            _serve(config, engine, clock, stop, held)


class Standby:
    """A coordinator that waits for another one to end. It is ready as long as it can ask for the lock."""

    def __init__(self, config: FederationConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self.looped_at_s = clock.monotonic_s()
        self.unready: str | None = None
        self._told = False

    def page(self) -> dict[str, object]:
        return {"federation": self._config.federation, "leads": False}

    def wait(self, stop: threading.Event, held: ExitStack) -> Engine | None:
        """Until this process leads: the database, whose session holds the lock; `held` holds the state folder then.

        None when `stop` is set before. A server that is away is waited for, and so is a process that has lost its
        session and is about to end.
        """
        engine: Engine | None = None
        while not stop.is_set():
            self.looped_at_s = self._clock.monotonic_s()
            engine = engine or engine_of(self._config, leads=True)
            leads = False
            try:
                leads = lead(engine)
                if leads:
                    held.enter_context(only_process_in(self._config.state_folder))
                    return engine
                self._is(None)
            except TransientError as error:
                if not leads:
                    engine.dispose()
                    engine = None
                self._is(str(error))
            stop.wait(LOOK_S)
        return None

    def _is(self, unready: str | None) -> None:
        if unready != self.unready or not self._told:
            LOG.info("standing_by", extra={"unready": unready})
        self.unready, self._told = unready, True


def _serve(config: FederationConfig, engine: Engine, clock: Clock, stop: threading.Event, held: ExitStack) -> None:
    """What is opened is closed by `held`, whatever ends this."""
    held.callback(engine.dispose)
    layout, initial_P = load_model(config.model)
    ledger = open_ledger(config, layout, engine)
    blobs = BlobFolder(config.state_folder / "blobs")
    versions = Versions(ledger, blobs, layout, Settings(config.engine, config.model_codec), config.precision)
    versions.begin(initial_P, clock.now_s(), load_seed(config.model, config.task))
    inbox: LinkInbox = queue.Queue(INBOX_EVENTS)
    link = MqttLink(mqtt_settings(config), inbox, random.Random())  # noqa: S311 - jitter, not a secret
    tell = traces_of(config, os.environ, held)
    service = Service(config, versions, link, clock, identity_of(config, clock.now_s()), tell)
    held.callback(service.close)
    with HttpServer(config.http, pages_of(service, exposition, clock)) as http, api_of(config, service, clock):
        LOG.info("started", extra={"federation": config.federation, "http_port": http.port})
        service.run(inbox, stop)


def api_of(config: FederationConfig, program: Program, clock: Clock) -> AbstractContextManager[object]:
    """The API's server, to be entered; where there is none, its libraries are not even imported."""
    if config.api.port is None:
        return nullcontext()
    from coordinator.api.server import ApiServer  # noqa: PLC0415 - takes a fifth of a second, and 9 MB

    return ApiServer(config, program.page, clock)


def traces_of(config: FederationConfig, environment: Mapping[str, str], held: ExitStack) -> Tell | None:
    """Where the ways of updates are told, until `held` is closed; None where the environment names no collector.

    Raises ConfigError where one is named and the packages for it are not installed.
    """
    if not any(environment.get(name) for name in COLLECTOR):
        return None
    try:
        from coordinator.traces import to_collector  # noqa: PLC0415 - an extra, which most do without
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{' or '.join(COLLECTOR)} is set, and {error.name} is not installed: `pip install fedward[traces]`"
        ) from None
    traces = to_collector(config.federation)
    held.callback(traces.close)
    LOG.info("traces_started")
    return traces.tell


def identity_of(config: FederationConfig, now_s: float) -> CoordinatorIdentity | None:
    """The coordinator's keys; None for a federation on this machine. Raises ConfigError for keys that can't be used."""
    if config.identity is None:
        LOG.warning("unsigned", extra={"advice": "messages are neither signed nor sealed; for trying things out only"})
        return None
    return CoordinatorIdentity.load(config.identity.folder, config.federation, now_s)


def mqtt_settings(config: FederationConfig) -> MqttSettings:
    """What the coordinator connects with. Raises ConfigError for files that can't be used."""
    return MqttSettings(
        host=config.broker.host,
        port=config.broker.port,
        tls=tls_for(config.broker, config.identity, COORDINATOR),
        proxy=proxy_for(config.broker, os.environ),
        transport=config.broker.transport,
        client_id=coordinator_name(config.federation),
        username=config.broker.username,
        password=config.broker.password(),
        keepalive_s=config.broker.keepalive_s,
        session_expiry_s=SESSION_EXPIRY_S,
        reconnect_max_s=config.broker.reconnect_max_s,
    )
