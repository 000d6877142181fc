"""The model key: a member opens what was sealed with it, and nobody opens it as something else."""

from dataclasses import replace

import pytest

from fedward.errors import PeerError, RejectReason
from fedward.identity.model_key import KeyReceiver, ModelKey, check_receiver
from fedward.identity.sealing import TAG_BYTES
from fedward.limits import CHUNK_BYTES
from fedward.messages import SealedKey

PART, OTHER = bytes(range(32)), bytes(range(1, 33))
CHUNK = bytes(range(256)) * (CHUNK_BYTES // 256)
BOOT = b"boot-one"
SMALL_ORDER = bytes(32)


@pytest.fixture
def key() -> ModelKey:
    return ModelKey.new()


@pytest.fixture
def receiver() -> KeyReceiver:
    return KeyReceiver("ward", "north")


def given(key: ModelKey, receiver: KeyReceiver, federation: str = "ward", site: str = "north") -> SealedKey:
    return key.sealed_to(receiver.public, BOOT, federation, site)


def refusal_of(receiver: KeyReceiver, message: SealedKey) -> RejectReason:
    with pytest.raises(PeerError) as refusal:
        receiver.open(message)
    return refusal.value.reason


@pytest.mark.parametrize("size", [1, 1000, CHUNK_BYTES])
def test_a_sealed_chunk_is_opened_again_and_is_16_bytes_longer(key: ModelKey, size: int) -> None:
    sealed = key.close(PART, 5, CHUNK[:size])
    assert len(sealed) == size + TAG_BYTES
    assert CHUNK[:16] not in sealed
    assert key.open(PART, 5, sealed) == CHUNK[:size]


def test_the_same_chunk_is_sealed_to_the_same_bytes_each_time(key: ModelKey) -> None:
    assert key.close(PART, 5, CHUNK) == ModelKey(key.key_id, key.secret).close(PART, 5, CHUNK)


def test_the_same_bytes_in_another_place_are_sealed_to_other_ones(key: ModelKey) -> None:
    sealed = {key.close(PART, 5, CHUNK), key.close(PART, 6, CHUNK), key.close(OTHER, 5, CHUNK)}
    assert len(sealed) == 3
    assert len({content[:16] for content in sealed}) == 3


@pytest.mark.parametrize(
    ("part", "index", "change"),
    [(OTHER, 5, 0), (PART, 4, 0), (PART, 5, 1)],
    ids=["of another part", "of another place", "changed"],
)
def test_a_chunk_is_opened_as_itself_only(key: ModelKey, part: bytes, index: int, change: int) -> None:
    sealed = bytearray(key.close(PART, 5, CHUNK))
    sealed[77] ^= change
    with pytest.raises(PeerError) as refusal:
        key.open(part, index, bytes(sealed))
    assert refusal.value.reason is RejectReason.CANNOT_OPEN


def test_another_key_opens_nothing(key: ModelKey) -> None:
    for other in (ModelKey.new(), ModelKey(bytes(16), key.secret)):
        with pytest.raises(PeerError, match="not sealed with this model key"):
            other.open(PART, 5, key.close(PART, 5, CHUNK))


@pytest.mark.parametrize("content", [b"", bytes(15), bytes(16)])
def test_what_is_no_sealed_chunk_is_refused(key: ModelKey, content: bytes) -> None:
    with pytest.raises(PeerError, match="cannot_open"):
        key.open(PART, 0, content)


def test_a_key_that_is_given_is_the_key(key: ModelKey, receiver: KeyReceiver) -> None:
    assert receiver.open(given(key, receiver)) == key


def test_a_key_is_given_to_one_process_of_one_site_of_one_federation(key: ModelKey, receiver: KeyReceiver) -> None:
    assert refusal_of(KeyReceiver("ward", "north"), given(key, receiver)) is RejectReason.CANNOT_OPEN
    assert refusal_of(receiver, given(key, receiver, site="south")) is RejectReason.CANNOT_OPEN
    assert refusal_of(receiver, given(key, receiver, federation="lungs")) is RejectReason.CANNOT_OPEN


@pytest.mark.parametrize("changes", [{"key_id": bytes(16)}, {"seal": SMALL_ORDER}, {"sealed": bytes(48)}])
def test_a_changed_key_is_refused(key: ModelKey, receiver: KeyReceiver, changes: dict[str, bytes]) -> None:
    assert refusal_of(receiver, replace(given(key, receiver), **changes)) is RejectReason.CANNOT_OPEN


def test_what_nothing_can_be_sealed_to_is_no_receiving_key(receiver: KeyReceiver) -> None:
    check_receiver(receiver.public)
    with pytest.raises(PeerError) as refusal:
        check_receiver(SMALL_ORDER)
    assert refusal.value.reason is RejectReason.MALFORMED


def test_no_secret_is_in_what_is_printed(key: ModelKey) -> None:
    assert repr(key.secret) not in repr(key)
    assert key.secret.hex() not in repr(key)
