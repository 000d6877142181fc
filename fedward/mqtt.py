"""The link to the broker over MQTT 5; paho is known here and in `mqtt_client.py` only.

Two threads meet here. paho's network thread runs the `_on_*` callbacks: they count and put events into the inbox,
nothing else, because a slow callback stops pings and acknowledgements. The worker, which reads the inbox, calls the
public methods.

Locks: paho holds its own message lock while it calls `_on_publish`, and takes it inside `publish` and
`drop_out_messages`. So neither is ever called with `_gate` held: that would be a deadlock.
"""

import logging
import random
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from fedward.dial import ADVICE, Obstacle, UnreachableError, connect
from fedward.inflight import InFlight, Intake, ThreadWatch
from fedward.limits import MAX_MESSAGE_BYTES, MAX_PACKET_BYTES
from fedward.mqtt_client import BrokerClient, WebSocket
from fedward.ports import Connected, Delivery, Disconnected, LinkInbox, Room, Will
from fedward.proxy import Proxy
from fedward.settings import Transport, TrustSettings
from fedward.tls import Tls

log = logging.getLogger(__name__)

UNLIMITED_RECEIVE_MAXIMUM = 65_535
"""ReceiveMaximum of a broker that states none (MQTT 5, section 3.2.2.3.3)."""

DRAIN_S = 2.0
"""`close` waits this long for acknowledgements of what is in flight."""

JOIN_S = 1.0
"""`close` waits this long for the network thread to say goodbye, and as long again after the connection was cut."""


@dataclass(frozen=True, kw_only=True)
class MqttSettings:
    """Where the broker is and how this client behaves there."""

    host: str
    port: int
    client_id: str
    session_expiry_s: int
    """How long the broker keeps subscriptions and unacknowledged messages after the connection is gone."""
    tls: TrustSettings | None = None
    """Files of TLS, mutual where this side's own are among them; None for plain TCP."""
    proxy: Proxy | None = None
    transport: Transport = "tcp"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    keepalive_s: int = 30
    window: int = 8
    """Bulk messages in flight: window x chunk covers bandwidth x round trip (8 x 256 KiB: 400 Mbit/s at 40 ms)."""
    receive_maximum: int = 20
    """Unacknowledged messages that the broker may send us. Keep the inbox larger than this."""
    reconnect_min_s: float = 1
    reconnect_max_s: float = 60
    """First and longest pause between attempts, times a random 1 to 2 so that sites don't return together."""
    acknowledge_s: float = 120
    """A connection in which nothing is acknowledged for so long is given up: pings pass, and the window stays full.

    One message of 256 KiB takes as long at 17 kbit/s.
    """
    will: Will | None = None


class MqttLink:
    """Keeps the promises of `fedward.ports.Link` over paho.

    A bug in a callback ends the network thread, and is raised as RuntimeError by the worker's next call of any
    method but `close`: the process goes down instead of falling silent.
    """

    def __init__(self, settings: MqttSettings, inbox: LinkInbox, rng: random.Random) -> None:
        """Raises ConfigError for TLS files that can't be used."""
        self.max_payload_bytes = MAX_MESSAGE_BYTES
        self.bytes_sent = 0
        self.bytes_received = 0
        self.denied = 0
        """Publishes and subscriptions that the broker refused: its access rules and this side disagree."""
        self.denied_filters: set[str] = set()
        """Of the filters that are subscribed to, those that the broker refused when it was asked last."""
        self.refusal = ""
        self.failure: UnreachableError | None = None
        self.stale_acks = 0
        """Acknowledgements after the end of their connection; the broker sends those messages again."""
        self._settings = settings
        self._rng = rng
        self._intake = intake = Intake(inbox)
        self._in_flight = InFlight(settings.window)
        self._gate = threading.RLock()
        self._up = False
        self._closing = False
        self._generation = 0
        self._filters: set[str] = set()
        self._unwanted: set[str] = set()
        self._asked: dict[int, list[str]] = {}  # filters by the packet that asks for them
        self._awaited_suback: int | None = None
        self._num_failures = 0  # attempts to connect since the last success
        self._told = False  # what became of the latest attempt
        self._watch = ThreadWatch(wake=lambda: intake.tell(Disconnected()))
        self._client = _client(settings, self._intake.may_read)
        self._bind()

    def open(self) -> None:
        self._spread_reconnects()
        self._client.connect_async(
            self._settings.host,
            self._settings.port,
            self._settings.keepalive_s,
            clean_start=False,  # a clean start would throw away what the session kept while we were away
            properties=_properties(
                PacketTypes.CONNECT,
                SessionExpiryInterval=self._settings.session_expiry_s,
                ReceiveMaximum=self._settings.receive_maximum,
                MaximumPacketSize=MAX_PACKET_BYTES,
            ),
        )
        self._client.loop_start()

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, expiry_s: int | None = None
    ) -> bool:
        if len(payload) > self.max_payload_bytes:
            raise ValueError(f"payload of {len(payload)} bytes, this broker takes {self.max_payload_bytes}: chunk it")
        if qos not in (0, 1):
            raise ValueError(f"qos {qos}, expected 0 or 1")
        self._check()
        with self._gate:
            up, generation = self._up, self._generation
        if not up:
            return False
        properties = None if expiry_s is None else _properties(PacketTypes.PUBLISH, MessageExpiryInterval=expiry_s)
        info = self._client.publish(topic, payload, qos, retain, properties)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            return False  # went down just now; paho kept the message, and `_on_connect` drops it
        self._in_flight.sent(info.mid, topic, counts=qos == 1, generation=generation)
        with self._gate:
            self.bytes_sent += len(payload)
        return True

    def room(self) -> int:
        self._check()
        with self._gate:
            return self._in_flight.room() if self._up else 0

    def subscribe(self, *filters: str) -> None:
        self._check()
        with self._gate:
            self._filters.update(filters)
            self._unwanted.difference_update(filters)
            if self._up and filters:
                self._ask_for(filters)

    def unsubscribe(self, *filters: str) -> None:
        self._check()
        with self._gate:
            self._filters.difference_update(filters)
            self.denied_filters.difference_update(filters)
            if self._up and filters:
                self._client.unsubscribe(list(filters))
            elif not self._up:
                self._unwanted.update(filters)

    def acknowledge(self, delivery: Delivery) -> None:
        self._check()
        self._intake.handled(delivery)
        with self._gate:
            if delivery.qos and self._up and delivery.generation == self._generation:
                self._client.ack(delivery.packet_id, delivery.qos)
            elif delivery.qos:
                self.stale_acks += 1
        if self._intake.starved():
            # The broker sends a refused message again only in a new connection, and until then it fills its window.
            log.warning("mqtt_reconnect_for_dropped_messages", extra={"dropped": self.dropped})
            self._client.cut()

    def reconnect(self) -> None:
        self._check()
        log.info("mqtt_reconnect_asked")
        self._client.cut()

    def close(self, drain_s: float = DRAIN_S, join_s: float = JOIN_S) -> None:
        with self._gate:
            self._closing = True
        self._in_flight.wait_until_empty(drain_s)
        self._client.disconnect()
        self._watch.join(join_s)
        self._client.cut()  # for a peer that no longer reads: paho would wait for it until the keepalive runs out
        if self._watch.join(join_s):
            self._client.loop_stop()
            self._unbind()
        # Otherwise it looks up a name or waits for a connection, which nothing can interrupt: it ends with the process.

    @property
    def dropped(self) -> int:
        """Messages that found the inbox full and were left, unacknowledged, with the broker."""
        return self._intake.dropped

    @property
    def num_waiting(self) -> int:
        return self._intake.num_waiting

    @property
    def bytes_waiting(self) -> int:
        return self._intake.bytes_waiting

    # From here on: the network thread.

    def _on_pre_connect(self, _client: Client, _userdata: object) -> None:
        self._watch.begin()
        self._told = False

    def _on_connect(
        self, client: Client, _userdata: object, flags: ConnectFlags, reason: ReasonCode, limits: Properties
    ) -> None:
        self.refusal, self.failure = str(reason) if reason.is_failure else "", None
        if reason.is_failure:
            self._tell_failure("mqtt_connect_refused", reason=self.refusal)
            return
        if self._closing:
            client.disconnect()
            return
        # What the last connection left unacknowledged: the layers above ask again for what matters, and a message
        # that this broker refuses would end every connection, for ever.
        client.drop_out_messages()
        window = min(self._settings.window, getattr(limits, "ReceiveMaximum", UNLIMITED_RECEIVE_MAXIMUM))
        # paho reads no ReceiveMaximum, and its public setter refuses an open connection, for the sake of changes
        # from or to 0 (no limit); from one positive number to another it is only compared with.
        client._max_inflight_messages = window
        with self._gate:
            self._generation += 1
            self._up = True
            self.max_payload_bytes = _payload_limit(limits)
            self._in_flight.restart(self._generation, window)
            self._resubscribe()
        self._spread_reconnects()
        self._num_failures = 0
        log.info("mqtt_connected", extra={"session_present": flags.session_present, "generation": self._generation})

    def _resubscribe(self) -> None:
        """A broker that restarted has forgotten the filters; one that has not answers with the retained messages."""
        if self._unwanted:
            self._client.unsubscribe(sorted(self._unwanted))
            self._unwanted.clear()
        if self._filters:
            self._awaited_suback = self._ask_for(sorted(self._filters))
        else:
            self._intake.tell(Connected(self._generation))

    def _ask_for(self, filters: Sequence[str]) -> int | None:
        """Subscribe, with the gate held, so that the answer finds what was asked. The packet id; None when down."""
        _, packet_id = self._client.subscribe([(name, 1) for name in filters])
        if packet_id is not None:
            self._asked[packet_id] = list(filters)
        return packet_id

    def _on_subscribe(
        self, _client: Client, _userdata: object, packet_id: int, reasons: list[ReasonCode], _properties: Properties
    ) -> None:
        refused = [str(reason) for reason in reasons if reason.is_failure]
        with self._gate:
            self.denied += len(refused)
            for name, reason in zip(self._asked.pop(packet_id, ()), reasons, strict=False):
                (self.denied_filters.add if reason.is_failure else self.denied_filters.discard)(name)
            awaited, generation = packet_id == self._awaited_suback, self._generation
        if refused:
            log.error("mqtt_subscribe_denied", extra={"reasons": refused})
        if awaited:
            self._intake.tell(Connected(generation))

    def _on_connect_fail(self, _client: Client, _userdata: object) -> None:
        self._tell_unreachable()

    def _tell_unreachable(self) -> None:
        failure = self._client.failure or UnreachableError(Obstacle.HUNG_UP, "before it answered")
        self.refusal, self.failure = "", failure
        self._tell_failure(
            "mqtt_unreachable",
            broker=f"{self._settings.host}:{self._settings.port}",
            reason=failure.obstacle,
            detail=failure.detail,
            advice=ADVICE[failure.obstacle],
        )

    def _tell_failure(self, event: str, **facts: str) -> None:
        """Log the 1st, 2nd, 4th, 8th ... failed attempt in a row: a broker may be away for days."""
        self._told = True
        self._num_failures += 1
        if self._num_failures.bit_count() == 1:
            log.warning(event, extra={**facts, "attempts": self._num_failures})

    def _on_disconnect(
        self, _client: Client, _userdata: object, flags: DisconnectFlags, reason: ReasonCode, _properties: Properties
    ) -> None:
        with self._gate:
            was_up, self._up = self._up, False
            self._asked.clear()
            self._awaited_suback = None
            self._in_flight.restart(self._generation, self._settings.window)
        if not was_up and not self._told and not self._closing:
            self._tell_unreachable()  # it took the connection, and then not this side
        if was_up and not self._closing:
            facts = {"reason": str(reason), "by_broker": flags.is_disconnect_packet_from_server}
            log.warning("mqtt_disconnected", extra=facts)
            self._intake.tell(Disconnected())

    def _on_message(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        with self._gate:
            self.bytes_received += len(message.payload)
        delivery = Delivery(message.topic, bytes(message.payload), message.qos, message.mid, self._generation)
        if not self._intake.offer(delivery) and self.dropped.bit_count() == 1:  # a flood costs no line each
            log.warning("mqtt_inbox_full", extra={"topic": message.topic, "dropped": self.dropped})

    def _on_publish(
        self, _client: Client, _userdata: object, packet_id: int, reason: ReasonCode, _properties: Properties
    ) -> None:
        if reason.is_failure:
            # paho counts this as published; the receipt, which never comes, makes the layers above try again.
            with self._gate:
                self.denied += 1
            topic = self._in_flight.topic_of(packet_id)
            log.error("mqtt_publish_denied", extra={"reason": str(reason), "topic": topic})
        if self._in_flight.acknowledged(packet_id):
            self._intake.tell(Room())

    def _bind(self) -> None:
        client, guarded = self._client, self._watch.guarded
        client.on_pre_connect = guarded(self._on_pre_connect)
        client.on_connect = guarded(self._on_connect)
        client.on_connect_fail = guarded(self._on_connect_fail)
        client.on_disconnect = guarded(self._on_disconnect)
        client.on_message = guarded(self._on_message)
        client.on_publish = guarded(self._on_publish)
        client.on_subscribe = guarded(self._on_subscribe)

    def _unbind(self) -> None:
        """Break the cycle with the client: it closes its last sockets when it is freed, so that must not wait."""
        client = self._client
        client.on_pre_connect = client.on_connect = client.on_connect_fail = client.on_disconnect = None
        client.on_message = client.on_publish = client.on_subscribe = None

    def _check(self) -> None:
        if not self._closing:
            self._watch.check()
        self._intake.flush()
        if self._in_flight.stuck_s() > self._settings.acknowledge_s:
            log.warning("mqtt_reconnect_for_lost_acknowledgements")
            # One warning a connection; and no room in it, which would look as if all had been acknowledged.
            self._in_flight.restart(self._generation, 0)
            self._client.cut()

    def _spread_reconnects(self) -> None:
        stretch = 1 + self._rng.random()
        self._client.reconnect_delay_set(
            self._settings.reconnect_min_s * stretch,  # type: ignore[arg-type]  # only ever added and slept
            self._settings.reconnect_max_s * stretch,  # type: ignore[arg-type]
        )


def _client(settings: MqttSettings, may_read: Callable[[], bool]) -> BrokerClient:
    tls = None if settings.tls is None else Tls(settings.host, settings.tls)

    def tcp() -> socket.socket:
        return connect(settings.host, settings.port, settings.proxy)

    def secured() -> socket.socket:
        return tcp() if tls is None else tls.secure(tcp)

    websocket = WebSocket(settings.host, settings.port, tls is not None) if settings.transport == "websockets" else None
    client = BrokerClient(settings.client_id, secured, websocket, may_read)
    client.max_inflight_messages = settings.window
    client.username_pw_set(settings.username, settings.password)
    if settings.will is not None:
        properties = _properties(PacketTypes.WILLMESSAGE, WillDelayInterval=settings.will.delay_s)
        client.will_set(settings.will.topic, settings.will.payload, qos=1, retain=True, properties=properties)
    return client


def _properties(packet_type: int, **values: int) -> Properties:
    properties = Properties(packet_type)  # type: ignore[no-untyped-call]  # paho left it without types
    for name, value in values.items():
        setattr(properties, name, value)
    return properties


def _payload_limit(limits: Properties) -> int:
    """Bytes of payload under the MaximumPacketSize of a CONNACK: paho ignores it, and the broker hangs up on more."""
    packet_bytes: int = getattr(limits, "MaximumPacketSize", MAX_PACKET_BYTES)
    return min(MAX_MESSAGE_BYTES, packet_bytes - (MAX_PACKET_BYTES - MAX_MESSAGE_BYTES))
