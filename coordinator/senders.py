"""Who has sent a message: the register of the enrolled sites' keys, and the numbers that they have used.

A signature shows whose a message is, and the number that it is new: one that comes again, or late, changes nothing.
"""

from pathlib import Path

from coordinator.ledger import Ledger
from fedward.errors import ConfigError, PeerError, RejectReason
from fedward.identity.certificates import Certificate, check_certificate, load_certificate
from fedward.identity.folder import CoordinatorIdentity
from fedward.identity.signing import COORDINATOR, checker
from fedward.pack import Envelope
from fedward.ports import Clock

REPEATABLE = "status"
"""Retained by the broker, which sends it again with every subscription: all statuses of a process have one number."""


class Senders:
    """Lets pass what an enrolled site has signed, once."""

    def __init__(self, identity: CoordinatorIdentity, federation: str, ledger: Ledger, clock: Clock) -> None:
        self._identity = identity
        self._federation = federation
        self._ledger = ledger
        self._clock = clock
        self._used = ledger.counters()
        self._unsaved: set[tuple[str, str]] = set()
        self._read: dict[str, tuple[tuple[int, int], Certificate]] = {}

    def check(self, site: str, envelope: Envelope) -> None:
        """Raises PeerError: UNKNOWN_SITE for one that is not enrolled (any more), BAD_SIGNATURE, REPLAYED."""
        key = self._certificate(site).public_key
        checker(key, self._federation, site, COORDINATOR)(envelope)
        known = (site, envelope.kind)
        if envelope.counter < self._used.get(known, -1) + (envelope.kind != REPEATABLE):
            raise PeerError(RejectReason.REPLAYED, f"a {envelope.kind} whose number was used before")
        self._used[known] = envelope.counter
        self._unsaved.add(known)

    def save(self) -> None:
        """Make the used numbers survive this process, before the broker is told to forget their messages."""
        if self._unsaved:
            self._ledger.save_counters({known: self._used[known] for known in self._unsaved})
            self._unsaved.clear()

    def _certificate(self, site: str) -> Certificate:
        """As it is in the register now, checked when its file is new, and its end each time."""
        path = self._identity.register / f"{site}.crt"
        try:
            facts = path.stat()
            stamp = (facts.st_mtime_ns, facts.st_ino)
            if site not in self._read or self._read[site][0] != stamp:
                self._read[site] = (stamp, self._checked(path, site))
            certificate = self._read[site][1]
        except FileNotFoundError:
            raise PeerError(RejectReason.UNKNOWN_SITE, f"{site} is not enrolled") from None
        except ConfigError as error:
            raise PeerError(RejectReason.UNKNOWN_SITE, f"the register's certificate of {site}: {error}") from None
        if self._clock.now_s() > certificate.not_after_s:
            raise PeerError(RejectReason.UNKNOWN_SITE, f"the certificate of {site} has ended, and was not renewed")
        return certificate

    def _checked(self, path: Path, site: str) -> Certificate:
        certificate = load_certificate(path)
        check_certificate(certificate, self._identity.authority, site, self._clock.now_s())
        if self._ledger.begin_counters(site, certificate.fingerprint):
            # A thief may have used up all numbers: who is enrolled anew begins anew.
            self._used = {known: number for known, number in self._used.items() if known[0] != site}
            self._unsaved = {known for known in self._unsaved if known[0] != site}
        return certificate
