"""Markers wherever a hospital has room for one; whatever goes well or wrong, none of them leaves it.

What is looked through is all that a subscriber to everything heard, topics too, sealed updates opened as the
coordinator opens them; every byte on the hospital's own wire; and what others can read of the coordinator: pages, log,
verbs. The egress log, which a hospital may hand to others, is looked through as if it had left. Of the agent's own
pages and log, which are the hospital's, no record is in them.
"""

import json
import subprocess
import sys
import time
import urllib.request
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import msgpack
import numpy as np
import pytest
import yaml
import zstandard

from edge_agent.egress_log import EGRESS
from fedward import topics
from fedward.identity.folder import CoordinatorIdentity
from fedward.limits import CHUNK_BYTES
from fedward.pack import pack
from sandbox.broker import EmbeddedBroker
from sandbox.datasets import SiteData, Split
from sandbox.federation import FEDERATION, HOST, Federation, Plan, environment
from sandbox.identities import make_identities
from sandbox.ports import free_port
from sandbox.relay import Relay
from tests.integration.conftest import READY_S
from tests.support.leaky_task import LEAKY, LeakyTask
from tests.support.marked_task import (
    EXCEPTION,
    MARKERS,
    NEXT_VALUE,
    NOTE,
    OF_RECORDS,
    POLICY,
    TASK,
    VALUE,
    MarkedFiles,
    install,
)
from tests.support.needles import found_anywhere, found_in, number_needles, row_needles, text_needles
from tests.support.opened import opened
from tests.support.signatures import seal_update
from tests.support.spy import Spy
from tests.support.updates import offer_of

pytestmark = [pytest.mark.slow, pytest.mark.network]

SITE, OTHER = "hospital-a", "hospital-b"
"""The other one keeps versions coming, after each of which the first one tries again."""

Contents = list[tuple[str, bytes]]


UNMISTAKABLE = {form: needle for form, needle in MARKERS.items() if len(needle) >= 8}
"""What megabytes of ciphertext don't hold by chance."""


def planned(folder: Path, signed: bool, task: str = TASK, **plan: object) -> tuple[Federation, MarkedFiles]:
    """A federation that was not started, and the first hospital's files, among them its policy."""
    files = {site: MarkedFiles(folder / site) for site in (SITE, OTHER)}
    for seed, of_site in enumerate(files.values()):
        of_site.write(seed)
    install(folder / "packages")
    arguments: dict[str, object] = {
        "folder": folder / "federation",
        "task": task,
        "records": Split(tuple(SiteData(site, of_site.options, 1, 1) for site, of_site in files.items()), {}),
        "engine": {"preset": "fedasync"},
        "work": {"local_epochs": 2, "batch_size": 8, "local_lr": 0.01},
        "codec": "f32z",  # the most exact of all: an update hides nothing
        "slow": {OTHER: 20.0},  # a failure lasts long enough to be seen
        "signed": signed,
        "agent_http": True,
        "telemetry_s": 0.2,
        "packages": install(folder / "packages", LEAKY, f"{LeakyTask.__module__}:{LeakyTask.__name__}"),
        **plan,
    }
    running = Federation(Plan(**arguments))  # type: ignore[arg-type]
    config = yaml.safe_load(running.config_path(SITE).read_text())
    running.config_path(SITE).write_text(yaml.safe_dump({**config, "policy_file": str(files[SITE].policy)}))
    files[SITE].allow()
    options = json.dumps({"columns": str(files[SITE].columns)})
    running.fedward("agent", "init-model", "--task", task, "--options", options, "--out", str(running.model_path))
    return running, files[SITE]


def agent_pages(running: Federation) -> Contents:
    pages = ("/metrics", "/v1/state", "/readyz")
    port = running.agent_ports[SITE]
    return [(page, urllib.request.urlopen(f"http://{HOST}:{port}{page}", timeout=5).read()) for page in pages]


def pages(running: Federation) -> Contents:
    return [(page, (running.page(page) or "").encode()) for page in ("/metrics", "/v1/state")]


def said(running: Federation, side: str, verb: str, name: str) -> tuple[str, bytes]:
    """What a verb prints, whether all is well or not."""
    command = [sys.executable, "-m", "fedward.cli", side, verb, "--config", str(running.config_path(name))]
    path = {"PYTHONPATH": str(running.plan.packages)}
    done = subprocess.run(command, capture_output=True, env=environment() | path, check=False)
    assert done.stdout, done.stderr.decode()
    return f"{side} {verb}", done.stdout + done.stderr


def refusal(running: Federation) -> object:
    """What the hospital's own people are told."""
    [state] = [json.loads(content) for page, content in agent_pages(running) if page == "/v1/state"]
    return state["refused_by_policy"]


def egress_log(running: Federation) -> Contents:
    """The files, and what `fedward agent egress` says of them."""
    files = (running.state_folder(SITE) / EGRESS).glob("*.jsonl")
    verbs = [("egress", "--verify"), ("egress", "--json")]
    config = str(running.config_path(SITE))
    printed = [(" ".join(verb), running.fedward("agent", *verb, "--config", config).encode()) for verb in verbs]
    return [(path.name, path.read_bytes()) for path in files] + printed


def become(running: Federation, phase: str) -> None:
    running.wait_for(lambda state: state["sites"][SITE]["phase"] == phase, READY_S, f"the phase {phase}")


def accept_one_more(running: Federation) -> None:
    state = running.state() or {}
    accepted = state["sites"][SITE]["num_accepted"]
    running.wait_for(lambda now: now["sites"][SITE]["num_accepted"] > accepted, READY_S, "an update of the site")


def whatever_goes_wrong(running: Federation, files: MarkedFiles) -> Iterator[str]:
    """One trouble after the other; what it is while it lasts."""
    files.hurt.write_text(f"could not use the record {VALUE} {EXCEPTION}")
    become(running, "failed")
    yield "an exception in training"
    files.hurt.unlink()
    accept_one_more(running)
    files.policy.write_text(f"federations: [{POLICY}]\n")  # no name of a federation
    running.wait_for(lambda _: refusal(running) == "unreadable", READY_S, "a policy that can't be read")
    become(running, "refused_by_policy")
    yield "a policy that can't be read"
    files.allow()
    accept_one_more(running)
    files.refuse()
    running.wait_for(lambda _: refusal(running) == "federation", READY_S, "a policy that refuses")
    become(running, "refused_by_policy")
    yield "a policy that refuses"
    files.allow()
    accept_one_more(running)
    running.kill(SITE)
    files.spoil()
    become(running, "offline")
    running.start(SITE)
    become(running, "failed")
    yield "records that can't be read"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("signed", [False, True], ids=["bare", "signed and sealed"])
def test_no_marker_leaves_the_hospital_whatever_goes_wrong(tmp_path: Path, signed: bool) -> None:
    port, wire = free_port(HOST), bytearray()
    outside: Contents = []
    inside: Contents = []
    with ExitStack() as stack:
        relay = stack.enter_context(Relay(HOST, port, wire.extend))
        running, files = planned(tmp_path, signed, broker_port=port, routes={SITE: relay.port})
        stack.callback(running.broker.stop)
        running.broker.start()
        spy = stack.enter_context(Spy(running.broker.port, "#"))
        with running:
            running.wait_for(lambda state: state["sites"][SITE]["num_accepted"] >= 2, READY_S, "two updates")
            for trouble in whatever_goes_wrong(running, files):
                outside += [(f"{trouble}: {page}", content) for page, content in pages(running)]
                inside += [(f"{trouble}: {page}", content) for page, content in agent_pages(running)]
            outside += [said(running, "coordinator", verb, "coordinator") for verb in ("doctor", "status")]
            inside += [said(running, "agent", verb, SITE) for verb in ("doctor", "status", "pending")]
            for site in (SITE, OTHER):
                running.children[site].terminate()
                running.children[site].wait(10)  # they say goodbye
            heard = spy.take()
        updates = list(opened(heard, identity_of(running))) if signed else []
    logs = running.plan.folder / "logs"
    outside += [("coordinator.log", (logs / "coordinator.log").read_bytes()), *egress_log(running)]
    inside += [(f"{SITE}.log", (logs / f"{SITE}.log").read_bytes())]
    of_site = {topic.split("/")[6] for topic, _ in heard if f"/up/{SITE}/" in topic}
    assert of_site >= {"offer", "evaluation", "status", "telemetry"}
    assert bool([topic for topic, _ in updates if f"/up/{SITE}/" in topic]) == signed
    assert all(payload in wire for topic, payload in heard if f"/up/{SITE}/" in topic)
    assert b"compute_failed" in inside[-1][1]
    assert b"records_unusable" in inside[-1][1]
    assert [*found_anywhere(heard + updates + outside, MARKERS), *found_anywhere(inside, OF_RECORDS)] == []
    assert found_in(bytes(wire), UNMISTAKABLE) == set()


def identity_of(running: Federation) -> CoordinatorIdentity:
    return CoordinatorIdentity.load(running.plan.folder / "identities" / "coordinator", FEDERATION, time.time())


LEAKS = {"offer, opened", "evaluation", "telemetry", "/metrics", "/v1/state", f"{SITE}.log"}
"""Where what a task may do comes out."""


@pytest.mark.timeout(240)
def test_a_task_that_leaks_is_found_in_each_channel(tmp_path: Path) -> None:
    """The first test could fail: what it looks through is where a leak comes out, sealed or not."""
    running, _ = planned(tmp_path, signed=True, task=LEAKY, slow={})
    found: set[str] = set()
    sealed: Contents = []
    with ExitStack() as stack:
        stack.callback(running.broker.stop)
        running.broker.start()
        spy = stack.enter_context(Spy(running.broker.port, f"fl/v1/{FEDERATION}/up/{SITE}/#"))
        with running:
            running.wait_for(lambda state: state["sites"][SITE]["num_accepted"] >= 1, READY_S, "an update")
            give_up_s = time.monotonic() + READY_S
            while not found >= LEAKS - {f"{SITE}.log"}:
                assert time.monotonic() < give_up_s, f"found only in {sorted(found)}"
                heard = [spy.hear(), *spy.take()]
                sealed += [message for message in heard if "/offer/" in message[0]]
                looked = [(topic.split("/")[6], payload) for topic, payload in heard] + pages(running)
                looked += [("offer, opened", content) for _, content in opened(heard, identity_of(running))]
                found |= {place for place, _ in found_anywhere(looked, OF_RECORDS)}
    log = running.plan.folder / "logs" / f"{SITE}.log"
    found |= {place for place, _ in found_anywhere([(log.name, log.read_bytes())], OF_RECORDS)}
    assert found == LEAKS
    assert not found_anywhere(sealed, row_needles(VALUE, NEXT_VALUE)), "the seal hides it: so it has to be opened"


def test_what_leaves_is_found_in_whatever_form(tmp_path: Path) -> None:
    """The search above would find it: each form is made here by other means than the search makes it."""
    word, number = "mrkPlantedWk62Xc", VALUE
    wide = np.array([0.0, number, 0.0], ">f8")
    narrow = np.array([0.0, number, 0.0], "<f4")
    planes = narrow.view(np.uint8).reshape(-1, 4).T.tobytes()
    planted: dict[str, bytes] = {
        "text": f"<{word}>".encode(),
        "utf-16": f"<{word}>".encode("utf-16"),
        "utf-16-be": f"<{word}>".encode("utf-16-be"),
        "hex": f"<{word}>".encode().hex().encode(),
        "HEX": f"<{word}>".encode().hex().upper().encode(),
        "msgpack": msgpack.packb({"b": msgpack.packb({"detail": [word]})}),
        "float64 in msgpack": msgpack.packb({"b": msgpack.packb({"mean": number})}),
        "float64": wide.tobytes(),
        "float64, little-endian": wide.astype("<f8").tobytes(),
        "float32": narrow.tobytes(),
        "float32, big-endian": narrow.astype(">f4").tobytes(),
        "float32 in hex": narrow.tobytes().hex().encode(),
        "digits": json.dumps({"mean": number}).encode(),
        "zstd": b"head" + zstandard.compress(f"<{word}>".encode()) + b"tail",
        "f32z": b"head" + zstandard.compress(planes),
    }
    encoders: tuple[Callable[[bytes], bytes], ...] = (b64encode, urlsafe_b64encode)
    for encode in encoders:
        for before in range(3):
            for content in (word.encode(), wide[1:2].tobytes()):
                planted[f"{encode.__name__} {before} {content!r}"] = encode(b"\xff" * before + content + b"\xff\xff")
    needles = {**text_needles(word), **number_needles(number)}
    with EmbeddedBroker(tmp_path) as broker, Spy(broker.port, "#") as spy:
        for payload in planted.values():
            assert spy.link.publish(f"fl/v1/{FEDERATION}/dn/{SITE}/control", payload)
        heard = [spy.hear()[1] for _ in planted]
    assert heard == list(planted.values())
    assert [name for name, payload in planted.items() if not found_in(payload, needles)] == []
    assert found_anywhere([(f"fl/v1/{word}", b"")], needles)


@pytest.mark.parametrize("size_bytes", [1000, 3 * CHUNK_BYTES])
def test_what_is_sealed_is_found_inside_an_offer_and_in_chunks(tmp_path: Path, size_bytes: int) -> None:
    make_identities(tmp_path, FEDERATION, [SITE], time.time())
    identity = CoordinatorIdentity.load(tmp_path / "coordinator", FEDERATION, time.time())
    content = bytes(size_bytes - 500) + NOTE.encode() + bytes(500 - len(NOTE))
    offer, payload = seal_update(offer_of(b"-", 1, SITE), content, identity.sealed_to)
    topic = topics.offer(FEDERATION, SITE, offer.update_id)
    chunks = [payload[start : start + CHUNK_BYTES] for start in range(0, len(payload), CHUNK_BYTES)]
    if len(chunks) == 1:
        heard = [(topic, pack(replace(offer, payload=payload)))]
    else:
        of_chunk = [topics.update_chunk(FEDERATION, SITE, offer.update_id, index) for index in range(len(chunks))]
        heard = [*zip(of_chunk, chunks, strict=True), (topic, pack(offer))]
    needles = text_needles(NOTE)
    assert found_anywhere(heard, needles) == []
    assert found_anywhere(opened(heard, identity), needles) == [(topic, f"{NOTE} utf-8 raw")]
