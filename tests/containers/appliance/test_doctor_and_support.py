"""What the IT desk is told: by the doctor when something is wrong, and by the file for those who help."""

import json
import os
import struct
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.containers.appliance.conftest import Desk

docker = pytest.importorskip("docker", reason="the SDK is not installed: pip install 'fedward[appliance]'")

pytestmark = [pytest.mark.containers, pytest.mark.slow]

CANARY = "canary-7f3a"

ANYBODY = 0xFFFFFFFF
"""Id of an access list's entry that names nobody."""


def lines(desk: Desk) -> dict[str, dict[str, str]]:
    """The doctor's lines by name; of a name that is twice there the last."""
    return {line["name"]: line for line in json.loads(desk.fedward("doctor", "--json").out)}


@pytest.fixture
def old_engine() -> Iterator[str]:
    """The address of something that says that it is a Docker Engine of 2019."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = b'{"ApiVersion": "1.40", "MinAPIVersion": "1.12", "Version": "19.03.0"}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's signature
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"tcp://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_29_without_an_engine_the_doctor_says_how_to_start_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{desk.folder}/none.sock")
    [line] = json.loads(desk.fedward("doctor", "--json").out)
    assert (line["name"], line["verdict"]) == ("engine", "failed")
    assert "systemctl start docker" in line["remedy"]
    assert desk.fedward("doctor").code == 1
    assert desk.fedward("status").code == 3


def test_29_an_old_engine_is_told(desk: Desk, old_engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", old_engine)
    [line] = json.loads(desk.fedward("doctor", "--json").out)
    assert line["found"] == "the Docker Engine speaks API 1.40, 1.41 is needed"
    assert line["remedy"] == "install Docker 20.10 or newer"
    assert desk.fedward("doctor").code == 1


def test_29_a_gpu_without_a_driver_is_told_before_anything_starts(desk: Desk) -> None:
    if os.path.exists("/proc/driver/nvidia/version"):  # noqa: PTH110 - a name of the kernel's
        pytest.skip("this machine has a GPU")
    desk.configure(gpu="all")
    assert lines(desk)["toolkit"]["remedy"] == "install the NVIDIA driver, or set gpu: none"
    ran = desk.fedward("install", "--bundle", desk.bundle("good"), "--force")
    assert ran.code == 1
    assert "could not select device driver" in ran.out + ran.err


def test_29_a_port_in_use_undoes_the_change_and_is_named(desk: Desk) -> None:
    desk.install()
    taken = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    desk.configure(http_port=taken.server_port)
    ran = desk.fedward("upgrade", "--bundle", desk.bundle("better"))
    taken.server_close()
    assert ran.code == 1
    assert "address already in use" in ran.err
    assert desk.modes() == ["good"]


def test_29_a_path_of_the_host_in_site_yaml_is_told(desk: Desk) -> None:
    desk.site(tasks={"breast-cancer": {"train": "/srv/records.csv"}})
    line = lines(desk)["paths"]
    assert line["verdict"] == "failed"
    assert "tasks.breast-cancer.train: /srv/records.csv is not in the container" in line["found"]


def test_29_records_that_the_container_may_not_read_are_told(desk: Desk) -> None:
    (desk.folder / "records").chmod(0o700)
    line = lines(desk)["mounts"]
    assert line["verdict"] == "failed"
    assert "chown -R 10001:10001" in line["remedy"]


def test_29_records_that_an_access_list_opens_for_the_container_are_readable(desk: Desk) -> None:
    """As docs/install.md offers it: setfacl -R -m u:10001:rX."""
    entries = [(0x01, 7, ANYBODY), (0x02, 5, 10001), (0x04, 0, ANYBODY), (0x10, 5, ANYBODY), (0x20, 0, ANYBODY)]
    access_list = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(desk.folder / "records", "system.posix_acl_access", access_list)
    assert (desk.folder / "records").stat().st_mode & 0o007 == 0
    assert lines(desk)["mounts"]["verdict"] == "ok"


def test_29_an_agent_that_somebody_stopped_is_told(desk: Desk) -> None:
    desk.install()
    assert lines(desk)["container"]["verdict"] == "ok"
    assert lines(desk)["tasks"]["found"] == "all there"  # asked in the agent's container
    desk.containers()[0].stop()
    assert lines(desk)["container"]["remedy"] == "start it: fedward appliance install"
    desk.install()
    assert desk.modes() == ["good"]


def test_30_a_support_bundle_holds_no_secret(desk: Desk) -> None:
    secrets = desk.folder / "secrets"
    secrets.mkdir()
    (secrets / "broker-password").write_text(f"{CANARY}-secret\n")
    desk.configure(secrets_folder="secrets", proxy="http://canary-7f3a@proxy.example.org:3128")
    broker = {
        "host": "127.0.0.1",
        "port": 1883,
        "username": CANARY,
        "password_file": "/run/secrets/broker-password",
    }
    options = {"train": "/data/records.csv", "label": CANARY, "folder": f"/home/{CANARY}/hiv-cohort"}
    desk.site(broker=broker, tasks={"breast-cancer": options})
    with (desk.folder / "config" / "site.yaml").open("a") as file:
        file.write(f"# {CANARY}\n")
    (desk.folder / "records" / f"{CANARY}.csv").write_text(CANARY)
    installed = desk.fedward(
        "install", "--bundle", desk.bundle("good"), "--force"
    )  # the folder is not in the container
    assert installed.code == 0, installed.err
    [container] = desk.containers()
    assert CANARY in desk.fedward("logs").out  # the stand-in prints the proxy, which is not the agent's line
    assert container.exec_run(["sh", "-c", f"echo {CANARY} > /var/lib/fedward/outbox/2.payload"]).exit_code == 0
    shown = desk.fedward("support-bundle", "--out", "support.tar.gz")
    assert not (desk.folder / "support.tar.gz").exists()  # it was shown, and nobody said yes
    written = desk.fedward("support-bundle", "--out", "support.tar.gz", "--yes")
    assert written.code == 0, written.err
    assert CANARY not in shown.out + written.out
    assert str(desk.folder) not in shown.out
    with tarfile.open(desk.folder / "support.tar.gz") as archive:
        files = {member.name: archive.extractfile(member) for member in archive}
        texts = {name.rpartition("/")[2]: file.read().decode() for name, file in files.items() if file}
    assert {"status.json", "appliance.json", "site.json", "doctor.json", "engine.json", "container-1.log"} <= set(texts)
    assert CANARY not in json.dumps(texts)
    assert all(name in shown.out for name in texts)
    assert json.loads(texts["site.json"])["broker"]["port"] == 1883
    paths = next(line for line in json.loads(texts["doctor.json"]) if line["name"] == "paths")
    assert (paths["verdict"], paths["found"]) == ("failed", "(removed)")
    assert (desk.folder / "support.tar.gz").stat().st_mode & 0o077 == 0


@pytest.fixture
def nowhere(engine: "docker.DockerClient") -> Iterator[str]:
    """A network without a way out. It ends after the desk that is on it."""
    network = engine.networks.create(f"fedward-nowhere-{os.getpid()}", internal=True)
    yield network.name
    network.remove()


def test_28_a_bundle_is_installed_where_nothing_can_be_reached(nowhere: str, desk: Desk) -> None:
    desk.configure(network=nowhere)
    desk.install()
    [container] = desk.containers()
    assert list(container.attrs["NetworkSettings"]["Networks"]) == [nowhere]
    assert desk.modes() == ["good"]


def test_28_a_bundle_with_one_byte_changed_is_refused_before_the_engine_gets_it(desk: Desk) -> None:
    content = bytearray(desk.bundle("good").read_bytes())
    content[len(content) // 2] ^= 1
    (desk.folder / "changed.bundle").write_bytes(content)
    before = {image.id for image in desk.engine.images.list(all=True)}
    ran = desk.fedward("install", "--bundle", "changed.bundle")
    assert ran.code == 4
    assert "image.tar.gz is not what the publisher has signed; get the file again" in ran.err
    assert {image.id for image in desk.engine.images.list(all=True)} <= before
    assert desk.containers() == []


def test_a_folder_that_this_user_may_not_use_is_named(desk: Desk) -> None:
    (desk.folder / "file").write_text("")
    desk.configure(folder="file/appliance")
    ran = desk.fedward("rollback")
    assert ran.code == 2
    assert "run this as root, or set another `folder`" in ran.err
