"""The programs' logs, read while they are written: JSON lines, a constant event name each."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Log:
    """Gives each whole line once. What is not of a program's own logger, such as a traceback, is skipped."""

    def __init__(self, path: Path, from_end: bool = False) -> None:
        self._path = path
        self._offset = path.stat().st_size if from_end and path.exists() else 0

    def events(self) -> Iterator[dict[str, Any]]:
        """The lines since the last call; a line that is being written waits for the next one."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                event = parsed(line)
                if event is not None:
                    yield event

    def count(self, event: str) -> int:
        """How many of the lines since the last call are of this event."""
        return sum(line["event"] == event for line in self.events())


def parsed(line: bytes) -> dict[str, Any] | None:
    """A line's event; None for a line of something else."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None
