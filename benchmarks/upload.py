"""How fast an update gets in: `python -m benchmarks.upload [--megabytes 100] [--runs 3] [--codec f32] [--json FILE]`.

A real broker, a real coordinator process, and in this process what an agent uploads with: outbox, publisher and link.
The time is that from the offer of a saved update until its receipt is here: by then every byte is verified, its
values were looked at, it is on the disk, and its row is in the ledger. Each run stands beside what no upload can beat
on this machine at that moment: the same bytes over one TCP connection, written to the same disk, and hashed.

Beside it the same upload, signed and sealed, to a coordinator that believes nothing else, the one first and then the
other; its time has that of sealing in it, too, which a site takes before it offers, once for the digests and once for
the disk. The exit code is 1 when a bar is missed.
"""

import argparse
import json
import os
import queue
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from itertools import chain
from pathlib import Path
from queue import Queue

import numpy as np
import yaml

from benchmarks.bounds import disk_s, sha256_s, tcp_s
from benchmarks.waiting import cpu_seconds
from edge_agent.config import SiteConfig
from edge_agent.egress import EgressLink
from edge_agent.egress_log import EgressLog
from edge_agent.outbox import Outbox
from edge_agent.publish import Publisher
from edge_agent.receive import receive
from edge_agent.uplink import Uplink
from edge_agent.voice import CounterFile, Voice
from fedward import topics
from fedward.chunks import chunks_of, manifest_of_chunks
from fedward.codec import codec
from fedward.errors import TransientError
from fedward.identity.folder import CoordinatorIdentity, SiteIdentity
from fedward.identity.names import update_id_of
from fedward.identity.sealing import new_seal, sealed_chunks
from fedward.layout import Layout, Tensor
from fedward.limits import MIB
from fedward.messages import Grant, Offer, Outcome, Receipt
from fedward.modelfile import save_model
from fedward.mqtt import MqttLink, MqttSettings
from fedward.ports import Connected, Delivery, LinkInbox, Will
from fedward.process import SystemClock
from fedward.topics import Up
from sandbox.broker import EmbeddedBroker
from sandbox.child import Child
from sandbox.federation import environment
from sandbox.identities import make_identities

FEDERATION, SITE = "upload", "hospital-a"
SEALED_FEDERATION = "upload-sealed"
LEAST_MB_S = 60.0
MOST_COST = 0.1
"""Of signing and sealing: the share of the rate that it takes away."""

READY_S = 60.0
UPLOAD_S = 300.0
TICK_S = 0.25
PROBE = 1_000_000
"""Parameters of the model whose payload tells how many a payload of the asked size needs."""

WIDTH = 1000


@dataclass(frozen=True, kw_only=True)
class Run:
    """One upload and its bounds, in MB (10^6 bytes) a second; CPU in seconds for 100 MB."""

    upload: float
    sealed: float
    tcp: float
    disk: float
    sha256: float
    coordinator_cpu_s: float
    site_cpu_s: float
    broker_cpu_s: float


class Site:
    """What an agent uploads with, its egress log included, around its own loop."""

    def __init__(self, folder: Path, port: int, federation: str, identity: SiteIdentity | None = None) -> None:
        self._inbox: LinkInbox = Queue(10_000)
        settings = MqttSettings(
            host="127.0.0.1", port=port, client_id=f"{federation}-{SITE}", session_expiry_s=3600, reconnect_max_s=1.0
        )
        will = Will(topics.up(federation, SITE, Up.STATUS), b"gone", delay_s=30)
        log = EgressLog(folder / "egress", 1024 * MIB, SystemClock())
        self._link = EgressLink(MqttLink(settings, self._inbox, random.Random(1)), log, will)  # noqa: S311 - jitter
        self._outbox = Outbox(folder)
        jitter = random.Random(2)  # noqa: S311
        config = SiteConfig.model_validate(
            {
                "site": SITE,
                "federation": federation,
                "tasks": {"tiny": {}},
                "state_folder": folder,
                "broker": {"host": "127.0.0.1"},
            }
        )
        boot_id, counter = bytes(8), CounterFile(folder / "counter.json", time.time())
        self._voice = Voice.of(boot_id, identity, config, counter) if identity else Voice(boot_id)
        self._publisher = Publisher(self._link, config, self._outbox, jitter, Uplink(None), self._voice.pack)
        self._link.subscribe(topics.down_all(federation, SITE))
        self._link.open()
        self._wait_for(lambda event: isinstance(event, Connected), READY_S, "a connection")

    def save(self, offer: Offer, chunks: Iterable[bytes | memoryview]) -> None:
        self._outbox.save(offer, chunks)

    def upload(self) -> float:
        """Seconds from the offer of the saved update to its receipt. Raises TransientError when it is not accepted."""
        begin = time.perf_counter()
        self._publisher.take_next()
        self._publisher.step(time.monotonic())
        self._wait_for(self._is_receipt, UPLOAD_S, "a receipt")
        return time.perf_counter() - begin

    def close(self) -> None:
        self._link.close()

    def _wait_for(self, holds: Callable[[object], bool], seconds: float, what: str) -> None:
        deadline_s = time.monotonic() + seconds
        while time.monotonic() < deadline_s:
            try:
                event = self._inbox.get(timeout=TICK_S)
            except queue.Empty:
                continue
            if holds(event):
                return
            self._publisher.step(time.monotonic())
        raise TransientError(f"{what}: not within {seconds} s")

    def _is_receipt(self, event: object) -> bool:
        if not isinstance(event, Delivery):
            return False
        message = receive(event.topic, event.payload, SITE, self._voice.check_of)
        self._link.acknowledge(event)
        if isinstance(message, Grant):
            self._publisher.on_grant(message)
        if not isinstance(message, Receipt):
            return False
        if message.outcome is not Outcome.ACCEPTED:
            raise TransientError(f"the update was not accepted: {message.outcome}, {message.reason}")
        self._publisher.on_receipt(message, time.monotonic(), lambda _: None)
        return True


def layout_for(payload_bytes: int, codec_name: str) -> Layout:
    """A model whose updates of normal values have about this many bytes in this codec."""
    probe = Layout.of([Tensor("weight", (PROBE // WIDTH, WIDTH))])
    delta_P = np.random.default_rng(0).standard_normal(PROBE, np.float32)  # what is measured: ones would shrink in f32z
    probe_bytes = len(codec(codec_name).encode(delta_P, probe, bytes(32)))
    rows = max(1, round(payload_bytes / probe_bytes * PROBE / WIDTH))
    return Layout.of([Tensor("weight", (rows, WIDTH))])


def offer_of(
    chunks: Iterable[bytes | memoryview], sequence: int, layout: Layout, codec_name: str, federation: str = FEDERATION
) -> Offer:
    """The offer of the site's update of this number, trained from version 0."""
    return Offer(
        federation=federation,
        update_id=update_id_of(federation, SITE, 0, sequence),
        sequence=sequence,
        base_version=0,
        codec=codec_name,
        layout_digest=layout.digest,
        num_examples=100,
        num_steps=10,
        work_s=1.0,
        manifest=manifest_of_chunks(chunks),
    )


def start_coordinator(folder: Path, port: int, layout: Layout, codec_name: str, federation: str = FEDERATION) -> Child:
    """A coordinator that makes no version while updates come; that of SEALED_FEDERATION has an identity."""
    folder.mkdir(exist_ok=True)
    model = folder / "initial.safetensors"
    save_model(model, layout, np.zeros(layout.size, np.float32), {})
    settings = {
        "federation": federation,
        "sites": [SITE],
        "task": "upload",
        "model": str(model),
        "work": {"local_epochs": 1, "batch_size": 16, "local_lr": 0.1},
        "state_folder": str(folder / "coordinator"),
        "broker": {"host": "127.0.0.1", "port": port},
        "engine": {"buffer_size": 1000, "flush_after_s": 86_400, "repeat_base": True},
        "codec": codec_name,
    }
    if federation == SEALED_FEDERATION:
        make_identities(folder / "identities", federation, [SITE], time.time())
        settings["identity"] = {"folder": str(folder / "identities" / "coordinator")}
    config = folder / "federation.yaml"
    config.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "fedward.cli", "coordinator", "run", "--config", str(config)]
    return Child(command, folder / "coordinator.log", environment())


def wait_until_it_listens(coordinator: Child) -> None:
    """Raises TransientError when it ends instead, or takes too long."""
    deadline_s = time.monotonic() + READY_S
    while '"connected"' not in coordinator.log.read_text():
        if not coordinator.alive or time.monotonic() > deadline_s:
            raise TransientError(f"the coordinator does not come up; see {coordinator.log}")
        time.sleep(TICK_S)


def measure(folder: Path, payload_bytes: int, codec_name: str, num_runs: int) -> list[Run]:
    """The runs, after one that does not count, each of another update with its bounds just before."""
    layout = layout_for(payload_bytes, codec_name)
    rng = np.random.default_rng(1)
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker(folder))
        sites, pids = [], []
        for federation in (FEDERATION, SEALED_FEDERATION):
            coordinator = start_coordinator(folder / federation, broker.port, layout, codec_name, federation)
            stack.callback(coordinator.wait, 10.0)
            stack.callback(coordinator.terminate)
            wait_until_it_listens(coordinator)
            pids.append(coordinator.pid)
        sealed = folder / SEALED_FEDERATION / "identities"
        identity = SiteIdentity.load(sealed / SITE, SEALED_FEDERATION, SITE, time.time())
        key = CoordinatorIdentity.load(sealed / "coordinator", SEALED_FEDERATION, time.time()).sealed_to
        for federation, own in ((FEDERATION, None), (SEALED_FEDERATION, identity)):
            sites.append(Site(folder / f"outbox-{federation}", broker.port, federation, own))
            stack.callback(sites[-1].close)
        runs = []
        for sequence in range(1 + num_runs):
            delta_P = rng.standard_normal(layout.size, np.float32)
            payload = codec(codec_name).encode(delta_P, layout, update_id_of(FEDERATION, SITE, 0, sequence))
            sites[0].save(offer_of(chunks_of(payload), sequence, layout, codec_name), chunks_of(payload))
            seal_s = save_sealed(sites[1], payload, sequence, layout, (codec_name, key))
            of_processes = pids[0], os.getpid(), broker.pid or 0
            bounds = measure_bounds(payload, folder)
            if sequence % 2:
                run, sealed_s = measure_once(sites[0], bounds, payload, of_processes), sites[1].upload()
            else:
                sealed_s, run = sites[1].upload(), measure_once(sites[0], bounds, payload, of_processes)
            runs.append(replace(run, sealed=len(payload) / 1e6 / (seal_s + sealed_s)))
        return runs[1:]


def save_sealed(site: Site, payload: bytes, sequence: int, layout: Layout, how: tuple[str, bytes]) -> float:
    """Seconds that the sealing took, without all else that saving takes; `how` is codec and sealing key."""
    codec_name, key = how
    begin = time.perf_counter()
    seal = new_seal(key, update_id_of(SEALED_FEDERATION, SITE, 0, sequence), len(payload))
    for _ in chain(sealed_chunks(seal, payload), sealed_chunks(seal, payload)):
        pass
    seal_s = time.perf_counter() - begin
    offer = offer_of(sealed_chunks(seal, payload), sequence, layout, codec_name, SEALED_FEDERATION)
    site.save(replace(offer, seal=seal.public), sealed_chunks(seal, payload))
    return seal_s


def measure_bounds(payload: bytes, folder: Path) -> tuple[float, float, float]:
    """Seconds over TCP, to the disk, and to hash."""
    return tcp_s(payload), disk_s(payload, folder), sha256_s(payload)


def measure_once(site: Site, bounds: tuple[float, float, float], payload: bytes, pids: tuple[int, int, int]) -> Run:
    """The upload of the saved update, beside its bounds. `pids` of coordinator, site and broker."""
    megabytes = len(payload) / 1e6
    before = [cpu_seconds(pid) for pid in pids]
    upload_s = site.upload()
    cpu_s = [(cpu_seconds(pid) - earlier) * 100 / megabytes for pid, earlier in zip(pids, before, strict=True)]
    tcp, disk, sha256 = (megabytes / seconds for seconds in bounds)
    return Run(
        upload=megabytes / upload_s,
        sealed=0.0,
        tcp=tcp,
        disk=disk,
        sha256=sha256,
        coordinator_cpu_s=cpu_s[0],
        site_cpu_s=cpu_s[1],
        broker_cpu_s=cpu_s[2],
    )


def medians(runs: Sequence[Run]) -> Run:
    """Field by field, of at least one run."""
    return Run(**{field.name: statistics.median(getattr(run, field.name) for run in runs) for field in fields(Run)})


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=100.0, help="size of the payload (default: %(default)g)")
    parser.add_argument("--runs", type=int, default=3, help="uploads, 3 or more (default: %(default)s)")
    parser.add_argument("--codec", default="f32", help="of the payload (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    given = parser.parse_args(arguments)
    if given.runs < 3 or given.megabytes <= 0:
        parser.error("needs --runs of at least 3 and --megabytes above 0")
    with tempfile.TemporaryDirectory(prefix="fedward-upload-") as folder:
        runs = measure(Path(folder), round(given.megabytes * 1e6), given.codec, given.runs)
    middle = medians(runs)
    print(f"{given.megabytes:g} MB of {given.codec}, median of {given.runs} uploads; MB/s, and CPU seconds for 100 MB")
    for name, value in asdict(middle).items():
        print(f"  {name:18} {value:10.2f}   {', '.join(f'{getattr(run, name):.2f}' for run in runs)}")
    cost = 1 - statistics.median(run.sealed / run.upload for run in runs)
    print(f"signed and sealed: {cost:.1%} slower (bar {MOST_COST:.0%}); at least {LEAST_MB_S:g} MB/s asked for")
    if given.json:
        document = {"megabytes": given.megabytes, "codec": given.codec, "median": asdict(middle), "cost": cost}
        given.json.write_text(json.dumps(document | {"runs": [asdict(run) for run in runs]}, indent=2) + "\n")
    return 1 if min(middle.upload, middle.sealed) < LEAST_MB_S or cost > MOST_COST else 0


if __name__ == "__main__":
    sys.exit(main())
