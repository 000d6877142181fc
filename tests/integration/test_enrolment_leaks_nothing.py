"""A hospital that enrols, by files and over the network: of what it calls things only its name and key leave it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import NameOID

from fedward.cli import EXIT_UNAVAILABLE
from fedward.identity.certificates import load_certificate
from fedward.identity.handover import REQUEST, read_handover
from fedward.identity.token import Token, new_secret, new_token_id, write_token
from fedward.messages import Enrolment
from fedward.pack import unpack
from sandbox.broker import EmbeddedBroker
from sandbox.federation import FEDERATION, HOST
from sandbox.identities import make_identities
from sandbox.relay import Relay
from tests.support.marked_task import MARKERS, TASK, MarkedFiles
from tests.support.needles import found_in
from tests.support.spy import Spy

pytestmark = [pytest.mark.slow, pytest.mark.network]

SITE = "hospital-c"


@pytest.fixture
def files(tmp_path: Path) -> MarkedFiles:
    """A hospital's files, its configuration beside them: every path in it is marked."""
    found = MarkedFiles(tmp_path / "hospital")
    found.write(seed=1)
    found.refuse()
    settings = {
        "site": SITE,
        "federation": FEDERATION,
        "tasks": {TASK: found.options},
        "state_folder": str(found.table.parent / "state"),
        "broker": {"host": HOST},
        "identity": {"folder": str(found.table.parent / "identity")},
        "policy_file": str(found.policy),
    }
    found.table.with_name("site.yaml").write_text(yaml.safe_dump(settings))
    return found


def write_token_file(files: MarkedFiles, folder: Path, port: int) -> None:
    make_identities(folder, FEDERATION, (), time.time())
    token = Token(
        federation=FEDERATION,
        site=SITE,
        token_id=new_token_id(),
        host=HOST,
        port=port,
        authority=load_certificate(folder / "authority" / "ca.crt"),
        coordinator=load_certificate(folder / "coordinator" / "coordinator.crt").fingerprint,
        secret=new_secret(),
    )
    path = files.table.with_name("token")
    path.write_text(write_token(token))
    path.chmod(0o600)


def enroll(files: MarkedFiles, *arguments: str) -> int:
    command = [sys.executable, "-m", "fedward.cli", "agent", "enroll", *arguments]
    for option, name in (("--config", "site.yaml"), ("--token-file", "token")):
        command += [option, str(files.table.with_name(name))]
    return subprocess.run(command, env=dict(os.environ), check=False).returncode


def is_name_and_key(request: bytes) -> bool:
    csr = x509.load_pem_x509_csr(request)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SITE)])
    return csr.subject == name and not list(csr.extensions) and not list(csr.attributes)


def test_a_request_that_is_carried_holds_name_and_key_alone(files: MarkedFiles, tmp_path: Path) -> None:
    write_token_file(files, tmp_path / "identities", 1)
    carried = files.table.with_name("request")
    assert enroll(files, "--request-out", str(carried)) == 0
    _, message = read_handover(carried.read_bytes(), REQUEST)
    assert is_name_and_key(unpack(message, Enrolment).request)
    assert found_in(carried.read_bytes(), MARKERS) == set()


def test_a_request_over_the_network_holds_name_and_key_alone_and_nothing_else_leaves(
    files: MarkedFiles, tmp_path: Path
) -> None:
    wire = bytearray()
    with EmbeddedBroker(tmp_path) as broker, Relay(HOST, broker.port, wire.extend) as relay:
        write_token_file(files, tmp_path / "identities", relay.port)
        with Spy(broker.port, "#") as spy:
            assert enroll(files, "--wait", "2") == EXIT_UNAVAILABLE, "nobody answers"
            [topic, payload], *again = [spy.hear(), *spy.take()]
    assert topic.split("/")[3::2] == ["enrol", "request"]
    assert {found for found, _ in again} <= {topic}
    assert is_name_and_key(unpack(payload, Enrolment).request)
    assert payload in wire
    assert found_in(bytes(wire), MARKERS) == set()
