"""The commands that ask: from the state folder and from an API they say the same."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from coordinator.api.client import ApiClient
from coordinator.ledger import Ledger
from fedward.cli import EXIT_CONFIG, EXIT_INTEGRITY, EXIT_UNAVAILABLE, main
from fedward.errors import ConfigError, TransientError
from fedward.identity.certificates import Role
from fedward.modelfile import load_model
from tests.support.api import HOST, TOKEN, Api, serving, write_token
from tests.support.authority import Authority
from tests.support.updates import SMALL

pytestmark = pytest.mark.network


def fedward(verb: str, *arguments: object) -> int:
    return main(["coordinator", verb, *map(str, arguments)])


@pytest.fixture
def api(after_a_run: Path) -> Iterator[tuple[str, ...]]:
    """What the command line says to reach the API of a federation that has run."""
    token = write_token(after_a_run)
    with serving(after_a_run, token_file=token) as server:
        yield "--api", f"http://{HOST}:{server.port}", "--token-file", str(token)


@pytest.mark.parametrize("verb", ["versions", "sites", "head"])
def test_a_command_says_the_same_from_here_and_from_elsewhere(
    after_a_run: Path, api: tuple[str, ...], verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fedward(verb, "--config", after_a_run / "federation.yaml") == 0
    here = capsys.readouterr().out
    assert fedward(verb, *api) == 0
    assert capsys.readouterr().out == here
    assert here


def test_status_from_elsewhere_shows_version_buffer_and_sites(
    api: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fedward("status", *api) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("version    1 (- parameters, digest ")
    assert lines[2] == "buffer     1 updates since then"
    assert [line.split() for line in lines[4:]] == [["north", "2", "1", "100", "-"], ["south", "1", "0", "100", "-"]]


def test_head_is_what_replay_takes(after_a_run: Path, api: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert fedward("head", *api) == 0
    head = capsys.readouterr().out.strip()
    assert fedward("replay", "--config", after_a_run / "federation.yaml", "--head", head) == 0


def test_versions_say_how_the_list_goes_on(api: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert fedward("versions", *api, "--limit", 1) == 0
    said = capsys.readouterr()
    assert [line.split()[0] for line in said.out.splitlines()] == ["version", "1"]
    assert said.err == "more: --before 1\n"


def test_a_model_is_exported_from_elsewhere_as_it_is_here(
    after_a_run: Path, api: tuple[str, ...], tmp_path: Path
) -> None:
    assert fedward("export", *api, "--out", tmp_path / "there.safetensors") == 0
    config = after_a_run / "federation.yaml"
    assert fedward("export", "--config", config, "--out", tmp_path / "here.safetensors") == 0
    (layout, there_P), (_, here_P) = (load_model(tmp_path / f"{name}.safetensors") for name in ("there", "here"))
    assert layout == SMALL
    np.testing.assert_array_equal(there_P, here_P)


def test_an_unknown_version_is_the_operators_mistake_and_leaves_no_file(
    api: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fedward("export", *api, "--version", 9, "--out", tmp_path / "model.safetensors") == EXIT_CONFIG
    assert "404: no record of such a version" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.safetensors*.part")) + list(tmp_path.glob("model*"))


def test_a_wrong_token_is_the_operators_mistake(
    api: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "wrong"
    wrong.touch(0o600)
    wrong.write_text("x" * 64)
    assert fedward("status", *api[:2], "--token-file", wrong) == EXIT_CONFIG
    said = capsys.readouterr().err
    assert "401" in said
    assert "x" * 64 not in said


def test_an_api_that_is_away_may_come_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert fedward("status", "--api", f"http://{HOST}:1") == EXIT_UNAVAILABLE
    assert "can't be asked" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ward.example.org", "expected http://HOST:PORT"),
        ("ftp://ward.example.org", "expected http://HOST:PORT"),
        ("http://user:secret@ward.example.org", "expected http://HOST:PORT"),
        ("http://ward.example.org", "open to all on the way"),
        ("https://ward.example.org", "--ca-file"),
    ],
)
def test_an_address_that_would_give_the_token_away_or_is_none_is_refused(url: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        ApiClient(url, TOKEN, None)


def test_a_certificate_takes_the_place_of_a_token(
    after_a_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = Authority(tmp_path / "authority")
    tls, own = authority.party(HOST, Role.BROKER).model_dump(mode="json"), authority.party("warden")
    with serving(after_a_run, tls=tls, readers=["warden"]) as server:
        url = f"https://{HOST}:{server.port}"
        files = ("--ca-file", own.ca_file, "--certificate-file", own.certificate_file, "--key-file", own.key_file)
        assert fedward("head", "--api", url, *files) == 0
        rogue = Authority(tmp_path / "rogue").certificate_file
        assert fedward("head", "--api", url, "--ca-file", rogue, *files[2:]) == EXIT_UNAVAILABLE
    assert "CERTIFICATE_VERIFY_FAILED" in capsys.readouterr().err


@pytest.fixture
def liar(after_a_run: Path, tmp_path: Path) -> Iterator[Callable[[str, bytes], str]]:
    """Something between that answers as the API does, but for one path."""
    with ExitStack() as running:

        def begin(path_end: str, body: bytes) -> str:
            api = running.enter_context(serving(after_a_run))
            server = HTTPServer((HOST, 0), _answering_but(Api(api.port or 0, {}), path_end, body))
            thread = Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            running.callback(lambda: (server.shutdown(), server.server_close(), thread.join()))
            return f"http://{HOST}:{server.server_address[1]}"

        yield begin


def _answering_but(api: Api, path_end: str, body: bytes) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = api.get(self.path)
            content = body if self.path.endswith(path_end) else answer.content
            self.send_response(answer.status)
            self.send_header("ETag", answer.headers.get("etag", ""))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    return Handler


def test_a_file_that_was_changed_on_the_way_is_not_kept(
    liar: Callable[[str, bytes], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model.safetensors"
    assert fedward("export", "--api", liar("/model", b"changed"), "--out", out) == EXIT_INTEGRITY
    assert "not what the coordinator has" in capsys.readouterr().err
    assert not out.exists()


def test_something_else_that_answers_is_not_taken_for_the_api(liar: Callable[[str, bytes], str]) -> None:
    assert fedward("status", "--api", liar("/federations", b"<html>welcome</html>")) == EXIT_CONFIG


def test_a_busy_api_may_be_asked_again(folder: Path) -> None:
    Ledger.in_folder(folder / "state").close()
    with serving(folder) as server, pytest.raises(TransientError, match="503: no version was made yet"):
        ApiClient(f"http://{HOST}:{server.port}", None, None).federation()
