"""Whole federations: real broker, real processes, real sockets, real files, killed for real."""

import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from random import Random

import pytest

from coordinator.ledger import Ledger
from edge_agent.models import ModelFolder
from fedward import topics
from fedward.layout import vector_digest
from fedward.messages import Offer, Outcome, Receipt
from fedward.modelfile import load_model
from fedward.mqtt import MqttLink, MqttSettings
from fedward.pack import unpack
from fedward.ports import Connected, Delivery, LinkInbox
from fedward.topics import Down, Up
from sandbox.broker import find_mosquitto
from sandbox.federation import FEDERATION, HOST, Federation
from tests.integration.conftest import READY_S

pytestmark = [pytest.mark.slow, pytest.mark.network]

Start = Callable[..., Federation]


def ledger_of(running: Federation) -> Ledger:
    return Ledger.in_folder(running.state_folder("coordinator"))


def assert_every_update_counts_once(ledger: Ledger) -> None:
    """Each accepted update is in one version or in the buffer, and no site trained twice from one version."""
    accepted = ledger.accepted()
    versions = {row.version for row in ledger.versions()}
    assert all(row.version in versions for row in accepted if row.version is not None)
    per_base = Counter((row.site, row.base_version) for row in accepted)
    assert max(per_base.values()) == 1, per_base


@pytest.mark.parametrize("broker", ["mosquitto", "iotcore"])
def test_four_hospitals_learn_over_either_broker(federation: Start, broker: str) -> None:
    if broker == "mosquitto" and find_mosquitto() is None:
        pytest.skip("mosquitto is not installed: `apt-get install mosquitto` runs this test")
    running = federation(num_sites=4, broker=broker, finish={"version": 12}, slow={"hospital-d": 5.0})
    running.wait_for(lambda state: state["state"] == "finished", READY_S, "twelve versions")
    final = running.wait_for(
        lambda state: all(site["evaluated_version"] == 12 for site in state["sites"].values()), 20, "the last version"
    )
    assert final["metrics"]["auc"] >= 0.98
    assert {site for site, page in final["sites"].items() if page["num_accepted"] > 0} == set(running.sites)
    assert_every_update_counts_once(ledger_of(running))


@pytest.mark.parametrize(
    ("preset", "codec", "model_codec"),
    [("fedavg", "f32", "f32"), ("fedasync", "q8", "q8"), ("fedbuff", "eden4", "q8"), ("ca2fl", "q8", "f32")],
)
def test_each_method_makes_versions_and_every_agent_holds_the_announced_bits(
    federation: Start, preset: str, codec: str, model_codec: str
) -> None:
    engine: dict[str, object] = {"preset": preset} | ({"buffer_size": 2} if preset == "fedbuff" else {})
    running = federation(engine=engine, codec=codec, model_codec=model_codec, finish={"version": 4})
    state = running.wait_for(
        lambda state: (
            state["state"] == "finished" and all(site["evaluated_version"] == 4 for site in state["sites"].values())
        ),
        READY_S,
        "four versions, measured by all",
    )
    assert state["version"] == 4
    promised = ledger_of(running).version(4).model_digest.hex()
    for site in running.sites:
        held = ModelFolder(running.state_folder(site) / "model").label()
        assert (held["version"], held["digest"]) == (4, promised)
    if preset == "fedavg":
        assert all(row.base_version == row.version - 1 for row in ledger_of(running).accepted() if row.version)


@pytest.mark.parametrize("broker", [None, "iotcore"])  # iotcore does not deliver what is retained to a session again
def test_a_killed_coordinator_goes_on_where_it_was(federation: Start, broker: str | None) -> None:
    running = federation(finish={"version": 60}, broker=broker)
    before = running.wait_for(lambda state: state["version"] >= 3, READY_S, "three versions")
    running.kill("coordinator")
    running.start("coordinator")
    after = running.wait_for(lambda state: state["version"] >= before["version"] + 3, READY_S, "three more versions")
    running.wait_for(lambda state: all(site["online"] for site in state["sites"].values()), 30, "every site")
    assert sum(site["num_accepted"] for site in after["sites"].values()) > 0
    assert_every_update_counts_once(ledger_of(running))


def test_a_killed_agent_comes_back_and_delivers_again(federation: Start) -> None:
    running = federation(finish={"version": 200})
    running.wait_for(lambda state: state["version"] >= 2, READY_S, "two versions")
    site = running.sites[0]
    running.kill(site)
    running.wait_for(lambda state: not state["sites"][site]["online"], 30, "the last will")
    gone = running.state()
    assert gone is not None
    running.start(site)
    running.wait_for(
        lambda state: state["sites"][site]["num_accepted"] > gone["sites"][site]["num_accepted"] + 1,
        READY_S,
        "new updates of the returned site",
    )
    assert_every_update_counts_once(ledger_of(running))


def test_a_broker_that_dies_and_comes_back_empty_only_costs_time(federation: Start) -> None:
    running = federation(finish={"version": 200})
    before = running.wait_for(lambda state: state["version"] >= 2, READY_S, "two versions")
    running.broker.kill()
    running.wait_for(lambda state: not state["connected"], 30, "the coordinator to notice")
    running.broker.start()
    running.wait_for(lambda state: state["version"] >= before["version"] + 3, READY_S, "three more versions")
    assert_every_update_counts_once(ledger_of(running))


def test_a_late_hospital_joins_in_the_middle(federation: Start) -> None:
    running = federation(num_sites=3, finish={"version": 200})
    late = running.sites[2]
    running.kill(late)
    running.wait_for(lambda state: state["version"] >= 5, READY_S, "five versions without it")
    running.start(late)
    joined = running.wait_for(lambda state: state["sites"][late]["num_accepted"] >= 2, READY_S, "its updates")
    assert joined["sites"][late]["base_version"] >= 5
    assert_every_update_counts_once(ledger_of(running))


def test_large_updates_and_models_travel_in_chunks(federation: Start, clinical_data: Path) -> None:
    running = federation(
        task="pneumonia",
        data=clinical_data,
        codec="f32",
        work={"local_epochs": 1, "batch_size": 32, "local_lr": 0.01, "max_steps": 2},
        finish={"version": 3},
    )
    running.wait_for(lambda state: state["version"] == 3, READY_S, "three versions of a 2.8 MB model")
    sizes = {row.size_bytes for row in ledger_of(running).accepted()}
    assert min(sizes) > 2 * 256 * 1024, "each update should have taken several chunks"
    assert_every_update_counts_once(ledger_of(running))


def test_the_operator_pauses_resumes_and_finishes(federation: Start) -> None:
    running = federation()
    config = str(running.config_path("coordinator"))
    running.wait_for(lambda state: state["version"] >= 1, READY_S, "a version")
    running.fedward("coordinator", "pause", "--config", config)
    paused = running.wait_for(
        lambda state: state["state"] == "paused" and all(s["phase"] == "paused" for s in state["sites"].values()),
        30,
        "all to pause",
    )
    running.fedward("coordinator", "resume", "--config", config)
    running.wait_for(lambda state: state["version"] > paused["version"] + 1, 30, "versions after the pause")
    site = running.sites[0]
    running.fedward("coordinator", "pause", "--site", site, "--config", config)
    running.wait_for(lambda state: state["sites"][site]["phase"] == "paused", 30, "one site to pause")
    running.fedward("coordinator", "finish", "--config", config)
    last = running.wait_for(lambda state: state["state"] == "finished", 30, "the end")

    status = running.fedward("coordinator", "status", "--config", config)
    assert f"federation {FEDERATION}: finished" in status
    assert f"version    {last['version']} " in status
    agent_status = running.fedward("agent", "status", "--config", str(running.config_path(site)))
    assert "accepted" in agent_status


def test_an_exported_version_is_the_announced_one_and_has_its_card(federation: Start, tmp_path: Path) -> None:
    running = federation(finish={"version": 3})
    running.wait_for(lambda state: state["state"] == "finished", READY_S, "three versions")
    config = str(running.config_path("coordinator"))
    for version in (0, 2, 3):
        out = tmp_path / f"v{version}.safetensors"
        running.fedward("coordinator", "export", "--config", config, "--version", str(version), "--out", str(out))
        layout, vector_P = load_model(out)
        assert vector_digest(vector_P) == ledger_of(running).version(version).model_digest
        assert layout.digest.hex() == ledger_of(running).fact("layout")
        card = out.with_suffix(".md").read_text()
        assert ledger_of(running).version(version).model_digest.hex() in card
        assert version == 0 or all(site in card for site in running.sites)


def test_health_metrics_and_each_sites_telemetry_are_exported(federation: Start) -> None:
    running = federation(finish={"version": 200})
    running.wait_for(lambda state: state["version"] >= 2, READY_S, "two versions")
    for page in ("/healthz", "/readyz"):
        assert running.page(page) == "ok\n"
    metrics = running.page("/metrics")
    assert metrics is not None
    for site in running.sites:
        assert f'fed_site_updates_accepted_total{{site="{site}"}}' in metrics
        assert f'fed_site_phase{{phase="training",site="{site}"}}' in metrics
    assert 'fed_messages_refused_total{reason="malformed"} 0.0' in metrics


def test_an_agent_serves_its_own_health_and_metrics(federation: Start) -> None:
    running = federation(finish={"version": 200}, agent_http=True)
    running.wait_for(lambda state: state["version"] >= 1, READY_S, "a version")
    for site in running.sites:
        root = f"http://{HOST}:{running.agent_ports[site]}"
        for page in ("/healthz", "/readyz"):
            with urllib.request.urlopen(root + page, timeout=5) as answer:
                assert answer.read() == b"ok\n"
        with urllib.request.urlopen(root + "/metrics", timeout=5) as answer:
            assert b"fed_agent_updates_accepted_total" in answer.read()


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
def test_garbage_on_the_wire_is_counted_and_changes_nothing(federation: Start, signed: bool) -> None:
    """Where messages are signed, garbage proves nobody's, and no update is ended for it; else its site is answered."""
    running = federation(finish={"version": 200}, signed=signed)
    running.wait_for(lambda state: state["version"] >= 1, READY_S, "a version")
    site, update_id = running.sites[0], b"\x07" * 32
    inbox: LinkInbox = Queue(1000)
    settings = MqttSettings(host=HOST, port=running.broker.port, client_id="stranger", session_expiry_s=60)
    link = MqttLink(settings, inbox, Random(1))
    link.subscribe(topics.down(FEDERATION, site, Down.RECEIPT))
    link.open()
    while not isinstance(inbox.get(timeout=10), Connected):
        pass
    link.publish(topics.offer(FEDERATION, site, update_id), b"\xc1 not msgpack")
    link.publish(topics.offer(FEDERATION, site, update_id), b"x" * 600_000)
    link.publish(topics.up(FEDERATION, "nobody", Up.GET), b"")
    link.publish(topics.update_chunk(FEDERATION, site, update_id, 3), b"a chunk that was never granted")
    link.publish(f"fl/v1/{FEDERATION}/up/{site}/s99/get", b"")
    state = running.wait_for(
        lambda state: (
            state["refused"]["malformed"] >= 2
            and state["refused"]["too_large"] >= 1
            and state["refused"]["unknown_site"] >= 1
            and state["refused"]["not_offered"] >= 1
        ),
        20,
        "every refusal to be counted",
    )
    running.wait_for(lambda later: later["version"] > state["version"] + 1, 30, "versions as before")
    receipts = []
    while len(receipts) < (0 if signed else 2) or not inbox.empty():
        event = inbox.get(timeout=10)
        if isinstance(event, Delivery):
            receipt = unpack(event.payload, Receipt)
            link.acknowledge(event)
            if receipt.update_id == update_id:
                receipts.append(receipt)
    link.close()
    assert [receipt.outcome for receipt in receipts] == ([] if signed else [Outcome.REFUSED] * 2)


def test_an_agent_does_not_train_a_task_that_its_hospital_does_not_allow(federation: Start) -> None:
    running = federation(finish={"version": 200}, allowed={"hospital-b": {"tabular": {"columns": "heart-disease"}}})
    running.wait_for(lambda state: state["sites"]["hospital-a"]["num_accepted"] >= 2, READY_S, "the other site")
    state = running.wait_for(lambda state: state["sites"]["hospital-b"]["online"], 30, "the site to be there")
    assert state["sites"]["hospital-b"]["num_accepted"] == 0
    log = (running.plan.folder / "logs" / "hospital-b.log").read_text()
    assert "task_not_allowed" in log


def test_a_site_that_returns_after_many_versions_is_told_so_and_takes_part_again(federation: Start) -> None:
    running = federation(num_sites=3, engine={"preset": "default", "max_staleness": 3}, finish={"version": 500})
    running.wait_for(lambda state: state["version"] >= 2, READY_S, "two versions")
    site = running.sites[2]
    outbox = running.state_folder(site) / "outbox"
    running.wait_for(lambda _state: any(outbox.glob("*.offer")), 30, "a finished update of the site")
    running.kill(site)
    gone = running.state()
    assert gone is not None
    waiting = [unpack(path.read_bytes(), Offer) for path in outbox.glob("*.offer")]
    running.wait_for(lambda state: state["version"] >= gone["version"] + 6, READY_S, "versions without it")
    running.start(site)
    running.wait_for(
        lambda state: state["sites"][site]["num_accepted"] >= gone["sites"][site]["num_accepted"] + 2,
        READY_S,
        "new updates of the returned site",
    )
    ended = {row.update_id: row.reason for row in ledger_of(running).updates()}
    assert all(offer.update_id in ended for offer in waiting), "what waited had its end, whichever it was"
    held = ModelFolder(running.state_folder(site) / "model").label()
    assert held["version"] > gone["version"]
