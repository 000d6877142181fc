"""A federation's authority in a folder, and certificates of it: good ones, ended ones, under any name."""

import time
from pathlib import Path

from fedward.files import write_durably
from fedward.identity.certificates import (
    AUTHORITY_CERTIFICATE,
    DAY_S,
    FileAuthority,
    Role,
    make_request,
    parse_request,
)
from fedward.identity.keys import load_signing_key, make_signing_key
from fedward.settings import TlsSettings


class Authority:
    """Makes what a party has on its disk."""

    def __init__(self, folder: Path, name: str = "authority of the ward") -> None:
        self.folder = folder
        self._authority = FileAuthority.make(folder, name, time.time())

    @property
    def certificate_file(self) -> Path:
        return self.folder / AUTHORITY_CERTIFICATE

    def party(self, name: str, role: Role = Role.CLIENT, ends_in_days: float = 30.0) -> TlsSettings:
        """A new key with a certificate, in a folder of its own."""
        folder = self.folder / f"{role.value} {name}"
        files = TlsSettings(
            ca_file=self.certificate_file, certificate_file=folder / "own.crt", key_file=folder / "own.key"
        )
        make_signing_key(files.key_file)
        self.renew(files, name, role, ends_in_days)
        return files

    def broker(self, host: str = "127.0.0.1", ends_in_days: float = 30.0) -> TlsSettings:
        return self.party(host, Role.BROKER, ends_in_days)

    def renew(self, files: TlsSettings, name: str, role: Role = Role.CLIENT, ends_in_days: float = 30.0) -> None:
        """Another certificate of the same key, in the place of the one that is there."""
        request = parse_request(make_request(load_signing_key(files.key_file), name))
        begin_s = time.time() if ends_in_days > 0 else time.time() + 2 * ends_in_days * DAY_S
        certificate = self._authority.sign(request, role, begin_s, abs(ends_in_days))
        write_durably(files.certificate_file, certificate.pem)
