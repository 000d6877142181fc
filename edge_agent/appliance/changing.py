"""The verbs that change something: each finishes what was interrupted, writes its order down, and carries it out."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_agent.appliance import orders
from edge_agent.appliance.carry import Carrier
from edge_agent.appliance.engine import Errand, exchanged
from edge_agent.appliance.install import SITE_CONFIG, Appliance
from edge_agent.appliance.plan import once_options
from edge_agent.appliance.steps import Change, Journal, Kind, Release
from fedward.errors import ConfigError, FedwardError
from fedward.files import write_durably
from fedward.identity.keys import check_private

TOKEN, REQUEST, ANSWER = "token", "request.json", "answer.json"


@dataclass(frozen=True)
class Enrolment:
    """How the hospital's certificate is to be had: over the network, or by a request and an answer that are carried."""

    token_file: Path
    request_out: Path | None = None
    answer: Path | None = None


class CheckFailedError(FedwardError):
    """A check failed, and nothing was changed."""


def interrupted(carrier: Carrier) -> tuple[Change | None, Journal]:
    """The change that another process left half done, and the journal now that it is finished. Without one nothing is
    started, for the container that counts may be one that can't be.

    Raises ConfigError, and touches nothing, where the journal is not the one of what is there.
    """
    carrier.check_known()
    change = carrier.journal.change
    return change, carrier.finish() if change else carrier.tidy()


def change_to(
    appliance: Appliance, carrier: Carrier, kind: Kind, release: Release, checked: Callable[[dict[str, Any]], None]
) -> Journal:
    """Install an image, or go over to it. `checked` gets its container's options before, and may raise."""
    options = appliance.options(release)
    order = orders.install if kind is Kind.INSTALL else orders.upgrade
    journal = carrier.journal
    ordered = order(journal, release, options)
    if ordered.change is None:
        return replace(carrier.finish(), failure=None)  # what it tells is of an earlier change
    checked(options)
    done = carrier.begin(ordered)
    _drop_images(appliance, ordered, done)
    return done


def enrol(appliance: Appliance, options: dict[str, Any], enrolment: Enrolment, told: Callable[[bytes], None]) -> bool:
    """Get the certificate in a container like the agent's; False where the request has to be carried first.

    Raises ConfigError for a token or an answer that can't be used. The key is made in the container, and stays in the
    state's volume.
    """
    command = ["agent", "enroll", "--config", SITE_CONFIG, "--token-file", str(exchanged(TOKEN))]
    check_private(enrolment.token_file)
    files = {TOKEN: _read(enrolment.token_file)}
    fetch = None
    if enrolment.request_out is not None:
        command += ["--request-out", str(exchanged(REQUEST))]
        fetch = REQUEST
    elif enrolment.answer is not None:
        command += ["--answer", str(exchanged(ANSWER))]
        files[ANSWER] = _read(enrolment.answer)
    outcome, request = appliance.engine.run_once(once_options(options, command), Errand(files, fetch, told))
    if outcome.exit_code:
        raise ConfigError(f"the enrolment ended with {outcome.exit_code}, see above; nothing was started")
    if enrolment.request_out is not None and request is not None:
        write_durably(enrolment.request_out, request)
        return False
    return True


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None


def _drop_images(appliance: Appliance, then: Journal, now: Journal) -> None:
    """Delete the image that no rollback goes back to any more: it takes a gigabyte."""
    for image in sorted(_images(then) - _images(now)):
        appliance.engine.drop_image(image)


def _images(journal: Journal) -> set[str]:
    deployments = [journal.current, journal.before, journal.change.target if journal.change else None]
    return {each.release.image for each in deployments if each}
