"""Settings: a typing mistake stops the start, and one message tells everything that is wrong."""

from pathlib import Path

import pytest
from pydantic import Field

from fedward.errors import ConfigError
from fedward.settings import BrokerSettings, HttpSettings, NameSetting, Settings, describe, load_settings


class WardSettings(Settings):
    """A process's settings, as the two sides have them."""

    site: NameSetting
    """Name of the site."""
    broker: BrokerSettings
    """Where the broker is."""
    http: HttpSettings | None = None
    """The endpoint."""
    tasks: dict[NameSetting, dict[str, object]] = Field(default_factory=dict)
    """The tasks."""


GOOD = "site: hospital-a\nbroker:\n  host: broker.example\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ward.yaml"


def load(path: Path, text: str, **environment: str) -> WardSettings:
    path.write_text(text)
    return load_settings(WardSettings, path, environment)


def problems(path: Path, text: str, **environment: str) -> str:
    with pytest.raises(ConfigError) as error:
        load(path, text, **environment)
    return str(error.value)


def test_a_file_becomes_settings_with_defaults(path):
    settings = load(path, GOOD)
    assert (settings.site, settings.broker.host, settings.broker.port) == ("hospital-a", "broker.example", 8883)


def test_settings_never_change_after_the_start(path):
    with pytest.raises(ValueError, match="frozen"):
        load(path, GOOD).site = "hospital-b"


def test_an_unknown_setting_is_refused_and_the_known_ones_are_listed(path):
    text = problems(path, GOOD + "sites: [a]\n")
    assert "sites: unknown setting; known here: broker, http, site, tasks" in text


def test_an_unknown_setting_in_a_section_lists_those_of_the_section(path):
    text = problems(path, GOOD + "  prot: 1\nhttp: {prt: 1}\n")
    assert "broker.prot: unknown setting; known here: host, keepalive_s, password_file, plain, port, proxy" in text
    assert "http.prt: unknown setting; known here: host, port" in text


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("  port: many", "broker.port: Input should be a valid integer"),
        ("  port: 0", "broker.port: Input should be greater than or equal to 1, got 0"),
        ("  port: 70000", "broker.port: Input should be less than or equal to 65535, got 70000"),
        ("  keepalive_s: [30]", "broker.keepalive_s: Input should be a valid integer, got [30]"),
        ("tasks: {Bad Name: {}}", "String should match pattern"),
        ("1: one", "1: Keys should be strings"),
    ],
)
def test_a_wrong_value_is_told_with_what_was_got(path, line, problem):
    assert problem in problems(path, f"{GOOD}{line}\n")


@pytest.mark.parametrize("name", ["Hospital", "a/b", "a b", "'+'", "''", "a" * 65, '"a\\n"'])
def test_a_name_that_is_no_topic_level_is_refused(path, name):
    assert "site: String should match pattern" in problems(path, f"site: {name}\nbroker: {{host: h}}\n")


def test_all_problems_come_in_one_message(path):
    text = problems(path, "sight: a\nbroker: {port: x, hots: b}\n")
    for problem in ("site: missing", "broker.host: missing", "sight: unknown", "broker.hots: unknown", "broker.port:"):
        assert problem in text
    assert text.count("\n  - ") == 5


def test_a_long_wrong_value_is_cut_in_the_message(path):
    assert "x" * 81 not in problems(path, f"{GOOD}  port: {'x' * 500}\n")


def test_a_missing_file_is_named(path):
    with pytest.raises(ConfigError, match=r"ward\.yaml: not found"):
        load_settings(WardSettings, path, {})


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "\tx", "a: !!python/object:os.system x", "a: 2001-13-45", "\x00"])
def test_malformed_yaml_is_refused(path, text):
    assert "expected YAML, got" in problems(path, text)


def test_a_file_that_is_no_text_is_refused(path):
    path.write_bytes(b"site: \xff\xfe")
    with pytest.raises(ConfigError, match="expected a text file"):
        load_settings(WardSettings, path, {})


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="expected a text file"):
        load_settings(WardSettings, tmp_path, {})


@pytest.mark.parametrize("text", ["", "[1, 2]", "just text", "7"])
def test_yaml_that_is_not_a_map_is_refused(path, text):
    assert "expected `key: value` lines" in problems(path, text)


def test_the_environment_overrides_the_file(path):
    assert load(path, GOOD, FEDWARD_SITE="hospital-b").site == "hospital-b"


def test_two_underscores_step_into_a_section_and_leave_the_rest_of_it(path):
    broker = load(path, GOOD, FEDWARD_BROKER__PORT="8883", FEDWARD_BROKER__KEEPALIVE_S="60").broker
    assert (broker.host, broker.port, broker.keepalive_s) == ("broker.example", 8883, 60)


def test_the_environment_may_bring_a_section_that_the_file_lacks(path):
    settings = load(path, GOOD, FEDWARD_HTTP__PORT="0", FEDWARD_TASKS__TABULAR__ROWS="[1, 2]")
    assert settings.http == HttpSettings(port=0)
    assert settings.tasks == {"tabular": {"rows": [1, 2]}}


def test_the_environment_replaces_what_is_no_section(path):
    assert load(path, "site: a\nbroker: none\n", FEDWARD_BROKER__HOST="h").broker.host == "h"


def test_an_unknown_variable_with_our_prefix_is_refused(path):
    assert "broker.prot: unknown setting" in problems(path, GOOD, FEDWARD_BROKER__PROT="1")


def test_a_variable_that_is_not_yaml_is_named(path):
    text = problems(path, GOOD, FEDWARD_SITE="[")
    assert "environment variable FEDWARD_SITE: expected YAML, got" in text


def test_the_variable_of_demo_and_tests_is_no_setting(path):
    assert load(path, GOOD, FEDWARD_DATA="/somewhere") == load(path, GOOD)


def test_variables_of_others_are_none_of_ours(path):
    assert load(path, GOOD, PATH="/bin", SITE="hospital-b", fedward_site="x") == load(path, GOOD)


def test_the_password_comes_from_its_file(tmp_path):
    (tmp_path / "secret").write_text("s3cret\n")
    (tmp_path / "secret").chmod(0o600)
    assert BrokerSettings(host="h", password_file=tmp_path / "secret").password() == "s3cret"
    assert BrokerSettings(host="h").password() is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o602])
def test_a_password_that_others_can_reach_is_refused(tmp_path, mode):
    (tmp_path / "secret").write_text("s3cret\n")
    (tmp_path / "secret").chmod(mode)
    broker = BrokerSettings(
        host="h",
        password_file=tmp_path / "secret",
        proxy="http://anna@proxy:3128",
        proxy_password_file=tmp_path / "secret",
    )
    with pytest.raises(ConfigError, match=r"^broker\.password_file: .* others can reach it .*chmod 600"):
        broker.password()
    with pytest.raises(ConfigError, match=r"^broker\.proxy_password_file: .* others can reach it"):
        broker.proxy_password()


def test_a_password_file_that_is_no_text_is_refused_without_repeating_it(tmp_path):
    (tmp_path / "secret").write_bytes(b"s3cret\xff")
    with pytest.raises(ConfigError, match=r"^broker\.password_file: .* not text$") as raised:
        BrokerSettings(host="h", password_file=tmp_path / "secret").password()
    assert raised.value.__suppress_context__


def test_a_password_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"broker\.password_file: can't read"):
        BrokerSettings(host="h", password_file=tmp_path / "missing").password()


def test_a_proxy_with_a_password_is_refused_without_repeating_it(path):
    for proxy in ("http://anna:s3c ret@proxy:3128", "anna:s3cret@proxy:3128", "http://anna:p@ss:s3cret@proxy"):
        text = problems(path, f"{GOOD}  proxy: '{proxy}'\n")
        assert "proxy_password_file" in text
        assert "ret" not in text


def test_a_proxy_of_another_kind_is_refused(path):
    assert "got a proxy of kind socks5" in problems(path, GOOD + "  proxy: socks5://proxy:1080\n")


def test_a_proxy_password_without_a_user_is_refused(path):
    text = problems(path, GOOD + "  proxy: http://proxy:3128\n  proxy_password_file: /run/secrets/proxy\n")
    assert "expected http://user@host:port" in text


def test_plain_and_tls_contradict_each_other(path):
    files = "{ca_file: ca.crt, certificate_file: own.crt, key_file: own.key}"
    assert "contradict each other" in problems(path, f"{GOOD}  plain: true\n  tls: {files}\n")


def test_every_setting_is_described_with_name_default_and_meaning():
    lines = list(describe(WardSettings))
    assert "  site (required): Name of the site." in lines
    assert any(line.startswith("  broker.port (default 8883): TCP port of the broker") for line in lines)
    assert any(line.startswith("  http.port (default None): Port to listen on") for line in lines)
    assert any(line.startswith("  tasks (default {})") for line in lines)
