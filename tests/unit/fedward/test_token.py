"""Tokens: read back whole or refused, and MACs that hold for exactly what was said to whom."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedward.errors import ConfigError, PeerError, RejectReason
from fedward.identity.certificates import FileAuthority
from fedward.identity.handover import ANSWER, REQUEST, read_handover, write_handover
from fedward.identity.token import PREFIX, Token, read_token, write_token
from fedward.messages import Enrolled, Enrolment, EnrolmentOutcome

SECRET = bytes(range(32))
REQUEST_PEM = b"a certificate request"
ID = "00112233445566778899aabbccddeeff"
PRINT = "-".join(["0123"] * 16)


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Token:
    authority = FileAuthority.make(tmp_path_factory.mktemp("ca") / "ca", "authority", 1_790_000_000.0)
    return Token(
        federation="ward",
        site="north",
        token_id=ID,
        host="broker.example.org",
        port=443,
        authority=authority.certificate,
        coordinator=PRINT,
        secret=SECRET,
    )


def test_a_token_is_one_line_and_is_read_back(token: Token) -> None:
    text = write_token(token)
    assert text.startswith(PREFIX)
    assert len(text.split()) == 1
    assert read_token(text) == token
    assert read_token(text).secret == SECRET


def test_white_space_that_a_mail_program_adds_does_not_matter(token: Token) -> None:
    text = write_token(token)
    assert read_token("  " + "\n".join(text[start : start + 60] for start in range(0, len(text), 60)) + "\n") == token


@given(place=st.integers(len(PREFIX), 700), letter=st.sampled_from("ABCdef019-_"))
@settings(max_examples=100)
def test_a_typing_error_is_found(token: Token, place: int, letter: str) -> None:
    text = write_token(token)
    if text[place] != letter:
        with pytest.raises(ConfigError, match="typing error"):
            read_token(text[:place] + letter + text[place + 1 :])


@pytest.mark.parametrize("cut", [len(PREFIX), 20, 500, -1])
def test_a_token_that_is_cut_off_is_refused(token: Token, cut: int) -> None:
    with pytest.raises(ConfigError, match="cut off"):
        read_token(write_token(token)[:cut])


@pytest.mark.parametrize("text", ["", "hello", "fedward2-AAAA", "\x00" * 100_000])
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a token"):
        read_token(text)


def test_a_token_with_a_wildcard_for_a_name_is_refused_without_a_word_of_its_secret(token: Token) -> None:
    with pytest.raises(ConfigError, match="not one of this release") as refused:
        read_token(write_token(replace(token, site="+")))
    assert SECRET.hex() not in str(refused.value)
    assert SECRET.hex() not in repr(token)
    assert "password" not in repr(token.keys)


def test_the_password_tells_nothing_of_the_key_of_the_macs(token: Token) -> None:
    keys, others = token.keys, replace(token, secret=bytes(32)).keys
    assert keys == token.keys
    assert len({keys.password.encode(), keys.mac_key, others.password.encode(), others.mac_key, SECRET}) == 5


def test_a_request_of_the_tokens_holder_passes(token: Token) -> None:
    token.keys.check_request(Enrolment(request=REQUEST_PEM, mac=token.keys.request_mac(REQUEST_PEM)))


@pytest.mark.parametrize(
    "others", [{"secret": bytes(32)}, {"site": "south"}, {"federation": "lungs"}, {"token_id": "ff" * 16}]
)
def test_a_request_under_another_token_or_name_is_refused(token: Token, others: dict[str, object]) -> None:
    mac = replace(token, **others).keys.request_mac(REQUEST_PEM)  # type: ignore[arg-type]
    with pytest.raises(PeerError) as refused:
        token.keys.check_request(Enrolment(request=REQUEST_PEM, mac=mac))
    assert refused.value.reason is RejectReason.BAD_SIGNATURE


def test_a_request_that_was_put_in_the_place_of_the_holders_is_refused(token: Token) -> None:
    with pytest.raises(PeerError, match="not made as it stands"):
        token.keys.check_request(Enrolment(request=b"another", mac=token.keys.request_mac(REQUEST_PEM)))


def answered(token: Token, fingerprint: str = PRINT) -> Enrolled:
    answer = Enrolled(outcome=EnrolmentOutcome.ADMITTED, mac=bytes(32), certificate=b"c", authority=b"a")
    return replace(answer, mac=token.keys.answer_mac(fingerprint, answer))


@pytest.mark.parametrize(
    "change",
    [
        {"outcome": EnrolmentOutcome.DENIED},
        {"certificate": b"another"},
        {"authority": None},
        {"coordinator": b"more"},
        {"certificate": b"", "authority": b"ca"},  # the same bytes, cut elsewhere
        {"mac": bytes(32)},
    ],
)
def test_an_answer_that_was_changed_on_the_way_is_refused(token: Token, change: dict[str, object]) -> None:
    token.keys.check_answer(PRINT, answered(token))
    with pytest.raises(PeerError, match="not given as it stands"):
        token.keys.check_answer(PRINT, replace(answered(token), **change))  # type: ignore[arg-type]


def test_an_answer_to_another_key_is_refused(token: Token) -> None:
    with pytest.raises(PeerError, match="not given as it stands"):
        token.keys.check_answer(PRINT, answered(token, PRINT.replace("0", "f")))


def test_a_request_is_no_answer(tmp_path: Path) -> None:
    content = write_handover(REQUEST, "00" * 16, b"message")
    assert read_handover(content, REQUEST) == ("00" * 16, b"message")
    with pytest.raises(ConfigError, match="expected a file of `fedward enrolment answer 1`"):
        read_handover(content, ANSWER)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"what": "fedward enrolment answer 1"}', b"[" * 70_000])
def test_what_is_no_file_of_an_enrolment_is_refused(content: bytes) -> None:
    with pytest.raises(ConfigError, match="got something else"):
        read_handover(content, ANSWER)
