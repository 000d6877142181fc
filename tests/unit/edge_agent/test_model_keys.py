"""The model keys of one process: which chunks they open, and when one is asked for."""

from itertools import pairwise

import pytest

from edge_agent.model_keys import KEPT, KEY_AGAIN_S, LONGEST_KEY_S, ModelKeys
from fedward.errors import PeerError, RejectReason
from fedward.identity.model_key import ModelKey
from fedward.messages import Chunk

FEDERATION, SITE, BOOT = "ward", "st-anna", b"boot-one"
PART = bytes(range(32))


@pytest.fixture
def keys() -> ModelKeys:
    return ModelKeys(FEDERATION, SITE, BOOT)


def give(keys: ModelKeys, key: ModelKey | None = None) -> ModelKey:
    key = key or ModelKey.new()
    keys.take(key.sealed_to(keys.receiving_key, BOOT, FEDERATION, SITE))
    return key


def sealed(key: ModelKey) -> Chunk:
    return Chunk(PART, 3, key.close(PART, 3, b"weights"))


def asked_at(keys: ModelKeys, until_s: float) -> list[float]:
    """The seconds at which a key is asked for, looked at once a second."""
    return [float(second) for second in range(int(until_s)) if keys.asks(float(second))]


def test_a_chunk_is_opened_with_the_announced_key(keys: ModelKeys) -> None:
    key = give(keys)
    assert keys.opened(sealed(key), key.key_id) == Chunk(PART, 3, b"weights")


def test_a_chunk_of_an_open_model_is_taken_as_it_is(keys: ModelKeys) -> None:
    chunk = Chunk(PART, 3, b"weights")
    assert keys.opened(chunk, None) is chunk


def test_chunks_on_their_way_while_a_key_is_replaced_are_opened(keys: ModelKeys) -> None:
    old, new = give(keys), give(keys)
    assert keys.opened(sealed(old), new.key_id).payload == b"weights"
    assert keys.opened(sealed(new), old.key_id).payload == b"weights"


def test_only_the_last_few_keys_are_remembered_of_which_one_that_came_again_is_one(keys: ModelKeys) -> None:
    given = [give(keys) for _ in range(KEPT)]
    give(keys, given[0])
    give(keys)
    assert [keys.lacks(key.key_id) for key in given] == [False, True, False]


@pytest.mark.parametrize("payload", [b"weights", b"", bytes(100)])
def test_what_no_key_opens_is_refused(keys: ModelKeys, payload: bytes) -> None:
    key = give(keys)
    with pytest.raises(PeerError) as refusal:
        keys.opened(Chunk(PART, 3, payload), key.key_id)
    assert refusal.value.reason is RejectReason.CANNOT_OPEN


def test_a_key_for_the_process_before_is_ignored(keys: ModelKeys) -> None:
    before, key = ModelKeys(FEDERATION, SITE, b"boot-nil"), ModelKey.new()
    keys.take(key.sealed_to(before.receiving_key, b"boot-nil", FEDERATION, SITE))
    assert keys.lacks(key.key_id)


def test_a_key_that_is_not_for_this_process_though_it_says_so_is_refused(keys: ModelKeys) -> None:
    key = ModelKey.new()
    with pytest.raises(PeerError) as refusal:
        keys.take(key.sealed_to(ModelKeys(FEDERATION, SITE, BOOT).receiving_key, BOOT, FEDERATION, SITE))
    assert refusal.value.reason is RejectReason.CANNOT_OPEN
    assert keys.lacks(key.key_id)


def test_nothing_is_lacked_where_the_model_is_open_or_the_key_came(keys: ModelKeys) -> None:
    assert not keys.lacks(None)
    assert not keys.lacks(give(keys).key_id)
    assert keys.lacks(bytes(16))


def test_a_key_that_does_not_come_is_asked_for_less_and_less_often(keys: ModelKeys) -> None:
    asked = asked_at(keys, 300)
    waits = [later - sooner for sooner, later in pairwise(asked)]
    assert asked[0] == KEY_AGAIN_S
    assert waits[:4] == [8.0, 16.0, 32.0, LONGEST_KEY_S]
    assert set(waits[4:]) == {LONGEST_KEY_S}


def test_after_a_key_has_come_the_next_one_is_waited_for_anew(keys: ModelKeys) -> None:
    asked_at(keys, 300)
    give(keys)
    assert not keys.asks(1000.0)
    assert keys.asks(1000.0 + KEY_AGAIN_S)
