"""What somebody asks for, as a change of the journal. Pure."""

from dataclasses import replace
from typing import Any

from edge_agent.appliance.steps import Change, Deployment, Journal, Kind, Release
from fedward.errors import ConfigError


def install(journal: Journal, release: Release, options: dict[str, Any]) -> Journal:
    """The journal with the order to install; unchanged where exactly this is installed.

    Raises ConfigError where something else is.
    """
    target = _next(journal, release, options)
    if journal.current is None:
        return _ordered(journal, Change(Kind.INSTALL, target))
    if target.is_like(journal.current):
        return journal
    raise ConfigError(
        f"{journal.current.release.reference} is installed already, with other settings or another image; "
        "`fedward appliance upgrade` changes it"
    )


def upgrade(journal: Journal, release: Release, options: dict[str, Any]) -> Journal:
    """The journal with the order to go over to this image and these settings; unchanged where they are in use.

    Raises ConfigError where nothing is installed.
    """
    target = _next(journal, release, options)
    if journal.current is None:
        raise ConfigError("nothing is installed here; `fedward appliance install` does that")
    return journal if target.is_like(journal.current) else _ordered(journal, Change(Kind.UPGRADE, target))


def rollback(journal: Journal, *, with_state: bool) -> Journal:
    """The journal with the order to go back to the image and the settings before the last change.

    `with_state` also puts the copy of the state back that was made then. Raises ConfigError where there was none.
    """
    if journal.current is None or journal.before is None:
        raise ConfigError("there is nothing to go back to: no upgrade was made here")
    target = _next(journal, journal.before.release, journal.before.options)
    restore = journal.current.generation if with_state else None
    return _ordered(journal, Change(Kind.ROLLBACK, target, restore=restore))


def uninstall(journal: Journal, *, delete_state: bool) -> Journal:
    """The journal with the order to take the agent away, with its state or without."""
    return replace(journal, change=Change(Kind.UNINSTALL, delete_state=delete_state))


def _next(journal: Journal, release: Release, options: dict[str, Any]) -> Deployment:
    return Deployment(journal.generation + 1, release, options)


def _ordered(journal: Journal, change: Change) -> Journal:
    return replace(journal, generation=journal.generation + 1, change=change, failure=None)
