"""What is logged can be searched for: every event has a constant name, and docs/logs.md lists it."""

import ast
import logging

import pytest

from tests.support.log_events import EVENT, ROOT, NotConstantError, events, events_in, is_log_call, sources

RESERVED = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {
    "message", "asctime", "at", "level", "logger", "event", "traceback",
}  # fmt: skip
"""What a line, or the logging module, has already: as a field it would replace that, or raise."""


def test_every_event_has_a_constant_name_in_snake_case() -> None:
    found = events()
    assert len(found) > 50
    assert not [event for event in found if not EVENT.fullmatch(event.name)]


def test_no_field_of_an_event_takes_the_place_of_another() -> None:
    assert not [(event.name, field) for event in events() for field in event.fields if field in RESERVED]


def test_docs_logs_lists_every_event_with_its_level_and_fields() -> None:
    listed = [line for line in (ROOT / "docs" / "logs.md").read_text().splitlines() if line.startswith("| `")]
    assert listed == [event.row() for event in events()], "python -m tests.support.log_events"


def test_nothing_is_logged_past_the_loggers_that_are_looked_at() -> None:
    """`logging.warning` and loggers of other names would not be in the list."""
    levels = ("debug", "info", "warning", "error", "critical", "exception", "log")
    for source, text in sources():
        for call in ast.walk(ast.parse(text)):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in levels:
                owner = ast.unparse(call.func.value)
                assert is_log_call(call) or "log" not in owner.lower(), f"{source}:{call.lineno}"


@pytest.mark.parametrize(
    "call",
    [
        'LOG.info(f"site {site}")',
        'LOG.info("site " + site)',
        'LOG.info("seen", extra=dict(site=site))',
        'LOG.info("seen", extra={site: 1})',
        'LOG.info("seen", extra={**others})',
    ],
)
def test_what_can_not_be_read_from_the_source_is_found(call: str) -> None:
    with pytest.raises(NotConstantError):
        list(events_in(f"def tell(site):\n    {call}\n", "room.py"))


def test_an_event_that_a_function_passes_on_is_listed_for_each_of_its_callers() -> None:
    text = (
        "def tell(event, **facts):\n    LOG.warning(event, extra={**facts, 'attempts': 1})\n"
        "tell('away', reason='x')\ntell('refused' if late else 'early')\n"
    )
    found = [(event.name, event.fields) for event in events_in(text, "room.py")]
    assert found == [("away", ("attempts", "reason")), ("refused", ("attempts",)), ("early", ("attempts",))]
