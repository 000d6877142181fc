"""Enrolment, renewal and revocation at a running coordinator, with the operator's decisions made beside it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coordinator.config import AuthoritySettings
from coordinator.enrolment.authority import offline, sign_file, take_signed, to_sign
from coordinator.enrolment.desk import SIGN_AGAIN_S, Desk
from coordinator.enrolment.membership import Membership
from fedward import topics
from fedward.errors import ConfigError, PeerError, RejectReason, TransientError
from fedward.identity.authorities import check_revocations
from fedward.identity.certificates import (
    DAY_S,
    Certificate,
    FileAuthority,
    Role,
    check_certificate,
    load_certificate,
    parse_certificate,
)
from fedward.identity.folder import COORDINATOR_CERTIFICATE, CoordinatorIdentity, SiteIdentity
from fedward.identity.keys import load_signing_key
from fedward.identity.signing import COORDINATOR, checker
from fedward.identity.token import Token
from fedward.messages import EnrolmentOutcome, Renewal, Renewed, Status
from fedward.pack import pack, unpack
from fedward.settings import IdentitySettings
from fedward.testing import ManualClock, MemoryBroker
from fedward.topics import Down, Enrol, Up
from tests.support.coordinator_bench import Bench, config_of, refusals
from tests.support.enrolment import HOST, Holder, message_of, new_membership, request_of
from tests.support.signatures import SignedSite
from tests.support.site import Site
from tests.support.updates import FEDERATION, offer_of

WAITING, ADMITTED = EnrolmentOutcome.WAITING, EnrolmentOutcome.ADMITTED


class Office:
    """A coordinator that enrols, its operator, and time."""

    def __init__(self, folder: Path, start: Callable[..., Bench], broker: MemoryBroker, clock: ManualClock) -> None:
        self.folder, self._start, self._broker, self.clock = folder, start, broker, clock
        self.membership = new_membership(folder / "identities", clock.now_s())
        self.identity = folder / "identities" / "coordinator"
        self.bench = self.begin()

    def begin(self) -> Bench:
        """A coordinator's process."""
        authority = AuthoritySettings(folder=self.folder / "identities" / "authority", days=90)
        config = config_of(self.folder, identity=IdentitySettings(folder=self.identity), authority=authority)
        identity = CoordinatorIdentity.load(self.identity, FEDERATION, self.clock.now_s())
        bench = self._start(config, self._broker, self.clock, identity=identity)
        bench.link.subscribe(topics.enrolment_requests(FEDERATION))
        return bench

    def restart(self) -> None:
        """Another process, after a kill of the one before."""
        self.bench.kill()
        self.bench = self.begin()

    @property
    def desk(self) -> Desk:
        """The coordinator's own part in it."""
        assert self.bench.service.desk is not None
        return self.bench.service.desk

    def settle(self, seconds: float = 1.0) -> None:
        """Let time pass, so that the desk looks."""
        self.clock.advance(seconds)
        self.bench.settle()

    def invite(self, site: str = "north", *, automatic: bool = False) -> Token:
        token = self.membership.invite(site, HOST, self.clock.now_s() + 7 * DAY_S, automatic=automatic)
        self.settle()
        return token

    def holder(self, token: Token, name: str = "hospital") -> Holder:
        return Holder(self._broker, token, self.folder / name)

    def admit(self, holder: Holder) -> None:
        self.membership.admit(holder.token.site, holder.request.fingerprint[:19])
        self.settle()

    def enrolled(self, site: str = "north") -> Holder:
        """A site that has its certificate."""
        holder = self.holder(self.invite(site, automatic=True), site)
        holder.ask()
        self.settle()
        return holder

    def registered(self, site: str = "north") -> Certificate | None:
        return self.membership.register.certificate(site)


@pytest.fixture
def office(tmp_path: Path, broker: MemoryBroker, clock: ManualClock) -> Iterator[Office]:
    started: list[Bench] = []

    def start(*arguments: Any, **named: Any) -> Bench:
        started.append(Bench(*arguments, **named))
        return started[-1]

    yield Office(tmp_path, start, broker, clock)
    for bench in started:
        bench.kill()


def outcomes(holder: Holder) -> list[EnrolmentOutcome]:
    return [answer.outcome for answer in holder.answers()]


def is_listened_to(office: Office, site: Site) -> bool:
    """Whether a message of the site is refused for another reason than that it is none, or for none."""
    before = refusals(office.bench).get("unknown_site", 0)
    site.say(Up.STATUS, Status(boot_id=b"boot-two", online=True))
    office.settle()
    return refusals(office.bench).get("unknown_site", 0) == before


def signed(office: Office, broker: MemoryBroker, folder: str) -> SignedSite:
    """Site north, with the key that is in this folder."""
    key = load_signing_key(office.folder / folder / "north.key")
    return SignedSite(broker, "north", SiteIdentity(key, load_certificate(office.identity / "coordinator.crt")))


def test_who_was_compared_gets_a_certificate_and_becomes_a_site(office: Office, north: Site) -> None:
    holder = office.holder(office.invite())
    holder.ask()
    office.settle()
    assert set(outcomes(holder)) == {WAITING}
    assert not is_listened_to(office, north)
    office.admit(holder)
    [answer] = holder.answers()
    assert answer.outcome is ADMITTED
    assert answer.certificate is not None
    certificate = parse_certificate(answer.certificate)
    authority = load_certificate(office.identity / "ca.crt")
    check_certificate(certificate, authority, "north", office.clock.now_s())
    assert certificate.fingerprint == holder.request.fingerprint
    assert answer.authority == authority.pem
    assert answer.coordinator == (office.identity / "coordinator.crt").read_bytes()
    assert is_listened_to(office, north)


def test_the_holder_of_an_automatic_token_is_admitted_by_its_mac(office: Office) -> None:
    holder = office.holder(office.invite(automatic=True))
    holder.ask()
    office.settle()
    assert outcomes(holder)[-1] is ADMITTED


def test_a_token_that_is_used_by_another_key_serves_the_first_one_alone(office: Office) -> None:
    token = office.invite(automatic=True)
    first, second = office.holder(token), office.holder(token, "elsewhere")
    first.ask()
    office.settle()
    first.answers()
    second.ask()
    office.settle()
    assert outcomes(second)[-1] is EnrolmentOutcome.USED
    assert office.registered() is not None
    assert office.registered().fingerprint == first.request.fingerprint  # type: ignore[union-attr]


def test_a_token_that_was_not_used_in_time_is_expired(office: Office) -> None:
    holder = office.holder(office.invite(automatic=True))
    office.settle(7 * DAY_S)
    holder.ask()
    office.settle()
    assert outcomes(holder) == [EnrolmentOutcome.EXPIRED]
    assert office.registered() is None
    assert not office.desk.holders


def test_a_second_invitation_ends_the_first(office: Office) -> None:
    first = office.holder(office.invite(automatic=True))
    second = office.holder(office.invite(automatic=True), "again")
    first.ask()
    second.ask()
    office.settle()
    assert outcomes(first) == []
    assert outcomes(second)[-1] is ADMITTED
    assert refusals(office.bench) == {"unknown_site": 1}


def test_a_wrong_secret_gets_no_answer_and_is_counted(office: Office) -> None:
    token = office.invite(automatic=True)
    guesser = office.holder(replace(token, secret=bytes(32)))
    guesser.ask()
    office.settle()
    assert outcomes(guesser) == []
    assert refusals(office.bench) == {RejectReason.BAD_SIGNATURE: 1}
    assert office.registered() is None


def test_a_request_that_the_broker_swapped_is_refused_and_the_right_one_still_counts(office: Office) -> None:
    token = office.invite(automatic=True)
    holder = office.holder(token)
    swapped = replace(message_of(token, holder.request), request=request_of(office.folder / "broker", "north").pem)
    holder.ask(swapped)
    office.settle()
    assert refusals(office.bench) == {RejectReason.BAD_SIGNATURE: 1}
    assert office.registered() is None
    holder.ask()
    office.settle()
    assert outcomes(holder)[-1] is ADMITTED


@pytest.mark.parametrize("name", ["south", "coordinator-ward"])
def test_a_request_for_another_name_than_the_tokens_is_refused(office: Office, name: str) -> None:
    token = office.invite(automatic=True)
    holder = office.holder(token)
    holder.ask(message_of(token, request_of(office.folder / "other", name)))
    office.settle()
    assert refusals(office.bench) == {RejectReason.MALFORMED: 1}
    assert office.membership.register.sites() == {}


def test_who_is_denied_is_told_so_and_stays_out(office: Office) -> None:
    holder = office.holder(office.invite())
    holder.ask()
    office.settle()
    office.membership.deny("north")
    office.settle()
    assert outcomes(holder)[-1] is EnrolmentOutcome.DENIED
    holder.ask()
    office.settle()
    assert outcomes(holder) == [EnrolmentOutcome.DENIED]
    assert office.registered() is None


def test_a_coordinator_that_is_killed_at_each_step_goes_on(office: Office) -> None:
    token = office.invite()
    office.restart()
    office.settle()
    holder = office.holder(token)
    holder.ask()
    office.settle()
    office.restart()
    office.membership.admit("north", holder.request.fingerprint)
    office.restart()  # admitted, and not signed yet
    office.settle()
    certificate = office.registered()
    assert certificate is not None
    office.restart()  # signed, and not told yet
    holder.answers()
    holder.ask()
    office.settle()
    assert outcomes(holder)[-1] is ADMITTED
    assert office.registered().serial == certificate.serial  # type: ignore[union-attr]


def test_a_site_renews_its_key_once_a_third_of_its_life_is_left_and_not_before(office: Office) -> None:
    holder = office.enrolled()
    first, desk = office.registered(), office.desk
    assert first is not None
    renewal = Renewal(request=holder.request.pem)
    early = desk.on_renewal("north", renewal)
    assert early is not None
    assert early.certificate == first.pem
    office.settle(70 * DAY_S)
    renewed = desk.on_renewal("north", renewal)
    assert renewed is not None
    certificate = parse_certificate(renewed.certificate)
    assert certificate.fingerprint == first.fingerprint
    assert certificate.not_after_s == pytest.approx(office.clock.now_s() + 90 * DAY_S, abs=2)
    again = desk.on_renewal("north", renewal)
    assert again == renewed


def test_a_signed_renewal_is_answered_over_the_wire_for_the_site_alone(office: Office, broker: MemoryBroker) -> None:
    holder = office.enrolled()
    site = signed(office, broker, "north")
    office.settle(70 * DAY_S)
    site.say(Up.RENEWAL, Renewal(request=holder.request.pem))
    office.settle()
    topic = topics.down(FEDERATION, "north", Down.RENEWED)
    check = checker(site.identity.coordinator.public_key, FEDERATION, COORDINATOR, "north")
    [renewed] = [unpack(one.payload, Renewed, check) for one in site.deliveries() if one.topic == topic]
    registered = office.registered()
    assert registered is not None
    assert renewed.certificate == registered.pem
    assert registered.not_after_s > office.clock.now_s() + 89 * DAY_S


def test_a_renewal_that_is_not_signed_by_the_site_renews_nothing(office: Office, north: Site) -> None:
    holder = office.enrolled()
    before = office.registered()
    office.settle(70 * DAY_S)
    north.say(Up.RENEWAL, Renewal(request=holder.request.pem))
    office.settle()
    assert office.registered() == before


def test_a_renewal_for_another_key_or_name_is_refused(office: Office) -> None:
    holder, desk = office.enrolled(), office.desk
    office.settle(70 * DAY_S)
    for request, reason in (
        (request_of(office.folder / "other key", "north"), RejectReason.BAD_SIGNATURE),
        (request_of(office.folder / "other name", "south"), RejectReason.MALFORMED),
    ):
        with pytest.raises(PeerError) as refused:
            desk.on_renewal("north", Renewal(request=request.pem))
        assert refused.value.reason is reason
    with pytest.raises(PeerError) as refused:
        desk.on_renewal("south", Renewal(request=holder.request.pem))
    assert refused.value.reason is RejectReason.MALFORMED


def test_a_revoked_site_is_not_listened_to_from_the_next_message_on(office: Office, north: Site) -> None:
    office.enrolled()
    assert is_listened_to(office, north)
    assert office.membership.revoke("north", "lost laptop", office.clock.now_s()) == 1
    assert not is_listened_to(office, north)
    assert refusals(office.bench)["unknown_site"] >= 1


def test_all_certificates_of_a_revoked_site_are_on_the_list_also_those_before_a_renewal(office: Office) -> None:
    holder, desk = office.enrolled(), office.desk
    first = office.registered()
    office.settle(70 * DAY_S)
    assert desk.on_renewal("north", Renewal(request=holder.request.pem))
    second = office.registered()
    assert first is not None
    assert second is not None
    now_s = office.clock.now_s()
    assert office.membership.revoke("north", "", now_s) == 2
    office.membership.publish_revocations(now_s)
    authority = load_certificate(office.identity / "ca.crt")
    check_revocations((office.identity / "ca.crl").read_bytes(), authority, [first.serial, second.serial])


def test_a_certificate_that_was_put_into_the_register_by_hand_is_revoked_too_after_a_renewal(office: Office) -> None:
    now_s, request = office.clock.now_s(), request_of(office.folder / "north", "north")
    by_hand = FileAuthority(office.folder / "identities" / "authority").sign(request, Role.CLIENT, now_s, 1)
    (office.identity / "sites" / "north.crt").write_bytes(by_hand.pem)
    office.settle(DAY_S / 2)
    assert office.desk.on_renewal("north", Renewal(request=request.pem))
    assert office.membership.revoke("north", "", now_s) == 2
    assert by_hand.serial in {one.serial for one in office.membership.register.revoked()}


def test_the_chunks_of_a_revoked_site_which_nobody_signs_are_refused_too(office: Office, north: Site) -> None:
    office.enrolled()
    offer = offer_of(b"payload", 1)
    north.chunk(offer, 0, b"payload")
    office.settle()
    assert refusals(office.bench)["not_offered"] == 1
    office.membership.revoke("north", "", office.clock.now_s())
    office.settle()
    before = refusals(office.bench)
    north.chunk(offer, 0, b"payload")
    office.settle()
    assert refusals(office.bench) == {**before, "unknown_site": before.get("unknown_site", 0) + 1}


@pytest.mark.parametrize(
    "topic",
    [
        topics.enrolment(FEDERATION, "00" * 16, Enrol.ANSWER),
        topics.enrolment("lungs", "00" * 16, Enrol.REQUEST),
    ],
)
def test_a_request_on_another_federations_topic_or_on_that_of_answers_is_refused(office: Office, topic: str) -> None:
    message = message_of(office.invite(), request_of(office.folder / "hospital", "north"))
    with pytest.raises(PeerError) as refused:
        office.desk.takes(topic, pack(message))
    assert refused.value.reason is RejectReason.MALFORMED


def test_a_revoked_key_does_not_come_back_and_a_new_one_does(office: Office, north: Site) -> None:
    holder = office.enrolled()
    holder.answers()
    office.membership.revoke("north", "", office.clock.now_s())
    holder.ask()
    office.settle()
    assert outcomes(holder) == []  # its token ended with it
    token = office.invite(automatic=True)
    office.holder(token, "unused").ask(message_of(token, holder.request))
    office.settle()
    assert office.registered() is None
    fresh = office.holder(token, "fresh")
    fresh.ask()
    office.settle()
    assert outcomes(fresh)[-1] is ADMITTED
    assert is_listened_to(office, north)


def test_a_revocation_that_was_killed_half_way_is_ended_by_the_next_one(office: Office) -> None:
    office.enrolled()
    office.membership.invitations.end("north")
    (office.identity / "sites" / "north.crt").unlink()  # and then the power went
    office.settle()
    assert office.registered() is None
    assert office.membership.revoke("north", "", office.clock.now_s()) == 1
    assert office.membership.revoke("north", "", office.clock.now_s()) == 0
    assert [one.name for one in office.membership.register.revoked()] == ["north"]


def test_what_is_signed_offline_for_a_site_that_was_revoked_meanwhile_does_not_bring_it_back(office: Office) -> None:
    holder = office.enrolled()
    waiting = Membership(office.identity, FEDERATION, AuthoritySettings())
    office.settle(70 * DAY_S)
    now_s = office.clock.now_s()
    with pytest.raises(TransientError, match="waits for an offline authority"):
        waiting.renew("north", Renewal(request=holder.request.pem), now_s)
    authority = FileAuthority(office.folder / "identities" / "authority")
    signed, [certificate] = sign_file(authority, to_sign(offline(office.identity), []), now_s)
    assert certificate.fingerprint == holder.request.fingerprint
    waiting.revoke("north", "", now_s)
    assert take_signed(office.identity, FEDERATION, signed, now_s) == []
    assert office.registered() is None


def test_a_renewal_that_is_signed_offline_reaches_the_site_with_its_next_request(office: Office) -> None:
    holder = office.enrolled()
    waiting = Membership(office.identity, FEDERATION, AuthoritySettings())
    renewal = Renewal(request=holder.request.pem)
    office.settle(70 * DAY_S)
    now_s = office.clock.now_s()
    with pytest.raises(TransientError):
        waiting.renew("north", renewal, now_s)
    authority = FileAuthority(office.folder / "identities" / "authority")
    signed, [certificate] = sign_file(authority, to_sign(offline(office.identity), []), now_s)
    assert take_signed(office.identity, FEDERATION, signed, now_s) == [certificate]
    assert waiting.renew("north", renewal, now_s) == certificate


def test_a_damaged_invitation_or_certificate_stops_enrolment_and_nothing_else(office: Office, north: Site) -> None:
    office.enrolled()
    office.invite("south")
    (office.identity / "invitations" / "south.json").write_text("{")
    office.settle()
    assert not office.desk.holders
    assert is_listened_to(office, north)
    (office.identity / "sites" / "north.crt").write_text("nothing")
    office.settle()
    assert not is_listened_to(office, north)
    assert office.bench.service.page()["certificate_expires_s"] is not None


def test_an_authority_that_can_not_be_used_delays_and_the_coordinator_goes_on(office: Office) -> None:
    (office.folder / "identities" / "authority" / "ca.key").chmod(0o644)
    holder = office.holder(office.invite(automatic=True))
    holder.ask()
    office.settle()
    assert set(outcomes(holder)) == {WAITING}
    (office.folder / "identities" / "authority" / "ca.key").chmod(0o600)
    office.settle(SIGN_AGAIN_S)
    assert outcomes(holder)[-1] is ADMITTED


def test_a_site_that_is_enrolled_is_not_invited_and_one_that_never_was_is_not_revoked(office: Office) -> None:
    office.enrolled()
    with pytest.raises(ConfigError, match="site north is enrolled"):
        office.membership.invite("north", HOST, office.clock.now_s() + DAY_S, automatic=False)
    with pytest.raises(ConfigError, match="south was never enrolled"):
        office.membership.revoke("south", "", office.clock.now_s())


def test_the_page_says_when_the_first_certificate_ends(office: Office) -> None:
    office.enrolled()
    certificate = office.registered()
    assert certificate is not None
    page = office.bench.service.page()
    assert page["certificate_expires_s"] == min(page["own_certificate_expires_s"], certificate.not_after_s)
    assert page["own_certificate_expires_s"] == load_certificate(office.identity / COORDINATOR_CERTIFICATE).not_after_s


def test_the_broker_takes_a_token_until_its_site_has_spoken_with_its_certificate(
    office: Office, broker: MemoryBroker
) -> None:
    token = office.invite()
    holder = office.holder(token)
    holder.ask()
    office.settle()
    office.admit(holder)
    office.settle(DAY_S)
    assert office.desk.holders == {token.keys}, "the hospital may still have to fetch the answer"
    site = signed(office, broker, "hospital")
    office.settle()
    assert not office.desk.holders
    assert office.membership.invitations.of("north") is None
    assert is_listened_to(office, site)


def test_a_status_that_the_site_has_not_signed_ends_no_token(office: Office, north: Site) -> None:
    office.enrolled()
    north.say(Up.STATUS, Status(boot_id=b"boot-two", online=True))
    office.settle()
    assert office.desk.holders


def test_one_who_is_denied_is_told_so_and_then_the_broker_takes_the_token_no_more(office: Office) -> None:
    holder = office.holder(office.invite())
    holder.ask()
    office.settle()
    office.membership.deny("north")
    office.settle()
    assert outcomes(holder)[-1] is EnrolmentOutcome.DENIED
    assert not office.desk.holders


def test_a_holder_who_floods_is_not_looked_at_and_others_are(office: Office) -> None:
    token, other = office.invite(), office.invite("south")
    holder = office.holder(token)
    forged = replace(message_of(token, holder.request), mac=bytes(32))
    for _ in range(2000):
        holder.ask(forged)
    office.bench.settle()
    assert 0 < refusals(office.bench)["bad_signature"] <= 1100
    assert refusals(office.bench)["busy"] >= 900
    second = office.holder(other, "elsewhere")
    second.ask()
    office.bench.settle()
    assert set(outcomes(second)) == {WAITING}
