"""How the broker is reached: with TLS unless somebody asked for less, and through the hospital's proxy."""

from pathlib import Path

import pytest

from fedward.errors import ConfigError
from fedward.proxy import Proxy
from fedward.reach import proxy_for, tls_for
from fedward.settings import BrokerSettings, IdentitySettings, TlsSettings

FILES = TlsSettings(ca_file=Path("a"), certificate_file=Path("b"), key_file=Path("c"))
IDENTITY = IdentitySettings(folder=Path("/etc/fedward"))
HTTPS_PROXY = {"https_proxy": "http://anna:s3cret@proxy:3128"}


def test_who_has_enrolled_speaks_tls_with_the_files_of_the_identity() -> None:
    assert tls_for(BrokerSettings(host="broker.org"), IDENTITY, "st-anna") == TlsSettings(
        ca_file=Path("/etc/fedward/ca.crt"),
        certificate_file=Path("/etc/fedward/st-anna.crt"),
        key_file=Path("/etc/fedward/st-anna.key"),
    )


@pytest.mark.parametrize("host", ["broker.org", "127.0.0.1"])
def test_files_that_are_named_go_before_those_of_the_identity(host: str) -> None:
    assert tls_for(BrokerSettings(host=host, tls=FILES), IDENTITY, "st-anna") == FILES


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_a_broker_on_this_machine_needs_no_tls(host: str) -> None:
    assert tls_for(BrokerSettings(host=host), None, "st-anna") is None


def test_plain_tcp_to_another_machine_is_refused_and_what_to_do_is_said() -> None:
    with pytest.raises(ConfigError, match=r"broker\.tls: missing.*broker\.org.*enrol.*broker\.plain: true"):
        tls_for(BrokerSettings(host="broker.org"), None, "st-anna")


def test_plain_tcp_to_another_machine_is_there_for_who_asks_for_it() -> None:
    assert tls_for(BrokerSettings(host="broker.org", plain=True), IDENTITY, "st-anna") is None


def test_the_proxy_of_the_environment_is_used_with_its_password() -> None:
    proxy = proxy_for(BrokerSettings(host="broker.org", port=443), HTTPS_PROXY)
    assert proxy == Proxy(host="proxy", port=3128, username="anna", password="s3cret")


@pytest.mark.parametrize(
    ("host", "no_proxy"), [("broker.org", "broker.org:443"), ("127.0.0.1", ""), ("localhost", ""), ("10.1.1.1", "*")]
)
def test_an_exempt_broker_and_one_on_this_machine_are_reached_directly(host: str, no_proxy: str) -> None:
    assert proxy_for(BrokerSettings(host=host, port=443), {**HTTPS_PROXY, "no_proxy": no_proxy}) is None


def test_the_setting_goes_before_the_environment_and_its_exemptions(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("other\n")
    (tmp_path / "password").chmod(0o600)
    broker = BrokerSettings(
        host="broker.org", proxy="http://otto@other:8080", proxy_password_file=tmp_path / "password"
    )
    proxy = proxy_for(broker, {**HTTPS_PROXY, "no_proxy": "*"})
    assert proxy == Proxy(host="other", port=8080, username="otto", password="other")


def test_a_direct_connection_can_be_asked_for() -> None:
    assert proxy_for(BrokerSettings(host="broker.org", proxy="none"), HTTPS_PROXY) is None


def test_an_unusable_variable_is_named_and_its_value_is_not() -> None:
    with pytest.raises(ConfigError, match="variable HTTPS_PROXY: expected http://host:port") as raised:
        proxy_for(BrokerSettings(host="broker.org"), {"HTTPS_PROXY": "https://anna:s3cret@proxy"})
    assert "s3cret" not in str(raised.value)


def test_a_password_file_of_the_proxy_that_is_missing_is_named(tmp_path: Path) -> None:
    broker = BrokerSettings(host="h", proxy="http://otto@other:8080", proxy_password_file=tmp_path / "password")
    with pytest.raises(ConfigError, match=r"broker\.proxy_password_file: can't read .*password"):
        proxy_for(broker, {})
