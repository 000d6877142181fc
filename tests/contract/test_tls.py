"""Mutual TLS with a real broker: who is let in, whom this side believes, what it says to everybody else."""

import socket
import ssl
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedward.dial import Obstacle
from fedward.errors import ConfigError
from fedward.ports import Connected
from fedward.settings import TlsSettings, TrustSettings
from sandbox.broker import EmbeddedBroker, find_mosquitto
from tests.support.answering_port import AnsweringPort
from tests.support.authority import Authority
from tests.support.stations import Stations, polls, wait_for

pytestmark = [
    pytest.mark.network,
    pytest.mark.skipif(find_mosquitto() is None, reason="apt-get install mosquitto runs these tests"),
]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def rogue(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "rogue", "a firewall that reads along")


@pytest.fixture
def broker(authority: Authority, tmp_path: Path) -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(tmp_path / "broker", tls=authority.broker()) as broker:
        yield broker


@pytest.fixture
def stations(caplog: pytest.LogCaptureFixture) -> Iterator[Stations]:
    stations = Stations(caplog)
    yield stations
    stations.close()


def wait_for_log(broker: EmbeddedBroker, text: str) -> None:
    for _ in polls():
        if text in broker.log_path.read_text():
            return
    pytest.fail(f"{text}: not in the broker's log")


# Whom the broker lets in.


def test_a_certificate_of_a_rogue_authority_with_the_same_name_is_refused(
    authority: Authority, rogue: Authority, broker: EmbeddedBroker, stations: Stations
) -> None:
    forged = rogue.party("st-anna").model_copy(update={"ca_file": authority.certificate_file})
    reason, detail = stations.obstacle(port=broker.port, tls=forged)
    assert reason == Obstacle.CERTIFICATE_REFUSED
    assert "UNKNOWN_CA" in detail


def test_an_expired_certificate_is_refused(authority: Authority, broker: EmbeddedBroker, stations: Stations) -> None:
    reason, detail = stations.obstacle(port=broker.port, tls=authority.party("st-anna", ends_in_days=-2))
    assert reason == Obstacle.CERTIFICATE_REFUSED
    assert "EXPIRED" in detail


def test_a_side_that_has_no_certificate_yet_verifies_the_broker_and_says_that_one_is_asked_for(
    authority: Authority, rogue: Authority, broker: EmbeddedBroker, stations: Stations
) -> None:
    own = TrustSettings(ca_file=authority.certificate_file)
    reason, detail = stations.obstacle(port=broker.port, tls=own)
    assert reason == Obstacle.CERTIFICATE_REFUSED
    assert "CERTIFICATE_REQUIRED" in detail
    reason, detail = stations.obstacle(port=broker.port, tls=TrustSettings(ca_file=rogue.certificate_file))
    assert (reason, detail) == (Obstacle.ISSUER_UNKNOWN, "issued by CN=authority of the ward")


def test_a_link_knows_what_is_in_its_way_until_it_is_there(
    authority: Authority, broker: EmbeddedBroker, stations: Stations
) -> None:
    broker.stop()
    link, inbox = stations.open(port=broker.port, tls=authority.party("st-anna"))
    stations.told(1)
    assert link.failure is not None
    assert link.failure.obstacle is Obstacle.PORT_CLOSED
    broker.start()
    wait_for(inbox, Connected(1))
    assert (link.failure, link.refusal) == (None, "")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_nobody_is_let_in_without_a_certificate(
    authority: Authority, broker: EmbeddedBroker, version: ssl.TLSVersion
) -> None:
    context = ssl.create_default_context(cafile=str(authority.certificate_file))
    context.maximum_version = version
    with (
        pytest.raises(ssl.SSLError, match="ALERT"),
        socket.create_connection(("127.0.0.1", broker.port)) as connection,
        context.wrap_socket(connection, server_hostname="127.0.0.1") as secured,
    ):
        secured.recv(1)


def test_tls_1_1_is_refused_by_the_broker(authority: Authority, broker: EmbeddedBroker) -> None:
    files = authority.party("st-anna")
    context = ssl.create_default_context(cafile=str(authority.certificate_file))
    context.load_cert_chain(files.certificate_file, files.key_file)
    speak_tls_1_1(context)
    with (
        pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"),
        socket.create_connection(("127.0.0.1", broker.port)) as connection,
    ):
        context.wrap_socket(connection, server_hostname="127.0.0.1")


# Whom this side believes.


def test_a_broker_of_another_authority_is_not_spoken_to_and_the_authority_is_named(
    authority: Authority, rogue: Authority, stations: Stations, tmp_path: Path
) -> None:
    with EmbeddedBroker(tmp_path / "broker", tls=rogue.broker()) as broker:
        reason, detail = stations.obstacle(port=broker.port, tls=authority.party("st-anna"))
        assert "station" not in broker.log_path.read_text()
    assert (reason, detail) == (Obstacle.ISSUER_UNKNOWN, "issued by CN=a firewall that reads along")


def test_an_authority_that_the_operating_system_trusts_does_not_count(
    authority: Authority, rogue: Authority, stations: Stations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(rogue.certificate_file))
    assert ssl.create_default_context().get_ca_certs(), "the operating system's authorities, for this process"
    with EmbeddedBroker(tmp_path / "broker", tls=rogue.broker()) as broker:
        reason, _ = stations.obstacle(port=broker.port, tls=authority.party("st-anna"))
    assert reason == Obstacle.ISSUER_UNKNOWN


def test_a_broker_of_another_host_name_is_not_spoken_to(
    authority: Authority, broker: EmbeddedBroker, stations: Stations
) -> None:
    reason, _ = stations.obstacle(host="localhost", port=broker.port, tls=authority.party("st-anna"))
    assert reason == Obstacle.HOST_NAME


def test_a_site_that_poses_as_the_broker_is_not_spoken_to(
    authority: Authority, stations: Stations, tmp_path: Path
) -> None:
    with EmbeddedBroker(tmp_path / "broker", tls=authority.party("127.0.0.1")) as broker:
        reason, _ = stations.obstacle(port=broker.port, tls=authority.party("st-anna"))
    assert reason in (Obstacle.NOT_VERIFIED, Obstacle.HOST_NAME)


def test_an_expired_broker_is_not_spoken_to(authority: Authority, stations: Stations, tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path / "broker", tls=authority.broker(ends_in_days=-2)) as broker:
        reason, _ = stations.obstacle(port=broker.port, tls=authority.party("st-anna"))
    assert reason == Obstacle.BROKER_EXPIRED


def test_a_broker_that_speaks_tls_1_1_only_is_not_spoken_to(authority: Authority, stations: Stations) -> None:
    files = authority.broker()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate_file, files.key_file)
    speak_tls_1_1(context)
    with AnsweringPort(b"", context) as old:
        reason, _ = stations.obstacle(port=old.port, tls=authority.party("st-anna"))
    assert reason == Obstacle.TLS_VERSION


def test_a_port_that_does_not_speak_tls_is_told_as_such(authority: Authority, stations: Stations) -> None:
    with AnsweringPort(b"HTTP/1.1 400 Bad Request\r\n\r\n") as web:
        reason, _ = stations.obstacle(port=web.port, tls=authority.party("st-anna"))
    assert reason == Obstacle.NOT_TLS


def test_a_link_that_was_refused_goes_on_trying_and_connects_when_all_is_in_order(
    authority: Authority, rogue: Authority, stations: Stations, tmp_path: Path
) -> None:
    with EmbeddedBroker(tmp_path / "rogue broker", tls=rogue.broker()) as broker:
        _, inbox = stations.open(port=broker.port, tls=authority.party("st-anna"))
        assert [vars(record)["attempts"] for record in stations.told(3)] == [1, 2, 4]
    with EmbeddedBroker(tmp_path / "broker", port=broker.port, tls=authority.broker()):
        wait_for(inbox, Connected(1))


# Files that change, and files that can't be used.


def test_a_renewed_certificate_is_shown_at_the_next_connection(
    authority: Authority, broker: EmbeddedBroker, stations: Stations
) -> None:
    files = authority.party("st-anna")
    link, inbox = stations.connected(port=broker.port, tls=files)
    wait_for_log(broker, "u'st-anna')")
    authority.renew(files, "st-anna-renewed")
    link.reconnect()
    wait_for(inbox, Connected(2))
    wait_for_log(broker, "u'st-anna-renewed')")


def test_a_certificate_that_is_half_written_changes_nothing_and_is_told(
    authority: Authority, broker: EmbeddedBroker, stations: Stations, caplog: pytest.LogCaptureFixture
) -> None:
    files = authority.party("st-anna")
    link, inbox = stations.connected(port=broker.port, tls=files)
    whole = files.certificate_file.read_bytes()
    files.certificate_file.write_bytes(whole[: len(whole) // 2])
    for generation in (2, 3):
        link.reconnect()
        wait_for(inbox, Connected(generation))
    assert [record.msg for record in caplog.records].count("tls_files_unusable") == 1
    authority.renew(files, "st-anna-renewed")
    link.reconnect()
    wait_for(inbox, Connected(4))
    wait_for_log(broker, "u'st-anna-renewed')")


def test_a_key_that_others_can_read_is_refused(authority: Authority, stations: Stations) -> None:
    files = authority.party("st-anna")
    files.key_file.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        stations.open(port=1, tls=files)


def test_files_that_do_not_belong_together_are_refused(authority: Authority, stations: Stations) -> None:
    mixed = authority.party("st-anna").model_copy(update={"key_file": authority.party("other").key_file})
    with pytest.raises(ConfigError, match="expected a certificate as PEM and the private key that belongs to it"):
        stations.open(port=1, tls=mixed)


@pytest.mark.parametrize("setting", ["ca_file", "certificate_file", "key_file"])
def test_a_missing_file_is_named(authority: Authority, stations: Stations, setting: str) -> None:
    files: TlsSettings = authority.party("st-anna").model_copy(update={setting: Path("/nowhere.pem")})
    with pytest.raises(ConfigError, match=r"/nowhere\.pem.*No such file"):
        stations.open(port=1, tls=files)


def speak_tls_1_1(context: ssl.SSLContext) -> None:
    """And nothing newer; today's libraries call that a mistake."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
