"""The real agent's image in a federation: killed, upgraded and badly upgraded while it trains, and nothing is lost."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from coordinator.ledger import Ledger
from edge_agent.appliance.archives import USER_ID
from sandbox.broker import find_mosquitto
from sandbox.federation import Federation, Plan
from sandbox.ports import HOST, free_port
from tests.containers.appliance.conftest import Desk

pytestmark = [pytest.mark.containers, pytest.mark.slow, pytest.mark.timeout(420)]

SITE = "hospital-c"
READY_S = 90.0


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Federation]:
    """Three hospitals, of which the third is not started; it never finishes by itself."""
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed: `apt-get install mosquitto` runs this test")
    plan = Plan(folder=tmp_path / "federation", num_sites=3, engine={"preset": "default", "buffer_size": 2})
    with Federation(plan) as federation:
        federation.kill(SITE)
        shutil.rmtree(federation.state_folder(SITE), ignore_errors=True)
        yield federation


@pytest.fixture
def image(desk: Desk, registry: str) -> Iterator[Callable[[str, dict[str, str]], str]]:
    """Pushes the agent's image under a version, with more environment, and gives its reference by digest."""
    found = [tag for image in desk.engine.images.list("fedward-agent") for tag in image.tags if tag.endswith("-cpu")]
    if not found:
        pytest.skip("the agent's image is not here: `make images` makes it")
    name = f"{registry}/fedward-agent"
    made: list[str] = []

    def push(version: str, environment: dict[str, str]) -> str:
        container = desk.engine.containers.create(found[0])
        changes = [
            f"LABEL org.opencontainers.image.version={version}",
            *(f"ENV {k}={v}" for k, v in environment.items()),
        ]
        container.commit(name, version, changes=changes)
        container.remove()
        desk.engine.images.push(name, version)
        tag = f"{name}:{version}"
        made.append(tag)
        [digest] = [each for each in desk.engine.images.get(tag).attrs["RepoDigests"] if each.startswith(name)]
        return str(digest)

    yield push
    for tag in made:
        if desk.engine.images.list(tag):  # the appliance deletes those that it needs no more
            desk.engine.images.remove(tag, force=True)


def move_in(desk: Desk, federation: Federation) -> None:
    """The third hospital's files, as its container has them. It is in the host's network, as the broker is."""
    site = yaml.safe_load(federation.config_path(SITE).read_text())
    options = site["tasks"]["breast-cancer"]
    for option, value in options.items():
        if isinstance(value, str) and value.startswith("/"):
            shutil.copy(value, desk.folder / "records")
            options[option] = f"/data/{Path(value).name}"
    secrets = desk.folder / "secrets"
    shutil.copytree(site["identity"]["folder"], secrets / "identity")
    for path in (secrets, *secrets.rglob("*")):
        os.chown(path, USER_ID, USER_ID)
    site |= {"state_folder": "/var/lib/fedward", "identity": {"folder": "/run/secrets/identity"}}
    site |= {"policy_file": "/etc/fedward/policy.yaml"}
    shutil.copy(federation.policy_path(SITE), desk.folder / "config" / "policy.yaml")
    (desk.folder / "config" / "site.yaml").write_text(yaml.safe_dump(site))


def accepted(state: dict[str, Any]) -> int:
    return int(state["sites"][SITE]["num_accepted"])


def test_an_agent_is_killed_upgraded_and_badly_upgraded_while_it_trains_and_every_update_counts_once(
    desk: Desk, running: Federation, image: Callable[[str, dict[str, str]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDWARD_NETWORK", "host")
    monkeypatch.setenv("FEDWARD_SECRETS_FOLDER", str(desk.folder / "secrets"))
    monkeypatch.setenv("FEDWARD_MEMORY_GIB", "2")
    port = {"FEDWARD_HTTP__PORT": str(free_port(HOST))}
    move_in(desk, running)
    first, second = image("1", port), image("2", port)
    never = image("3", port | {"FEDWARD_BROKER__PORT": str(free_port(HOST))})

    def use(reference: str) -> None:
        desk.configure(image=reference, image_signature=desk.publisher.signature(reference), health_s=30)

    use(first)
    ran = desk.fedward("install")
    assert ran.code == 0, (ran.out, ran.err)
    running.wait_for(lambda state: accepted(state) >= 2, READY_S, "two updates of the container")

    [container] = desk.containers()
    container.kill("SIGKILL")  # by the engine's own hand, so it does not start it again
    desk.fedward("install")
    before = accepted(running.state() or {})
    running.wait_for(lambda state: accepted(state) > before, READY_S, "an update after the kill")

    use(second)
    ran = desk.fedward("upgrade")
    assert ran.code == 0, (ran.out, ran.err)
    assert json.loads(desk.fedward("status", "--json").out)["version"] == "2"
    before = accepted(running.state() or {})
    running.wait_for(lambda state: accepted(state) > before, READY_S, "an update after the upgrade")

    use(never)
    ran = desk.fedward("upgrade", "--force")
    assert ran.code == 1
    assert "not healthy within 30 s" in ran.err
    assert json.loads(desk.fedward("status", "--json").out)["version"] == "2"
    before = accepted(running.state() or {})
    final = running.wait_for(lambda state: accepted(state) > before, READY_S, "an update after the return")

    assert desk.fedward("agent", "egress", "--verify").code == 0
    ledger = Ledger.in_folder(running.state_folder("coordinator"))
    per_base = Counter((row.site, row.base_version) for row in ledger.accepted())
    assert max(per_base.values()) == 1
    assert final["sites"][SITE]["num_refused"] == 0
