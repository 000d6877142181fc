"""TLS with the broker: each side shows a certificate of the federation's authority, and no other authority counts.

Only who enrols has none to show yet.
"""

import logging
import socket
import ssl
from collections.abc import Callable
from enum import Enum
from pathlib import Path

from fedward.dial import STEP_S, Obstacle, UnreachableError
from fedward.errors import ConfigError
from fedward.identity.description import describe_certificate
from fedward.identity.keys import check_private
from fedward.settings import TlsSettings, TrustSettings

log = logging.getLogger(__name__)

# OpenSSL's codes of a certificate that does not verify (x509_vfy.h).
ISSUER_UNKNOWN = {2, 18, 19, 20, 21}
DATES = {9, 10}
HOST_NAME = {62, 64}

REFUSALS = ("ALERT_BAD_CERTIFICATE", "ALERT_UNSUPPORTED_CERTIFICATE", "ALERT_CERTIFICATE", "ALERT_UNKNOWN_CA",
            "ALERT_HANDSHAKE_FAILURE", "ALERT_ACCESS_DENIED", "ALERT_DECRYPT_ERROR")  # fmt: skip
"""In the reasons of OpenSSL's errors: what a broker says to a certificate that it does not take, or misses."""

VERSIONS = ("PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL")
NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")

MAX_ISSUER = 200
"""Characters of an issuer's name in the log: whoever is in the way has chosen it."""

Stamp = tuple[tuple[int, int, int] | None, ...]


class Renewing:
    """A context of files that are looked at whenever it is asked for: what was renewed is used from then on."""

    def __init__(self, files: TrustSettings, make: Callable[[], ssl.SSLContext]) -> None:
        """`make` reads the files. Raises ConfigError for unusable ones."""
        self._files = files
        self._make = make
        self._seen = _stamp(files)
        self._context = make()

    def context(self) -> ssl.SSLContext:
        """Of the files as they are now. What can't be used, half-written perhaps, changes nothing."""
        stamp = _stamp(self._files)
        if stamp != self._seen:
            self._seen = stamp
            try:
                self._context = self._make()
            except ConfigError as error:
                log.warning("tls_files_unusable", extra={"problem": str(error), "advice": "those read before are used"})
            else:
                log.info("tls_files_read")
        return self._context


class Tls:
    """This side's end. The files are looked at before each connection: what was renewed is used from then on."""

    def __init__(self, host: str, files: TrustSettings) -> None:
        """`host` is the name that the broker's certificate must be for. Raises ConfigError for unusable files."""
        self._host = host
        self._renewing = Renewing(files, lambda: make_context(files))

    def secure(self, connect: Callable[[], socket.socket]) -> ssl.SSLSocket:
        """A connection that `connect` makes, with TLS of version 1.2 or newer and the broker's certificate verified.

        Raises UnreachableError, also what `connect` raises.
        """
        context = self._renewing.context()
        try:
            return self._shake_hands(connect(), context)
        except ssl.SSLCertVerificationError as error:
            raise self._distrust(error, connect) from error
        except ssl.SSLError as error:
            raise failure_of(error) from error
        except TimeoutError as error:
            raise UnreachableError(Obstacle.NOT_TLS, f"no answer within {STEP_S:g} s") from error
        except UnreachableError:
            raise
        except (OSError, ValueError) as error:  # ValueError: a host name that TLS can't name
            raise UnreachableError(Obstacle.HUNG_UP, "in the TLS handshake") from error

    def _shake_hands(self, connection: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
        with connection:  # closed on a failure; a socket that was wrapped lives on in its wrapper
            secured = context.wrap_socket(connection, server_hostname=self._host, do_handshake_on_connect=False)
        try:
            secured.do_handshake()
        except BaseException:
            secured.close()
            raise
        return secured

    def _distrust(self, error: ssl.SSLCertVerificationError, connect: Callable[[], socket.socket]) -> UnreachableError:
        if error.verify_code in ISSUER_UNKNOWN:
            return UnreachableError(Obstacle.ISSUER_UNKNOWN, self._issuer(connect))
        if error.verify_code in HOST_NAME:
            return UnreachableError(Obstacle.HOST_NAME, error.verify_message)
        if error.verify_code in DATES:
            return UnreachableError(Obstacle.BROKER_EXPIRED, error.verify_message)
        return UnreachableError(Obstacle.NOT_VERIFIED, error.verify_message)

    def _issuer(self, connect: Callable[[], socket.socket]) -> str:
        """Who has signed the certificate that does not verify: OpenSSL does not say, so it is fetched once more.

        That connection trusts anyone, shows no certificate, says nothing and is closed.
        """
        anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anyone.check_hostname = False
        anyone.verify_mode = ssl.CERT_NONE
        try:
            with self._shake_hands(connect(), anyone) as secured:
                encoded = secured.getpeercert(binary_form=True)
        except OSError:
            encoded = None
        facts = describe_certificate(encoded) if encoded else None
        return f"issued by {facts.issuer[:MAX_ISSUER]}" if facts else "its issuer could not be read"


def make_context(files: TrustSettings) -> ssl.SSLContext:
    """Raises ConfigError for files that are missing, can be read by others, or don't belong together."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies the other side and its host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    _load_authority(context, files)
    if isinstance(files, TlsSettings):
        _load_own(context, files)
    return context


class Callers(Enum):
    """Whether those who connect to a server show a certificate of its authority."""

    NAMED = ssl.CERT_REQUIRED  # all of them
    MAY_BE_NAMED = ssl.CERT_OPTIONAL  # those who have one
    UNNAMED = ssl.CERT_NONE  # it is not asked for


def make_server_context(files: TlsSettings, callers: Callers) -> ssl.SSLContext:
    """For a server, with TLS of version 1.2 or newer. Raises ConfigError as `make_context` does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = callers.value
    _load_authority(context, files)
    _load_own(context, files)
    return context


def _load_authority(context: ssl.SSLContext, files: TrustSettings) -> None:
    try:
        context.load_verify_locations(files.ca_file)
    except OSError as error:
        raise ConfigError(
            f"TLS: authority's certificate {files.ca_file}: {_problem(error, 'expected a certificate as PEM')}"
        ) from None


def _load_own(context: ssl.SSLContext, files: TlsSettings) -> None:
    check_private(files.key_file)
    try:
        context.load_cert_chain(files.certificate_file, files.key_file, password="")  # never asks on the terminal
    except OSError as error:
        problem = _problem(error, "expected a certificate as PEM and the private key that belongs to it")
        raise ConfigError(f"TLS: certificate {files.certificate_file} and key {files.key_file}: {problem}") from None


def failure_of(error: ssl.SSLError) -> UnreachableError:
    """What is in the way, by an error of OpenSSL; with TLS 1.3 a refused certificate shows only at the first read."""
    reason = error.reason or ""
    if any(refusal in reason for refusal in REFUSALS):
        return UnreachableError(Obstacle.CERTIFICATE_REFUSED, reason)
    if any(version in reason for version in VERSIONS):
        return UnreachableError(Obstacle.TLS_VERSION, reason)
    if any(other in reason for other in NO_TLS):
        return UnreachableError(Obstacle.NOT_TLS, reason)
    return UnreachableError(Obstacle.HUNG_UP, reason)


def _problem(error: OSError, expected: str) -> str:
    if isinstance(error, ssl.SSLError) or error.strerror is None:
        return f"{expected} ({getattr(error, 'reason', None) or 'unreadable'})"
    return error.strerror


def _stamp(files: TrustSettings) -> Stamp:
    """Differs when one of the files was written or replaced."""
    own = (files.certificate_file, files.key_file) if isinstance(files, TlsSettings) else ()
    return tuple(_stamp_of(path) for path in (files.ca_file, *own))


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
