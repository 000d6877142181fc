"""What holds for every message type, so that packing, documents and peers can rely on it."""

import dataclasses
from enum import StrEnum
from typing import get_type_hints

import pytest

from fedward import messages
from fedward.errors import RejectReason
from fedward.limits import CHUNK_BYTES, MAX_CHUNKS, MAX_MESSAGE_BYTES, MAX_PAYLOAD_BYTES
from fedward.messages import Control, Status
from fedward.pack import MAX_FIELDS, NAME, SIZE_LIMITS

OWN = [kind for kind in vars(messages).values() if getattr(kind, "__module__", "") == messages.__name__]
TYPES = [kind for kind in OWN if dataclasses.is_dataclass(kind) and dataclasses.fields(kind)]
ENUMS = [kind for kind in OWN if isinstance(kind, type) and issubclass(kind, StrEnum)]


@pytest.mark.parametrize("kind", TYPES)
def test_a_message_never_changes(kind):
    message = kind(**dict.fromkeys([field.name for field in dataclasses.fields(kind)]))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(message, dataclasses.fields(kind)[0].name, 1)


@pytest.mark.parametrize("kind", TYPES)
def test_a_message_leaves_room_for_fields_to_come(kind):
    assert len(get_type_hints(kind)) <= MAX_FIELDS // 2


@pytest.mark.parametrize("kind", SIZE_LIMITS)
def test_every_message_fits_what_brokers_take(kind):
    assert SIZE_LIMITS[kind] <= MAX_MESSAGE_BYTES


@pytest.mark.parametrize("member", [member for kind in ENUMS for member in kind])
def test_a_value_of_an_enumeration_is_a_lower_case_word(member):
    assert NAME.fullmatch(member.value.replace("_", "-"))


def test_the_largest_payload_has_the_most_chunks():
    assert MAX_CHUNKS * CHUNK_BYTES == MAX_PAYLOAD_BYTES


def test_fields_are_given_by_name():
    with pytest.raises(TypeError):
        Control(1, True)  # type: ignore[misc]


def test_equal_fields_make_equal_messages():
    assert Status(boot_id=bytes(8), online=True) == Status(boot_id=bytes(8), online=True, leaving=False, software="")


def test_a_reason_is_its_value_as_text():
    assert f"{RejectReason.TOO_LARGE}" == "too_large"
