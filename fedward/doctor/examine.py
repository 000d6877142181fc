"""The examination: probes and judgements, one after the other, as the packets go."""

import ipaddress
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedward.doctor import broker, machine, measure, probe, way
from fedward.doctor.check import Check, Course, failed, ok, skipped
from fedward.doctor.deadline import Deadline
from fedward.doctor.facts import Answer, ClockFacts, Contact, Handshake, Lookup, OwnFiles, ProxyAnswer, Reach, Trouble
from fedward.doctor.reach import reach_of
from fedward.doctor.session import Wanted, talk, talk_instead, visitor
from fedward.errors import ConfigError
from fedward.mqtt import MqttSettings
from fedward.process import is_worked_in

IDENTITY = "identity"

# Longest times. Together with what the machine's own probes take they stay within deadline.RUN_S.
NAME_S, PROXY_S, TCP_S, TLS_S, MQTT_S, FOLDER_S = 5.0, 8.0, 10.0, 10.0, 12.0, 5.0


@dataclass(frozen=True)
class Party:
    """Whose way to the broker is examined. Without `settings`, `problem` says why there are none."""

    who: str
    wanted: Wanted
    state_folder: Path
    settings: MqttSettings | None
    reach: Reach
    problem: str = ""


def party_of(who: str, wanted: Wanted, state_folder: Path, settings: Callable[[], MqttSettings]) -> Party:
    """A party that connects with what `settings` makes, which may raise ConfigError."""
    try:
        made = settings()
    except ConfigError as error:
        return Party(who, wanted, state_folder, None, Reach("", 0), str(error))
    return Party(who, wanted, state_folder, made, reach_of(made))


@dataclass(frozen=True)
class Needs:
    """What a side needs of its machine: of the disk for its next step and in all, and of memory."""

    least_disk_bytes: int
    whole_disk_bytes: int
    memory_bytes: int


class Examination:
    """One run of the doctor. Call `way` before `limits_and_clock`: the clock is judged by what was seen on the way."""

    def __init__(self, party: Party, deadline: Deadline) -> None:
        # The checks tell what went wrong; the link would tell it again on standard error.
        logging.getLogger("fedward").addHandler(logging.NullHandler())
        self._party = party
        self._deadline = deadline
        self._reach = party.reach
        self._lookup = Lookup("")
        self._proxy: ProxyAnswer | None = None
        self._own: OwnFiles | None = None
        self._shaken: Handshake | None = None
        self._answer: Answer | None = None

    def way(self) -> list[Check]:
        """Settings, name, proxy, TCP, certificates, TLS, MQTT, rights, sizes."""
        course = Course()
        course.take(way.SETTINGS, lambda: way.judge_settings(self._reach, self._party.problem))
        course.take(way.NAME, self._name, way.SETTINGS)
        course.take(way.PROXY, self._through_proxy, way.NAME)
        course.take(way.TCP, self._tcp, way.PROXY)
        course.take(way.OWN, self._own_files, way.SETTINGS)
        course.take(way.TLS, self._tls, way.TCP)
        course.take(broker.MQTT, self._mqtt, way.TLS, way.OWN)
        course.take(broker.RIGHTS, self._rights, broker.MQTT)
        if self._party.wanted.retained:
            course.take(broker.ANNOUNCEMENT, self._announcement, broker.RIGHTS)
        course.take(broker.SIZES, self._sizes, broker.MQTT)
        return course.checks

    def disk_and_memory(self, needs: Needs) -> list[Check]:
        """The state folder's disk, and memory."""
        path, running = self._party.state_folder, is_worked_in(self._party.state_folder)
        folder = self._deadline.within(FOLDER_S, lambda: measure.measure_folder(path), None)
        return [
            machine.judge_disk(folder, needs.least_disk_bytes, needs.whole_disk_bytes),
            machine.judge_memory(measure.measure_memory(), needs.memory_bytes, running=running),
        ]

    def limits_and_clock(self) -> list[Check]:
        """What a container bounds, and the time."""
        now_s = measure.now_s()
        own = self._own.certificate if self._own else None
        clock = ClockFacts(
            now_s,
            measure.clock_is_synchronised(),
            self._proxy.date_s if self._proxy else None,
            way.begins_later(self._shaken, own, now_s),
        )
        return [machine.judge_limits(measure.measure_limits()), machine.judge_clock(clock)]

    def _name(self) -> Check:
        host, _ = self._reach.first_hop
        late = Lookup(host, trouble=Trouble.NO_ANSWER)
        self._lookup = self._deadline.within(NAME_S, lambda: probe.look_up(host), late)
        return way.judge_name(self._reach, self._lookup)

    def _through_proxy(self) -> Check:
        if self._reach.proxy:
            self._proxy, tunnel = probe.ask_proxy(self._reach, self._lookup, self._deadline.left_s(PROXY_S))
            _hang_up(tunnel)
        return way.judge_proxy(self._reach, self._proxy)

    def _tcp(self) -> Check:
        contact: Contact | None = None
        if self._reach.proxy is None:
            contact, connection = probe.connect(self._lookup, self._reach.port, self._deadline.left_s(TCP_S))
            _hang_up(connection)
        return way.judge_tcp(self._reach, contact)

    def _own_files(self) -> Check:
        if self._reach.tls:
            self._own = probe.read_own_files(self._reach.tls)
        return way.judge_own(self._reach, self._own, measure.now_s())

    def _tls(self) -> Check:
        if self._own:
            self._shaken = probe.shake_hands(self._reach, self._lookup, self._own, self._deadline.left_s(TLS_S))
        loopback = not self._reach.proxy and all(ipaddress.ip_address(at).is_loopback for at in self._addresses())
        return way.judge_tls(self._reach, self._own, self._shaken, measure.now_s(), loopback=loopback)

    def _mqtt(self) -> Check:
        limit_s, party, settings = self._deadline.left_s(MQTT_S), self._party, self._party.settings
        if settings is None:
            raise RuntimeError("MQTT is spoken with settings only")
        if self._reach.tls and self._reach.tls.certificate_file:
            self._answer = talk_instead(settings, party.wanted, party.state_folder, limit_s)
        else:
            self._answer = talk(visitor(settings), party.wanted, limit_s)
        return broker.judge_mqtt(self._answer, party.who)

    def _rights(self) -> Check:
        if self._answer is None:
            return skipped(broker.RIGHTS, f"{broker.MQTT} was skipped")
        return broker.judge_rights(self._answer, self._party.who, self._party.wanted.rules)

    def _announcement(self) -> Check:
        if self._answer is None:
            return skipped(broker.ANNOUNCEMENT, f"{broker.MQTT} was skipped")
        return broker.judge_announcement(self._answer, self._party.wanted.retained or "")

    def _sizes(self) -> Check:
        if self._answer is None:
            return skipped(broker.SIZES, f"{broker.MQTT} was skipped")
        return broker.judge_sizes(self._answer)

    def _addresses(self) -> tuple[str, ...]:
        """Without the zone of a link-local one."""
        return tuple(address.split("%")[0] for address in self._lookup.addresses)


def examine_identity(folder: Path | None, load: Callable[[], object]) -> Check:
    """Whether the keys and certificates that sign and seal can be used. `load` raises ConfigError when not."""
    if folder is None:
        return skipped(IDENTITY, "identity is not set: nothing is signed, and nothing leaves this machine")
    try:
        load()
    except ConfigError as error:
        remedy = "enrol, or correct identity.folder and the rights of its files; renew a certificate that has ended"
        return failed(IDENTITY, str(error), remedy)
    return ok(IDENTITY, f"{folder}: keys and certificates are there, and hold now")


def _hang_up(connection: socket.socket | None) -> None:
    if connection:
        connection.close()
