"""Where an appliance stands, for people and for scripts. Pure."""

from collections.abc import Iterable
from typing import Any

from edge_agent.appliance.steps import Container, Journal


def state_of(name: str, journal: Journal, containers: Iterable[Container]) -> dict[str, Any]:
    """What `status --json` prints: `state` is absent, changing, stopped, starting, healthy or unhealthy."""
    current, found = journal.current, tuple(containers)
    container = next((each for each in found if current and each.generation == current.generation), None)
    return {
        "name": name,
        "state": _state(journal, container),
        "version": current.release.version if current else None,
        "image": current.release.reference if current else None,
        "image_id": current.release.image if current else None,
        "container": container.id[:12] if container else None,
        "restarts": container.restarts if container else 0,
        "running_s": round(container.running_s) if container and container.is_up else 0,
        "before": journal.before.release.reference if journal.before else None,
        "change": str(journal.change.kind) if journal.change else None,
        "failure": journal.failure,
    }


def _state(journal: Journal, container: Container | None) -> str:
    if journal.change is not None:
        return "changing"
    if journal.current is None:
        return "absent"
    if container is None or not container.is_up:
        return "stopped"
    return container.health or "running"


def as_lines(state: dict[str, Any]) -> list[str]:
    """The same for people, and what to do where something is to be done."""
    lines = [f"{name.replace('_', ' '):10} {value}" for name, value in state.items() if value is not None]
    match state["state"]:
        case "changing":
            lines.append(f"-> the {state['change']} was interrupted: run it again, it goes on")
        case "absent":
            lines.append("-> fedward appliance install")
        case "stopped":
            lines.append("-> fedward appliance install starts it again")
        case "unhealthy":
            lines.append("-> fedward appliance doctor; fedward appliance logs")
    return lines
