"""Training that outlives its process: killed or asked to leave in the middle, and finished by the next one."""

import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import yaml

from coordinator.ledger import Ledger
from edge_agent.training.capability import Capability, Precision
from edge_agent.training.task import load_task
from edge_agent.training.train import train
from fedward.codec import codec
from fedward.identity.names import update_id_of, update_seed
from fedward.messages import Work
from fedward.modelfile import load_model
from sandbox.federation import FEDERATION, Federation, Plan, environment
from tests.integration.conftest import READY_S

pytestmark = [pytest.mark.slow, pytest.mark.network]

SITE = "hospital-a"
NUM_STEPS = 1500
"""Some seconds of training at a quarter of the time: long enough to be hit in the middle."""


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Federation]:
    """One hospital with a long training, in the middle of it: some steps done, a checkpoint written."""
    running = Federation(
        Plan(
            folder=tmp_path / "federation",
            allowed={"hospital-b": {"heart-disease": {}}},  # there, and idle
            num_sites=2,
            precise_versions=0,
            engine={"preset": "fedasync"},
            work={"local_epochs": 10_000, "batch_size": 16, "local_lr": 0.001, "max_steps": NUM_STEPS},
            slow={SITE: 4.0},
            telemetry_s=0.2,
        )
    )
    settings = yaml.safe_load(running.config_path(SITE).read_text())
    running.config_path(SITE).write_text(yaml.safe_dump({**settings, "checkpoint_s": 0.3}))
    with running:
        running.wait_for(
            lambda state: (state["sites"][SITE]["step"] or 0) >= 200 and checkpoint(running).exists(),
            READY_S,
            "step 200",
        )
        yield running


def checkpoint(running: Federation) -> Path:
    return running.state_folder(SITE) / "training" / "checkpoint.safetensors"


def events(running: Federation, name: str) -> list[dict[str, Any]]:
    """The agent's log lines of this event, of all its processes."""
    lines = (running.plan.folder / "logs" / f"{SITE}.log").read_text().splitlines()
    entries = [json.loads(line) for line in lines if line.startswith("{")]
    return [entry for entry in entries if entry["event"] == name]


def payload_without_a_stop(running: Federation) -> bytes:
    """What the same update is when one process makes it in one go, that was started as an agent is: a library for sums
    may choose its way by the environment."""
    options = next(site.options for site in running.split if site.name == SITE)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment().items():
            patch.setenv(name, value)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            plan = running.plan
            asked = pool.submit(payload, running.model_path, plan.task, options, dict(running.work), plan.codec)
            return asked.result(READY_S)


def payload(model: Path, task: str, options: dict[str, Any], work: dict[str, Any], codec_name: str) -> bytes:
    update_id = update_id_of(FEDERATION, SITE, base_version=0, sequence=0)
    layout, vector_P = load_model(model)
    delta_P, _ = train(
        load_task(task, options), layout, vector_P, Work(**work),
        capability=Capability("cpu", Precision.FLOAT32), seed=int.from_bytes(update_id[:7], "little"),
        on_step=lambda _: None, stop=threading.Event(),
    )  # fmt: skip
    how = codec(codec_name)
    return how.encode(delta_P.numpy(), layout, update_seed(how, 0, update_id))


def assert_it_is_finished_and_accepted(running: Federation) -> int:
    """Wait for the receipt of the very bytes that no stop would have changed; the step at which training went on."""
    running.wait_for(lambda state: state["sites"][SITE]["num_accepted"] >= 1, READY_S, "the update")
    first = Ledger.in_folder(running.state_folder("coordinator")).accepted()[0]
    assert first.base_version == 0
    assert first.digest == hashlib.sha256(payload_without_a_stop(running)).digest()
    (resumed,) = events(running, "training_resumed")
    return int(resumed["step"])


def test_killed_in_training_the_next_process_goes_on_from_the_checkpoint(training: Federation) -> None:
    training.kill(SITE)
    training.start(SITE)
    assert 0 < assert_it_is_finished_and_accepted(training) < NUM_STEPS


def test_sigterm_saves_the_training_says_so_and_leaves_within_ten_seconds(training: Federation) -> None:
    child = training.children.pop(SITE)
    asked_s = time.monotonic()
    os.kill(child.pid, signal.SIGTERM)
    assert child.process.wait(10) == 0
    assert time.monotonic() - asked_s < 10
    left = training.wait_for(lambda state: state["sites"][SITE]["phase"] == "leaving", 10, "the goodbye")
    assert not left["sites"][SITE]["online"]
    training.start(SITE)
    assert assert_it_is_finished_and_accepted(training) >= 200
