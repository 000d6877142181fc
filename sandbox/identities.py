"""The keys and certificates of a federation on one machine, as enrolment would leave them at each party."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from fedward.identity.certificates import AUTHORITY_CERTIFICATE, FileAuthority, Role, make_request, parse_request
from fedward.identity.folder import (
    COORDINATOR_CERTIFICATE,
    COORDINATOR_KEY,
    REGISTER,
    SEALING_KEY,
    coordinator_name,
)
from fedward.identity.keys import make_sealing_key, make_signing_key

DAYS = 30.0


def make_identities(folder: Path, federation: str, sites: Sequence[str], now_s: float) -> None:
    """A folder for `coordinator` and for each site, and the authority's beside them; what is there stays.

    Each folder has what its party may know, and no key of another.
    """
    authority_folder, coordinator = folder / "authority", folder / "coordinator"
    if not (authority_folder / AUTHORITY_CERTIFICATE).exists():
        FileAuthority.make(authority_folder, f"{federation} authority", now_s)
    authority = FileAuthority(authority_folder)
    if not (coordinator / SEALING_KEY).exists():
        _certify(authority, coordinator / COORDINATOR_KEY, coordinator_name(federation), now_s)
        make_sealing_key(coordinator / SEALING_KEY)
    (coordinator / REGISTER).mkdir(exist_ok=True)
    for site in sites:
        own = folder / site
        if not (own / COORDINATOR_CERTIFICATE).exists():
            _certify(authority, own / f"{site}.key", site, now_s)
            shutil.copy(own / f"{site}.crt", coordinator / REGISTER)
            shutil.copy(coordinator / COORDINATOR_CERTIFICATE, own)


def _certify(authority: FileAuthority, key: Path, name: str, now_s: float) -> None:
    """Make a key, and put its certificate and the authority's beside it."""
    request = parse_request(make_request(make_signing_key(key), name))
    certificate = authority.sign(request, Role.CLIENT, now_s, DAYS)
    key.with_suffix(".crt").write_bytes(certificate.pem)
    (key.parent / AUTHORITY_CERTIFICATE).write_bytes(authority.certificate.pem)
