"""A mosquitto as a federation should have it, for tests and the secured demo: certificates, rights, revocation.

Its configuration is the one that `fedward coordinator broker-config` writes. It has an authority of its own, whose key
lies beside it: good enough to try things out, and nothing for a hospital.
"""

import os
import signal
import time
from collections.abc import Collection
from pathlib import Path

from coordinator.broker_config import MOSQUITTO_CONFIG, PLUGIN, BrokerPlace, write_broker_config
from fedward.errors import ConfigError
from fedward.files import write_durably
from fedward.identity.certificates import AUTHORITY_CERTIFICATE, FileAuthority, Role, make_request, parse_request
from fedward.identity.keys import make_signing_key
from sandbox.broker import MOSQUITTO_STAY_ROOT, EmbeddedBroker, find_mosquitto
from sandbox.ports import free_port

CERTIFICATE_DAYS = 30.0
REVOCATIONS = "ca.crl"


class SecuredBroker(EmbeddedBroker):
    """A broker on loopback that lives as long as the `with` block; it lets in the coordinators of `federations`.

    What it holds of rights and sessions outlives `stop` and `start`.
    """

    def __init__(
        self,
        folder: Path,
        federations: Collection[str],
        host: str = "127.0.0.1",
        port: int = 0,
        authority: FileAuthority | None = None,
    ) -> None:
        """Makes the configuration, and an authority unless one is given.

        Raises ConfigError where mosquitto or its plugin are not installed.
        """
        if find_mosquitto() is None or not PLUGIN.exists():
            raise ConfigError("mosquitto and its dynamic-security plugin are needed: `apt-get install mosquitto`")
        super().__init__(folder, host, port, "mosquitto")
        self._plain = False
        self.enrolment_port = free_port(host)
        """Where holders of tokens are taken."""
        self._revoked: set[int] = set()
        self.authority = authority or FileAuthority.make(folder / "authority", "sandbox authority", time.time())
        place = BrokerPlace(
            host=host,
            port=self.port,
            address=host,
            identity=self.enrol(host, Role.BROKER),
            state=folder,
            plugin=PLUGIN,
            enrolment_port=self.enrolment_port,
            enrolment_host=host,
        )
        self._write_revocations()
        write_broker_config(folder, place, federations)
        if os.geteuid() == 0:
            with (folder / MOSQUITTO_CONFIG).open("a") as config:
                config.write(MOSQUITTO_STAY_ROOT)

    def enrol(self, name: str, role: Role = Role.CLIENT) -> Path:
        """A new key with its certificate: an identity folder with `ca.crt`, `<name>.key` and `<name>.crt`."""
        folder = self._folder / "identities" / name
        key = make_signing_key(folder / f"{name}.key")
        certificate = self.authority.sign(parse_request(make_request(key, name)), role, time.time(), CERTIFICATE_DAYS)
        write_durably(folder / f"{name}.crt", certificate.pem)
        write_durably(folder / AUTHORITY_CERTIFICATE, self.authority.certificate.pem)
        return folder

    def revoke(self, serial: int) -> None:
        """Put a certificate on the list of revoked ones. The broker reads it for new connections; old ones go on."""
        self._revoked.add(serial)
        self._write_revocations()
        if self._child is not None:
            os.kill(self._child.pid, signal.SIGHUP)

    def _write_config(self) -> Path:
        return self._folder / MOSQUITTO_CONFIG  # it is there

    def _write_revocations(self) -> None:
        crl = self.authority.revocations(self._revoked, time.time())
        write_durably(self._folder / "identities" / self.host / REVOCATIONS, crl)
