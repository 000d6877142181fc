"""The API behind TLS: whose certificate lets somebody in, and whose does not."""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fedward.identity.certificates import Role
from fedward.settings import TlsSettings
from tests.support.api import ROOT, Api, serving, write_token
from tests.support.authority import Authority

pytestmark = pytest.mark.network

REFUSED = (ssl.SSLError, ConnectionError)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def serve(after_a_run: Path, authority: Authority) -> Iterator[Callable[..., int]]:
    """Serves the API with a certificate of the authority; the port."""
    tls = authority.party("127.0.0.1", Role.BROKER) if not list(authority.folder.glob("broker*")) else _there(authority)
    with ExitStack() as running:

        def begin(**api: Any) -> int:
            server = running.enter_context(serving(after_a_run, tls=tls.model_dump(mode="json"), **api))
            assert server.port
            return server.port

        yield begin


def _there(authority: Authority) -> TlsSettings:
    folder = authority.folder / "broker 127.0.0.1"
    return TlsSettings(
        ca_file=authority.certificate_file, certificate_file=folder / "own.crt", key_file=folder / "own.key"
    )


def shows(authority: Authority, files: TlsSettings | None = None) -> ssl.SSLContext:
    """A caller that believes the authority, and shows a certificate or none."""
    context = ssl.create_default_context(cafile=authority.certificate_file)
    if files:
        context.load_cert_chain(files.certificate_file, files.key_file)
    return context


def test_whoever_shows_a_listed_certificate_needs_no_token(serve: Callable[..., int], authority: Authority) -> None:
    port = serve(readers=["dashboard"])
    assert Api(port, {}, shows(authority, authority.party("dashboard"))).get(ROOT).status == 200


def test_a_member_of_the_federation_is_no_reader_by_that(serve: Callable[..., int], authority: Authority) -> None:
    port = serve(readers=["warden"])
    assert Api(port, {}, shows(authority, authority.party("north"))).get(ROOT).status == 401


def test_a_certificate_of_another_authority_does_not_get_as_far_as_a_request(
    serve: Callable[..., int], authority: Authority, tmp_path: Path
) -> None:
    port = serve(readers=["warden"])
    forged = Authority(tmp_path / "rogue", "authority of the ward").party("warden")
    with pytest.raises(REFUSED):
        Api(port, {}, shows(authority, forged)).get(ROOT)


def test_an_ended_certificate_is_not_taken(serve: Callable[..., int], authority: Authority) -> None:
    port = serve(readers=["former"])
    with pytest.raises(REFUSED):
        Api(port, {}, shows(authority, authority.party("former", ends_in_days=-2))).get(ROOT)


def test_without_a_token_a_caller_without_a_certificate_does_not_get_as_far_as_a_request(
    serve: Callable[..., int], authority: Authority
) -> None:
    port = serve(readers=["warden"])
    with pytest.raises(REFUSED):
        Api(port, {}, shows(authority)).get(ROOT)


def test_token_and_certificate_each_let_in_where_both_are_set(
    serve: Callable[..., int], authority: Authority, tmp_path: Path
) -> None:
    port = serve(readers=["nurse"], token_file=write_token(tmp_path))
    assert Api(port, tls=shows(authority)).get(ROOT).status == 200
    assert Api(port, {}, shows(authority, authority.party("nurse"))).get(ROOT).status == 200
    assert Api(port, {}, shows(authority)).get(ROOT).status == 401


def test_one_who_speaks_without_tls_is_hung_up_on_and_others_are_answered(
    serve: Callable[..., int], authority: Authority, tmp_path: Path
) -> None:
    port = serve(token_file=write_token(tmp_path))
    with pytest.raises(ConnectionError):
        Api(port).get(ROOT)
    assert Api(port, tls=shows(authority)).get(ROOT).status == 200


def test_tls_1_1_is_refused(serve: Callable[..., int], authority: Authority, tmp_path: Path) -> None:
    port = serve(token_file=write_token(tmp_path))
    old = shows(authority)
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(REFUSED):
        Api(port, tls=old).get(ROOT)


def test_a_renewed_certificate_is_shown_from_the_next_connection_on(
    after_a_run: Path, authority: Authority, tmp_path: Path
) -> None:
    server_files = Authority(tmp_path / "own")
    files = server_files.party("127.0.0.1", Role.BROKER, ends_in_days=-2)
    token = write_token(tmp_path)
    with serving(after_a_run, tls=files.model_dump(mode="json"), token_file=token) as server:
        assert server.port
        api = Api(server.port, tls=shows(server_files))
        with pytest.raises(ssl.SSLError, match="expired"):
            api.get(ROOT)
        server_files.renew(files, "127.0.0.1", Role.BROKER)
        assert api.get(ROOT).status == 200


def test_one_who_says_nothing_in_the_handshake_is_hung_up_on(
    serve: Callable[..., int], authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.api.server.HANDSHAKE_S", 0.2)
    port = serve(token_file=write_token(tmp_path))
    with socket.create_connection(("127.0.0.1", port), timeout=30) as silent:
        assert silent.recv(1) == b""
    assert Api(port, tls=shows(authority)).get(ROOT).status == 200


def test_the_api_is_closed_in_the_middle_of_a_handshake(
    after_a_run: Path, authority: Authority, tmp_path: Path
) -> None:
    files = Authority(tmp_path / "own").party("127.0.0.1", Role.BROKER)
    with serving(after_a_run, tls=files.model_dump(mode="json"), token_file=write_token(tmp_path)) as server:
        assert server.port
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as silent:
            silent.sendall(b"\x16\x03\x01")
            Api(server.port, tls=ssl.create_default_context(cafile=files.ca_file)).get(ROOT)
