"""What the doctor finds out, as values; nothing here says whether it is good. Times are seconds since 1970, UTC."""

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from fedward.identity.description import CertificateFacts
from fedward.proxy import Proxy


class Trouble(StrEnum):
    """How a network gives nothing."""

    UNKNOWN_NAME = "the name is unknown"
    NO_ANSWER = "no answer"
    REFUSED = "the connection is refused"
    UNREACHABLE = "there is no way there"
    CLOSED = "the connection is closed at once"
    NOT_UNDERSTOOD = "the answer is of another protocol"


@dataclass(frozen=True)
class TlsFiles:
    """The files of a TLS connection; without `ca_file` the system's authorities are believed."""

    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True)
class Reach:
    """How the broker is reached, as plain values."""

    host: str
    port: int
    proxy: Proxy | None = None
    tls: TlsFiles | None = None

    @property
    def first_hop(self) -> tuple[str, int]:
        """Whom this machine itself connects to."""
        return (self.proxy.host, self.proxy.port) if self.proxy else (self.host, self.port)


@dataclass(frozen=True)
class Lookup:
    """A name and its addresses; none came back where there is trouble."""

    host: str
    addresses: tuple[str, ...] = ()
    trouble: Trouble | None = None


@dataclass(frozen=True)
class Contact:
    """An attempt to connect to any of some addresses; `address` is the one that answered, or the last one tried."""

    address: str
    port: int
    trouble: Trouble | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class ProxyAnswer:
    """What a proxy said to CONNECT: a status, and its own time where it told one."""

    contact: Contact
    status: int | None = None
    trouble: Trouble | None = None
    date_s: float | None = None


@dataclass(frozen=True)
class Handshake:
    """A TLS handshake. `verify_code` is OpenSSL's, 0 when the certificate holds; `alert` is the peer's last word."""

    version: str = ""
    presented: CertificateFacts | None = None
    verify_code: int = 0
    verify_message: str = ""
    alert: str = ""
    trouble: Trouble | None = None


@dataclass(frozen=True)
class OwnFiles:
    """This side's TLS files: what is wrong with them by setting, and this side's certificate where it can be read."""

    files: TlsFiles
    problems: tuple[tuple[str, str], ...] = ()
    certificate: CertificateFacts | None = None

    @property
    def can_verify(self) -> bool:
        """Whether the broker's certificate can be told from another."""
        return "ca_file" not in dict(self.problems)

    @property
    def can_show(self) -> bool:
        """Whether this side can show what it has."""
        return not {"certificate_file", "key_file"} & dict(self.problems).keys()

    @property
    def usable(self) -> TlsFiles:
        """The files without those that have a problem."""
        ca_file = self.files.ca_file if self.can_verify else None
        return replace(self.files, ca_file=ca_file) if self.can_show else TlsFiles(ca_file)


@dataclass(frozen=True)
class Answer:
    """What the broker said to an MQTT connection, its subscriptions and publishes.

    `refusal` is the reason of the CONNACK. `denied` and `unanswered` hold the filters and topics that were refused,
    and those on which nothing came back.
    """

    connected: bool
    refusal: str = ""
    max_payload_bytes: int = 0
    denied: tuple[str, ...] = ()
    unanswered: tuple[str, ...] = ()
    delivered: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Folder:
    """Where something is kept: `nearest` is the folder itself, or the nearest one above it that is there."""

    path: Path
    nearest: Path
    writable: bool
    free_bytes: int
    used_bytes: int = 0


@dataclass(frozen=True)
class Memory:
    """Of the machine, and the limit that its container sets; None where it sets none."""

    total_bytes: int
    available_bytes: int
    limit_bytes: int | None = None

    @property
    def capacity_bytes(self) -> int:
        """What this side could have at most."""
        return min(self.total_bytes, self.limit_bytes or self.total_bytes)


@dataclass(frozen=True)
class Limits:
    """What else a container or a service manager bounds; None where it can't be told or is unbounded."""

    cpus: float | None
    num_cores: int
    open_files: int | None
    shared_memory_bytes: int | None


@dataclass(frozen=True)
class Gpus:
    """NVIDIA GPUs as the driver, the container and torch see them.

    `driver` is its version, None where none is loaded; `nodes` are the GPUs' device files that this container has;
    `cuda` is the CUDA that torch was built for, None for a torch without; `names` are those that torch can use, and
    `too_old` those of them that it has no code for.
    """

    driver: str | None
    nodes: tuple[str, ...]
    torch: str
    cuda: str | None
    names: tuple[str, ...] = ()
    too_old: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClockFacts:
    """This machine's clock. `synchronised` is the kernel's word, None where it gives none."""

    now_s: float
    synchronised: bool | None = None
    proxy_date_s: float | None = None
    not_before_s: float | None = None
    """Begin of a certificate that is not valid yet by this clock."""
