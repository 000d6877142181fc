"""An authority behind a program: used when it gives what was asked for, and nothing else."""

import stat
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtensionOID

from fedward.errors import ConfigError, TransientError
from fedward.identity.authorities import CommandAuthority, check_revocations
from fedward.identity.certificates import DAY_S, FileAuthority, Request, Role
from fedward.identity.keys import load_signing_key
from tests.support.enrolment import request_of

NOW_S = 1_790_000_000.0

PROGRAM = """\
import sys, pathlib
sys.path.insert(0, {root!r})
from fedward.identity.certificates import FileAuthority, Role, parse_request
authority = FileAuthority(pathlib.Path({folder!r}))
given = sys.stdin.buffer.read()
if sys.argv[1] == "revocations":
    signed = authority.revocations([int(line) for line in given.split()], {now_s})
else:
    signed = authority.sign(parse_request(given), Role(sys.argv[2]), {now_s}, float(sys.argv[3])).pem
sys.stdout.buffer.write(signed)
"""


@pytest.fixture
def authority(tmp_path: Path) -> FileAuthority:
    return FileAuthority.make(tmp_path / "ca", "authority", NOW_S)


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    return request_of(tmp_path / "hospital", "north")


def behind(authority: FileAuthority, *command: str, timeout_s: float = 20) -> CommandAuthority:
    return CommandAuthority(authority.certificate, command, timeout_s)


def program(tmp_path: Path, folder: Path) -> tuple[str, str]:
    path = tmp_path / "kms.py"
    path.write_text(PROGRAM.format(root=str(Path(__file__).parents[3]), folder=str(folder), now_s=NOW_S))
    return sys.executable, str(path)


def shell(tmp_path: Path, text: str) -> str:
    path = tmp_path / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.mark.slow
def test_a_program_signs_what_is_asked_for(tmp_path: Path, authority: FileAuthority, request_: Request) -> None:
    signs = behind(authority, *program(tmp_path, tmp_path / "ca"))
    certificate = signs.sign(request_, Role.CLIENT, NOW_S, 30)
    assert (certificate.name, certificate.fingerprint) == ("north", request_.fingerprint)
    assert certificate.not_after_s == NOW_S + 30 * DAY_S
    check_revocations(signs.revocations([certificate.serial], NOW_S), authority.certificate, [certificate.serial])


@pytest.mark.slow
def test_a_certificate_of_another_authority_is_refused(
    tmp_path: Path, authority: FileAuthority, request_: Request
) -> None:
    FileAuthority.make(tmp_path / "rogue", "authority", NOW_S)
    signs = behind(authority, *program(tmp_path, tmp_path / "rogue"))
    with pytest.raises(ConfigError, match="not signed by the federation's authority"):
        signs.sign(request_, Role.CLIENT, NOW_S, 30)
    with pytest.raises(ConfigError, match="not signed by the federation's authority"):
        signs.revocations([1], NOW_S)


@pytest.mark.parametrize(("site", "days", "problem"), [("south", 30, "is for south"), ("north", 60, "ends later")])
def test_a_certificate_for_another_name_or_a_longer_life_is_refused(
    tmp_path: Path, authority: FileAuthority, request_: Request, site: str, days: float, problem: str
) -> None:
    request = request_ if site == "north" else request_of(tmp_path / "other", site)
    (tmp_path / "given.pem").write_bytes(authority.sign(request, Role.CLIENT, NOW_S, days).pem)
    signs = behind(authority, shell(tmp_path, f"cat {tmp_path / 'given.pem'}"))
    with pytest.raises(ConfigError, match=problem):
        signs.sign(request_, Role.CLIENT, NOW_S, 30)


def test_a_certificate_for_another_key_is_refused(tmp_path: Path, authority: FileAuthority, request_: Request) -> None:
    other = request_of(tmp_path / "other", "north")
    (tmp_path / "given.pem").write_bytes(authority.sign(other, Role.CLIENT, NOW_S, 30).pem)
    signs = behind(authority, shell(tmp_path, f"cat {tmp_path / 'given.pem'}"))
    with pytest.raises(ConfigError, match="signed another key for north"):
        signs.sign(request_, Role.CLIENT, NOW_S, 30)


def test_a_certificate_that_may_sign_others_is_refused(
    tmp_path: Path, authority: FileAuthority, request_: Request
) -> None:
    given = x509.load_pem_x509_certificate(authority.sign(request_, Role.CLIENT, NOW_S, 30).pem)
    builder = x509.CertificateBuilder(
        given.issuer,
        given.subject,
        given.public_key(),
        given.serial_number,
        given.not_valid_before_utc,
        given.not_valid_after_utc,
        [x509.Extension(ExtensionOID.BASIC_CONSTRAINTS, True, x509.BasicConstraints(ca=True, path_length=None))],
    )
    signed = builder.sign(load_signing_key(tmp_path / "ca" / "ca.key"), hashes.SHA256())
    (tmp_path / "given.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    signs = behind(authority, shell(tmp_path, f"cat {tmp_path / 'given.pem'}"))
    with pytest.raises(ConfigError, match="made an authority of north"):
        signs.sign(request_, Role.CLIENT, NOW_S, 30)


@pytest.mark.parametrize(
    ("text", "problem"),
    [("exit 3", "ended with 3"), ("exec sleep 30", "no answer in 0.3 s")],
)
def test_a_program_that_fails_or_hangs_is_tried_again_later(
    tmp_path: Path, authority: FileAuthority, request_: Request, text: str, problem: str
) -> None:
    signs = behind(authority, shell(tmp_path, text), timeout_s=0.3)
    with pytest.raises(TransientError, match=problem):
        signs.sign(request_, Role.CLIENT, NOW_S, 30)


def test_a_program_that_is_not_there_is_named(authority: FileAuthority, request_: Request) -> None:
    with pytest.raises(TransientError, match="/nowhere/kms: No such file"):
        behind(authority, "/nowhere/kms").sign(request_, Role.CLIENT, NOW_S, 30)


def test_a_list_of_revocations_that_lacks_one_is_refused(authority: FileAuthority) -> None:
    with pytest.raises(ConfigError, match="lacks 1"):
        check_revocations(authority.revocations([1, 2], NOW_S), authority.certificate, [1, 3])


def test_what_is_no_list_of_revocations_is_refused(authority: FileAuthority) -> None:
    with pytest.raises(ConfigError, match="got something else"):
        check_revocations(b"nothing", authority.certificate, [])
