"""The chain of the egress log: whatever is done to its lines but at its end is found, and at its end by the head."""

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edge_agent.egress_lines import GENESIS, Chain, Head, Total, What, line_of, messages_left, totals
from fedward.errors import IntegrityError

AT = "2026-11-24T17:00:00.123Z"


def message(kind: str = "offer", size: int = 100) -> dict[str, str | int]:
    return {"what": What.MESSAGE, "kind": kind, "federation": "ward", "size": size, "sha256": "ab" * 32}


def written(num_lines: int, head: Head) -> tuple[list[bytes], Head]:
    """So many lines after this one, without their ends, and the head that they make."""
    lines = []
    for number in range(num_lines):
        line, head = line_of(head, AT, message(size=number))
        lines.append(line.removesuffix(b"\n"))
    return lines, head


def follow(lines: list[bytes], head: Head) -> Chain:
    chain = Chain(head)
    for line in lines:
        chain.follow(line)
    chain.check_end()
    chain.check_begin()
    return chain


def test_a_line_is_one_json_object_that_names_the_one_before() -> None:
    line, head = line_of(Head(), AT, message())
    fields = json.loads(line)
    assert list(fields) == ["n", "at", "what", "kind", "federation", "size", "sha256", "previous"]
    assert (fields["n"], fields["previous"], head.n) == (1, GENESIS, 1)
    following, _ = line_of(head, AT, message())
    assert json.loads(following)["previous"] == head.digest


@given(st.integers(0, 20))
def test_what_was_written_is_found_whole(num_lines: int) -> None:
    lines, head = written(num_lines, Head())
    assert follow(lines, head).num_lines == num_lines


LINES, HEAD = written(8, Head())


@given(st.integers(0, 7), st.data())
def test_any_other_byte_of_any_line_is_found(number: int, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(LINES[number]) - 1))
    value = data.draw(st.integers(0, 255))
    changed = bytearray(LINES[number])
    assume(changed[place] != value)
    changed[place] = value
    with pytest.raises(IntegrityError):
        follow([*LINES[:number], bytes(changed), *LINES[number + 1 :]], HEAD)


@given(st.sets(st.integers(0, 7), min_size=1))
def test_any_lines_left_out_are_found(left_out: set[int]) -> None:
    with pytest.raises(IntegrityError):
        follow([line for number, line in enumerate(LINES) if number not in left_out], HEAD)


@given(st.permutations(range(8)))
def test_any_other_order_is_found(order: list[int]) -> None:
    assume(order != sorted(order))
    with pytest.raises(IntegrityError):
        follow([LINES[number] for number in order], HEAD)


@given(st.integers(0, 8), st.integers(0, 7))
def test_any_line_that_stands_twice_is_found(place: int, number: int) -> None:
    with pytest.raises(IntegrityError):
        follow([*LINES[:place], LINES[number], *LINES[place:]], HEAD)


@given(st.integers(0, 8), st.one_of(st.binary(), st.text().map(str.encode), st.just(b"{}"), st.just(b"[]")))
def test_anything_put_in_is_found(place: int, line: bytes) -> None:
    with pytest.raises(IntegrityError):
        follow([*LINES[:place], line, *LINES[place:]], HEAD)


@given(st.integers(0, 6))
def test_lines_written_anew_from_some_place_on_are_found_by_the_head(kept: int) -> None:
    begin = LINES[:kept]
    forged, _ = written(8 - kept, follow(begin, Head()).head or Head())
    other = [line.replace(b'"size":0', b'"size":7') for line in forged[:1]] + forged[1:]
    with pytest.raises(IntegrityError):
        follow([*begin, *other], HEAD)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([*LINES[:3], *LINES[5:]], "lines 4 to 5 are missing"),
        ([*LINES[:3], LINES[4], LINES[3], *LINES[5:]], "lines 4 to 4 are missing"),
        ([*LINES[:3], LINES[2], *LINES[3:]], "line 3 stands after line 3"),
        ([*LINES[:3], LINES[3].replace(b'"size":3', b'"size":4'), *LINES[4:]], "line 4 is not as it was written"),
        ([*LINES[:7], LINES[7].replace(b'"size":7', b'"size":8')], "line 8 is not as it was written"),
        (LINES[:6], "lines 7 to 8 are missing at the end"),
        ([], "lines 1 to 8 are missing at the end"),
        (LINES[2:], "lines 1 to 2 are missing, and no line records that they were cut"),
        ([*LINES[:3], b"", *LINES[3:]], "after line 3 is no line of this log"),
    ],
)
def test_the_first_thing_that_is_wrong_is_named(lines: list[bytes], problem: str) -> None:
    with pytest.raises(IntegrityError, match=problem):
        follow(lines, HEAD)


def test_what_was_cut_off_after_the_head_was_saved_is_not_found() -> None:
    """What docs/policy.md says: of the last second there is no proof."""
    assert follow(LINES[:6], Head(6, json.loads(LINES[6])["previous"])).num_lines == 6


def with_cut(through: int, digest: str) -> tuple[list[bytes], Head]:
    line, head = line_of(HEAD, AT, {"what": What.CUT, "through": through, "head": digest})
    return [*LINES, line.removesuffix(b"\n")], head


def test_lines_that_a_cut_records_may_be_missing_at_the_beginning() -> None:
    lines, head = with_cut(3, json.loads(LINES[3])["previous"])
    for begin in (0, 1, 3):  # the cut may have been interrupted
        assert follow(lines[begin:], head).num_lines == len(lines) - begin
    with pytest.raises(IntegrityError, match="lines 1 to 4 are missing"):
        follow(lines[4:], head)


def test_a_cut_that_left_another_line_is_found() -> None:
    lines, head = with_cut(3, "0" * 64)
    with pytest.raises(IntegrityError, match="line 4 is not the one that the cut before it left"):
        follow(lines[3:], head)


def numbered(*facts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"n": n, "at": f"2026-11-{23 + n // 4}T00:00:00.000Z", **fields} for n, fields in enumerate(facts, 1)]


def test_a_message_that_the_broker_did_not_take_has_not_left() -> None:
    start, stop = {"what": What.START}, {"what": What.STOP}
    unsent = {"what": What.UNSENT, "of": 3}
    lines = numbered(start, message("offer"), message("get"), unsent, message("u"), stop)
    assert [fields["kind"] for fields in messages_left(lines)] == ["offer", "u"]
    assert [fields["kind"] for fields in messages_left(lines[:3])] == ["offer", "get"]


def test_totals_are_by_day_and_kind_and_a_will_is_a_kind_of_its_own() -> None:
    lines = numbered(
        {**message("status", 7), "what": What.WILL}, message("u", 10), message("u", 20), message("u", 40), message()
    )
    assert totals(messages_left(lines)) == [
        Total("2026-11-23", "u", 2, 30),
        Total("2026-11-23", "will", 1, 7),
        Total("2026-11-24", "offer", 1, 100),
        Total("2026-11-24", "u", 1, 40),
    ]
