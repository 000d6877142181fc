"""Every event that a program logs, read from the source. `python -m tests.support.log_events` prints the table.

An event is the literal first argument of a call to a module's logger, or of the function that passes it on. Fields are
the keys of `extra`, a literal or a name that was given one.
"""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SIDES = ("fedward", "edge_agent", "coordinator", "sandbox")
LEVELS = ("debug", "info", "warning", "error", "critical")
LOGGERS = ("LOG", "log")
EVENT = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, order=True)
class Event:
    """A call that logs."""

    name: str
    level: str
    fields: tuple[str, ...]
    source: str

    def row(self) -> str:
        fields = ", ".join(f"`{field}`" for field in self.fields)
        return f"| `{self.name}` | {self.level} | {fields} | `{self.source}` |"


class NotConstantError(Exception):
    """An event, or its fields, that can't be read from the source: nobody could search for it."""


@cache
def events() -> tuple[Event, ...]:
    """Of all sides, by name. Raises NotConstantError."""
    return tuple(sorted({event for source, text in sources() for event in events_in(text, source)}))


def sources() -> Iterator[tuple[str, str]]:
    """Name and text of the modules that log."""
    for path in (path for side in SIDES for path in sorted((ROOT / side).rglob("*.py"))):
        text = path.read_text()
        if "logging" in text:
            yield str(path.relative_to(ROOT)), text


def events_in(text: str, source: str) -> Iterator[Event]:
    """Of one module."""
    tree = ast.parse(text)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and is_log_call(node)]
    functions = [node for node in ast.walk(tree) if calls and isinstance(node, Function)]
    inner = {id(call): function for function in functions for call in ast.walk(function)}  # the innermost comes last
    for call in calls:
        if isinstance(call.func, ast.Attribute):
            for name, fields in _told(call, inner.get(id(call)), tree, source):
                yield Event(name, call.func.attr, fields, source)


def is_log_call(call: ast.Call) -> bool:
    """Whether a module's logger is called, at any level."""
    named = call.func
    if not isinstance(named, ast.Attribute) or named.attr not in LEVELS:
        return False
    return isinstance(named.value, ast.Name) and named.value.id in LOGGERS


def _told(
    call: ast.Call, function: Function | None, tree: ast.Module, source: str
) -> Iterator[tuple[str, tuple[str, ...]]]:
    where = f"{source}:{call.lineno}"
    extra = next((keyword.value for keyword in call.keywords if keyword.arg == "extra"), None)
    fields, passed_on = _keys(extra, function, where)
    event = call.args[0]
    if not isinstance(event, ast.Name):
        yield from ((name, fields) for name in _literals(event, where))
        return
    for user in _calls_of(function, tree) if function else ():
        more = [keyword.arg for keyword in user.keywords if passed_on and keyword.arg and keyword.arg != event.id]
        for name in _literals(_argument(user, function, event.id), f"{source}:{user.lineno}"):
            yield name, tuple(sorted({*fields, *more}))


def _literals(event: ast.expr, where: str) -> list[str]:
    """The names that an argument may be: a literal, or one of two."""
    if isinstance(event, ast.IfExp):
        return [*_literals(event.body, where), *_literals(event.orelse, where)]
    if not isinstance(event, ast.Constant) or not isinstance(event.value, str):
        raise NotConstantError(where)
    return [event.value]


def _keys(extra: ast.expr | None, function: Function | None, where: str) -> tuple[tuple[str, ...], bool]:
    """The names in `extra`, and whether the function's own keyword arguments are among them."""
    if extra is None:
        return (), False
    if isinstance(extra, ast.Name) and function is not None:
        extra = next(
            node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == extra.id
        )
    if not isinstance(extra, ast.Dict):
        raise NotConstantError(where)
    names = [key.value for key in extra.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]
    spread = [ast.unparse(value) for key, value in zip(extra.keys, extra.values, strict=True) if key is None]
    keywords = function.args.kwarg.arg if function is not None and function.args.kwarg else None
    if len(names) + len(spread) != len(extra.keys) or spread not in ([], [keywords]):
        raise NotConstantError(where)
    return tuple(sorted(names)), bool(spread)


def _calls_of(function: Function, tree: ast.Module) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in (function.name, f"self.{function.name}"):
            yield node


def _argument(call: ast.Call, function: Function, name: str) -> ast.expr:
    """What a call gives for a parameter."""
    by_name = {keyword.arg: keyword.value for keyword in call.keywords}
    names = [argument.arg for argument in function.args.args if argument.arg != "self"]
    return by_name.get(name) or call.args[names.index(name)]


if __name__ == "__main__":
    sys.stdout.writelines(f"{event.row()}\n" for event in events())
