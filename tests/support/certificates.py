"""Authorities and the files of those whom they vouch for, made by the product's own signer."""

import time
from pathlib import Path

from fedward.doctor.facts import TlsFiles
from fedward.identity.certificates import AUTHORITY_CERTIFICATE, FileAuthority, Role, make_request, parse_request
from fedward.identity.keys import make_signing_key

DAY_S = 86_400.0


class Vouching:
    """An authority in a folder of its own, and files of brokers and clients beside its certificate."""

    def __init__(self, folder: Path, name: str = "ward authority") -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self.authority = FileAuthority.make(folder, name, time.time())
        self.ca_file = folder / AUTHORITY_CERTIFICATE

    def files(self, name: str, role: Role = Role.CLIENT, *, made_s: float = 0.0, days: float = 30.0) -> TlsFiles:
        """Certificate and key of a name; made `made_s` after now (before, if negative), for `days` from then on."""
        key_file = self._folder / f"{name}.key"
        key = make_signing_key(key_file)
        certificate = self.authority.sign(parse_request(make_request(key, name)), role, time.time() + made_s, days)
        certificate_file = self._folder / f"{name}.crt"
        certificate_file.write_bytes(certificate.pem)
        return TlsFiles(self.ca_file, certificate_file, key_file)

    def trust(self) -> TlsFiles:
        """What somebody has who only believes this authority."""
        return TlsFiles(self.ca_file)
