"""Answers of the dynamic-security plugin: bounded before they are believed."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.dynsec import Acl, Client, parse_answers
from fedward.errors import PeerError, RejectReason
from fedward.limits import MAX_MESSAGE_BYTES


def packed(*answers: object) -> bytes:
    return json.dumps({"responses": answers}).encode()


def test_a_listing_is_read() -> None:
    acl = {"acltype": "subscribeLiteral", "topic": "a/#", "priority": 0, "allow": True}
    data = {
        "totalCount": 7,
        "roles": [{"rolename": "r", "acls": [acl]}],
        "clients": [{"username": "u", "roles": [{"rolename": "r"}], "groups": [{"groupname": "g"}]}],
    }
    answers = parse_answers(packed({"command": "listRoles", "correlationData": "c", "data": data}), "c", 1)
    assert answers is not None
    assert answers[0].total == 7
    assert answers[0].held.roles == {"r": {Acl("subscribeLiteral", "a/#")}}
    assert answers[0].held.clients == {"u": Client(frozenset({"r"}), grouped=True)}


def test_answers_to_somebody_else_are_not_ours() -> None:
    assert parse_answers(packed({"command": "listRoles", "correlationData": "theirs"}), "ours", 1) is None
    assert parse_answers(packed({"command": "listRoles"}), "ours", 1) is None
    assert parse_answers(packed(), "ours", 0) is None


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'{"responses": 1}',
        b'{"responses": [1]}',
        b'{"responses": [{"command": 1, "correlationData": "c"}]}',
        b'{"responses": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        packed({"command": "x" * 257, "correlationData": "c"}),
        packed({"command": "x", "correlationData": "c", "error": "y" * 257}),
        packed({"command": "x", "correlationData": "c", "data": {"totalCount": -1}}),
        packed({"command": "x", "correlationData": "c", "data": {"totalCount": 1e400}}),
        packed({"command": "x", "correlationData": "c", "data": {"roles": ["name"]}}),
        packed({"command": "x", "correlationData": "c", "data": {"roles": [{"rolename": 7}]}}),
        packed({"command": "x", "correlationData": "c"}, {"command": "x", "correlationData": "c"}),
    ],
)
def test_what_is_no_answer_is_refused(payload: bytes) -> None:
    with pytest.raises(PeerError) as caught:
        parse_answers(payload, "c", 1)
    assert caught.value.reason is RejectReason.MALFORMED


def test_an_answer_above_the_size_of_a_message_is_not_looked_at() -> None:
    with pytest.raises(PeerError) as caught:
        parse_answers(b" " * (MAX_MESSAGE_BYTES + 1), "c", 1)
    assert caught.value.reason is RejectReason.TOO_LARGE


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("c"),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["responses", "command", "correlationData", "data", "roles", "rolename", "acls", "totalCount"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON | st.builds(lambda inner: {"responses": [{"command": "x", "correlationData": "c", "data": inner}]}, JSON))
def test_any_json_is_an_answer_not_ours_or_refused(value: object) -> None:
    with contextlib.suppress(PeerError):
        parse_answers(json.dumps(value).encode(), "c", 1)
