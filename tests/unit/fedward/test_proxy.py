"""Proxies: addresses, and what `https_proxy` and `no_proxy` mean."""

import pytest

from fedward.proxy import Proxy, is_exempt, parse_proxy, proxy_variable


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("http://proxy.ward:3128", Proxy(host="proxy.ward", port=3128)),
        ("http://proxy.ward:3128/", Proxy(host="proxy.ward", port=3128)),
        ("proxy.ward:3128", Proxy(host="proxy.ward", port=3128)),
        ("http://proxy.ward", Proxy(host="proxy.ward", port=80)),
        ("http://[fd00::1]:8080", Proxy(host="fd00::1", port=8080)),
        ("http://anna@proxy:80", Proxy(host="proxy", port=80, username="anna")),
        (
            "http://WARD%5Canna:p%40ss%3A@proxy:80",
            Proxy(host="proxy", port=80, username="WARD\\anna", password="p@ss:"),
        ),
    ],
)
def test_an_address_becomes_a_proxy(text: str, proxy: Proxy) -> None:
    assert parse_proxy(text) == proxy


@pytest.mark.parametrize(
    "text",
    ["https://u:s3cret@proxy:1", "socks5://u:s3cret@h:1", "http://", "http://u:s3cret@", "http://u:s3cret@h:x",
     "http://u:s3cret@h:70000", "http://u:s3cret@h:0", "http://u:s3cret@h/path", "http://u:s3cret@[::1"],
)  # fmt: skip
def test_what_is_no_http_proxy_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match="expected http://host:port") as raised:
        parse_proxy(text)
    assert "s3cret" not in str(raised.value)


def test_the_password_of_a_proxy_is_not_in_its_repr() -> None:
    assert "s3cret" not in repr(parse_proxy("http://anna:s3cret@proxy:3128"))


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, ""),
        ({"http_proxy": "a", "all_proxy": "a"}, ""),
        ({"https_proxy": ""}, ""),
        ({"HTTPS_PROXY": "a"}, "HTTPS_PROXY"),
        ({"HTTPS_PROXY": "a", "https_proxy": "b"}, "https_proxy"),
        ({"HTTPS_PROXY": "a", "https_proxy": ""}, "HTTPS_PROXY"),
    ],
)
def test_the_lower_case_variable_goes_before_the_upper_case_one(environment: dict[str, str], name: str) -> None:
    assert proxy_variable(environment) == (name, environment.get(name, ""))


@pytest.mark.parametrize(
    ("no_proxy", "host"),
    [
        ("*", "broker.example.org"),
        ("broker.example.org", "broker.example.org"),
        ("example.org", "broker.example.org"),
        (".example.org", "broker.example.org"),
        ("*.example.org", "broker.example.org"),
        (".example.org", "example.org"),
        ("other.net, Example.ORG.", "BROKER.example.org"),
        ("other.net example.org", "broker.example.org."),
        ("example.org:443", "broker.example.org"),
        ("10.1.2.3", "10.1.2.3"),
        ("10.0.0.0/8", "10.1.2.3"),
        ("10.0.0.0/8:443", "10.1.2.3"),
        ("fd00::/8", "fd00::1"),
        ("[fd00::1]:443", "fd00::1"),
        ("fd00::1", "[fd00::1]"),
    ],
)
def test_a_host_that_no_proxy_names_is_exempt(no_proxy: str, host: str) -> None:
    assert is_exempt(host, 443, {"no_proxy": no_proxy})
    assert is_exempt(host, 443, {"NO_PROXY": no_proxy})


@pytest.mark.parametrize(
    ("no_proxy", "host"),
    [
        ("", "broker.example.org"),
        (" , ", "broker.example.org"),
        ("roker.example.org", "broker.example.org"),
        ("broker", "broker.example.org"),
        ("example.org:8883", "broker.example.org"),
        ("example.org:x", "broker.example.org"),
        ("10.0.0.0/8", "11.1.2.3"),
        ("10.0.0.0/99", "10.1.2.3"),
        ("3", "10.1.2.3"),
        ("0.0.0.0/0", "fd00::1"),
        ("10.0.0.0/8", "broker.example.org"),
        (".", "broker.example.org"),
    ],
)
def test_a_host_that_no_proxy_does_not_name_is_not_exempt(no_proxy: str, host: str) -> None:
    assert not is_exempt(host, 443, {"no_proxy": no_proxy})


def test_the_lower_case_exemptions_go_before_the_upper_case_ones() -> None:
    assert not is_exempt("broker.org", 443, {"no_proxy": "other.org", "NO_PROXY": "broker.org"})
