"""The model card."""

import json

import pytest

from coordinator.card import model_card
from coordinator.ledger import Ledger
from coordinator.tables import StoredVersion
from fedward.errors import RejectReason
from fedward.messages import Evaluation, Ratio
from tests.support.coordinator_bench import at
from tests.support.updates import FEDERATION, offer_of


@pytest.fixture
def card(ledger: Ledger) -> str:
    """Of version 1; version 2 is newer."""
    for name, value in (("federation", FEDERATION), ("task", "tabular"), ("layout", "abcd")):
        ledger.claim(name, value)
    numbers = []
    for seed, site, version in ((1, "north", 0), (2, "south", 1), (3, "north", 1), (4, "north", 2)):
        offer = offer_of(f"payload {seed}".encode(), seed, site, num_examples=100 * seed)
        numbers.append((ledger.add_update(offer, site, at(1.0), 1.0, None).number, version))
    ledger.add_update(offer_of(b"refused", 5), "north", at(1.0), None, RejectReason.STALE)
    for version in range(3):
        row = StoredVersion(
            version=version, created_at_s=1_700_000_000.0, model_digest=bytes([version]) * 32, state_digest=b"s" * 32,
            settings={"model_codec": "q8"},
        )  # fmt: skip
        ledger.add_version(row, [], {number: 0.25 for number, into in numbers if into == version})
    for version, correct in ((0, 6.0), (1, 7.0), (2, 9.0)):
        metrics = {"accuracy": Ratio(numerator=correct, denominator=10.0)}
        ledger.add_evaluation(
            Evaluation(federation=FEDERATION, version=version, num_examples=10, metrics=metrics), "north", 1.0
        )
    return model_card(ledger, 1, b"\xab" * 32)


def test_the_card_names_the_model_by_its_digests(card: str) -> None:
    assert card.startswith(f"# {FEDERATION}, version 1\n")
    for line in ("made: 2023-11-14T22:13:20+00:00", "task: tabular", f"`{'ab' * 32}`", f"`{'01' * 32}`", "`abcd`"):
        assert line in card


def test_the_card_counts_what_went_into_the_version_and_nothing_newer(card: str) -> None:
    assert "- updates folded in: 3\n" in card
    assert "| north | 2 | 300 | 20 | 0.50 |" in card
    assert "| south | 1 | 200 | 10 | 0.25 |" in card


def test_the_card_shows_the_measurement_of_its_version_and_not_of_a_newer_one(card: str) -> None:
    rows = [line for line in card.splitlines() if "| accuracy |" in line]
    assert rows == ["| 1 | accuracy | north | 0.7000 | 10 |"]


def test_the_card_holds_the_settings(card: str) -> None:
    text = card.split("```json\n")[1].split("```", maxsplit=1)[0]
    assert json.loads(text) == {"model_codec": "q8"}


def test_there_is_no_card_of_a_version_that_was_never_made(ledger: Ledger) -> None:
    with pytest.raises(KeyError):
        model_card(ledger, 3, b"")
