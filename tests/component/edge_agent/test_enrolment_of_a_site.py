"""What a hospital keeps of an enrolment, and how its certificate is renewed: files, whatever is killed or sent."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from queue import Queue

import pytest

from edge_agent.enrolment.asking import Asking
from edge_agent.enrolment.cli import link_settings
from edge_agent.enrolment.keeping import begin, enrolled, finish, message_of
from edge_agent.renewal import ASK_AGAIN_S, Renewer
from fedward.dial import Obstacle, UnreachableError
from fedward.errors import ConfigError, PeerError, RejectReason, TransientError
from fedward.identity.certificates import DAY_S, FileAuthority, Role, load_certificate, make_request, parse_request
from fedward.identity.folder import CoordinatorIdentity, SiteIdentity, coordinator_name
from fedward.identity.keys import load_signing_key
from fedward.identity.token import Token, new_secret, new_token_id
from fedward.messages import Enrolled, EnrolmentOutcome, Renewal, Renewed
from fedward.mqtt import MqttSettings
from fedward.pack import pack
from fedward.ports import LinkInbox
from fedward.process import SystemClock
from fedward.proxy import Proxy
from fedward.settings import IdentitySettings, TrustSettings
from fedward.testing import ManualClock, MemoryBroker, MemoryLink
from fedward.topics import Down
from sandbox.identities import make_identities
from tests.support.enrolment import request_of
from tests.support.hospital import Hospital
from tests.support.office import FEDERATION, SITE, site_config

NOW_S = ManualClock().now_s()


class Coordinator:
    """What stands behind a token: an authority, and a coordinator's certificate."""

    def __init__(self, folder: Path) -> None:
        self.authority = FileAuthority.make(folder / "ca", "authority", NOW_S)
        request = request_of(folder / "coordinator", coordinator_name(FEDERATION))
        self.certificate = self.authority.sign(request, Role.CLIENT, NOW_S, 90)
        self.token = Token(
            federation=FEDERATION,
            site=SITE,
            token_id=new_token_id(),
            host="127.0.0.1",
            port=1,
            authority=self.authority.certificate,
            coordinator=self.certificate.fingerprint,
            secret=new_secret(),
        )

    def answer(self, pem: bytes, outcome: EnrolmentOutcome = EnrolmentOutcome.ADMITTED, **changes: bytes) -> Enrolled:
        """To the request, or what another coordinator could say."""
        request = parse_request(pem)
        certificate = self.authority.sign(request, Role.CLIENT, NOW_S, 90)
        fields = {"certificate": certificate.pem, "authority": self.authority.certificate.pem}
        told = Enrolled(outcome=outcome, mac=bytes(32), **{**fields, "coordinator": self.certificate.pem, **changes})
        return replace(told, mac=self.token.keys.answer_mac(request.fingerprint, told))


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    return Coordinator(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "identity"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_key_is_made_once_and_its_owner_alone_reads_it(coordinator: Coordinator, folder: Path) -> None:
    first, again = begin(folder, coordinator.token), begin(folder, coordinator.token)
    assert first.fingerprint == again.fingerprint
    assert names(folder) == {"ca.crt", f"{SITE}.key"}
    assert (folder / f"{SITE}.key").stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE" not in message_of(coordinator.token, first).request


def test_an_admitted_site_has_an_identity_that_the_agent_can_use(coordinator: Coordinator, folder: Path) -> None:
    request = begin(folder, coordinator.token)
    certificate = finish(folder, coordinator.token, request, coordinator.answer(request.pem), NOW_S)
    assert certificate is not None
    assert names(folder) == {"ca.crt", f"{SITE}.key", f"{SITE}.crt", "coordinator.crt"}
    assert enrolled(folder, SITE) == certificate
    identity = SiteIdentity.load(folder, FEDERATION, SITE, NOW_S)
    assert identity.coordinator.fingerprint == coordinator.certificate.fingerprint


def test_a_site_that_was_killed_between_the_two_files_is_not_enrolled_and_ends_it_later(
    coordinator: Coordinator, folder: Path
) -> None:
    request = begin(folder, coordinator.token)
    finish(folder, coordinator.token, request, coordinator.answer(request.pem), NOW_S)
    (folder / f"{SITE}.crt").unlink()
    assert enrolled(folder, SITE) is None
    again = begin(folder, coordinator.token)
    assert again.fingerprint == request.fingerprint
    assert finish(folder, coordinator.token, again, coordinator.answer(again.pem), NOW_S)


def test_who_has_to_wait_keeps_nothing_yet(coordinator: Coordinator, folder: Path) -> None:
    request = begin(folder, coordinator.token)
    answer = coordinator.answer(request.pem, EnrolmentOutcome.WAITING)
    assert finish(folder, coordinator.token, request, answer, NOW_S) is None
    assert enrolled(folder, SITE) is None


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (EnrolmentOutcome.DENIED, "has denied"),
        (EnrolmentOutcome.EXPIRED, "not used in time"),
        (EnrolmentOutcome.USED, "has served another key"),
    ],
)
def test_a_no_is_told_with_what_to_do(
    coordinator: Coordinator, folder: Path, outcome: EnrolmentOutcome, words: str
) -> None:
    request = begin(folder, coordinator.token)
    with pytest.raises(ConfigError, match=words):
        finish(folder, coordinator.token, request, coordinator.answer(request.pem, outcome), NOW_S)


def test_an_answer_without_the_tokens_mac_is_refused(coordinator: Coordinator, folder: Path) -> None:
    request = begin(folder, coordinator.token)
    forged = replace(coordinator.answer(request.pem), mac=bytes(32))
    with pytest.raises(PeerError) as refused:
        finish(folder, coordinator.token, request, forged, NOW_S)
    assert refused.value.reason is RejectReason.BAD_SIGNATURE
    assert enrolled(folder, SITE) is None


def test_a_certificate_of_another_authority_or_coordinator_is_refused(
    coordinator: Coordinator, folder: Path, tmp_path: Path
) -> None:
    request, rogue = begin(folder, coordinator.token), Coordinator(tmp_path / "rogue")
    elsewhere = rogue.authority.sign(parse_request(request.pem), Role.CLIENT, NOW_S, 90)
    for change, words in (
        ({"certificate": elsewhere.pem}, "not signed by the federation's authority"),
        ({"authority": rogue.authority.certificate.pem}, "another authority or coordinator"),
        ({"coordinator": rogue.certificate.pem}, "another authority or coordinator"),
    ):
        with pytest.raises(ConfigError, match=words):
            finish(folder, coordinator.token, request, coordinator.answer(request.pem, **change), NOW_S)
    assert enrolled(folder, SITE) is None


def test_a_coordinators_certificate_under_another_name_is_refused(
    coordinator: Coordinator, folder: Path, tmp_path: Path
) -> None:
    request = begin(folder, coordinator.token)
    key = load_signing_key(tmp_path / "coordinator" / f"{coordinator_name(FEDERATION)}.key")
    other = parse_request(make_request(key, "coordinator-other"))
    other_pem = coordinator.authority.sign(other, Role.CLIENT, NOW_S, 90).pem
    with pytest.raises(ConfigError, match=f"expected one for {coordinator_name(FEDERATION)}"):
        finish(folder, coordinator.token, request, coordinator.answer(request.pem, coordinator=other_pem), NOW_S)
    assert enrolled(folder, SITE) is None


def test_a_certificate_for_another_key_is_refused(coordinator: Coordinator, folder: Path, tmp_path: Path) -> None:
    request = begin(folder, coordinator.token)
    other = coordinator.authority.sign(request_of(tmp_path / "other", SITE), Role.CLIENT, NOW_S, 90)
    with pytest.raises(ConfigError, match="another key"):
        finish(folder, coordinator.token, request, coordinator.answer(request.pem, certificate=other.pem), NOW_S)


def test_a_folder_of_another_federation_is_left_alone(coordinator: Coordinator, folder: Path, tmp_path: Path) -> None:
    begin(folder, coordinator.token)
    before = (folder / "ca.crt").read_bytes()
    with pytest.raises(ConfigError, match=r"name another identity\.folder"):
        begin(folder, Coordinator(tmp_path / "rogue").token)
    assert (folder / "ca.crt").read_bytes() == before


ELSEWHERE = {"host": "broker.example.org", "port": 443}


def settings_of(coordinator: Coordinator, folder: Path, broker: dict[str, object], host: str) -> MqttSettings:
    """How the holder of a token for `host` connects where the site's `broker` says this; with a proxy at hand."""
    config = site_config(folder, broker=broker, identity={"folder": folder})
    token = replace(coordinator.token, host=host, port=8884)
    return link_settings(config, token, folder, {"https_proxy": "http://proxy:3128", "no_proxy": "near.example.org"})


def test_a_tokens_holder_trusts_the_tokens_authority_and_shows_no_certificate(
    coordinator: Coordinator, folder: Path
) -> None:
    settings = settings_of(coordinator, folder, ELSEWHERE, "enrol.example.org")
    assert settings.tls == TrustSettings(ca_file=folder / "ca.crt")
    assert (settings.host, settings.port) == ("enrol.example.org", 8884)
    assert settings.username == settings.client_id == coordinator.token.user
    assert settings.password == coordinator.token.keys.password
    assert settings.password not in repr(settings)
    assert settings.session_expiry_s == 0
    assert settings.will is None


def test_a_tokens_holder_takes_the_proxy_of_the_site_to_the_host_of_the_token(
    coordinator: Coordinator, folder: Path
) -> None:
    assert settings_of(coordinator, folder, ELSEWHERE, "enrol.example.org").proxy == Proxy("proxy", 3128)
    assert settings_of(coordinator, folder, ELSEWHERE, "near.example.org").proxy is None
    named = {**ELSEWHERE, "proxy": "http://other:80", "transport": "websockets"}
    assert settings_of(coordinator, folder, named, "near.example.org").proxy == Proxy("other", 80)
    assert settings_of(coordinator, folder, named, "near.example.org").transport == "websockets"


@pytest.mark.parametrize(
    ("broker", "host", "secured"),
    [
        (ELSEWHERE, "127.0.0.1", False),
        ({"host": "localhost"}, "broker.example.org", True),
        ({**ELSEWHERE, "plain": True}, "broker.example.org", False),
        ({"host": "localhost", "tls": {"ca_file": "c", "certificate_file": "a", "key_file": "b"}}, "127.0.0.1", True),
    ],
)
def test_a_token_goes_in_the_clear_only_where_the_agent_will(
    coordinator: Coordinator, folder: Path, broker: dict[str, object], host: str, secured: bool
) -> None:
    assert (settings_of(coordinator, folder, broker, host).tls is not None) is secured


def asking(coordinator: Coordinator, folder: Path, broker: MemoryBroker, **way: object) -> Asking:
    """One attempt over a link that tells this of its way to the broker."""
    inbox: LinkInbox = Queue()
    link = MemoryLink(broker, coordinator.token.user, inbox)
    vars(link).update(way)
    return Asking(link, inbox, SystemClock(), coordinator.token, begin(folder, coordinator.token))


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ({"refusal": "Not authorized"}, "does not take the token: it was used, was denied or has ended"),
        ({"failure": UnreachableError(Obstacle.PROXY_WANTS_LOGIN)}, "not reached .* user name .* --request-out"),
        ({}, "not reached"),
    ],
)
def test_what_did_not_come_about_is_told_with_what_was_in_the_way(
    coordinator: Coordinator, folder: Path, broker: MemoryBroker, way: dict[str, object], words: str
) -> None:
    with pytest.raises(TransientError, match=words):
        asking(coordinator, folder, broker, **way).run(folder, 0.0, print)


@pytest.mark.parametrize("obstacle", [Obstacle.ISSUER_UNKNOWN, Obstacle.HOST_NAME, Obstacle.CERTIFICATE_REFUSED])
def test_it_does_not_wait_for_somebody_else_than_the_broker_to_become_it(
    coordinator: Coordinator, folder: Path, broker: MemoryBroker, obstacle: Obstacle
) -> None:
    attempt = asking(coordinator, folder, broker, failure=UnreachableError(obstacle, "why"))
    with pytest.raises(ConfigError, match=r"is not the broker of the token|is not where tokens are taken"):
        attempt.run(folder, 60.0, print)


@pytest.fixture
def site(coordinator: Coordinator, tmp_path: Path, folder: Path, broker: MemoryBroker) -> "Site":
    request = begin(folder, coordinator.token)
    finish(folder, coordinator.token, request, coordinator.answer(request.pem), NOW_S)
    return Site(coordinator, folder, tmp_path, broker)


class Site:
    """An enrolled site's renewals, and the coordinator that hears them."""

    def __init__(self, coordinator: Coordinator, folder: Path, tmp_path: Path, broker: MemoryBroker) -> None:
        self.coordinator, self.folder = coordinator, folder
        self.sent: list[Renewal] = []
        self.config = site_config(tmp_path, identity=IdentitySettings(folder=folder))
        link = MemoryLink(broker, SITE, Queue())
        link.open()
        self.renewer = Renewer(link, self.config, self._pack)

    def _pack(self, message: object) -> bytes:
        assert isinstance(message, Renewal)
        self.sent.append(message)
        return pack(message)

    def renewed(self, wall_s: float, days: float = 90) -> Renewed:
        request = parse_request(self.sent[-1].request)
        return Renewed(certificate=self.coordinator.authority.sign(request, Role.CLIENT, wall_s, days).pem)


def test_a_site_asks_when_a_third_of_the_life_is_left_and_every_hour_until_it_has_the_new_one(site: Site) -> None:
    site.renewer.step(0.0, NOW_S + 59 * DAY_S)
    assert site.sent == []
    late_s = NOW_S + 61 * DAY_S
    site.renewer.step(1.0, late_s)
    site.renewer.step(2.0, late_s)
    assert len(site.sent) == 1
    site.renewer.step(1.0 + ASK_AGAIN_S, late_s + ASK_AGAIN_S)
    assert len(site.sent) == 2
    assert site.renewer.take(site.renewed(late_s), late_s)
    site.renewer.step(2.0 + 2 * ASK_AGAIN_S, late_s + 2 * ASK_AGAIN_S)
    assert len(site.sent) == 2


def test_a_renewed_certificate_is_on_disk_for_the_next_connection(site: Site) -> None:
    before, wall_s = load_certificate(site.folder / f"{SITE}.crt"), NOW_S + 61 * DAY_S
    site.renewer.step(0.0, wall_s)
    assert site.renewer.take(site.renewed(wall_s), wall_s)
    after = load_certificate(site.folder / f"{SITE}.crt")
    assert after.fingerprint == before.fingerprint
    assert after.not_after_s > before.not_after_s
    assert site.renewer.expires_s == after.not_after_s


def test_a_certificate_that_comes_twice_or_ends_earlier_changes_nothing(site: Site) -> None:
    wall_s = NOW_S + 61 * DAY_S
    site.renewer.step(0.0, wall_s)
    first = site.renewed(wall_s)
    assert site.renewer.take(first, wall_s)
    assert not site.renewer.take(first, wall_s)
    assert not site.renewer.take(site.renewed(wall_s, days=10), wall_s)
    assert (site.folder / f"{SITE}.crt").read_bytes() == first.certificate


def test_a_renewed_certificate_for_another_key_or_of_another_authority_is_refused(site: Site, tmp_path: Path) -> None:
    wall_s, rogue = NOW_S + 61 * DAY_S, FileAuthority.make(tmp_path / "rogue", "authority", NOW_S)
    before = (site.folder / f"{SITE}.crt").read_bytes()
    site.renewer.step(0.0, wall_s)
    own = parse_request(site.sent[-1].request)
    others = site.coordinator.authority.sign(request_of(tmp_path / "other", SITE), Role.CLIENT, wall_s, 90)
    for pem in (rogue.sign(own, Role.CLIENT, wall_s, 90).pem, others.pem, b"nonsense"):
        with pytest.raises(PeerError) as refused:
            site.renewer.take(Renewed(certificate=pem), wall_s)
        assert refused.value.reason is RejectReason.BAD_SIGNATURE
    assert (site.folder / f"{SITE}.crt").read_bytes() == before


@pytest.fixture
def coordinators(tmp_path: Path) -> CoordinatorIdentity:
    """Of a federation in which this site is enrolled."""
    make_identities(tmp_path / "identities", FEDERATION, [SITE], NOW_S)
    return CoordinatorIdentity.load(tmp_path / "identities" / "coordinator", FEDERATION, NOW_S)


def test_a_running_agent_renews_with_signed_messages_and_believes_no_others(
    new_hospital: Callable[..., Hospital], coordinators: CoordinatorIdentity, tmp_path: Path
) -> None:
    folder = tmp_path / "identities" / SITE
    before = load_certificate(folder / f"{SITE}.crt")
    hospital = new_hospital(identity={"folder": folder})
    hospital.settle()
    assert hospital.office.messages(Renewal) == []
    hospital.wait(22 * DAY_S)
    [renewal] = hospital.office.messages(Renewal)
    authority, now_s = FileAuthority(tmp_path / "identities" / "authority"), hospital.clock.now_s()
    new = authority.sign(parse_request(renewal.request), Role.CLIENT, now_s, 30)
    hospital.office.tell(Down.RENEWED, Renewed(certificate=new.pem))
    hospital.settle()
    assert load_certificate(folder / f"{SITE}.crt") == before
    hospital.office.sign_to = coordinators.sign_to(FEDERATION)
    hospital.office.tell(Down.RENEWED, Renewed(certificate=new.pem))
    hospital.settle()
    assert load_certificate(folder / f"{SITE}.crt") == new
    assert hospital.page["certificate_expires_s"] == new.not_after_s
