"""What signs for this federation: a key in a folder, a program, or a machine that is offline.

What is to be signed offline waits in `unsigned/`, is exported with all revocations, signed there, and comes back in
one file, which is checked against the authority's certificate and the requests before anything of it is used.
"""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coordinator.config import AuthoritySettings
from coordinator.enrolment.folder import REVOCATIONS, Register
from fedward.errors import ConfigError, TransientError
from fedward.files import write_durably
from fedward.identity.authorities import CommandAuthority, check_revocations, check_signed, revoked_in
from fedward.identity.certificates import (
    AUTHORITY_CERTIFICATE,
    AUTHORITY_KEY,
    Authority,
    Certificate,
    FileAuthority,
    Request,
    Role,
    load_certificate,
    parse_certificate,
    parse_request,
)
from fedward.identity.folder import COORDINATOR_CERTIFICATE, coordinator_name

BROKER = "broker"
"""Folder of the keys and certificates that are made for the broker."""

TO_SIGN = "fedward to sign 1"
SIGNED = "fedward signed 1"
MAX_FILE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class OfflineAuthority:
    """An authority on a machine without a network: requests wait here until somebody carries them there."""

    folder: Path
    certificate: Certificate

    def sign(self, request: Request, role: Role, now_s: float, days: float) -> Certificate:  # noqa: ARG002 - signed later
        """Puts the request where `to_sign` finds it, and raises TransientError: the certificate comes later."""
        self.folder.mkdir(exist_ok=True)
        write_durably(
            self._path(request.name, role), json.dumps({"request": request.pem.decode(), "days": days}).encode()
        )
        raise TransientError(
            f"request of {request.name} waits for an offline authority: `fedward coordinator requests --out FILE`, "
            "sign it there, then `fedward coordinator admit --in FILE`"
        )

    def revocations(self, serials: Collection[int], now_s: float) -> bytes:  # noqa: ARG002 - signed later
        """Raises TransientError: they travel with the requests."""
        raise TransientError(
            f"{len(serials)} revocations wait for an offline authority: `fedward coordinator requests --out FILE`, "
            "sign them there, then `fedward coordinator admit --in FILE`"
        )

    def waiting(self) -> Iterator[tuple[Request, Role, float]]:
        """What is not signed yet, with the days that it should last."""
        for role in Role:
            for path in sorted(self.folder.glob(f"{role.value}-*.json")):
                facts = json.loads(path.read_text())
                yield parse_request(facts["request"].encode()), role, float(facts["days"])

    def done(self, name: str, role: Role) -> None:
        """It came back, and is filed."""
        self._path(name, role).unlink(missing_ok=True)

    def _path(self, name: str, role: Role) -> Path:
        return self.folder / f"{role.value}-{name}.json"


def authority_of(settings: AuthoritySettings, folder: Path) -> Authority:
    """What signs, as configured; `folder` is the identity folder. Raises ConfigError where there is none."""
    if settings.folder is not None:
        return at_hand(settings.folder, folder)
    certificate = load_certificate(folder / AUTHORITY_CERTIFICATE)
    if settings.command is not None:
        return CommandAuthority(certificate, tuple(settings.command), settings.timeout_s)
    return offline(folder)


def at_hand(authority: Path, folder: Path) -> Authority:
    """The authority in a folder: with its key, or with its certificate alone where the key is on another machine."""
    if (authority / AUTHORITY_KEY).exists():
        signs: Authority = FileAuthority(authority)
    else:
        signs = OfflineAuthority(folder / "unsigned", load_certificate(authority / AUTHORITY_CERTIFICATE))
    own = folder / AUTHORITY_CERTIFICATE
    if not own.exists():
        own.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_durably(own, signs.certificate.pem)
    if load_certificate(own).fingerprint != signs.certificate.fingerprint:
        raise ConfigError(f"{authority}: another authority than the one of {own}; a federation has one")
    return signs


def offline(folder: Path) -> OfflineAuthority:
    """The waiting room of the identity folder."""
    return OfflineAuthority(folder / "unsigned", load_certificate(folder / AUTHORITY_CERTIFICATE))


def file_certificate(folder: Path, federation: str, certificate: Certificate, role: Role) -> None:
    """Put what was signed where it belongs: the broker's, the coordinator's own, or a site's into the register."""
    if role is Role.BROKER:
        (folder / BROKER).mkdir(exist_ok=True, mode=0o700)
        write_durably(folder / BROKER / AUTHORITY_CERTIFICATE, (folder / AUTHORITY_CERTIFICATE).read_bytes())
        write_durably(folder / BROKER / f"{certificate.name}.crt", certificate.pem)
    elif certificate.name == coordinator_name(federation):
        write_durably(folder / COORDINATOR_CERTIFICATE, certificate.pem)
    else:
        Register(folder).enter(certificate)


def publish_revocations(folder: Path, authority: Authority, now_s: float) -> None:
    """Write `ca.crl` of all that were revoked. Raises what the authority raises; the register holds them anyway."""
    serials = [certificate.serial for certificate in Register(folder).revoked()]
    _file_revocations(folder, authority.revocations(serials, now_s))


def _is_newest(folder: Path, revocations: bytes) -> bool:
    """Files may be carried back in another order than they were signed: no revocation is ever taken back."""
    known = folder / REVOCATIONS
    return not known.exists() or revoked_in(known.read_bytes()) <= revoked_in(revocations)


def _file_revocations(folder: Path, revocations: bytes) -> None:
    """Here, and with what the broker gets, where that is made here."""
    write_durably(folder / REVOCATIONS, revocations)
    if (folder / BROKER).exists():
        write_durably(folder / BROKER / REVOCATIONS, revocations)


def to_sign(waiting: OfflineAuthority, serials: Collection[int]) -> bytes:
    """What the offline machine needs, in one file."""
    requests = [
        {"role": role.value, "days": days, "request": request.pem.decode()} for request, role, days in waiting.waiting()
    ]
    # Serial numbers as text: they have up to 160 bits.
    return json.dumps({"what": TO_SIGN, "requests": requests, "revoked": [str(serial) for serial in serials]}).encode()


def sign_file(authority: Authority, content: bytes, now_s: float) -> tuple[bytes, list[Certificate]]:
    """On the offline machine: `to_sign`'s file -> the file that goes back, and what was signed, to show.

    Raises ConfigError for another file.
    """
    given = _parse(content, TO_SIGN)
    signed, rows = [], []
    try:
        for row in given["requests"]:
            role, request = Role(row["role"]), parse_request(row["request"].encode())
            signed.append(authority.sign(request, role, now_s, float(row["days"])))
            rows.append({"role": role.value, "certificate": signed[-1].pem.decode()})
        serials = [int(serial) for serial in given["revoked"]]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ConfigError("the file is damaged: export it again") from None
    revocations = authority.revocations(serials, now_s).decode()  # also when it is empty: a broker needs the list
    return json.dumps({"what": SIGNED, "certificates": rows, "revocations": revocations}).encode(), signed


def take_signed(folder: Path, federation: str, content: bytes, now_s: float) -> list[Certificate]:
    """File what came back from the offline machine. Raises ConfigError, and files nothing of what is not as asked for.

    A certificate that was filed before, and one whose request is gone, is passed over: the file may be taken twice, and
    a site that was revoked meanwhile does not come back with it. The caller is `changing` the folder.
    """
    given = _parse(content, SIGNED)
    waiting = offline(folder)
    asked = {(request.name, role): (request, days) for request, role, days in waiting.waiting()}
    filed = []
    try:
        answers = [(parse_certificate(row["certificate"].encode()), Role(row["role"])) for row in given["certificates"]]
        revocations = given["revocations"]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ConfigError("the file is damaged: sign it again") from None
    for certificate, role in answers:
        if (certificate.name, role) in asked:
            request, days = asked[certificate.name, role]
            check_signed(certificate, request, waiting.certificate, now_s, days)
    if revocations is not None:
        check_revocations(revocations.encode(), waiting.certificate, ())
        if _is_newest(folder, revocations.encode()):
            _file_revocations(folder, revocations.encode())
    for certificate, role in answers:
        if (certificate.name, role) in asked:
            file_certificate(folder, federation, certificate, role)
            waiting.done(certificate.name, role)
            filed.append(certificate)
    return filed


def _parse(content: bytes, what: str) -> dict[str, Any]:
    try:
        given = json.loads(content[:MAX_FILE_BYTES])
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict) or given.get("what") != what:
        raise ConfigError(f"expected a file of `{what}`, got something else")
    return given
