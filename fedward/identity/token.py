"""The one-time token of an invitation: what lets a site and a coordinator that never met recognise each other.

It carries a secret, from which both derive a key for the MACs of enrolment (HMAC-SHA256), and the password of the
enrolment user at the broker (HKDF-SHA256, RFC 5869). A broker that learns the password learns nothing of the key, so
it can't put a certificate request of its own in the place of the site's.
"""

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedward.errors import ConfigError, PeerError, RejectReason
from fedward.identity.certificates import Certificate, parse_certificate
from fedward.messages import Enrolled, Enrolment
from fedward.pack import NAME

PREFIX = "fedward1-"
"""Tells a token from other secrets, and the form of this release from later ones."""

MAX_TOKEN = 8192
"""Characters of a token that is looked at; ours have about 1200."""

SECRET_BYTES = 32
ID_BYTES = 16
CHECKSUM_BYTES = 4
USER_PREFIX = "enrol-"
"""Of the enrolment user at the broker; no site may have such a name."""


@dataclass(frozen=True, kw_only=True)
class Token:
    """An invitation, as the site gets it. Whoever holds it may ask for the site's certificate, once."""

    federation: str
    site: str
    token_id: str  # hexadecimal: a level of the topics of enrolment
    host: str
    port: int
    authority: Certificate  # of the federation: what the broker's certificate is checked with
    coordinator: str  # the fingerprint of its key
    secret: bytes = field(repr=False)

    @property
    def user(self) -> str:
        """The enrolment user at the broker, and its client id there."""
        return user_of(self.token_id)

    @property
    def keys(self) -> "TokenKeys":
        """What both sides derive from the secret."""
        return TokenKeys.derive(self.secret, self.federation, self.site, self.token_id)


@dataclass(frozen=True)
class TokenKeys:
    """What follows from a token's secret, and can't be turned back into it. The coordinator keeps these alone."""

    federation: str
    site: str
    token_id: str
    password: str = field(repr=False)
    mac_key: bytes = field(repr=False)

    @property
    def user(self) -> str:
        """The enrolment user at the broker, and its client id there."""
        return user_of(self.token_id)

    @classmethod
    def derive(cls, secret: bytes, federation: str, site: str, token_id: str) -> "TokenKeys":
        """The same on both sides."""
        password = _derived(secret, token_id, b"fedward enrolment password")
        mac_key = _derived(secret, token_id, b"fedward enrolment mac")
        return cls(federation, site, token_id, urlsafe_b64encode(password).decode().rstrip("="), mac_key)

    def request_mac(self, request: bytes) -> bytes:
        """Of a certificate request, as PEM."""
        return self._mac(b"fedward enrolment request", request)

    def check_request(self, message: Enrolment) -> None:
        """Raises PeerError (BAD_SIGNATURE) unless the token's holder has made exactly this request."""
        if not hmac.compare_digest(self.request_mac(message.request), message.mac):
            raise PeerError(
                RejectReason.BAD_SIGNATURE, "an enrolment that the token's holder has not made as it stands"
            )

    def answer_mac(self, fingerprint: str, answer: Enrolled) -> bytes:
        """Of an answer to the holder of the key with this fingerprint."""
        parts = (answer.certificate, answer.authority, answer.coordinator)
        fields = (part if part is not None else b"" for part in parts)
        return self._mac(b"fedward enrolment answer", fingerprint.encode(), answer.outcome.encode(), *fields)

    def check_answer(self, fingerprint: str, answer: Enrolled) -> None:
        """Raises PeerError (BAD_SIGNATURE) unless the coordinator has given exactly this answer to this key."""
        if not hmac.compare_digest(self.answer_mac(fingerprint, answer), answer.mac):
            raise PeerError(RejectReason.BAD_SIGNATURE, "an answer that the coordinator has not given as it stands")

    def _mac(self, purpose: bytes, *fields: bytes) -> bytes:
        names = (self.federation.encode(), self.site.encode(), self.token_id.encode())
        return hmac.new(self.mac_key, _joined(purpose, *names, *fields), hashlib.sha256).digest()


def user_of(token_id: str) -> str:
    """The user of a token's holder at the broker."""
    return f"{USER_PREFIX}{token_id}"


def new_token_id() -> str:
    """Random, and no secret: it stands in topics."""
    return secrets.token_hex(ID_BYTES)


def new_secret() -> bytes:
    """256 random bits."""
    return secrets.token_bytes(SECRET_BYTES)


def write_token(token: Token) -> str:
    """One line that can be copied."""
    fields = (
        token.federation.encode(),
        token.site.encode(),
        bytes.fromhex(token.token_id),
        token.host.encode(),
        str(token.port).encode(),
        token.authority.pem,
        token.coordinator.encode(),
        token.secret,
    )
    content = _joined(*fields)
    return PREFIX + urlsafe_b64encode(content + _checksum(content)).decode().rstrip("=")


def read_token(text: str) -> Token:
    """Raises ConfigError for anything but a whole token; white space, as e-mail adds it, does not matter."""
    text = "".join(text[:MAX_TOKEN].split())
    if not text.startswith(PREFIX):
        raise ConfigError(f"expected a token, which begins with {PREFIX}; copy the whole line")
    encoded = text.removeprefix(PREFIX)
    try:
        raw = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    except ValueError:
        raw = b""
    content, checksum = raw[:-CHECKSUM_BYTES], raw[-CHECKSUM_BYTES:]
    if not content or not hmac.compare_digest(_checksum(content), checksum):
        raise ConfigError("the token has a typing error or is cut off; copy the whole line")
    try:
        return _token_of(_split(content))
    except (ValueError, ConfigError):  # its text would quote the secret
        raise ConfigError("the token is not one of this release; ask for another one") from None


def _token_of(fields: list[bytes]) -> Token:
    federation, site, token_id, host, port, authority, coordinator, secret = fields
    token = Token(
        federation=federation.decode(),
        site=site.decode(),
        token_id=token_id.hex(),
        host=host.decode(),
        port=int(port),
        authority=parse_certificate(authority),
        coordinator=coordinator.decode(),
        secret=secret,
    )
    if not (NAME.fullmatch(token.federation) and NAME.fullmatch(token.site) and 0 < token.port < 2**16):
        raise ValueError("names or port")
    if len(token_id) != ID_BYTES or len(secret) != SECRET_BYTES:
        raise ValueError("lengths")
    return token


def _derived(secret: bytes, token_id: str, purpose: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=token_id.encode(), info=purpose).derive(secret)


def _joined(*fields: bytes) -> bytes:
    """Each field with its length before it, so that no two lists of fields look alike."""
    return b"".join(len(field).to_bytes(4, "little") + field for field in fields)


def _split(content: bytes) -> list[bytes]:
    """The fields of `_joined`. Raises ValueError for anything else."""
    fields = []
    while content:
        size = int.from_bytes(content[:4], "little")
        if len(content) < 4 + size:
            raise ValueError("a field is cut off")
        fields.append(content[4 : 4 + size])
        content = content[4 + size :]
    return fields


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:CHECKSUM_BYTES]
