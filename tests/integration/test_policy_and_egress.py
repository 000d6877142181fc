"""The hospital's policy and egress log in real processes: each byte that somebody else saw is in the log."""

import hashlib
import json
from collections.abc import Callable

import pytest

from edge_agent.approvals import ApprovalsFile
from edge_agent.egress_report import messages_since, verify
from fedward.messages import Telemetry
from fedward.pack import unpack
from sandbox.federation import FEDERATION, Federation
from tests.integration.conftest import READY_S
from tests.support.spy import Spy

pytestmark = [pytest.mark.slow, pytest.mark.network]

Start = Callable[..., Federation]
SITE = "hospital-a"
UP = f"fl/v1/{FEDERATION}/up/{SITE}/#"


def test_each_byte_that_a_spy_saw_is_in_the_log_whatever_was_killed(federation: Start) -> None:
    running = federation(finish={"version": 10_000})
    folder = running.state_folder(SITE) / "egress"
    saw: list[tuple[str, bytes]] = []
    with Spy(running.broker.port, UP) as spy:
        state = running.wait_for(lambda state: state["version"] >= 2, READY_S, "two versions")
        for _ in range(2):
            verify(folder)  # while the agent writes
            running.kill(SITE)
            saw += spy.take()
            verify(folder)
            running.wait_for(lambda now: now["sites"][SITE]["phase"] == "offline", READY_S, "the last will")
            running.start(SITE)
            accepted = state["sites"][SITE]["num_accepted"] + 2
            state = running.wait_for(
                lambda now, least=accepted: now["sites"][SITE]["num_accepted"] >= least,  # type: ignore[misc]
                READY_S,
                "the site to go on",
            )
        running.children[SITE].terminate()
        running.children[SITE].wait(10)
        saw += spy.take()
    found = verify(folder)
    logged = {(line["sha256"], line["size"]) for line in messages_since(folder)}
    unlogged = [topic for topic, payload in saw if (hashlib.sha256(payload).hexdigest(), len(payload)) not in logged]
    assert not unlogged
    assert {topic.split("/")[6] for topic, _ in saw} >= {"offer", "get", "evaluation", "status", "telemetry"}
    assert (found.num_killed, found.num_power_cuts, found.torn_bytes) == (2, 0, 0)
    assert "each as it was written" in running.fedward(
        "agent", "egress", "--verify", "--config", str(running.config_path(SITE))
    )


def test_a_hospital_that_refuses_shows_a_phase_and_goes_on_when_it_allows(federation: Start) -> None:
    running = federation(finish={"version": 10_000}, telemetry_s=0.2)
    running.wait_for(lambda state: state["version"] >= 1, READY_S, "a version")
    with Spy(running.broker.port, UP) as spy:
        for broken in ("federations: []\n", "federations: [", "approval: no\n"):
            running.policy_path(SITE).write_text(broken)
            running.wait_for(
                lambda state: state["sites"][SITE]["phase"] == "refused_by_policy", READY_S, f"{broken!r} to be obeyed"
            )
            spy.take()  # what was on its way
            state = running.wait_for(lambda _state: True, READY_S, "a state")
            running.wait_for(
                lambda now, least=state["version"] + 1: now["version"] >= least,  # type: ignore[misc]
                READY_S,
                "the other site, which goes on",
            )
            messages = spy.take()
            assert {topic.split("/")[6] for topic, _ in messages} == {"telemetry"}
            for _, payload in messages:
                telemetry = unpack(payload, Telemetry)
                assert telemetry == Telemetry(boot_id=telemetry.boot_id, phase=telemetry.phase)
            running.write_policy(SITE, {})
            running.wait_for(
                lambda now, accepted=state["sites"][SITE]["num_accepted"]: (  # type: ignore[misc]
                    now["sites"][SITE]["num_accepted"] > accepted and now["sites"][SITE]["phase"] != "refused_by_policy"
                ),
                READY_S,
                "the site to go on, and to say so",
            )


def test_nothing_begins_before_a_person_approves(federation: Start) -> None:
    running = federation(finish={"version": 10_000})
    running.wait_for(lambda state: state["version"] >= 1, READY_S, "a version")
    site = ("--config", str(running.config_path(SITE)))
    (approval,) = ApprovalsFile(running.state_folder(SITE) / "approvals.json").load().values()
    assert approval.by == "policy"
    running.fedward("agent", "deny", approval.order.id, *site)
    running.wait_for(
        lambda state: state["sites"][SITE]["phase"] == "refused_by_policy", READY_S, "the person to be obeyed"
    )
    assert "denied" in running.fedward("agent", "status", *site)
    state = running.state() or {}
    running.fedward("agent", "approve", approval.order.id, *site)
    running.wait_for(
        lambda now: now["sites"][SITE]["num_accepted"] > state["sites"][SITE]["num_accepted"], READY_S, "work"
    )
    assert json.loads((running.state_folder(SITE) / "permission.json").read_text())["refusal"] is None
