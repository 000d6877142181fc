"""Requests and certificates that anybody may send: read, or refused with a ConfigError, and nothing else."""

from base64 import b64decode, encodebytes
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedward.errors import ConfigError
from fedward.identity.authorities import check_signed
from fedward.identity.certificates import (
    Certificate,
    FileAuthority,
    Request,
    Role,
    check_certificate,
    parse_certificate,
    parse_request,
)
from fedward.identity.description import describe_certificate
from tests.support.enrolment import request_of

NOW_S = 1_790_000_000.0
Changes = list[tuple[int, int, int]]

CHANGES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 600), st.integers(0, 255)), min_size=1, max_size=3)
"""What happens (replace, insert, delete), where, and the byte."""

pytestmark = pytest.mark.filterwarnings("ignore")  # the library grumbles about some of them


class Issued:
    """An authority, a request and the certificate for it."""

    def __init__(self, folder: Path) -> None:
        self.authority = FileAuthority.make(folder / "ca", "authority", NOW_S)
        self.request = request_of(folder / "hospital", "north")
        self.certificate = self.authority.sign(self.request, Role.CLIENT, NOW_S, 30)


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Issued:
    return Issued(tmp_path_factory.mktemp("issued"))


def damaged(pem: bytes, changes: Changes) -> bytes:
    lines = pem.strip().splitlines()
    content = bytearray(b64decode(b"".join(lines[1:-1])))
    for kind, place, value in changes:
        at = place % len(content)
        content[at : at + (kind != 1)] = [value] if kind != 2 else []
    return b"\n".join((lines[0], encodebytes(bytes(content)).strip(), lines[-1])) + b"\n"


def read(parse: Callable[[bytes], Request | Certificate], pem: bytes) -> Request | Certificate | None:
    try:
        return parse(pem)
    except ConfigError:
        return None


@given(changes=CHANGES)
@settings(max_examples=300)
def test_a_request_that_was_changed_is_refused_or_still_that_of_its_own_key(issued: Issued, changes: Changes) -> None:
    found = read(parse_request, damaged(issued.request.pem, changes))
    if found is not None:  # a change that the encoding allows and the signature does not cover
        assert (found.name, found.fingerprint) == ("north", issued.request.fingerprint)


@given(changes=CHANGES)
@settings(max_examples=300)
def test_a_certificate_that_was_changed_is_refused_or_the_same(issued: Issued, changes: Changes) -> None:
    found = read(parse_certificate, damaged(issued.certificate.pem, changes))
    if not isinstance(found, Certificate):
        return
    try:
        check_certificate(found, issued.authority.certificate, "north", NOW_S)
        check_signed(found, issued.request, issued.authority.certificate, NOW_S)
    except ConfigError:
        return
    assert found.fingerprint == issued.certificate.fingerprint
    assert found.not_after_s == issued.certificate.not_after_s


@given(content=st.binary(max_size=300))
def test_anything_else_is_refused(content: bytes) -> None:
    for parse in (parse_request, parse_certificate):
        for kind in (b"CERTIFICATE", b"CERTIFICATE REQUEST"):
            assert read(parse, b"-----BEGIN %b-----\n%b-----END %b-----\n" % (kind, encodebytes(content), kind)) is None
            assert read(parse, content) is None


@pytest.mark.parametrize("role", Role)
def test_whatever_byte_of_a_certificate_is_another_one_it_is_read_or_refused(issued: Issued, role: Role) -> None:
    """Of version 2, say, or with a name of a kind that the library does not know, as a box on the way may show it."""
    lines = issued.authority.sign(issued.request, role, NOW_S, 30).pem.strip().splitlines()
    valid = b64decode(b"".join(lines[1:-1]))
    for place in range(len(valid)):
        for value in {valid[place] ^ 1, 0xA3, 0x03}:
            changed = valid[:place] + bytes([value]) + valid[place + 1 :]
            describe_certificate(changed)
            found = read(parse_certificate, b"\n".join((lines[0], encodebytes(changed).strip(), lines[-1])) + b"\n")
            if isinstance(found, Certificate):
                with suppress(ConfigError):
                    check_signed(found, issued.request, issued.authority.certificate, NOW_S)
