"""Times as people at an IT desk read them: UTC, to the minute."""

from datetime import UTC, datetime


def day(seconds: float) -> str:
    """The date of a time since 1970."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"


def moment(seconds: float) -> str:
    """Date and time of a time since 1970."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
