"""What of settings and logs may be shown to those who help, and what stays in the hospital. Pure.

What is kept is listed; everything else is not, and a word says that something was there. In the end whatever looks like
a secret, or is one that is known here, is taken out of all texts once more.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from edge_agent.appliance.machine import CONTAINER, ENGINE, GROUPS, SNAPSHOTS, TOOLKIT
from edge_agent.devices import GPU
from fedward.doctor.broker import SIZES
from fedward.doctor.check import Check
from fedward.doctor.machine import CLOCK, DISK, LIMITS, MEMORY

REMOVED = "(removed)"

KEPT_SETTINGS = {
    "name", "site", "federation", "host", "port", "transport", "device", "precision", "image", "gpu", "network",
}  # fmt: skip
"""Settings whose text is kept; numbers always are. Paths, users, addresses of proxies and a task's options are not."""

KEPT_FIELDS = {"site", "federation", "device", "phase", "outcome", "reason", "kind", "update", "verdict"}
"""Fields of a log line whose text is kept."""

MEASURED = {ENGINE, GROUPS, TOOLKIT, SNAPSHOTS, CONTAINER, SIZES, DISK, MEMORY, LIMITS, CLOCK, GPU}
"""Checks of the doctor that tell what was measured. All others quote the hospital's files and settings."""

EVENT = re.compile(r"[a-z][a-z0-9_ ]{0,40}")
WORD = re.compile(r"[\w.:-]{1,64}")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
OURS = re.compile(r"(?:fedward|edge_agent|__main__)(?:\.\w+)*")
FRAME = re.compile(r'File "[^"]*/((?:fedward|edge_agent)/[\w/]+\.py)", line (\d+), in (\w+)')
CLASS = re.compile(r"^[A-Za-z_]\w*(?:\.\w+)*(?:Error|Exception|Interrupt|Exit)\b", re.MULTILINE)

SECRET = re.compile(
    r"-----BEGIN [^-]*-----.*?(?:-----END [^-]*-----|\Z)|fedward1-\S+|(?<=://)[^\s/@]+@",
    re.DOTALL,
)
"""Keys and certificates, tokens of enrolment, logins in addresses."""


def kept_settings(value: Any, name: str = "") -> Any:
    """Settings with what may be shown of them: their structure, numbers, and the texts of KEPT_SETTINGS."""
    if isinstance(value, Mapping):
        if name == "tasks":
            return {str(task): sorted(map(str, options)) for task, options in value.items()}
        if name == "data":
            return [str(inside) for inside in value]
        return {str(key): kept_settings(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [kept_settings(inner, name) for inner in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value) if name in KEPT_SETTINGS else REMOVED


def private_texts(value: Any, name: str = "") -> Iterator[str]:
    """The texts of settings that `kept_settings` leaves out."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from private_texts(inner, name if name == "tasks" else str(key))
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            yield from private_texts(inner, name)
    elif not (value is None or isinstance(value, bool | int | float) or name in KEPT_SETTINGS):
        yield str(value)


def kept_check(check: Check, private: Iterable[str]) -> Check:
    """A line of the doctor: its verdict, what is to be changed, and what was found where that was measured."""
    known = tuple(private)
    found = scrubbed(check.found, known) if check.name in MEASURED else REMOVED
    return replace(check, found=found, remedy=scrubbed(check.remedy, known))


def kept_line(line: str) -> str:
    """A line of the agent's log with what may be shown of it; of a line that is not the agent's, its length."""
    try:
        fields = json.loads(line)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        frames = [f"{file}:{number} {function}" for file, number, function in FRAME.findall(line)]
        return "; ".join(frames) or f"(a line of {len(line)} letters that is not the agent's)"
    return json.dumps({name: _kept_field(name, value) for name, value in fields.items() if WORD.fullmatch(str(name))})


def _kept_field(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    if name == "traceback":
        frames = [f"{file}:{number} {function}" for file, number, function in FRAME.findall(text)]
        return [*frames, *CLASS.findall(text)]
    rules = {"at": MOMENT, "level": WORD, "logger": OURS, "event": EVENT}
    rule = rules.get(name, WORD if name in KEPT_FIELDS else None)
    return text if rule and rule.fullmatch(text) else REMOVED


def scrubbed(text: str, known: Iterable[str]) -> str:
    """A text without what looks like a secret, and without the `known` ones, wherever they slipped in."""
    text = SECRET.sub(REMOVED, text)
    for secret in sorted(known, key=len, reverse=True):
        text = text.replace(secret, REMOVED)
    return text
