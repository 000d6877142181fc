"""A federation of real processes that speaks mutual TLS, one hospital of it through a proxy that asks for a login."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.broker import find_mosquitto
from sandbox.federation import Federation
from tests.support.connect_proxy import ConnectProxy

pytestmark = pytest.mark.network

READY_S = 60.0


def test_a_federation_learns_over_tls_and_through_a_proxy(
    federation: Callable[..., Federation], tmp_path: Path
) -> None:
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed: `apt-get install mosquitto` runs this test")
    secret = tmp_path / "proxy-password"
    secret.write_text("s3cret\n")
    secret.chmod(0o600)
    with ConnectProxy(login="anna:s3cret") as proxy:
        way = {"proxy": f"http://anna@127.0.0.1:{proxy.port}", "proxy_password_file": str(secret)}
        running = federation(tls=True, ways={"hospital-b": way}, finish={"version": 3})
        final = running.wait_for(lambda state: state["state"] == "finished", READY_S, "three versions")
        running.stop()
        assert proxy.requests == [f"127.0.0.1:{running.broker.port}"]
    assert all(page["num_accepted"] > 0 for page in final["sites"].values())
    users = running.broker.log_path.read_text()
    assert all(f"u'{name}')" in users for name in ("coordinator-demo", *running.sites))
    assert "s3cret" not in "".join(log.read_text() for log in (running.plan.folder / "logs").iterdir())
