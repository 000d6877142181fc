"""The coordinator's identity folder as the register of sites: who is enrolled, invited, revoked.

    sites/<site>.crt              the enrolled sites; the key there verifies all that the site says
    issued/<site>-<serial>.crt    every certificate that a site has got: when it is revoked, all of them are
    revoked/<site>-<serial>.crt   certificates that do not count any more
    revoked/<site>.json           when and why, for people
    invitations/<site>.json       one site's token and what came of it; of the secret only what follows from it
    ca.crl                        the authority's list of revoked certificates

Commands of the operator and the running coordinator work here at once. Each change is made under `changing`, each
file is whole or not there, and each order of writes is such that the same command, run again, ends it.
"""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from coordinator.enrolment.rules import Invitation, Stage
from fedward.errors import ConfigError, IntegrityError
from fedward.files import move_durably, sync_folder, write_durably
from fedward.identity.certificates import Certificate, load_certificate
from fedward.identity.folder import REGISTER
from fedward.identity.keys import PRIVATE
from fedward.identity.token import TokenKeys

REVOCATIONS = "ca.crl"
ISSUED, REVOKED = "issued", "revoked"
"""Beside REGISTER."""


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """One process at a time changes the folder; waits for its turn, which comes within the time of a signature."""
    with (folder / ".changing").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Register:
    """The enrolled sites, their certificates, and those that were revoked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sites = folder / REGISTER
        self._issued = folder / ISSUED
        self._revoked = folder / REVOKED
        for room in (self._sites, self._issued, self._revoked):
            room.mkdir(parents=True, exist_ok=True)

    def sites(self) -> dict[str, Certificate]:
        """The enrolled sites; who has no certificate that can be read is none."""
        found = {path.stem: _certificate(path) for path in sorted(self._sites.glob("*.crt"))}
        return {site: certificate for site, certificate in found.items() if certificate is not None}

    def stamp(self) -> tuple[int, int]:
        """Another one after each change."""
        return self._sites.stat().st_mtime_ns, self._revoked.stat().st_mtime_ns

    def certificate(self, site: str) -> Certificate | None:
        """The site's newest one; None where it is not enrolled."""
        return _certificate(self._sites / f"{site}.crt")

    def knows(self, site: str) -> bool:
        """Whether the site has ever been enrolled."""
        certificates = (self._sites, self._issued, self._revoked)
        return any(load_certificate(path).name == site for room in certificates for path in room.glob(f"{site}*.crt"))

    def enter(self, certificate: Certificate) -> None:
        """The site is enrolled with this certificate when this returns."""
        before = self.certificate(certificate.name)
        for one in (before, certificate):  # the one before still holds: it is revoked together with this one
            if one is not None:
                write_durably(self._issued / f"{one.name}-{one.serial:x}.crt", one.pem)
        write_durably(self._sites / f"{certificate.name}.crt", certificate.pem)

    def revoke(self, site: str, reason: str, now_s: float) -> int:
        """The site is not enrolled any more, which takes effect first; the number of certificates that were revoked."""
        current, gone = self._sites / f"{site}.crt", []
        if current.exists():
            certificate = load_certificate(current)
            move_durably(current, self._revoked / f"{site}-{certificate.serial:x}.crt")
            sync_folder(self._sites)
            gone.append(certificate)
        record = {"site": site, "reason": reason, "at_s": now_s}
        write_durably(self._revoked / f"{site}.json", json.dumps(record).encode())
        for path in sorted(self._issued.glob(f"{site}-*.crt")):
            certificate = load_certificate(path)
            if certificate.name == site:  # `st-anna-1` begins like `st-anna`
                move_durably(path, self._revoked / path.name)
                gone.append(certificate)
        return len({certificate.serial for certificate in gone})

    def revoked(self) -> list[Certificate]:
        """All that were revoked and would still hold."""
        return [load_certificate(path) for path in sorted(self._revoked.glob("*.crt"))]


class Invitations:
    """One file a site; a new invitation ends the one before."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "invitations"
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def stamp(self) -> int:
        """Another one after each change."""
        return self._folder.stat().st_mtime_ns

    def all(self) -> list[Invitation]:
        """By the names of the sites. Raises IntegrityError for a file that is not as it was written."""
        found = (_invitation(path) for path in sorted(self._folder.glob("*.json")))
        return [invitation for invitation in found if invitation is not None]

    def of(self, site: str) -> Invitation | None:
        """The site's newest one. Raises as `all` does."""
        return _invitation(self._folder / f"{site}.json")

    def asked(self, site: str) -> Invitation:
        """The site's invitation. Raises ConfigError where there is none."""
        invitation = self.of(site)
        if invitation is None:
            raise ConfigError(f"site {site} is not invited; `fedward coordinator invite {site}` makes a token")
        return invitation

    def save(self, invitation: Invitation) -> None:
        facts = asdict(invitation)
        facts["request"] = invitation.request.decode("ascii")
        facts["keys"]["mac_key"] = invitation.keys.mac_key.hex()
        write_durably(self._folder / f"{invitation.site}.json", json.dumps(facts).encode(), PRIVATE)

    def end(self, site: str) -> None:
        """The token serves nobody any more."""
        (self._folder / f"{site}.json").unlink(missing_ok=True)
        sync_folder(self._folder)


def _certificate(path: Path) -> Certificate | None:
    """None for one that is not there: it may be revoked between two looks."""
    try:
        return load_certificate(path)
    except ConfigError:
        return None


def _invitation(path: Path) -> Invitation | None:
    """None for one that is not there: it may be ended between two looks."""
    try:
        facts: dict[str, Any] = json.loads(path.read_text())
        facts["keys"]["mac_key"] = bytes.fromhex(facts["keys"]["mac_key"])
        keys = TokenKeys(**facts.pop("keys"))
        request = facts.pop("request").encode()
        return Invitation(keys=keys, request=request, stage=Stage(facts.pop("stage")), **facts)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # its text could quote the file
        raise IntegrityError(
            f"{path}: not an invitation as it was written; delete it and invite the site again"
        ) from None
