"""What any certificate says of itself, whoever made it: to name who opens a connection that should be private."""

from dataclasses import dataclass

from cryptography import x509

from fedward.identity.certificates import UNREADABLE


@dataclass(frozen=True)
class CertificateFacts:
    """A certificate as it describes itself. Times are seconds since 1970, UTC."""

    subject: str
    issuer: str
    not_before_s: float
    not_after_s: float
    hosts: tuple[str, ...] = ()


def describe_certificate(encoded: bytes) -> CertificateFacts | None:
    """Facts of a certificate (DER or PEM), of any key and issuer, unverified. None for anything else."""
    try:
        if encoded.lstrip().startswith(b"-----BEGIN"):
            certificate = x509.load_pem_x509_certificate(encoded)
        else:
            certificate = x509.load_der_x509_certificate(encoded)
        return CertificateFacts(
            subject=certificate.subject.rfc4514_string(),
            issuer=certificate.issuer.rfc4514_string(),
            not_before_s=certificate.not_valid_before_utc.timestamp(),
            not_after_s=certificate.not_valid_after_utc.timestamp(),
            hosts=_hosts(certificate),
        )
    except UNREADABLE:
        return None


def _hosts(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    dns = names.get_values_for_type(x509.DNSName)
    return (*dns, *(str(address) for address in names.get_values_for_type(x509.IPAddress)))
