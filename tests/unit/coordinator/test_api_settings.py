"""Where the API may listen, and what it asks for first."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from coordinator.api.settings import ApiSettings
from fedward.errors import ConfigError

EVERYWHERE = "0.0.0.0"  # noqa: S104 - only named
TLS = {"ca_file": "ca.crt", "certificate_file": "api.crt", "key_file": "api.key"}


def test_there_is_no_api_unless_a_port_is_set_and_then_on_this_machine() -> None:
    settings = ApiSettings()
    assert (settings.port, settings.host) == (None, "127.0.0.1")


@pytest.mark.parametrize(
    "given",
    [
        {"host": "127.0.0.1"},
        {"host": "localhost", "token_file": "token"},
        {"host": EVERYWHERE, "tls": TLS, "token_file": "token"},
        {"host": EVERYWHERE, "tls": TLS, "readers": ["dashboard"]},
        {"host": "10.1.2.3", "token_file": "token", "plain": True},
    ],
)
def test_who_asks_is_known_or_on_this_machine(given: dict[str, Any]) -> None:
    assert ApiSettings(port=0, **given).guarded == ("token_file" in given or "readers" in given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"host": EVERYWHERE}, "name a token in api.token_file"),
        ({"host": EVERYWHERE, "plain": True}, "name a token in api.token_file"),
        ({"host": "::", "tls": TLS}, "name a token in api.token_file"),
        ({"host": "ward.example.org", "token_file": "token"}, "open to all on the way"),
        ({"readers": ["dashboard"]}, "needs api.tls"),
        ({"tls": TLS, "plain": True}, "contradict each other"),
    ],
)
def test_an_api_that_strangers_could_ask_is_refused(given: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        ApiSettings(port=0, **given)


def token_of(path: Path, text: str, mode: int = 0o600) -> str | None:
    path.touch(mode)
    path.chmod(mode)
    path.write_text(text)
    return ApiSettings(token_file=path).token()


def test_a_token_is_the_content_of_its_file(tmp_path: Path) -> None:
    assert token_of(tmp_path / "token", f"{'a' * 32}\n") == "a" * 32


@pytest.mark.parametrize("text", ["", "short", "a" * 31, f"{'a' * 32} b", "\xe4" * 32])
def test_a_token_that_is_easily_guessed_or_no_header_can_hold_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="openssl rand -hex 32"):
        token_of(tmp_path / "token", text)


def test_a_token_that_others_can_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="chmod 600"):
        token_of(tmp_path / "token", "a" * 32, 0o644)
