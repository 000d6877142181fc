"""What becomes of an invitation: the first key counts, people compare, and nothing undoes a no."""

from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.enrolment.rules import (
    HEAR_S,
    Invitation,
    Stage,
    admitted,
    answer,
    denied,
    may_connect,
    outcome,
    received,
    uncertified,
)
from fedward.errors import ConfigError
from fedward.identity.certificates import Certificate, FileAuthority, Request, Role
from fedward.identity.token import TokenKeys
from fedward.messages import EnrolmentOutcome
from tests.support.enrolment import request_of

NOW_S, ENDS_S = 1_790_000_000.0, 1_790_000_600.0
OPEN = Invitation(keys=TokenKeys.derive(bytes(32), "ward", "north", "00" * 16), expires_at_s=ENDS_S, automatic=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hospital")


@pytest.fixture(scope="module")
def request_(folder: Path) -> Request:
    return request_of(folder / "first", "north")


@pytest.fixture(scope="module")
def another(folder: Path) -> Request:
    return request_of(folder / "second", "north")


@pytest.fixture(scope="module")
def certificate(folder: Path, request_: Request) -> Certificate:
    return FileAuthority.make(folder / "ca", "authority", NOW_S).sign(request_, Role.CLIENT, NOW_S, 90)


def test_a_request_waits_for_people(request_: Request) -> None:
    asked = received(OPEN, request_, NOW_S)
    assert (asked.stage, asked.fingerprint, asked.requested_at_s) == (Stage.REQUESTED, request_.fingerprint, NOW_S)
    assert outcome(asked, request_.fingerprint, None) is EnrolmentOutcome.WAITING


def test_a_request_to_an_automatic_invitation_is_admitted(request_: Request, certificate: Certificate) -> None:
    asked = received(replace(OPEN, automatic=True), request_, NOW_S)
    assert asked.stage is Stage.ADMITTED
    assert uncertified([asked], {}) == [asked]
    assert outcome(asked, request_.fingerprint, None) is EnrolmentOutcome.WAITING  # for the signature
    assert uncertified([asked], {"north": certificate}) == []
    assert outcome(asked, request_.fingerprint, certificate) is EnrolmentOutcome.ADMITTED


def test_the_same_request_again_changes_nothing(request_: Request) -> None:
    asked = received(OPEN, request_, NOW_S)
    assert received(asked, request_, NOW_S + 60) == asked
    decided = admitted(asked, request_.fingerprint)
    assert received(decided, request_, NOW_S + 60) == decided


def test_a_token_serves_one_key_only(request_: Request, another: Request, certificate: Certificate) -> None:
    asked = received(OPEN, request_, NOW_S)
    assert received(asked, another, NOW_S) == asked
    assert outcome(asked, another.fingerprint, None) is EnrolmentOutcome.USED
    assert outcome(admitted(asked, request_.fingerprint), another.fingerprint, certificate) is EnrolmentOutcome.USED


def test_a_request_after_the_end_of_the_token_is_told_so(request_: Request) -> None:
    late = received(OPEN, request_, ENDS_S)
    assert late == OPEN
    assert outcome(late, request_.fingerprint, None) is EnrolmentOutcome.EXPIRED


def test_a_request_in_time_may_be_decided_after_the_end_of_the_token(request_: Request) -> None:
    asked = received(OPEN, request_, ENDS_S - 1)
    assert may_connect(asked, ENDS_S + HEAR_S - 1)
    assert not may_connect(asked, ENDS_S + HEAR_S)
    assert not may_connect(OPEN, ENDS_S)
    assert received(asked, request_, ENDS_S + 5).stage is Stage.REQUESTED


@pytest.mark.parametrize("groups", [4, 5, 16])
def test_the_first_groups_of_the_fingerprint_admit(request_: Request, groups: int) -> None:
    compared = "-".join(request_.fingerprint.split("-")[:groups])
    assert admitted(received(OPEN, request_, NOW_S), compared.upper() + "-").stage is Stage.ADMITTED


@pytest.mark.parametrize("cut", [0, 3, 14, 18])
def test_less_than_four_groups_admit_nobody(request_: Request, cut: int) -> None:
    with pytest.raises(ConfigError, match="at least 4 groups"):
        admitted(received(OPEN, request_, NOW_S), request_.fingerprint[:cut])


def test_the_fingerprint_of_another_key_admits_nobody(request_: Request, another: Request) -> None:
    with pytest.raises(ConfigError, match="somebody else has used the token"):
        admitted(received(OPEN, request_, NOW_S), another.fingerprint[:19])


def test_a_no_stays_a_no(request_: Request) -> None:
    refused = denied(received(OPEN, request_, NOW_S))
    assert outcome(refused, request_.fingerprint, None) is EnrolmentOutcome.DENIED
    assert received(refused, request_, NOW_S) == refused
    with pytest.raises(ConfigError, match="was denied"):
        admitted(refused, request_.fingerprint)


def test_an_admitted_site_is_revoked_and_not_denied(request_: Request) -> None:
    with pytest.raises(ConfigError, match="revoke north"):
        denied(admitted(received(OPEN, request_, NOW_S), request_.fingerprint))


def test_nobody_is_admitted_who_has_not_asked() -> None:
    with pytest.raises(ConfigError, match="has not asked yet"):
        admitted(OPEN, "0000-0000-0000-0000")


def test_certificates_go_to_the_admitted_key_alone(
    request_: Request, another: Request, certificate: Certificate
) -> None:
    decided = admitted(received(OPEN, request_, NOW_S), request_.fingerprint)
    told = answer(decided, request_.fingerprint, certificate, b"authority", b"coordinator")
    assert (told.certificate, told.authority, told.coordinator) == (certificate.pem, b"authority", b"coordinator")
    OPEN.keys.check_answer(request_.fingerprint, told)
    other = answer(decided, another.fingerprint, certificate, b"authority", b"coordinator")
    assert (other.outcome, other.certificate) == (EnrolmentOutcome.USED, None)
    OPEN.keys.check_answer(another.fingerprint, other)
