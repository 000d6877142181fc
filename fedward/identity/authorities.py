"""Authorities whose key is elsewhere, and the check of what any authority has signed before it is used."""

import subprocess
from collections.abc import Collection
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from fedward.errors import ConfigError, TransientError
from fedward.identity.certificates import (
    DAY_S,
    UNREADABLE,
    Certificate,
    Request,
    Role,
    check_certificate,
    parse_certificate,
)

MAX_OUTPUT = 16 * 1024 * 1024
"""Bytes that a program may answer with: a list of 100,000 revoked certificates has 5 MB."""


@dataclass(frozen=True)
class CommandAuthority:
    """An authority behind a program: the client of a key service, or of a hardware module.

    The program is run with `certificate client DAYS` or `certificate broker DAYS` after its own arguments, gets the
    request (PKCS #10, PEM) on standard input, and answers with the certificate (PEM) on standard output. With
    `revocations` it gets the serial numbers, decimal, one a line, and answers with the list (CRL, PEM). It ends with 0.
    """

    certificate: Certificate
    command: tuple[str, ...]
    timeout_s: float

    def sign(self, request: Request, role: Role, now_s: float, days: float) -> Certificate:
        """As promised. Raises TransientError where the program fails, ConfigError for what was not asked for."""
        pem = self._run([*self.command, "certificate", role.value, f"{days:g}"], request.pem)
        certificate = parse_certificate(pem)
        check_signed(certificate, request, self.certificate, now_s, days)
        return certificate

    def revocations(self, serials: Collection[int], now_s: float) -> bytes:  # noqa: ARG002 - the program has a clock
        """As the port promises, and raises as `sign` does."""
        lines = "".join(f"{serial}\n" for serial in sorted(serials))
        pem = self._run([*self.command, "revocations"], lines.encode())
        check_revocations(pem, self.certificate, serials)
        return pem

    def _run(self, command: list[str], given: bytes) -> bytes:
        """What the program writes; what it says of an error goes to our own standard error, for the operator."""
        program = command[0]
        try:
            # The operator's own program, without a shell.
            done = subprocess.run(command, input=given, stdout=subprocess.PIPE, timeout=self.timeout_s, check=False)  # noqa: S603
        except subprocess.TimeoutExpired:
            raise TransientError(f"authority.command: {program} gave no answer in {self.timeout_s:g} s") from None
        except OSError as error:
            raise TransientError(f"authority.command: {program}: {error.strerror}") from None
        if done.returncode != 0:
            raise TransientError(f"authority.command: {program} ended with {done.returncode}")
        return done.stdout[:MAX_OUTPUT]


def check_signed(
    certificate: Certificate, request: Request, authority: Certificate, now_s: float, days: float | None = None
) -> None:
    """Raises ConfigError unless it is what was asked for: signed now, for this name and key, and for nothing more."""
    check_certificate(certificate, authority, request.name, now_s)
    if certificate.fingerprint != request.fingerprint:
        raise ConfigError(f"the authority signed another key for {request.name} than the one that was asked for")
    parsed = x509.load_pem_x509_certificate(certificate.pem)
    try:
        may_sign = parsed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        may_sign = False
    except UNREADABLE:
        raise ConfigError(f"the certificate of {request.name} has extensions that can't be read") from None
    if may_sign:
        raise ConfigError(f"the authority made an authority of {request.name}")
    if days is not None and certificate.not_after_s > now_s + (days + 1) * DAY_S:
        raise ConfigError(f"the certificate of {request.name} ends later than in the {days:g} days that were asked for")


def revoked_in(pem: bytes) -> frozenset[int]:
    """The serial numbers that a list (CRL) names. Raises ConfigError for anything else than one."""
    try:
        return frozenset(revoked.serial_number for revoked in x509.load_pem_x509_crl(pem))
    except UNREADABLE:
        raise ConfigError("expected a list of revoked certificates (CRL) as PEM, got something else") from None


def check_revocations(pem: bytes, authority: Certificate, serials: Collection[int]) -> None:
    """Raises ConfigError unless it is the authority's list, and names all these."""
    try:
        revoked = x509.load_pem_x509_crl(pem)
        signed = revoked.is_signature_valid(authority.public_key)
    except (*UNREADABLE, InvalidSignature):
        raise ConfigError("expected a list of revoked certificates (CRL) as PEM, got something else") from None
    if not signed:
        raise ConfigError("the list of revoked certificates is not signed by the federation's authority")
    missing = [serial for serial in serials if revoked.get_revoked_certificate_by_serial_number(serial) is None]
    if missing:
        raise ConfigError(f"the list of revoked certificates lacks {len(missing)} of those that were asked for")
