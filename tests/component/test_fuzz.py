"""The fuzzer's short form, over every target; and that it finds what it is there to find."""

import time
from pathlib import Path
from random import Random

import pytest

from benchmarks.fuzz import MAX_FINDINGS, SAMPLED, all_targets, fuzz
from benchmarks.fuzz_targets import Target
from fedward.errors import PeerError, RejectReason
from fedward.limits import MIB

NUM_INPUTS = 60_000
"""About 15 seconds; docs/threat-model.md has the long run."""

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries grumble about some certificates and numbers


def use(what: object) -> Target:
    return Target("reader", lambda rng: (rng.random(),), what)  # type: ignore[arg-type]


@pytest.mark.slow
def test_no_hostile_input_brings_more_than_a_documented_refusal(tmp_path: Path) -> None:
    targets = all_targets(tmp_path)
    outcome = fuzz(targets, NUM_INPUTS, seed=3)
    assert outcome.findings == []
    assert outcome.inputs == NUM_INPUTS
    assert outcome.by_target.keys() == {target.name for target in targets}


def test_what_a_reader_does_not_document_is_found_and_its_refusals_are_not() -> None:
    def refuse(_: float) -> None:
        raise PeerError(RejectReason.MALFORMED, "as documented")

    def crash(_: float) -> None:
        raise KeyError("a bug")

    assert fuzz([use(refuse)], 50, seed=1).refused == {"reader": 50}
    outcome = fuzz([use(crash)], 50, seed=1)
    assert len(outcome.findings) == MAX_FINDINGS
    assert "KeyError" in outcome.findings[0]


def test_an_input_that_takes_much_memory_is_found() -> None:
    outcome = fuzz([use(lambda _: bytes(40 * MIB))], SAMPLED, seed=1)
    assert [finding for finding in outcome.findings if "MiB allocated" in finding]


def test_a_seed_makes_the_same_changes_again() -> None:
    first: list[float] = []
    for _ in range(2):
        fuzz([use(first.append)], 20, seed=9)
    assert first[:20] == first[20:]
    assert len(set(first)) == 20


def test_a_run_ends_at_its_deadline() -> None:
    assert fuzz([use(lambda _: Random(1))], SAMPLED * 5, seed=1, deadline_s=time.monotonic()).inputs == 1
