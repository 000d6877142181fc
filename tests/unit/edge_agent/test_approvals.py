"""What people have approved: durable, asked once, and never undone by the other of two writers."""

import multiprocessing
from pathlib import Path

import pytest

from edge_agent.approvals import ApprovalsFile, Approver, Decision, pending
from edge_agent.policy import WorkOrder
from fedward.errors import ConfigError

ORDER = WorkOrder("ward", "sepsis", "1" * 64, "sgd, at most 1 epoch a round")
OTHER = WorkOrder("ward", "sepsis", "2" * 64, "sgd, at most 1 epoch a round")


@pytest.fixture
def file(tmp_path: Path) -> ApprovalsFile:
    return ApprovalsFile(tmp_path / "approvals.json")


def test_a_new_order_waits_until_a_person_decides_whatever_is_restarted(file: ApprovalsFile) -> None:
    assert file.ask(ORDER, 10.0, automatic=False).decision is Decision.PENDING
    again = ApprovalsFile(file.path)
    assert pending(again.load()) == [ORDER.id]
    decided = again.decide(ORDER.id, Decision.APPROVED, 20.0)
    assert (decided.asked_at_s, decided.decided_at_s, decided.by) == (10.0, 20.0, Approver.PERSON)
    assert file.ask(ORDER, 30.0, automatic=False) == decided
    assert pending(file.load()) == []


def test_a_changed_task_asks_again(file: ApprovalsFile) -> None:
    file.ask(ORDER, 10.0, automatic=False)
    file.decide(None, Decision.APPROVED, 20.0)
    assert file.ask(OTHER, 30.0, automatic=False).decision is Decision.PENDING


def test_automatic_approval_is_recorded_and_overrules_no_person(file: ApprovalsFile) -> None:
    assert file.ask(ORDER, 10.0, automatic=True).by is Approver.POLICY
    file.decide(ORDER.id, Decision.DENIED, 20.0)
    assert file.ask(ORDER, 30.0, automatic=True).decision is Decision.DENIED


def test_what_waits_is_approved_once_the_policy_becomes_automatic(file: ApprovalsFile) -> None:
    file.ask(ORDER, 10.0, automatic=False)
    assert file.ask(ORDER, 20.0, automatic=True).decision is Decision.APPROVED


def test_without_an_id_the_only_request_that_waits_is_meant(file: ApprovalsFile) -> None:
    with pytest.raises(ConfigError, match="0 requests wait"):
        file.decide(None, Decision.APPROVED, 1.0)
    file.ask(ORDER, 10.0, automatic=False)
    file.ask(OTHER, 10.0, automatic=False)
    with pytest.raises(ConfigError, match="2 requests wait"):
        file.decide(None, Decision.APPROVED, 1.0)
    with pytest.raises(ConfigError, match="no request abc"):
        file.decide("abc", Decision.APPROVED, 1.0)
    assert len(pending(file.load())) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": {}}', '{"a": {"order": 1}}'])
def test_a_damaged_file_approves_nothing_and_is_not_written_over(file: ApprovalsFile, content: str) -> None:
    file.path.write_text(content)
    for attempt in (file.load, lambda: file.ask(ORDER, 1.0, automatic=True)):
        with pytest.raises(ConfigError, match="nothing counts as approved"):
            attempt()
    assert file.path.read_text() == content


def ask_many(path: Path, first: int) -> None:
    for number in range(first, first + 20):
        ApprovalsFile(path).ask(WorkOrder("ward", str(number), "1" * 64, ""), 1.0, automatic=False)


@pytest.mark.slow
def test_two_processes_that_write_at_once_lose_nothing_of_each_other(file: ApprovalsFile) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=ask_many, args=(file.path, first)) for first in (0, 100)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(file.load()) == 40
