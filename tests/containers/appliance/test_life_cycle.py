"""`fedward appliance` on a real Docker Engine: install, upgrade, return, rollback, uninstall."""

import json
import os
import signal
import time
from dataclasses import replace

import pytest

from tests.containers.appliance.conftest import Desk

pytestmark = [pytest.mark.containers, pytest.mark.slow]

WORK = "an update that took 15 hours\n"


def test_26_install_upgrade_bad_upgrade_return_and_rollback_keep_the_state(desk: Desk) -> None:
    desk.install()
    assert desk.modes() == ["good"]
    assert desk.fedward("upgrade", "--bundle", desk.bundle("better")).code == 0
    assert desk.modes() == ["better"]
    assert desk.read("saved") == "good\n"  # it was asked to leave, and had the time to save its step
    bad = desk.fedward("upgrade", "--bundle", desk.bundle("sick"))
    assert bad.code == 1
    assert "failed: its health check fails" in bad.err
    assert desk.modes() == ["better"]
    assert desk.fedward("rollback").code == 0
    assert desk.modes() == ["good"]
    assert desk.read("outbox/1.offer") == WORK


@pytest.mark.parametrize(
    ("bad", "why"),
    [("end", "its program ended, exit code 7"), ("hang", "not healthy within 8 s")],
)
def test_a_bad_upgrade_returns_by_itself_within_a_minute_with_the_outbox_intact(desk: Desk, bad: str, why: str) -> None:
    desk.install()
    bundle = desk.bundle(bad)
    began_s = time.monotonic()
    ran = desk.fedward("upgrade", "--bundle", bundle)
    took_s = time.monotonic() - began_s
    assert ran.code == 1
    assert why in ran.err
    assert took_s < 60  # the bar itself, not a measurement
    assert desk.modes() == ["good"]
    assert desk.read("outbox/1.offer") == WORK
    left = (desk.read("egress/log") or "").splitlines()
    assert (left[0], left[-1], set(left[1:-1])) == ("good", "good", {bad})  # the bad one's lines are still there
    assert json.loads(desk.fedward("status", "--json").out)["failure"] is not None


def test_a_first_install_that_fails_leaves_nothing_running(desk: Desk) -> None:
    ran = desk.fedward("install", "--bundle", desk.bundle("end"))
    assert ran.code == 1
    assert "nothing is installed" in ran.err
    assert desk.containers() == []


def test_a_check_that_fails_stops_an_install_before_anything_starts(desk: Desk) -> None:
    ran = desk.fedward("install", "--bundle", desk.bundle("refuse"))
    assert ran.code == 1
    assert "open the port" in ran.out
    assert desk.containers() == []
    assert desk.fedward("install", "--bundle", desk.bundle("refuse"), "--force").code == 0


def test_install_again_changes_nothing_and_other_settings_are_an_upgrade(desk: Desk) -> None:
    desk.install()
    [before] = desk.containers()
    desk.install()
    assert [each.id for each in desk.containers()] == [before.id]
    desk.configure(memory_gib=0.5)
    refused = desk.fedward("install", "--bundle", desk.bundle("good"))
    assert refused.code == 2
    assert "`fedward appliance upgrade` changes it" in refused.err
    assert desk.fedward("upgrade", "--bundle", desk.bundle("good")).code == 0
    [container] = desk.containers()
    assert container.attrs["HostConfig"]["Memory"] == 2**29


def test_an_upgrade_that_the_engine_refuses_to_start_comes_back(desk: Desk) -> None:
    desk.install()
    desk.configure(network="fedward-test-nowhere")
    ran = desk.fedward("upgrade", "--bundle", desk.bundle("better"), "--force")
    assert ran.code == 1
    assert "fedward-test-nowhere" in ran.err
    assert desk.modes() == ["good"]


def test_an_agent_of_which_the_folder_has_no_journal_is_not_touched(desk: Desk) -> None:
    desk.install()
    desk.configure(folder="elsewhere")
    for verb in ("install", "upgrade", "rollback"):
        bundle = () if verb == "rollback" else ("--bundle", desk.bundle("better"))
        ran = desk.fedward(verb, *bundle)
        assert ran.code == 2
        assert f"{desk.name}-1 is running" in ran.err
        assert desk.modes() == ["good"]
    assert desk.read("starts") == "good\n"
    assert desk.fedward("uninstall", "--keep-state").code == 0  # as it says
    assert desk.containers() == []


def test_an_agent_whose_records_have_another_name_now_comes_back_with_an_upgrade(desk: Desk) -> None:
    desk.install()
    desk.containers()[0].stop()
    (desk.folder / "records").rename(desk.folder / "cohort")
    desk.configure(data={"/data": "cohort"})
    ran = desk.fedward("upgrade", "--bundle", desk.bundle("good"))
    assert ran.code == 0, (ran.out, ran.err)
    assert desk.modes() == ["good"]


def test_an_agent_whose_container_and_image_are_gone_comes_back_with_the_bundle(desk: Desk) -> None:
    desk.install()
    [container] = desk.containers()
    image = container.image.id
    container.remove(force=True)
    desk.engine.images.remove(image, force=True)
    desk.install()
    assert desk.modes() == ["good"]
    assert desk.read("starts") == "good\ngood\n"


def test_an_upgrade_whose_copy_of_the_state_can_not_be_written_leaves_the_agent_running(desk: Desk) -> None:
    desk.install()
    (desk.home / "snapshots" / ".part").mkdir()  # as a full disk, it takes no file
    ran = desk.fedward("upgrade", "--bundle", desk.bundle("better"))
    assert ran.code == 1
    assert "the state can't be copied" in ran.err
    assert desk.modes() == ["good"]
    assert desk.read("starts") == "good\ngood\n"
    again = desk.fedward("install", "--bundle", desk.bundle("good"))
    assert again.code == 0, again.err  # the failure was of another command


def test_a_rollback_with_the_state_puts_back_all_but_what_left(desk: Desk) -> None:
    desk.install()
    assert desk.fedward("upgrade", "--bundle", desk.bundle("better")).code == 0
    assert desk.read("starts") == "good\nbetter\n"
    assert desk.fedward("rollback", "--with-state").code == 0
    assert desk.read("starts") == "good\ngood\n"
    assert desk.read("egress/log") == "good\nbetter\ngood\n"


def test_the_container_is_hardened_and_its_log_is_bounded(desk: Desk) -> None:
    desk.configure(proxy="http://proxy.example.org:3128", http_port=19_100, cpus=0.5)
    desk.install()
    [container] = desk.containers()
    shown = container.attrs
    host = shown["HostConfig"]
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "3", "max-size": "10m"}}
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["Privileged"]) == (True, ["ALL"], False)
    assert host["PortBindings"] == {"9100/tcp": [{"HostIp": "127.0.0.1", "HostPort": "19100"}]}
    status = container.exec_run(["cat", "/proc/1/status"]).output.decode().split("\n")
    facts = dict(line.split(":\t", 1) for line in status if ":\t" in line)
    assert facts["Uid"].split()[0] == "10001"
    assert {int(facts[name], 16) for name in ("CapEff", "CapBnd", "CapInh")} == {0}
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
    for folder, writable in (("", False), ("/etc/fedward", False), ("/data", False), ("/var/lib/fedward", True)):
        assert (container.exec_run(["touch", f"{folder}/x"]).exit_code == 0) == writable, folder
    assert "proxy http://proxy.example.org:3128" in desk.fedward("logs").out
    assert not any("docker.sock" in mount["Source"] for mount in shown["Mounts"])


def test_32_an_agent_that_dies_comes_back_by_itself(desk: Desk) -> None:
    desk.install()
    [container] = desk.containers()
    since_s = time.time()
    os.kill(container.attrs["State"]["Pid"], signal.SIGKILL)
    watched = {"container": container.id, "event": "health_status: healthy"}
    for _ in desk.engine.events(since=since_s, until=time.time() + 20, filters=watched, decode=True):
        break
    container.reload()
    assert container.attrs["RestartCount"] == 1
    assert desk.modes() == ["good"]
    assert desk.read("starts") == "good\ngood\n"


def test_secrets_are_mounted_and_not_shown(desk: Desk) -> None:
    secrets = desk.folder / "secrets"
    secrets.mkdir()
    (secrets / "proxy-password").write_text("canary-7f3a")
    broker = {"host": "127.0.0.1", "port": 1883, "username": "north", "password_file": "/run/secrets/proxy-password"}
    desk.configure(secrets_folder="secrets")
    desk.site(broker=broker)
    desk.install()
    [container] = desk.containers()
    assert container.exec_run(["cat", "/run/secrets/proxy-password"]).output == b"canary-7f3a"
    assert "canary-7f3a" not in json.dumps(container.attrs)
    assert "canary-7f3a" not in (desk.home / "journal.json").read_text()


def test_enrolment_by_files_leaves_the_token_nowhere(desk: Desk) -> None:
    token = desk.folder / "token.txt"
    token.touch(0o600)
    token.write_text("fedward1-canary")
    ran = desk.fedward(
        "install", "--bundle", desk.bundle("good"), "--token-file", token, "--request-out", "request.json"
    )
    assert ran.code == 0
    assert "84b9-608e" in ran.out
    assert (desk.folder / "request.json").read_text() == "a request\n"
    assert desk.containers() == []
    assert all("fedward-test" in each.name for each in desk.engine.volumes.list(filters={"name": desk.name}))
    (desk.folder / "answer.json").write_text("an answer")
    ran = desk.fedward("install", "--bundle", desk.bundle("good"), "--token-file", token, "--answer", "answer.json")
    assert ran.code == 0, (ran.out, ran.err)
    assert desk.read("identity/answer") == "an answer"
    [container] = desk.containers()
    assert "canary" not in json.dumps(container.attrs)


def test_the_agents_own_commands_run_in_its_container(desk: Desk) -> None:
    desk.install()
    assert desk.fedward("agent", "status").out == "held version 3\n"
    [container] = desk.containers()
    container.stop()
    assert desk.fedward("agent", "status").out == "held version 3\n"
    [still] = desk.containers()
    assert (still.id, still.status) == (container.id, "exited")  # to ask does not start it


def test_uninstall_asks_about_the_state(desk: Desk) -> None:
    desk.install()
    assert desk.fedward("uninstall").code == 2
    assert desk.modes() == ["good"]
    assert desk.fedward("uninstall", "--keep-state").code == 0
    assert desk.containers() == []
    desk.install()
    assert desk.read("outbox/1.offer") == WORK
    assert desk.read("starts") == "good\ngood\n"
    assert desk.fedward("uninstall", "--delete-state").code == 0
    assert desk.engine.volumes.list(filters={"name": desk.name}) == []
    assert [path.name for path in desk.home.rglob("*.tar")] == []


def test_two_appliances_of_one_machine_do_not_touch_each_other(desk: Desk) -> None:
    desk.install()
    other = replace(desk, name=f"{desk.name}-b")
    try:
        other.configure()
        other.install("better")
        assert (desk.modes(), other.modes()) == (["good"], ["better"])
        assert other.fedward("uninstall", "--delete-state").code == 0
        assert desk.modes() == ["good"]
        assert desk.read("starts") == "good\n"
    finally:
        other.clean()
