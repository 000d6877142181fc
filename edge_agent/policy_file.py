"""The hospital's policy file: read again whenever it changed. One that can't be read allows nothing."""

import logging
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from edge_agent.hours import WallTime, is_open
from edge_agent.policy import NOTHING, HoursSettings, PolicySettings
from fedward.errors import ConfigError
from fedward.files import stamp_of
from fedward.settings import load_settings

LOG = logging.getLogger(__name__)


class PolicyFile:
    """What the file says now. Without a file, the defaults of PolicySettings hold."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: object = None
        self.policy = PolicySettings()
        self.problem: str | None = None
        """Why the file can't be used; nothing is allowed then."""
        if path is not None:
            self._read(path)

    def look(self) -> bool:
        """Read the file again if it is another one than before; whether it was."""
        if self._path is None or stamp_of(self._path) == self._stamp:
            return False
        self._read(self._path)
        return True

    def _read(self, path: Path) -> None:
        self._stamp = stamp_of(path)  # before it is read: what is written meanwhile is seen at the next look
        try:
            self.policy, self.problem = load_policy(path), None
            LOG.info("policy_read", extra={"policy": self.policy.model_dump(mode="json")})
        except ConfigError as error:
            self.policy, self.problem = NOTHING, str(error)
            LOG.error("policy_unreadable", extra={"problem": self.problem, "advice": "nothing is allowed until then"})


def load_policy(path: Path) -> PolicySettings:
    """The policy in this file; no environment variable changes it. Raises ConfigError with every problem."""
    policy = load_settings(PolicySettings, path, {})
    if policy.hours:
        zone_of(policy.hours)
    return policy


def zone_of(hours: HoursSettings) -> ZoneInfo:
    """Raises ConfigError for a time zone that this machine does not know."""
    try:
        return ZoneInfo(hours.time_zone)
    except (OSError, ValueError, KeyError) as error:  # KeyError: not found; the others: names of folders and the like
        raise ConfigError(
            f"hours.time_zone: {hours.time_zone!r} is not among this machine's time zones; "
            "expected one such as Europe/Berlin (package tzdata)"
        ) from error


def open_at(policy: PolicySettings, now_s: float) -> bool:
    """Do the hours allow training at this time, in seconds since 1970?"""
    if policy.hours is None:
        return True
    now = datetime.fromtimestamp(now_s, UTC).astimezone(zone_of(policy.hours))
    return is_open(policy.hours.open, WallTime(now.weekday(), 60 * now.hour + now.minute))
