"""What the doctor says of real sockets that refuse, swallow, forbid or look inside."""

import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

import pytest

from fedward.doctor import probe
from fedward.doctor.check import Check, Verdict
from fedward.doctor.facts import Proxy, Reach, Trouble
from fedward.identity.certificates import Role
from sandbox.ports import free_port
from tests.support.certificates import Vouching
from tests.support.network import HOST, ConnectProxy, black_hole, listening, silence, tls_server

pytestmark = pytest.mark.network

Examine = Callable[..., dict[str, Check]]

DAY_S = 86_400.0


@pytest.fixture
def ward(tmp_path: Path) -> Vouching:
    return Vouching(tmp_path / "ward")


def assert_only_failure(checks: dict[str, Check], name: str) -> Check:
    """The check of this name failed, what builds on it was skipped and says so; returns it."""
    failures = [check.name for check in checks.values() if check.verdict is Verdict.FAILED]
    assert failures == [name]
    assert {checks[each].found for each in ("mqtt", "rights", "announcement", "sizes")} == {f"because {name} failed"}
    assert checks[name].remedy
    return checks[name]


def test_a_port_that_nobody_listens_on_is_refused(examine: Examine) -> None:
    found = assert_only_failure(examine(free_port(HOST)), "tcp")
    assert "refused" in found.found
    assert "broker.port" in found.remedy


def test_a_firewall_that_swallows_packets_is_named_within_the_time(examine: Examine) -> None:
    with black_hole() as port:
        started_s = time.monotonic()
        found = assert_only_failure(examine(port, run_s=1.0), "tcp")
        assert time.monotonic() - started_s < 5.0
    assert "no answer" in found.found
    assert f"firewall: allow outgoing TCP from this machine to {HOST} port {port}" in found.remedy


def test_a_name_that_does_not_exist_is_told() -> None:
    assert probe.look_up("x" * 64 + ".example.org").trouble is Trouble.UNKNOWN_NAME


def test_the_second_address_is_tried_when_the_first_one_swallows_packets() -> None:
    with listening(silence) as port, black_hole("127.0.0.2", port):
        contact, connection = probe.connect(probe.Lookup("broker", ("127.0.0.2", HOST)), port, 1.0)
        assert (contact.address, contact.trouble) == (HOST, None)
        assert connection
        connection.close()


# TLS


def test_a_broker_that_the_federation_vouches_for_is_ok(examine: Examine, ward: Vouching) -> None:
    with listening(tls_server(ward.files(HOST, Role.BROKER))) as port:
        check = examine(port, tls=ward.trust(), run_s=3.0)["tls"]
    assert check.verdict is Verdict.OK
    assert "issued by CN=ward authority" in check.found


def test_an_inspecting_proxy_is_named_by_the_issuer_of_its_certificate(
    examine: Examine, ward: Vouching, tmp_path: Path
) -> None:
    inspector = Vouching(tmp_path / "inspector", "Hospital Web Gateway")
    gateway = ConnectProxy(inspects_with=inspector.files(HOST, Role.BROKER))
    with listening(gateway.serve) as port:
        found = assert_only_failure(examine(8883, proxy=Proxy(HOST, port), tls=ward.trust()), "tls")
    assert "issued by CN=Hospital Web Gateway: something between here and the broker opens TLS" in found.found
    assert f"exception of {HOST} port 8883 from TLS inspection" in found.remedy


def test_a_certificate_that_has_ended_is_told_with_its_date(examine: Examine, ward: Vouching) -> None:
    files = ward.files(HOST, Role.BROKER, made_s=-10 * DAY_S, days=5)
    with listening(tls_server(files)) as port:
        found = assert_only_failure(examine(port, tls=ward.trust()), "tls")
    assert "certificate ended at 20" in found.found
    assert "renew" in found.remedy


def test_a_clock_that_is_behind_is_told_by_a_certificate_of_tomorrow(examine: Examine, ward: Vouching) -> None:
    files = ward.files(HOST, Role.BROKER, made_s=3 * DAY_S)
    with listening(tls_server(files)) as port:
        checks = examine(port, tls=ward.trust())
    assert checks["tls"].verdict is checks["clock"].verdict is Verdict.FAILED
    assert "clock" in checks["tls"].remedy
    assert "a certificate begins at" in checks["clock"].found


def test_a_certificate_for_another_host_is_told_with_the_names_that_it_has(examine: Examine, ward: Vouching) -> None:
    with listening(tls_server(ward.files("broker.example.org", Role.BROKER))) as port:
        found = assert_only_failure(examine(port, tls=ward.trust()), "tls")
    assert f"is for broker.example.org, and not for {HOST}" in found.found


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_a_broker_that_refuses_this_sides_certificate_is_told(
    examine: Examine, ward: Vouching, tmp_path: Path, version: str
) -> None:
    stranger = Vouching(tmp_path / "stranger").files("st-anna")
    mine = probe.TlsFiles(ward.ca_file, stranger.certificate_file, stranger.key_file)
    serve = tls_server(ward.files(HOST, Role.BROKER), asks_for_certificates=True, newest=version)
    with listening(serve) as port:
        found = assert_only_failure(examine(port, tls=mine), "tls")
    assert "refuses this side's certificate" in found.found
    assert "ALERT" in found.found


def test_a_broker_that_asks_for_a_certificate_takes_one_of_the_federation(examine: Examine, ward: Vouching) -> None:
    mine = ward.files("st-anna")
    with listening(tls_server(ward.files(HOST, Role.BROKER), asks_for_certificates=True)) as port:
        checks = examine(port, tls=mine, run_s=4.0)
    assert checks["certificate"].verdict is checks["tls"].verdict is Verdict.OK
    assert "CN=st-anna" in checks["certificate"].found


def test_a_port_without_tls_is_told(examine: Examine, ward: Vouching) -> None:
    with listening(lambda connection: connection.sendall(b"220 mail\r\n" * 10)) as port:
        found = assert_only_failure(examine(port, tls=ward.trust()), "tls")
    assert "another protocol" in found.found or "closed" in found.found


def test_a_port_that_never_answers_tls_is_given_up(examine: Examine, ward: Vouching) -> None:
    with listening(silence) as port:
        found = assert_only_failure(examine(port, tls=ward.trust(), run_s=1.0), "tls")
    assert "never answers" in found.found


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda files: files.key_file.chmod(0o644), "others can reach it"),
        (lambda files: files.key_file.unlink(), "key_file can't be read"),
        (lambda files: files.certificate_file.write_text("nothing"), "certificate_file holds no certificate"),
    ],
)
def test_files_that_can_not_be_used_are_told_by_setting_and_never_by_content(
    examine: Examine, ward: Vouching, spoil: Callable[[probe.TlsFiles], object], words: str
) -> None:
    mine = ward.files("st-anna")
    secret = (mine.key_file or Path()).read_text().splitlines()[1]
    spoil(mine)
    with listening(tls_server(ward.files(HOST, Role.BROKER))) as port:
        checks = examine(port, tls=mine)
    assert words in assert_only_failure(checks, "certificate").found
    assert checks["tls"].verdict is Verdict.OK  # told all the same: the certificate may yet have to be issued
    assert secret not in str(checks)


def test_a_key_of_another_certificate_is_told(examine: Examine, ward: Vouching) -> None:
    mine = probe.TlsFiles(ward.ca_file, ward.files("st-anna").certificate_file, ward.files("st-barbara").key_file)
    with listening(tls_server(ward.files(HOST, Role.BROKER))) as port:
        assert "not the one of certificate_file" in assert_only_failure(examine(port, tls=mine), "certificate").found


def test_without_the_authoritys_certificate_the_issuer_is_named_all_the_same(examine: Examine, ward: Vouching) -> None:
    serve = tls_server(ward.files(HOST, Role.BROKER))
    ward.ca_file.unlink()
    with listening(serve) as port:
        checks = examine(port, tls=ward.trust())
    assert "ca_file can't be read" in assert_only_failure(checks, "certificate").found
    assert checks["tls"].verdict is Verdict.WARNING
    assert "issued by CN=ward authority" in checks["tls"].found


# proxies


@pytest.mark.parametrize(
    ("status", "found", "remedy"),
    [
        (407, "it wants to know who asks", "user name and password"),
        (403, f"forbids CONNECT to {HOST} port 8883", f"allow CONNECT to {HOST} port 8883"),
        (503, "answers 503", "let the proxy look up"),
    ],
)
def test_a_proxy_that_opens_no_tunnel_says_why(examine: Examine, status: int, found: str, remedy: str) -> None:
    with listening(ConnectProxy(status).serve) as port:
        check = assert_only_failure(examine(8883, proxy=Proxy(HOST, port)), "proxy")
    assert found in check.found
    assert remedy in check.remedy


def test_user_and_password_of_a_proxy_are_sent_and_never_shown(examine: Examine) -> None:
    proxy = ConnectProxy(407)
    with listening(proxy.serve) as port:
        given = Proxy(HOST, port, "fedward", "pass-phrase")
        checks = examine(8883, proxy=given)
    assert "Proxy-Authorization: Basic ZmVkd2FyZDpwYXNzLXBocmFzZQ==" in proxy.requests[0]
    assert "pass-phrase" not in f"{checks} {given!r}"


def test_a_proxy_that_can_not_be_reached_is_told(examine: Examine) -> None:
    check = assert_only_failure(examine(8883, proxy=Proxy(HOST, free_port(HOST))), "proxy")
    assert "refused" in check.found


def test_what_is_no_proxy_is_told(examine: Examine) -> None:
    with listening(lambda connection: connection.sendall(b"SSH-2.0-OpenSSH\r\n\r\n")) as port:
        check = assert_only_failure(examine(8883, proxy=Proxy(HOST, port)), "proxy")
    assert "another protocol" in check.found


def test_tls_goes_through_the_tunnel_of_a_proxy(examine: Examine, ward: Vouching) -> None:
    with (
        listening(tls_server(ward.files(HOST, Role.BROKER))) as broker_port,
        listening(ConnectProxy().serve) as port,
    ):
        checks = examine(broker_port, proxy=Proxy(HOST, port), tls=ward.trust(), run_s=3.0)
    assert [checks[name].verdict for name in ("proxy", "tcp", "tls")] == [Verdict.OK] * 3


@pytest.mark.parametrize(("off_s", "verdict"), [(7200, Verdict.FAILED), (-600, Verdict.WARNING)])
def test_a_proxys_clock_tells_of_ours(examine: Examine, off_s: float, verdict: Verdict) -> None:
    with listening(ConnectProxy(407, date=formatdate(time.time() - off_s, usegmt=True)).serve) as port:
        check = examine(8883, proxy=Proxy(HOST, port))["clock"]
    assert check.verdict is verdict
    assert ("ahead of" if off_s > 0 else "behind") in check.found


def test_a_broker_on_an_ipv6_address_is_asked_for_in_brackets() -> None:
    proxy = ConnectProxy(403)
    with listening(proxy.serve) as port:
        probe.ask_proxy(Reach("::1", 8883, Proxy(HOST, port)), probe.look_up(HOST), 5.0)
    assert proxy.requests[0].startswith("CONNECT [::1]:8883 HTTP/1.1\r\n")
