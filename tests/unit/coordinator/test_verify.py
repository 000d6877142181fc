"""Which updates may count."""

from dataclasses import replace

import numpy as np
import pytest

from coordinator.verify import Terms, check_evaluation, check_offer, check_update
from fedward.chunks import manifest_of
from fedward.codec import codec
from fedward.errors import PeerError, RejectReason
from fedward.identity.names import update_seed
from fedward.limits import MAX_NORM
from fedward.messages import Evaluation, FederationState, Manifest, Offer, Ratio
from tests.support.updates import LARGE, SMALL, offer_of, payload_of, vector

BASE = b"b" * 32
TERMS = Terms(
    layout=SMALL, version=7, max_staleness=5, codecs=("f32", "eden4"), state=FederationState.RUNNING, base_digest=BASE
)
PAYLOAD = payload_of(SMALL, seed=1)
OFFER = offer_of(PAYLOAD, 1, base_version=7)
TOO_FEW_DIGESTS = Manifest(size_bytes=OFFER.manifest.size_bytes, digest=b"d" * 32, chunk_digests=b"c" * 64)


@pytest.mark.parametrize(
    ("reason", "offer", "terms"),
    [
        (RejectReason.FINISHED, OFFER, replace(TERMS, state=FederationState.FINISHED)),
        (RejectReason.UNKNOWN_BASE, replace(OFFER, base_version=8), TERMS),
        (RejectReason.UNKNOWN_BASE, replace(OFFER, base_digest=b"o" * 32), TERMS),
        (RejectReason.STALE, replace(OFFER, base_version=1), TERMS),
        (RejectReason.LAYOUT_MISMATCH, replace(OFFER, layout_digest=LARGE.digest), TERMS),
        (RejectReason.LAYOUT_MISMATCH, replace(OFFER, manifest=manifest_of(PAYLOAD + b"!")), TERMS),
        (RejectReason.LAYOUT_MISMATCH, replace(OFFER, manifest=manifest_of(PAYLOAD[:-4])), TERMS),
        (RejectReason.UNKNOWN_CODEC, replace(OFFER, codec="q8"), TERMS),
        (RejectReason.MALFORMED, replace(OFFER, manifest=TOO_FEW_DIGESTS), TERMS),
        (RejectReason.MALFORMED, replace(OFFER, payload=PAYLOAD[:-1]), TERMS),
    ],
    ids=[
        "a finished federation", "a base from the future", "another base of this number",
        "a base too old", "another model", "a byte too many",
        "an element too few", "another codec", "digests of two chunks", "an inline payload that is cut",
    ],
)  # fmt: skip
def test_an_offer_that_can_not_count_is_refused(reason: RejectReason, offer: Offer, terms: Terms) -> None:
    with pytest.raises(PeerError) as refusal:
        check_offer(offer, terms, repeated=False)
    assert refusal.value.reason is reason


@pytest.mark.parametrize("base_version", [2, 7], ids=["as stale as allowed", "of the newest version"])
def test_an_offer_within_the_terms_is_taken(base_version: int) -> None:
    check_offer(replace(OFFER, base_version=base_version, payload=PAYLOAD), TERMS, repeated=False)


@pytest.mark.parametrize("base_digest", [None, BASE], ids=["not told, by an older agent", "as made here"])
def test_the_digest_of_the_base_is_that_of_the_ledger_where_it_is_told(base_digest: bytes | None) -> None:
    check_offer(replace(OFFER, base_digest=base_digest), TERMS, repeated=False)


def test_an_offer_in_any_of_the_allowed_codecs_is_taken() -> None:
    payload = codec("eden4").encode(vector(SMALL, seed=1), SMALL, OFFER.update_id)
    check_offer(replace(OFFER, codec="eden4", manifest=manifest_of(payload)), TERMS, repeated=False)


def test_a_paused_federation_takes_what_was_begun() -> None:
    check_offer(OFFER, replace(TERMS, state=FederationState.PAUSED), repeated=False)


def test_a_stale_update_is_stale_although_the_digest_of_its_base_is_gone() -> None:
    stale = replace(OFFER, base_version=TERMS.version - TERMS.max_staleness - 1, base_digest=BASE)
    with pytest.raises(PeerError) as refusal:
        check_offer(stale, replace(TERMS, base_digest=None), repeated=False)
    assert refusal.value.reason is RejectReason.STALE


def test_a_second_update_of_a_site_from_one_version_is_refused_where_one_is_asked_for() -> None:
    with pytest.raises(PeerError) as refusal:
        check_offer(OFFER, TERMS, repeated=True)
    assert refusal.value.reason is RejectReason.REPEATED


def spoiled(index: int, value: float) -> memoryview:
    values_P = vector(SMALL, seed=1)
    values_P[index] = value
    return memoryview(values_P.astype("<f4").data).cast("B")


@pytest.mark.parametrize("index", [0, SMALL.size - 1], ids=["first", "last"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), RejectReason.NOT_FINITE),
        (float("-inf"), RejectReason.NOT_FINITE),
        (1e30, RejectReason.NORM_TOO_LARGE),
        (1.001 * MAX_NORM, RejectReason.NORM_TOO_LARGE),
    ],
    ids=["nan", "infinity", "1e30", "just above the bound"],
)
def test_one_bad_value_anywhere_refuses_the_update(index: int, value: float, reason: RejectReason) -> None:
    with pytest.raises(PeerError) as refusal:
        check_update(spoiled(index, value), OFFER, SMALL)
    assert refusal.value.reason is reason


def test_a_large_norm_within_the_bound_is_taken() -> None:
    assert check_update(spoiled(0, 0.99 * MAX_NORM), OFFER, SMALL) == pytest.approx(0.99 * MAX_NORM)


@pytest.mark.parametrize("name", ["f32", "q8", "eden4"])
def test_the_norm_is_that_of_the_decoded_delta(name: str) -> None:
    delta_P = vector(SMALL, seed=1)
    offer = replace(OFFER, codec=name)
    seed = update_seed(codec(name), offer.base_version, offer.update_id)
    length = check_update(memoryview(codec(name).encode(delta_P, SMALL, seed)), offer, SMALL)
    assert length == pytest.approx(float(np.linalg.norm(delta_P)), rel=0.02)  # eden keeps the norm within 2 %


def test_a_payload_of_another_size_is_refused() -> None:
    with pytest.raises(PeerError) as refusal:
        check_update(memoryview(PAYLOAD)[:-4], OFFER, SMALL)
    assert refusal.value.reason is RejectReason.LAYOUT_MISMATCH


def measured(version: int, model_digest: bytes | None) -> Evaluation:
    metrics = {"loss": Ratio(numerator=1.0, denominator=1.0)}
    return Evaluation(federation="ward", version=version, num_examples=1, metrics=metrics, model_digest=model_digest)


@pytest.mark.parametrize("model_digest", [BASE, None], ids=["our model", "of an older agent"])
def test_a_measurement_of_our_version_counts(model_digest: bytes | None) -> None:
    check_evaluation(measured(7, model_digest), 7, BASE)


@pytest.mark.parametrize(
    ("evaluation", "ours"),
    [(measured(8, None), None), (measured(7, b"o" * 32), BASE), (measured(7, BASE), None)],
    ids=["not out", "another model", "deleted"],
)
def test_a_measurement_of_anything_else_is_of_an_unknown_version(evaluation: Evaluation, ours: bytes | None) -> None:
    with pytest.raises(PeerError) as error:
        check_evaluation(evaluation, 7, ours)
    assert error.value.reason is RejectReason.UNKNOWN_BASE
