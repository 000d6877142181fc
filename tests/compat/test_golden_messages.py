"""Every kind of message as bytes on file: what this release sends and reads is what every other one does.

The files are hexadecimal, 64 digits a line. They are never edited: a message that changes its bytes breaks the
agents that are out there. A new optional field leaves its sample as it is (None is not sent).
Chunks travel bare, so there is nothing of them to pin.
"""

import dataclasses
from pathlib import Path
from typing import cast

import pytest

from fedward.errors import PeerError, RejectReason
from fedward.messages import (
    Announcement,
    Control,
    Enrolled,
    Enrolment,
    EnrolmentOutcome,
    Evaluation,
    FederationState,
    Get,
    Grant,
    Initial,
    LocalOptimizer,
    Manifest,
    Offer,
    Outcome,
    Part,
    PartKind,
    Phase,
    Range,
    Ratio,
    Receipt,
    Renewal,
    Renewed,
    SealedKey,
    Status,
    Telemetry,
    Work,
)
from fedward.pack import SIZE_LIMITS, pack, unpack

GOLDEN = Path(__file__).parent / "golden"

UPDATE_ID = bytes(range(32))
BOOT_ID = b"\x01\x02\x03\x04\x05\x06\x07\x08"
DIGEST = bytes(range(100, 132))
LAYOUT_DIGEST = bytes(range(200, 232))
MANIFEST = Manifest(size_bytes=300_000, digest=DIGEST, chunk_digests=bytes(64))
OFFER = Offer(
    federation="sepsis",
    update_id=UPDATE_ID,
    sequence=3,
    base_version=41,
    codec="eden4",
    layout_digest=LAYOUT_DIGEST,
    num_examples=1200,
    num_steps=75,
    work_s=12.5,
    manifest=MANIFEST,
)

SAMPLES: dict[str, object] = {
    "announcement": Announcement(
        federation="sepsis",
        sequence=7,
        boot_id=BOOT_ID,
        state=FederationState.RUNNING,
        version=42,
        model_digest=DIGEST,
        layout_digest=LAYOUT_DIGEST,
        parts=(
            Part(kind=PartKind.SNAPSHOT, version=41, codec="f32", manifest=MANIFEST),
            Part(kind=PartKind.DELTA, version=42, codec="q8", manifest=MANIFEST),
        ),
        task="tabular",
        work=Work(
            local_epochs=1,
            batch_size=32,
            local_lr=0.05,
            optimizer=LocalOptimizer.ADAM,
            momentum=0.9,
            weight_decay=1e-4,
            max_steps=500,
            max_seconds=600.0,
        ),
        codec="eden4",
        max_staleness=20,
        repeat_base=False,
    ),
    "get": Get(federation="sepsis", digest=DIGEST, missing=(Range(start=0, stop=1), Range(start=5, stop=9))),
    "offer": OFFER,
    "offer_with_payload": dataclasses.replace(OFFER, payload=b"\x00\x7f\x80\xff"),
    "offer_with_base_digest": dataclasses.replace(OFFER, base_digest=DIGEST),
    "grant": Grant(update_id=UPDATE_ID, missing=(Range(start=0, stop=2),)),
    "receipt": Receipt(update_id=UPDATE_ID, outcome=Outcome.ACCEPTED),
    "receipt_refused": Receipt(update_id=UPDATE_ID, outcome=Outcome.REFUSED, reason=RejectReason.STALE),
    "control": Control(sequence=8, paused=True),
    "status": Status(boot_id=BOOT_ID, online=True, leaving=False, software="fedward 0.1.0"),
    "telemetry": Telemetry(
        boot_id=BOOT_ID,
        phase=Phase.TRAINING,
        version=42,
        step=10,
        num_steps=75,
        num_updates=4,
        num_refused=1,
        num_fetched=5,
        bytes_sent=2**40,
        bytes_received=2**41,
        step_s=0.125,
        train_loss=0.5,
    ),
    "evaluation": Evaluation(
        federation="sepsis",
        version=42,
        num_examples=100,
        metrics={
            "accuracy": Ratio(numerator=90.0, denominator=100.0),
            "loss": Ratio(numerator=25.5, denominator=100.0),
        },
    ),
}


SAMPLES["announcement_after_a_restore"] = dataclasses.replace(
    cast(Announcement, SAMPLES["announcement"]), sequence=1_800_000_000_000_009, epoch=1_800_000_000_000_000
)


SAMPLES["evaluation_with_model_digest"] = dataclasses.replace(
    cast(Evaluation, SAMPLES["evaluation"]), model_digest=DIGEST
)


SAMPLES["announcement_with_codecs"] = dataclasses.replace(
    cast(Announcement, SAMPLES["announcement"]), codecs=("q8", "eden4", "eden2", "eden1")
)


SAMPLES["announcement_with_initial"] = dataclasses.replace(
    cast(Announcement, SAMPLES["announcement"]), initial=Initial(seed=2**53 - 1, model_digest=DIGEST)
)


SAMPLES["telemetry_with_device"] = dataclasses.replace(
    cast(Telemetry, SAMPLES["telemetry"]), sent_at_s=1_790_000_000.25, device="cuda", num_gpus=1
)
SAMPLES["telemetry_with_uplink"] = dataclasses.replace(cast(Telemetry, SAMPLES["telemetry"]), uplink_bytes_s=875_000.0)


PEM = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"

SAMPLES["enrolment"] = Enrolment(request=PEM, mac=DIGEST)
SAMPLES["enrolled_waiting"] = Enrolled(outcome=EnrolmentOutcome.WAITING, mac=DIGEST)
SAMPLES["enrolled"] = Enrolled(
    outcome=EnrolmentOutcome.ADMITTED, mac=DIGEST, certificate=PEM, authority=PEM, coordinator=PEM
)
SAMPLES["renewal"] = Renewal(request=PEM)
SAMPLES["renewed"] = Renewed(certificate=PEM)


KEY_ID = bytes(range(50, 66))

SAMPLES["announcement_with_model_key"] = dataclasses.replace(
    cast(Announcement, SAMPLES["announcement"]), model_key_id=KEY_ID
)
SAMPLES["status_with_receiving_key"] = dataclasses.replace(cast(Status, SAMPLES["status"]), receiving_key=DIGEST)
SAMPLES["sealedkey"] = SealedKey(boot_id=BOOT_ID, key_id=KEY_ID, seal=DIGEST, sealed=bytes(range(48)))


def golden(name: str) -> bytes:
    return bytes.fromhex((GOLDEN / f"{name}.hex").read_text())


def test_every_kind_of_message_has_a_sample():
    assert {type(message) for message in SAMPLES.values()} == set(SIZE_LIMITS)


def test_every_golden_file_is_used():
    others = {"status_with_unknown_fields", "status_of_protocol_version_2", "status_without_optional_fields"}
    assert {path.stem for path in GOLDEN.iterdir()} == SAMPLES.keys() | others


@pytest.mark.parametrize("name", SAMPLES)
def test_a_message_packs_to_exactly_the_golden_bytes(name):
    assert pack(SAMPLES[name]).hex() == golden(name).hex()


@pytest.mark.parametrize("name", SAMPLES)
def test_the_golden_bytes_unpack_to_the_message(name):
    message = SAMPLES[name]
    assert unpack(golden(name), type(message)) == message


def test_fields_that_a_newer_peer_adds_are_ignored():
    assert unpack(golden("status_with_unknown_fields"), Status) == SAMPLES["status"]


def test_fields_that_an_older_peer_does_not_send_get_their_defaults():
    status = unpack(golden("status_without_optional_fields"), Status)
    assert status == Status(boot_id=BOOT_ID, online=True, leaving=False, software="")


def test_protocol_version_2_is_refused_by_name():
    with pytest.raises(PeerError) as error:
        unpack(golden("status_of_protocol_version_2"), Status)
    assert error.value.reason is RejectReason.PROTOCOL_VERSION
