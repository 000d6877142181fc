"""An image by its digest from a real registry."""

import shutil
from pathlib import Path

import pytest

from sandbox.ports import HOST, free_port
from tests.containers.appliance.conftest import IMAGE, Desk, changes, file_system

pytestmark = [pytest.mark.containers, pytest.mark.slow]


def push(desk: Desk, registry: str, mode: str) -> str:
    """Push an image, forget it here, and return the reference by its digest."""
    name = f"{registry}/{IMAGE}"
    archive = file_system(Path(shutil.which("busybox") or "").read_bytes())
    desk.engine.api.import_image_from_data(archive, name, mode, changes=changes(mode))
    desk.engine.images.push(name, mode)
    [digest] = desk.engine.images.get(f"{name}:{mode}").attrs["RepoDigests"]
    desk.engine.images.remove(f"{name}:{mode}")
    return str(digest)


def test_an_image_comes_by_digest_from_a_registry_and_only_with_its_signature(desk: Desk, registry: str) -> None:
    good, better = push(desk, registry, "good"), push(desk, registry, "better")
    desk.configure(image=good, image_signature=desk.publisher.signature(good))
    ran = desk.fedward("install")
    assert ran.code == 0, (ran.out, ran.err)
    assert desk.modes() == ["good"]
    desk.configure(image=better, image_signature=desk.publisher.signature(good))
    refused = desk.fedward("upgrade")
    assert refused.code == 4
    assert "not signed by the publisher" in refused.err
    assert desk.modes() == ["good"]
    desk.configure(image=better, image_signature=desk.publisher.signature(better))
    assert desk.fedward("upgrade").code == 0
    assert desk.modes() == ["better"]


def test_a_registry_that_is_away_is_named_and_nothing_changes(desk: Desk, registry: str) -> None:
    image = f"127.0.0.1:{free_port(HOST)}/{IMAGE}@sha256:{'ab' * 32}"
    desk.configure(image=image, image_signature=desk.publisher.signature(image))
    ran = desk.fedward("install")
    assert ran.code == 1
    assert image in ran.err
    assert desk.containers() == []
