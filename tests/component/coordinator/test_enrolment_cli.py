"""The operator's commands of enrolment, on a folder of their own; who runs meanwhile is in the integration tests."""

import time
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from coordinator.enrolment.folder import Register
from fedward.cli import EXIT_CONFIG, EXIT_UNAVAILABLE, main
from fedward.identity.authorities import revoked_in
from fedward.identity.certificates import FileAuthority, Role, load_certificate
from fedward.identity.folder import CoordinatorIdentity
from fedward.identity.handover import REQUEST, write_handover
from fedward.identity.token import read_token
from fedward.pack import pack
from tests.support.coordinator_bench import write_config
from tests.support.enrolment import message_of, request_of
from tests.support.updates import FEDERATION


class Desk:
    """A configuration with an identity folder, and the commands on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.identity = folder / "identity"
        self.config = write_config(folder)
        self.set_authority({"folder": str(folder / "ca")})

    def set_authority(self, authority: dict[str, object]) -> None:
        settings = yaml.safe_load(self.config.read_text())
        identity = {"identity": {"folder": str(self.identity)}, "authority": authority}
        self.config.write_text(yaml.safe_dump({**settings, **identity}))

    def __call__(self, verb: str, *arguments: object) -> int:
        return main(["coordinator", verb, "--config", str(self.config), *map(str, arguments)])

    def make_authority(self) -> int:
        return main(["coordinator", "ca", "--out", str(self.folder / "ca")])


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def ready(desk: Desk) -> Desk:
    assert desk.make_authority() == 0
    assert desk("identity") == 0
    return desk


def keys(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*.key")}


def test_an_authority_and_an_identity_are_made_and_usable(ready: Desk) -> None:
    certificate = load_certificate(ready.identity / "coordinator.crt")
    assert certificate.name == f"coordinator-{FEDERATION}"
    CoordinatorIdentity.load(ready.identity, FEDERATION, certificate.not_before_s + 100_000)
    assert all(path.stat().st_mode & 0o077 == 0 for path in ready.folder.rglob("*.key"))


def test_no_key_is_ever_replaced(ready: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    before = keys(ready.folder)
    assert ready.make_authority() == EXIT_CONFIG
    assert "no key is ever replaced" in capsys.readouterr().err
    assert ready("identity") == 0
    assert "is there already" in capsys.readouterr().out
    assert keys(ready.folder) == before


def test_a_renewed_identity_has_the_same_keys_and_another_certificate(ready: Desk) -> None:
    before, certificate = keys(ready.folder), load_certificate(ready.identity / "coordinator.crt")
    assert ready("identity", "--renew") == 0
    renewed = load_certificate(ready.identity / "coordinator.crt")
    assert keys(ready.folder) == before
    assert renewed.fingerprint == certificate.fingerprint
    assert renewed.serial != certificate.serial


@pytest.mark.parametrize("host", ["broker.example.org", "10.1.2.3"])
def test_the_brokers_certificate_is_for_its_host_name(ready: Desk, host: str) -> None:
    assert ready("identity", "--broker", host) == 0
    made = x509.load_pem_x509_certificate((ready.identity / "broker" / f"{host}.crt").read_bytes())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == [host]


def test_the_brokers_folder_has_all_that_a_broker_needs_and_each_revocation(ready: Desk) -> None:
    assert ready("identity", "--broker", "broker.example.org") == 0
    folder = ready.identity / "broker"
    names = {path.name for path in folder.iterdir()}
    assert names == {"ca.crt", "ca.crl", "broker.example.org.crt", "broker.example.org.key"}
    assert revoked_in((folder / "ca.crl").read_bytes()) == set()
    enrol(ready, "north")
    serial = load_certificate(ready.identity / "sites" / "north.crt").serial
    assert ready("revoke", "north") == 0
    assert revoked_in((folder / "ca.crl").read_bytes()) == {serial}
    assert (folder / "ca.crl").read_bytes() == (ready.identity / "ca.crl").read_bytes()


def enrol(desk: Desk, site: str) -> None:
    """By a certificate that the authority signs, without the ways of a token."""
    authority = FileAuthority(desk.folder / "ca")
    request = request_of(desk.folder / f"hospital {site}", site)
    Register(desk.identity).enter(authority.sign(request, Role.CLIENT, time.time(), 90))


def test_an_offline_authority_gives_the_broker_its_first_list_and_no_older_one_later(ready: Desk) -> None:
    ready.set_authority({})
    assert ready("identity", "--broker", "broker.example.org") == EXIT_UNAVAILABLE
    early, late = signed_offline(ready, "early"), ready.identity / "broker" / "ca.crl"
    assert ready("admit", "--in", early) == 0
    assert revoked_in(late.read_bytes()) == set()
    enrol(ready, "north")
    ready("revoke", "north")
    assert ready("admit", "--in", signed_offline(ready, "late")) == 0
    before = revoked_in(late.read_bytes())
    assert len(before) == 1
    assert ready("admit", "--in", early) == 0
    assert revoked_in(late.read_bytes()) == before


def signed_offline(desk: Desk, name: str) -> Path:
    """What the offline machine makes of all that waits now."""
    to_sign, signed = desk.folder / f"{name} to sign", desk.folder / f"{name} signed"
    assert desk("requests", "--out", to_sign) == 0
    sign = ["coordinator", "sign", "--ca", desk.folder / "ca", "--in", to_sign, "--out", signed]
    assert main([str(argument) for argument in sign]) == 0
    return signed


@pytest.mark.parametrize(
    ("broker", "port"),
    [
        ({"host": "broker.example.org", "port": 443}, 8884),
        ({"host": "broker.example.org", "port": 443, "enrolment_port": 8443}, 8443),
        ({"host": "broker.example.org", "port": 1883, "plain": True}, 1883),
        ({"host": "localhost", "port": 1883}, 1883),
    ],
)
def test_a_token_names_the_port_where_tokens_are_taken(
    ready: Desk, capsys: pytest.CaptureFixture[str], broker: dict[str, object], port: int
) -> None:
    settings = yaml.safe_load(ready.config.read_text())
    ready.config.write_text(yaml.safe_dump({**settings, "broker": broker}))
    capsys.readouterr()
    assert ready("invite", "north") == 0
    token = read_token(capsys.readouterr().out.strip())
    assert (token.host, token.port) == (broker["host"], port)


def test_an_invitation_prints_the_token_alone_and_keeps_nothing_of_its_secret(
    ready: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert ready("invite", "north", "--broker", "broker.example.org:443") == 0
    [line] = capsys.readouterr().out.splitlines()
    token = read_token(line)
    assert (token.federation, token.site, token.host, token.port) == (FEDERATION, "north", "broker.example.org", 443)
    assert token.coordinator == load_certificate(ready.identity / "coordinator.crt").fingerprint
    [kept] = (ready.identity / "invitations").iterdir()
    assert kept.stat().st_mode & 0o077 == 0
    assert token.secret.hex() not in kept.read_text()
    assert line not in kept.read_text()


@pytest.mark.parametrize("site", ["west", "coordinator", "enrol-x"])
def test_a_site_that_the_configuration_does_not_list_is_not_invited(
    ready: Desk, capsys: pytest.CaptureFixture[str], site: str
) -> None:
    assert ready("invite", site) == EXIT_CONFIG
    assert "is not in `sites`" in capsys.readouterr().err


def test_a_broker_address_that_is_none_is_refused(ready: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert ready("invite", "north", "--broker", "broker.example.org") == EXIT_CONFIG
    assert "expected host:port" in capsys.readouterr().err


def test_commands_before_there_is_an_identity_say_what_to_do(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert desk("invite", "north") == EXIT_CONFIG
    assert "`fedward coordinator identity` makes it" in capsys.readouterr().err


def test_the_coordinators_own_certificate_may_come_from_an_offline_authority(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.set_authority({})
    desk.make_authority()
    machine = desk.folder / "what the coordinator's machine has of the authority"
    machine.mkdir()
    (machine / "ca.crt").write_bytes((desk.folder / "ca" / "ca.crt").read_bytes())
    assert desk("identity", "--ca", machine) == EXIT_UNAVAILABLE
    assert "waits for an offline authority" in capsys.readouterr().err
    to_sign, signed = desk.folder / "to-sign.json", desk.folder / "signed.json"
    assert desk("requests", "--out", to_sign) == 0
    sign = ["coordinator", "sign", "--ca", desk.folder / "ca", "--in", to_sign, "--out", signed]
    assert main([str(argument) for argument in sign]) == 0
    assert desk("admit", "--in", signed) == 0
    certificate = load_certificate(desk.identity / "coordinator.crt")
    CoordinatorIdentity.load(desk.identity, FEDERATION, certificate.not_before_s + 100_000)


def test_what_another_authority_has_signed_is_refused(ready: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    to_sign, signed, rogue = ready.folder / "to-sign.json", ready.folder / "signed.json", ready.folder / "rogue"
    ready("invite", "north")
    token = read_token(capsys.readouterr().out.splitlines()[-1])
    request = request_of(ready.folder / "hospital", "north")
    carried = write_handover(REQUEST, token.token_id, pack(message_of(token, request)))
    (ready.folder / "request.json").write_bytes(carried)
    ready.set_authority({})
    assert ready("requests", "--in", ready.folder / "request.json") == 0
    assert ready("admit", "north", "--fingerprint", request.fingerprint[:19]) == 0
    assert ready("requests", "--out", to_sign) == 0
    assert main(["coordinator", "ca", "--out", str(rogue)]) == 0
    assert main(["coordinator", "sign", "--ca", str(rogue), "--in", str(to_sign), "--out", str(signed)]) == 0
    assert ready("admit", "--in", signed) == EXIT_CONFIG
    assert "not signed by the federation's authority" in capsys.readouterr().err
    assert not list((ready.identity / "sites").iterdir())


@pytest.mark.parametrize("content", [b"", b"[]", b'{"what": "fedward signed 1"}', b"\xff"])
def test_what_is_no_file_of_the_offline_machine_is_refused(ready: Desk, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "signed.json").write_bytes(content)
    assert ready("admit", "--in", tmp_path / "signed.json") == EXIT_CONFIG


def test_a_damaged_invitation_is_named_without_its_content(ready: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    ready("invite", "north")
    path = ready.identity / "invitations" / "north.json"
    path.write_text(path.read_text()[:-20])
    assert ready("requests") == 4
    said = capsys.readouterr().err
    assert "north.json" in said
    assert "mac_key" not in said
