"""Renewal: a new certificate for the same key, asked for while a third of the life of the old one is left.

No restart: the link takes the new file at its next connection.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_agent.config import SiteConfig
from fedward import topics
from fedward.errors import ConfigError, PeerError, RejectReason
from fedward.files import write_durably
from fedward.identity.authorities import check_signed
from fedward.identity.certificates import (
    AUTHORITY_CERTIFICATE,
    RENEW_BELOW,
    Certificate,
    life_left,
    load_certificate,
    make_request,
    parse_certificate,
    parse_request,
)
from fedward.identity.keys import load_signing_key
from fedward.messages import Renewal, Renewed
from fedward.ports import Link
from fedward.topics import Up

LOG = logging.getLogger(__name__)

ASK_AGAIN_S = 3600.0
"""Between two requests: the coordinator's authority may be offline, and people sign there."""

EXPIRY_S = 600


@dataclass(frozen=True)
class _Files:
    key: Path
    certificate: Path
    authority: Path


class Renewer:
    """Keeps this site's certificate from ending; without an identity it does nothing."""

    def __init__(self, link: Link, config: SiteConfig, pack: Callable[[object], bytes]) -> None:
        """Raises ConfigError for a certificate that can't be read."""
        self._link = link
        self._pack = pack
        self._site = config.site
        self._topic = topics.up(config.federation, config.site, Up.RENEWAL)
        self._files: _Files | None = None
        self._known: Certificate | None = None
        self._ask_at_s = 0.0
        if config.identity is not None:
            folder, name = config.identity.folder, config.site
            self._files = _Files(folder / f"{name}.key", folder / f"{name}.crt", folder / AUTHORITY_CERTIFICATE)
            self._known = load_certificate(self._files.certificate)

    @property
    def expires_s(self) -> float | None:
        """When the certificate ends, wall clock."""
        return self._known.not_after_s if self._known else None

    def step(self, now_s: float, wall_s: float) -> None:
        """Ask, if it is time: `now_s` is monotonic, `wall_s` is what certificates go by."""
        if self._files is None or self._known is None or now_s < self._ask_at_s:
            return
        if life_left(self._known, wall_s) >= RENEW_BELOW:
            return
        request = make_request(load_signing_key(self._files.key), self._site)
        if self._link.publish(self._topic, self._pack(Renewal(request=request)), expiry_s=EXPIRY_S):
            self._ask_at_s = now_s + ASK_AGAIN_S

    def take(self, renewed: Renewed, wall_s: float) -> bool:
        """Keep a certificate that is for this key and ends later than the one here; whether it was one.

        Raises PeerError (BAD_SIGNATURE) for one that the authority has not signed for this site's key.
        """
        if self._files is None or self._known is None:
            return False
        try:
            certificate = parse_certificate(renewed.certificate)
            request = parse_request(make_request(load_signing_key(self._files.key), self._site))
            check_signed(certificate, request, load_certificate(self._files.authority), wall_s)
        except ConfigError as error:
            raise PeerError(RejectReason.BAD_SIGNATURE, f"a renewed certificate: {error}") from None
        if certificate.not_after_s <= self._known.not_after_s:
            return False  # came twice
        write_durably(self._files.certificate, certificate.pem)
        self._known = certificate
        LOG.info("certificate_renewed", extra={"ends_at_s": certificate.not_after_s})
        return True
