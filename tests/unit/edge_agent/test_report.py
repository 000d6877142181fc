"""What the agent tells of itself, and when."""

import dataclasses
import queue
from typing import Any

import pytest

from edge_agent.config import SiteConfig
from edge_agent.policy import TELLABLE
from edge_agent.report import SOON_S, Reporter, telemetry_of, will_of
from fedward.messages import Phase, Status, Telemetry
from fedward.pack import pack, unpack
from fedward.testing import MemoryBroker, MemoryLink

BOOT = b"boot-one"
PAGE: dict[str, Any] = {
    "site": "st-anna",
    "phase": "training",
    "held": 4,
    "step": 3,
    "num_steps": 9,
    "num_accepted": 5,
    "num_refused": 1,
    "num_fetched": 2,
    "bytes_sent": 10,
    "bytes_received": 20,
    "step_s": 0.25,
    "train_loss": 0.5,
    "uplink_bytes_s": 1e6,
    "now_s": 1.75e9,
    "device": "cpu",
    "num_gpus": 0,
    "codec": "eden2",
    "refused": {},
}


@pytest.fixture
def reporter(office: Any, broker: MemoryBroker, config: SiteConfig) -> Reporter:
    link = MemoryLink(broker, "st-anna", queue.Queue())
    link.open()
    return Reporter(link, config, BOOT)


def told(office: Any) -> list[Telemetry]:
    return list(office.messages(Telemetry))


def test_telemetry_carries_these_figures_and_nothing_else_of_the_page() -> None:
    assert dataclasses.asdict(telemetry_of(PAGE, BOOT, TELLABLE)) == {
        "boot_id": BOOT,
        "phase": Phase.TRAINING,
        "version": 4,
        "step": 3,
        "num_steps": 9,
        "num_updates": 5,
        "num_refused": 1,
        "num_fetched": 2,
        "bytes_sent": 10,
        "bytes_received": 20,
        "step_s": 0.25,
        "train_loss": 0.5,
        "uplink_bytes_s": 1e6,
        "sent_at_s": 1.75e9,
        "device": "cpu",
        "num_gpus": 0,
    }


@pytest.mark.parametrize("name", [name for name in TELLABLE if name != "evaluation"])
def test_telemetry_leaves_out_what_the_policy_does_not_name(name: str) -> None:
    everything = dataclasses.asdict(telemetry_of(PAGE, BOOT, TELLABLE))
    lacking = dataclasses.asdict(telemetry_of(PAGE, BOOT, set(TELLABLE) - {name}))
    assert lacking == {**everything, name: None}


def test_without_permission_telemetry_is_presence_and_phase(reporter: Reporter, office: Any) -> None:
    reporter.step({**PAGE, "phase": "refused_by_policy"}, (), 0.0)
    (telemetry,) = told(office)
    assert telemetry == Telemetry(boot_id=BOOT, phase=Phase.REFUSED_BY_POLICY)
    assert pack(telemetry) == pack(Telemetry(boot_id=BOOT, phase=Phase.REFUSED_BY_POLICY))


def test_telemetry_goes_out_at_once_and_then_at_the_interval(
    reporter: Reporter, office: Any, config: SiteConfig
) -> None:
    for now_s in (0.0, 1.0, config.telemetry_s - 0.1, config.telemetry_s):
        reporter.step(PAGE, TELLABLE, now_s)
    assert len(told(office)) == 2


def test_a_change_of_phase_is_told_soon_but_not_more_often_than_that(reporter: Reporter, office: Any) -> None:
    reporter.step(PAGE, TELLABLE, 0.0)
    for now_s, phase in ((SOON_S / 2, "publishing"), (SOON_S, "publishing"), (1.2 * SOON_S, "idle")):
        reporter.step({**PAGE, "phase": phase}, TELLABLE, now_s)
    assert [telemetry.phase for telemetry in told(office)] == ["training", "publishing"]


def test_a_new_connection_is_told_everything_at_once(reporter: Reporter, office: Any) -> None:
    reporter.step(PAGE, TELLABLE, 0.0)
    reporter.arrive()
    reporter.step(PAGE, TELLABLE, 0.0)
    assert len(told(office)) == 2
    (status,) = office.messages(Status)
    assert (status.boot_id, status.online, status.leaving) == (BOOT, True, False)


def test_telemetry_that_found_no_link_is_due_at_the_next_step(office: Any, broker: Any, config: SiteConfig) -> None:
    link = MemoryLink(broker, "st-anna", queue.Queue())
    reporter = Reporter(link, config, BOOT)
    reporter.step(PAGE, TELLABLE, 0.0)
    link.open()
    reporter.step(PAGE, TELLABLE, 0.0)
    assert len(told(office)) == 1


def test_leaving_is_told_as_a_purpose_and_the_will_is_not(reporter: Reporter, office: Any, config: SiteConfig) -> None:
    reporter.leave()
    will = will_of(config, BOOT, pack)
    office.listen()
    assert office.heard[-1][0] == will.topic
    assert unpack(office.heard[-1][1], Status) == Status(boot_id=BOOT, online=False, leaving=True)
    assert unpack(will.payload, Status) == Status(boot_id=BOOT, online=False)
    assert will.delay_s == config.broker.will_delay_s
