"""Certificates: who a key belongs to, in the word of the federation's authority (X.509, P-256).

The common name is the party's name. One key serves a party for TLS and for its signatures; a renewed certificate is
for the same key. Times are seconds since 1970, UTC.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedward.errors import ConfigError
from fedward.files import write_durably
from fedward.identity.keys import load_signing_key, make_signing_key

DAY_S = 86_400.0

BACKDATED_S = DAY_S
"""A certificate begins this long before it is made: a clock that is hours slow must not keep a site out."""

UNREADABLE = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What the library raises while it reads what anybody may have sent: some of it only when a field is asked for."""

RENEW_BELOW = 1 / 3
"""Share of a certificate's life that is left when its owner asks for a new one."""

AUTHORITY_DAYS = 3650
AUTHORITY_KEY = "ca.key"
AUTHORITY_CERTIFICATE = "ca.crt"


class Role(Enum):
    """What a certificate is for."""

    CLIENT = "client"  # a site or a coordinator: connects to the broker
    BROKER = "broker"  # is connected to, under its host name


@dataclass(frozen=True)
class Certificate:
    """A certificate, read."""

    name: str
    serial: int
    not_before_s: float
    not_after_s: float
    fingerprint: str
    public_key: EllipticCurvePublicKey = field(repr=False)
    pem: bytes = field(repr=False)


@dataclass(frozen=True)
class Request:
    """A request for a certificate (PKCS #10), read; whoever made it holds the private key."""

    name: str
    fingerprint: str
    public_key: EllipticCurvePublicKey = field(repr=False)
    pem: bytes = field(repr=False)


class Authority(Protocol):
    """What signs certificates: a key in a file, on another machine, or in a key service."""

    @property
    def certificate(self) -> Certificate:
        """Its own, which every party trusts."""

    def sign(self, request: Request, role: Role, now_s: float, days: float) -> Certificate:
        """A certificate for the request's key and name, which ends `days` after now."""

    def revocations(self, serials: Collection[int], now_s: float) -> bytes:
        """The list of revoked certificates (CRL) as PEM."""


class FileAuthority:
    """An authority whose key is a file: `ca.key` and `ca.crt` in one folder."""

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError where there is none."""
        self._key = load_signing_key(folder / AUTHORITY_KEY)
        self.certificate = load_certificate(folder / AUTHORITY_CERTIFICATE)

    @classmethod
    def make(cls, folder: Path, name: str, now_s: float) -> "FileAuthority":
        """A new authority. Raises ConfigError where there is one already."""
        key = make_signing_key(folder / AUTHORITY_KEY)
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        builder = _builder(_named(name), _named(name), key.public_key(), now_s, AUTHORITY_DAYS)
        signed = (
            builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(key, hashes.SHA256())
        )
        write_durably(folder / AUTHORITY_CERTIFICATE, signed.public_bytes(serialization.Encoding.PEM))
        return cls(folder)

    def sign(self, request: Request, role: Role, now_s: float, days: float) -> Certificate:
        """As the port promises."""
        issuer = x509.load_pem_x509_certificate(self.certificate.pem)
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if role is Role.BROKER else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            _builder(issuer.subject, _named(request.name), request.public_key, now_s, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.certificate.public_key), critical=False
            )
        )
        if role is Role.BROKER:
            builder = builder.add_extension(x509.SubjectAlternativeName([_host(request.name)]), critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        return parse_certificate(signed.public_bytes(serialization.Encoding.PEM))

    def revocations(self, serials: Collection[int], now_s: float) -> bytes:
        """As the port promises. The list never ends: a broker must not lock everybody out when nobody renews it."""
        now = _time(now_s)
        builder = x509.CertificateRevocationListBuilder(
            issuer_name=x509.load_pem_x509_certificate(self.certificate.pem).subject,
            last_update=now - timedelta(seconds=BACKDATED_S),
            next_update=now + timedelta(days=AUTHORITY_DAYS),
        )
        for serial in sorted(serials):
            revoked = x509.RevokedCertificateBuilder(serial, now - timedelta(seconds=BACKDATED_S)).build()
            builder = builder.add_revoked_certificate(revoked)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def make_request(key: EllipticCurvePrivateKey, name: str) -> bytes:
    """A request for a certificate of this key under this name, as PEM."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_named(name))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def parse_request(pem: bytes) -> Request:
    """Raises ConfigError for anything but a request that its own P-256 key has signed."""
    try:
        request = x509.load_pem_x509_csr(pem)
        key, name, signed = request.public_key(), _name_of(request.subject), request.is_signature_valid
    except UNREADABLE:
        raise ConfigError("expected a certificate request as PEM, got something else") from None
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise ConfigError("the certificate request is not for a P-256 key")
    if not signed:
        raise ConfigError("the certificate request is not signed by the key that it is for")
    return Request(name, fingerprint(key), key, pem)


def parse_certificate(pem: bytes) -> Certificate:
    """Raises ConfigError for anything but one certificate of a P-256 key."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        key, name, serial = certificate.public_key(), _name_of(certificate.subject), certificate.serial_number
        begins_s = certificate.not_valid_before_utc.timestamp()
        ends_s = certificate.not_valid_after_utc.timestamp()
    except UNREADABLE:
        raise ConfigError("expected a certificate as PEM, got something else") from None
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise ConfigError("the certificate is not of a P-256 key")
    return Certificate(
        name=name,
        serial=serial,
        not_before_s=begins_s,
        not_after_s=ends_s,
        fingerprint=fingerprint(key),
        public_key=key,
        pem=pem,
    )


def load_certificate(path: Path) -> Certificate:
    """Raises ConfigError for a file that is missing or holds no certificate of a P-256 key."""
    try:
        return parse_certificate(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"certificate file {path}: {error.strerror}") from None
    except ConfigError as error:
        raise ConfigError(f"certificate file {path}: {error}") from None


def check_certificate(certificate: Certificate, authority: Certificate, name: str, now_s: float) -> None:
    """Raises ConfigError unless the authority has signed it, for this name, and it holds now."""
    issuer = x509.load_pem_x509_certificate(authority.pem)
    try:
        x509.load_pem_x509_certificate(certificate.pem).verify_directly_issued_by(issuer)
    except (*UNREADABLE, InvalidSignature):
        raise ConfigError(
            f"the certificate of {certificate.name} is not signed by the federation's authority"
        ) from None
    if certificate.name != name:
        raise ConfigError(f"the certificate is for {certificate.name}, expected one for {name}")
    if not certificate.not_before_s <= now_s <= certificate.not_after_s:
        begins, ends = _time(certificate.not_before_s), _time(certificate.not_after_s)
        raise ConfigError(
            f"the certificate of {name} holds from {begins:%Y-%m-%d %H:%M} to {ends:%Y-%m-%d %H:%M} UTC, and it is "
            f"{_time(now_s):%Y-%m-%d %H:%M}: check this machine's clock, or renew it"
        )


def life_left(certificate: Certificate, now_s: float) -> float:
    """Share of its life that a certificate has before it; negative after its end."""
    return (certificate.not_after_s - now_s) / (certificate.not_after_s - certificate.not_before_s)


def fingerprint(key: EllipticCurvePublicKey) -> str:
    """Of a public key, for people to compare: SHA-256 of its SubjectPublicKeyInfo, as 16 groups of 4 digits."""
    encoded = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(encoded)
    text = digest.finalize().hex()
    return "-".join(text[start : start + 4] for start in range(0, len(text), 4))


def _builder(
    issuer: x509.Name, subject: x509.Name, key: EllipticCurvePublicKey, now_s: float, days: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_time(now_s - BACKDATED_S))
        .not_valid_after(_time(now_s + days * DAY_S))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _name_of(subject: x509.Name) -> str:
    """The common name. Raises ConfigError unless it is all that there is: brokers disagree about the rest."""
    names = [str(attribute.value) for attribute in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if len(names) != 1 or len(list(subject)) != 1:
        raise ConfigError("expected a subject of one common name and nothing else")
    return names[0]


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
