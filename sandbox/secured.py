"""A mosquitto as a federation should have it, for tests and the secured demo: certificates, rights, revocation.

Its configuration is the one that `fedward coordinator broker-config` writes. It has an authority of its own, whose key
lies beside it: good enough to try things out, and nothing for a hospital.
"""

import os
import shutil
import signal
import time
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Self

from coordinator.broker_config import MOSQUITTO_CONFIG, PLUGIN, BrokerPlace, write_broker_config
from fedward.errors import ConfigError
from fedward.files import write_durably
from fedward.identity.certificates import AUTHORITY_CERTIFICATE, FileAuthority, Role, make_request, parse_request
from fedward.identity.keys import make_signing_key
from sandbox.broker import MOSQUITTO_STAY_ROOT, START_S, STOP_S, find_mosquitto
from sandbox.child import Child, start_child, takes_connections
from sandbox.ports import free_port

CERTIFICATE_DAYS = 30.0
REVOCATIONS = "ca.crl"


class SecuredBroker:
    """A broker on loopback that lives as long as the `with` block; it lets in the coordinators of `federations`.

    What it holds of rights and sessions outlives `stop` and `start`. The log is `folder/broker.log`.
    """

    def __init__(self, folder: Path, federations: Collection[str], host: str = "127.0.0.1", port: int = 0) -> None:
        """Makes authority and configuration. Raises ConfigError where mosquitto or its plugin are not installed."""
        if find_mosquitto() is None or not PLUGIN.exists():
            raise ConfigError("mosquitto and its dynamic-security plugin are needed: `apt-get install mosquitto`")
        self.host = host
        self.port = port or free_port(host)
        self.enrolment_port = free_port(host)
        """Where holders of tokens are taken."""
        self.log_path = folder / "broker.log"
        self._folder = folder
        self._revoked: set[int] = set()
        self._child: Child | None = None
        self.authority = FileAuthority.make(folder / "authority", "sandbox authority", time.time())
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

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def enrol(self, name: str, role: Role = Role.CLIENT) -> Path:
        """A new key with its certificate: an identity folder with `ca.crt`, `<name>.key` and `<name>.crt`."""
        folder = self._folder / "identities" / name
        key = make_signing_key(folder / f"{name}.key")
        certificate = self.authority.sign(parse_request(make_request(key, name)), role, time.time(), CERTIFICATE_DAYS)
        write_durably(folder / f"{name}.crt", certificate.pem)
        shutil.copy(self._folder / "authority" / AUTHORITY_CERTIFICATE, folder)
        return folder

    def revoke(self, serial: int) -> None:
        """Put a certificate on the list of revoked ones. The broker reads it for new connections; old ones go on."""
        self._revoked.add(serial)
        self._write_revocations()
        if self._child is not None:
            os.kill(self._child.pid, signal.SIGHUP)

    def start(self) -> None:
        """Return when the broker takes connections. Raises TransientError when it does not in time."""
        if self._child is not None:
            return
        command = [find_mosquitto() or "mosquitto", "-c", str(self._folder / MOSQUITTO_CONFIG)]
        self._child = start_child(command, self.log_path, lambda: takes_connections(self.host, self.port), START_S)

    def stop(self) -> None:
        """End the process politely, or by force when patience is at its end."""
        if self._child is not None:
            self._child.terminate()
            self._child.wait(STOP_S)
            self._child = None

    def kill(self) -> None:
        """End the process as a crash would (SIGKILL)."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._child is not None and self._child.alive

    def _write_revocations(self) -> None:
        crl = self.authority.revocations(self._revoked, time.time())
        write_durably(self._folder / "identities" / self.host / REVOCATIONS, crl)
