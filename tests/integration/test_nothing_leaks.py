"""Markers wherever a hospital has room for one; whatever goes well or wrong, none of them leaves it.

What is looked through is all that a subscriber to everything heard, topics too, and what others can read of the
coordinator: pages, log, verbs. Of the agent's own pages and log, which are the hospital's, no record is in them.
"""

import json
import subprocess
import sys
import urllib.request
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgpack
import numpy as np
import pytest
import zstandard

from sandbox.broker import EmbeddedBroker
from sandbox.datasets import SiteData, Split
from sandbox.federation import FEDERATION, HOST, Federation, Plan, environment
from tests.integration.conftest import READY_S
from tests.support.marked_task import (
    EXCEPTION,
    MARKERS,
    OF_RECORDS,
    POLICY,
    TASK,
    VALUE,
    MarkedFiles,
    install,
)
from tests.support.needles import found_anywhere, found_in, number_needles, text_needles
from tests.support.spy import Spy

pytestmark = [pytest.mark.slow, pytest.mark.network]

SITE, OTHER = "hospital-a", "hospital-b"
"""The other one keeps versions coming, after each of which the first one tries again."""

Contents = list[tuple[str, bytes]]


def planned(folder: Path, signed: bool) -> tuple[Federation, MarkedFiles]:
    """A federation that was not started, and the first hospital's files."""
    files = {site: MarkedFiles(folder / site) for site in (SITE, OTHER)}
    for seed, of_site in enumerate(files.values()):
        of_site.write(seed)
    running = Federation(
        Plan(
            folder=folder / "federation",
            task=TASK,
            records=Split(tuple(SiteData(site, of_site.options, 1, 1) for site, of_site in files.items()), {}),
            engine={"preset": "fedasync"},
            work={"local_epochs": 2, "batch_size": 8, "local_lr": 0.01},
            codec="f32z",  # the most exact of all: an update hides nothing
            slow={OTHER: 20.0},  # a failure lasts long enough to be seen
            signed=signed,
            agent_http=True,
            telemetry_s=0.2,
            packages=install(folder / "packages"),
        )
    )
    options = json.dumps({"columns": str(files[SITE].columns)})
    model = str(running.model_path)
    running.fedward("agent", "init-model", "--task", TASK, "--options", options, "--out", model)
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
    running.policy_path(SITE).write_text(f"federations: [{POLICY}]\n")
    become(running, "refused_by_policy")
    yield "a policy that refuses"
    running.write_policy(SITE, {})
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
    running, files = planned(tmp_path, signed)
    outside: Contents = []
    inside: Contents = []
    with ExitStack() as stack:
        stack.callback(running.broker.stop)
        running.broker.start()
        spy = stack.enter_context(Spy(running.broker.port, "#"))
        with running:
            running.wait_for(lambda state: state["sites"][SITE]["num_accepted"] >= 2, READY_S, "two updates")
            for trouble in whatever_goes_wrong(running, files):
                outside += [(f"{trouble}: {page}", content) for page, content in pages(running)]
                inside += [(f"{trouble}: {page}", content) for page, content in agent_pages(running)]
            outside += [said(running, "coordinator", verb, "coordinator") for verb in ("doctor", "status")]
            inside += [said(running, "agent", verb, SITE) for verb in ("doctor", "status")]
            for site in (SITE, OTHER):
                running.children[site].terminate()
                running.children[site].wait(10)  # they say goodbye
            heard = spy.take()
    logs = running.plan.folder / "logs"
    outside += [("coordinator.log", (logs / "coordinator.log").read_bytes())]
    inside += [(f"{SITE}.log", (logs / f"{SITE}.log").read_bytes())]
    assert {topic.split("/")[6] for topic, _ in heard if f"/up/{SITE}/" in topic} >= {
        "offer",
        "evaluation",
        "status",
        "telemetry",
    }
    assert b"compute_failed" in inside[-1][1]
    assert b"records_unusable" in inside[-1][1]
    assert [*found_anywhere(heard + outside, MARKERS), *found_anywhere(inside, OF_RECORDS)] == []


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
