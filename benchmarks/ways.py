"""What each way to the broker costs: `python -m benchmarks.ways [--megabytes 100] [--runs 5] [--json FILE]`.

A site's link on one side and a mosquitto on loopback for each way: plain TCP, mutual TLS, WebSocket over mutual TLS.
Up: chunks are published within the window, until the broker has acknowledged all. Down: the broker sends chunks that
are in a session's queue. Each run takes all ways in turn, so that the ratios hold on a busy machine. WebSocket carries
a small part of the bytes, for it is slow.
"""

import argparse
import json
import os
import queue
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from benchmarks.waiting import cpu_seconds
from fedward.identity.certificates import AUTHORITY_CERTIFICATE, FileAuthority, Role, make_request, parse_request
from fedward.identity.keys import make_signing_key
from fedward.limits import CHUNK_BYTES
from fedward.mqtt import MqttLink, MqttSettings
from fedward.ports import Connected, Delivery, LinkEvent, LinkInbox
from fedward.settings import TlsSettings, Transport
from sandbox.broker import EmbeddedBroker

HOST = "127.0.0.1"
TOPIC, EVERYWHERE = "chunks/kept", "chunks/gone"
LIMIT_S = 300.0
SLOW_DOWN = 200
"""WebSocket carries one part of so many down: 40 kB/s, as some brokers send, take 12 s for half a megabyte."""


@dataclass(frozen=True)
class Way:
    """How a link reaches its broker."""

    name: str
    secure: bool
    transport: Transport
    share_up: float
    share_down: float


WAYS = (
    Way("tcp", False, "tcp", 1.0, 1.0),
    Way("tls", True, "tcp", 1.0, 1.0),
    Way("websockets over tls", True, "websockets", 1 / 10, 1 / SLOW_DOWN),
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """MB (10^6 bytes) a second, and CPU seconds of this process for 100 MB."""

    up: float
    down: float
    cpu_up_s: float
    cpu_down_s: float


class Party:
    """A link and its events."""

    def __init__(self, settings: MqttSettings, *filters: str) -> None:
        self._inbox: LinkInbox = queue.Queue(100_000)
        self.link = MqttLink(settings, self._inbox, random.Random(1))  # noqa: S311 - jitter
        self.link.subscribe(*filters)
        self.link.open()

    def connected(self) -> Self:
        """When it is; what came in before is lost."""
        while not isinstance(self.next(), Connected):
            pass
        return self

    def next(self) -> LinkEvent:
        return self._inbox.get(timeout=LIMIT_S)

    def send(self, topic: str, chunk: bytes, number: int) -> None:
        """Publish within the window; return when all is acknowledged."""
        for _ in range(number):
            while not self.link.room():
                self.next()
            self.link.publish(topic, chunk)
        while self.link.room() < MqttSettings.window:
            time.sleep(0.0005)

    def take(self, number: int) -> None:
        while number:
            event = self.next()
            if isinstance(event, Delivery):
                self.link.acknowledge(event)
                number -= 1


def certificate(authority: FileAuthority, folder: Path, name: str, role: Role) -> TlsSettings:
    """A key and its certificate."""
    files = TlsSettings(
        ca_file=folder / AUTHORITY_CERTIFICATE,
        certificate_file=folder / f"{role.value}.crt",
        key_file=folder / f"{role.value}.key",
    )
    request = parse_request(make_request(make_signing_key(files.key_file), name))
    files.certificate_file.write_bytes(authority.sign(request, role, time.time(), days=1).pem)
    return files


@contextmanager
def opened(way: Way, folder: Path) -> Iterator[MqttSettings]:
    """A broker that is reached in this way, and how."""
    own = theirs = None
    if way.secure:
        authority = FileAuthority.make(folder, "benchmark", time.time())
        own = certificate(authority, folder, "site", Role.CLIENT)
        theirs = certificate(authority, folder, HOST, Role.BROKER)
    with EmbeddedBroker(folder, HOST, prefer="mosquitto", tls=theirs, transport=way.transport) as broker:
        yield MqttSettings(
            host=HOST, port=broker.port, client_id="site", session_expiry_s=600, tls=own, transport=way.transport
        )


def measure(way: Way, settings: MqttSettings, num_chunks: int) -> Run:
    """Up, then down."""
    chunk = os.urandom(CHUNK_BYTES)
    num_up, num_down = max(1, round(num_chunks * way.share_up)), max(1, round(num_chunks * way.share_down))
    party = Party(settings, TOPIC).connected()
    up_s, cpu_up_s = timed(lambda: party.send(EVERYWHERE, chunk, num_up))
    party.link.close()
    sender = Party(replace(settings, client_id="sender")).connected()
    sender.send(TOPIC, chunk, num_down)  # into the session of the one that is away
    sender.link.close()
    down_s, cpu_down_s = timed(lambda: fetch(settings, num_down))
    up, down = num_up * CHUNK_BYTES / 1e6, num_down * CHUNK_BYTES / 1e6
    return Run(up=up / up_s, down=down / down_s, cpu_up_s=cpu_up_s * 100 / up, cpu_down_s=cpu_down_s * 100 / down)


def fetch(settings: MqttSettings, number: int) -> None:
    """Connect and take what the session holds, and leave."""
    party = Party(settings, TOPIC)
    party.take(number)
    party.link.close()


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds, and seconds of CPU in this process."""
    begin, cpu = time.perf_counter(), cpu_seconds(os.getpid())
    work()
    return time.perf_counter() - begin, cpu_seconds(os.getpid()) - cpu


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=100.0, help="of chunks, each way (default: %(default)g)")
    parser.add_argument("--runs", type=int, default=5, help="3 or more (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    given = parser.parse_args(arguments)
    if given.runs < 3 or given.megabytes <= 0:
        parser.error("needs --runs of at least 3 and --megabytes above 0")
    num_chunks = max(1, round(given.megabytes * 1e6 / CHUNK_BYTES))
    runs: dict[str, list[Run]] = {way.name: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="fedward-ways-") as folder, ExitStack() as stack:
        brokers = [(way, stack.enter_context(opened(way, Path(folder) / way.transport / way.name))) for way in WAYS]
        for _ in range(given.runs):
            for way, settings in brokers:
                runs[way.name].append(measure(way, settings, num_chunks))
    print(f"{given.megabytes:g} MB, median of {given.runs} runs: MB/s (ratio to tcp), CPU seconds for 100 MB")
    for name, own in runs.items():
        print("  " + line(name, own, runs["tcp"]))
    if given.json:
        given.json.write_text(json.dumps({name: [asdict(run) for run in own] for name, own in runs.items()}) + "\n")


def line(name: str, runs: Sequence[Run], plain: Sequence[Run]) -> str:
    """Medians; the ratio is the median of those of each run."""
    up, down = (
        f"{statistics.median(getattr(run, field) for run in runs):8.2f} "
        f"({statistics.median(getattr(a, field) / getattr(b, field) for a, b in zip(runs, plain, strict=True)):.3f})"
        for field in ("up", "down")
    )
    cpu = [statistics.median(getattr(run, field) for run in runs) for field in ("cpu_up_s", "cpu_down_s")]
    return f"{name:20} up {up}  down {down}  cpu up {cpu[0]:.2f} down {cpu[1]:.2f}"


if __name__ == "__main__":
    main()
