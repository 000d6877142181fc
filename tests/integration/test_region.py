"""A federation from nothing, as hospitals would have it: every command of docs/enrolment.md, over TLS, to the end.

Real processes, a real mosquitto with the configuration of `broker-config`; two hospitals enrol over the network, one of
them through a proxy, train, and one is revoked. Then the tokens that must not work.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedward import __version__
from fedward.cli import EXIT_CONFIG, EXIT_UNAVAILABLE
from fedward.identity.authorities import revoked_in
from fedward.identity.certificates import FileAuthority, Role, load_certificate, make_request, parse_request
from fedward.identity.keys import load_signing_key
from sandbox.broker import find_mosquitto
from sandbox.ports import free_port
from tests.support.certificates import Vouching
from tests.support.connect_proxy import ConnectProxy
from tests.support.network import listening, tls_server
from tests.support.region import PATIENCE_S, Region
from tests.support.waiting import wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.network,
    pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed: apt-get install mosquitto"),
]

A, B, C, D = "hospital-a", "hospital-b", "hospital-c", "hospital-d"
REFUSED = "the broker does not take the token: it was used, was denied or has ended, there is a newer one"


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    region = Region(tmp_path_factory.mktemp("region"))
    try:
        region.start_broker()
        region.start_coordinator()
        yield region
    finally:
        region.stop()


def num_accepted(region: Region, site: str) -> int:
    return int(region.state()["sites"][site]["num_accepted"])


def events(region: Region, name: str) -> list[str]:
    """What a process has logged, by the names of the events."""
    whole = region.said(name).rpartition("\n")[0]
    lines = [line for line in whole.splitlines() if line.startswith("{")]
    return [json.loads(line)["event"] for line in lines]


def check_what_ops_see(region: Region) -> None:
    """What comes from the broker, from certificates, from a replay and from the hospitals' clocks."""
    told = ("clients", "stored_messages", "dropped_messages", "uptime_s")
    wait_for(lambda: region.state()["broker"].keys() == set(told), PATIENCE_S, "the broker's figures")
    wait_for(lambda: region.state()["broker"]["clients"] >= 3, PATIENCE_S, "both hospitals and the coordinator in them")
    assert "made again" in region.operator("replay")
    region.operator("backup", "--out", region.folder / "backup")
    assert {path.stem for path in (region.folder / "backup" / "register" / "sites").iterdir()} == {A, B}
    state = region.state()
    assert state["certificates"].keys() == {A, B}
    assert state["replay_matches"] is True
    for site in (A, B):
        assert abs(state["sites"][site]["clock_skew_s"]) < PATIENCE_S
        assert state["sites"][site]["software"] == f"fedward {__version__}"
        assert state["sites"][site]["device"] == "cpu"


def test_two_hospitals_enrol_over_the_network_and_train_and_one_is_revoked(region: Region) -> None:
    with ConnectProxy() as proxy:
        region.configure_site(A)
        region.configure_site(B, proxy=f"http://127.0.0.1:{proxy.port}")
        tokens = {site: region.invite(site) for site in (A, B)}
        for site, token in tokens.items():
            region.enrolling(site, token)
        for site in (A, B):
            region.compare_and_admit(site)
        for site in (A, B):
            region.has_enrolled(site)
        assert set(proxy.requests) == {f"127.0.0.1:{region.enrolment_port}"}

        old = shorten_life(region, A)
        for site in (A, B):
            region.start_agent(site)
        wait_for(lambda: num_accepted(region, A) and num_accepted(region, B), PATIENCE_S, "an update of each")
        check_what_ops_see(region)
        assert f"127.0.0.1:{region.port}" in proxy.requests
        wait_for(
            lambda: load_certificate(region.folder / A / f"{A}.crt").serial != old, PATIENCE_S, "a renewed certificate"
        )
        wait_for(lambda: events(region, "coordinator").count("token_served") == 2, PATIENCE_S, "both tokens ended")
        wait_for(lambda: "enrol-" not in users(region), PATIENCE_S, "no user of a token at the broker")
        region.configure_site(A, "elsewhere")
        assert REFUSED in region.enroll("elsewhere", tokens[A], "--wait", 2, code=EXIT_UNAVAILABLE)

        connections_of_a = events(region, A).count("mqtt_connected")
        region.operator("revoke", B, "--reason", "left the federation")
        wait_for(lambda: "mqtt_disconnected" in events(region, B), PATIENCE_S, "the end of the live connection")
        assert '"reason": "Administrative action"' in region.said(B)
        accepted_of_b, version = num_accepted(region, B), region.state()["version"]
        region.reload_broker()
        wait_for(lambda: region.state()["version"] >= version + 3, PATIENCE_S, "three more versions")
        assert num_accepted(region, B) == accepted_of_b
        assert B not in users(region)
        assert events(region, A).count("mqtt_connected") == connections_of_a, "nobody else noticed"
        wait_for(lambda: "certificate_refused" in region.said(B), PATIENCE_S, "the broker refuses its certificate")
        region.end(B)
    region.end("broker")
    revoke_serial(region, old)
    region.start_broker()
    wait_for(
        lambda: events(region, A).count("mqtt_connected") > connections_of_a,
        PATIENCE_S,
        "A back with its renewed certificate",
    )


def shorten_life(region: Region, site: str) -> int:
    """Give the site a certificate of which a quarter is left, in place of its own; the serial number."""
    authority, key = FileAuthority(region.folder / "authority"), region.folder / site / f"{site}.key"
    request = parse_request(make_request(load_signing_key(key), site))
    short = authority.sign(request, Role.CLIENT, time.time(), days=0.3)  # and a day behind it
    for path in (region.folder / site / f"{site}.crt", region.folder / "coordinator" / "sites" / f"{site}.crt"):
        path.write_bytes(short.pem)
    return short.serial


def revoke_serial(region: Region, serial: int) -> None:
    """Put a certificate on the broker's list beside those that are there."""
    path = region.folder / "coordinator" / "broker" / "ca.crl"
    revoked = revoked_in(path.read_bytes()) | {serial}
    path.write_bytes(FileAuthority(region.folder / "authority").revocations(revoked, time.time()))


def users(region: Region) -> str:
    """The names that the broker knows, as its plugin has written them."""
    text = (region.folder / "broker" / "dynamic-security.json").read_text()
    try:
        return " ".join(client["username"] for client in json.loads(text)["clients"])
    except ValueError:  # it is written into the file that is there, so it may be met half-written
        return "enrol-? " + text


def test_a_token_that_has_ended_is_refused_and_the_hospital_is_told_so(region: Region) -> None:
    region.configure_site(D)
    token = region.invite(D, "--automatic", "--days", 0)
    assert REFUSED in region.enroll(D, token, "--wait", 2, code=EXIT_UNAVAILABLE)


def test_a_hospital_that_is_denied_while_it_waits_is_told_so(region: Region) -> None:
    region.configure_site(D)
    hospital = region.enrolling(D, region.invite(D))
    wait_for(lambda: "waits for its operator" in region.said(f"{D} enrols"), PATIENCE_S, "its first answer")
    region.operator("deny", D)
    assert hospital.wait(30.0) == EXIT_CONFIG
    assert "has denied this request" in region.said(f"{D} enrols")


def test_an_interceptor_with_another_authority_is_told_nothing(region: Region, tmp_path: Path) -> None:
    region.configure_site(D)
    rogue = Vouching(tmp_path / "rogue", "somebody in between")
    with listening(tls_server(rogue.files("127.0.0.1", Role.BROKER))) as port:
        said = region.enroll(D, region.invite(D, "--broker", f"127.0.0.1:{port}"), code=EXIT_CONFIG)
    assert "is not the broker of the token (issuer_unknown: issued by CN=somebody in between)" in said
    assert "and was told nothing" in said


def test_a_token_that_names_the_port_of_the_sites_says_so(region: Region) -> None:
    region.configure_site(D)
    said = region.enroll(D, region.invite(D, "--broker", f"127.0.0.1:{region.port}"), code=EXIT_CONFIG)
    assert "asks for a certificate, so it is not where tokens are taken" in said


def test_a_broker_that_is_not_reached_is_told_with_what_is_in_the_way(region: Region) -> None:
    region.configure_site(D)
    token = region.invite(D, "--broker", f"127.0.0.1:{free_port('127.0.0.1')}")
    said = region.enroll(D, token, "--wait", 2, code=EXIT_UNAVAILABLE)
    assert "was not reached" in said
    assert "port_closed" in said
    assert "--request-out" in said
