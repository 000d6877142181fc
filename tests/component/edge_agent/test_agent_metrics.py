"""The hospital's own monitoring: every figure of the page under its name, labels from closed sets only."""

import json
from typing import Any

from edge_agent.metrics import COUNTERS, GAUGES, exposition
from fedward import __version__
from fedward.errors import RejectReason
from fedward.http import STUCK_AFTER_S, pages_of
from fedward.messages import Phase
from fedward.topics import CARRIED


def samples(text: str) -> dict[str, float]:
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def test_a_new_agent_shows_every_counter_and_no_invented_version(hospital: Any) -> None:
    shown = samples(exposition(hospital.page))
    assert {f"{name}_total" for name, _ in COUNTERS.values()} <= set(shown)
    assert "fed_agent_model_version" not in shown
    assert shown['fed_agent_messages_refused_total{reason="stale"}'] == 0


def test_after_a_round_every_figure_is_there(hospital: Any) -> None:
    hospital.office.announce()
    hospital.settle()
    shown = samples(exposition(hospital.page))
    unknown = {"fed_agent_uplink_bytes_per_second", "fed_agent_certificate_expires_timestamp_seconds"}
    measured = {name for name, _ in GAUGES.values()} - unknown
    assert measured <= set(shown)
    assert shown["fed_agent_outbox_updates"] == 1
    assert shown["fed_agent_sent_bytes_total"] == hospital.link.bytes_sent
    assert shown["fed_agent_versions_fetched_total"] == 1
    carried = {name: shown[f'fed_agent_egress_bytes_total{{kind="{name}"}}'] for name in CARRIED}
    assert carried == hospital.page["bytes_left"]
    assert shown['fed_agent_egress_messages_total{kind="update"}'] == hospital.page["num_left"]["update"] >= 1
    assert shown[f'fed_agent_info{{device="cpu",software="fedward {__version__}"}}'] == 1


def test_exactly_one_phase_is_1(hospital: Any) -> None:
    shown = samples(exposition({**hospital.page, "phase": "training"}))
    phases = {name: value for name, value in shown.items() if name.startswith("fed_agent_phase")}
    assert len(phases) == len(Phase)
    assert [name for name, value in phases.items() if value] == ['fed_agent_phase{phase="training"}']


def test_the_rate_of_the_link_and_the_codec_are_shown_once_they_are_known(hospital: Any) -> None:
    before = samples(exposition(hospital.page))
    assert "fed_agent_uplink_bytes_per_second" not in before
    assert before['fed_agent_codec{codec="eden2"}'] == 0
    after = samples(exposition({**hospital.page, "uplink_bytes_s": 5e4, "codec": "eden2"}))
    assert after["fed_agent_uplink_bytes_per_second"] == 5e4
    assert [name for name, value in after.items() if name.startswith("fed_agent_codec") and value] == [
        'fed_agent_codec{codec="eden2"}'
    ]


def test_every_reason_to_refuse_is_a_series_from_the_start(hospital: Any) -> None:
    shown = samples(exposition(hospital.page))
    refused = [name for name in shown if name.startswith("fed_agent_messages_refused_total{")]
    assert len(refused) == len(RejectReason)


def test_health_follows_the_loop_and_readiness_the_broker(hospital: Any) -> None:
    served = pages_of(hospital.agent, exposition, hospital.clock)
    assert served["/readyz"]().status == 503
    hospital.settle()
    assert (served["/healthz"]().status, served["/readyz"]().status) == (200, 200)
    hospital.clock.advance(STUCK_AFTER_S)
    assert served["/healthz"]().status == 503


def test_the_state_page_is_json_and_metrics_are_text(hospital: Any) -> None:
    served = pages_of(hospital.agent, exposition, hospital.clock)
    assert json.loads(served["/v1/state"]().body)["site"] == "st-anna"
    assert "fed_agent_broker_connected" in served["/metrics"]().body
