"""`fedward coordinator broker-config`: what it writes, and what it refuses."""

import json
from pathlib import Path

import pytest

from coordinator.access import initial_state
from coordinator.broker_config import BrokerPlace, mosquitto_config, write_broker_config
from fedward.errors import ConfigError


def place(**given: object) -> BrokerPlace:
    usual = {
        "host": "broker.example.org",
        "port": 8883,
        "address": None,
        "identity": Path("/etc/broker"),
        "state": Path("/var/lib/broker"),
        "plugin": Path("/usr/lib/plugin.so"),
        "enrolment_port": 8884,
        "enrolment_host": "broker.example.org",
    }
    return BrokerPlace(**{**usual, **given})  # type: ignore[arg-type]


def test_the_broker_asks_for_certificates_and_takes_names_from_them() -> None:
    lines = mosquitto_config(place()).splitlines()
    for line in (
        "allow_anonymous false",
        "listener 8883",
        "cafile /etc/broker/ca.crt",
        "certfile /etc/broker/broker.example.org.crt",
        "keyfile /etc/broker/broker.example.org.key",
        "crlfile /etc/broker/ca.crl",
        "require_certificate true",
        "use_identity_as_username true",
        "use_username_as_clientid true",
        "tls_version tlsv1.2",
        "plugin /usr/lib/plugin.so",
        "plugin_opt_config_file /var/lib/broker/dynamic-security.json",
        "persistence_location /var/lib/broker/",
    ):
        assert line in lines
    assert "listener 443 10.0.0.1" in mosquitto_config(place(port=443, address="10.0.0.1"))


def test_the_second_listener_is_for_passwords_over_tls_and_names_no_authority() -> None:
    before, after = mosquitto_config(place()).split("listener 8884\n")
    door = after.split("\n\n")[0].splitlines()
    assert door[:2] == ["certfile /etc/broker/broker.example.org.crt", "keyfile /etc/broker/broker.example.org.key"]
    assert "use_username_as_clientid true" in door
    assert not [line for line in door if line.startswith(("cafile", "require_certificate", "use_identity", "allow"))]
    assert "per_listener_settings false\nallow_anonymous false\n" in before
    named = mosquitto_config(place(enrolment_host="enrol.example.org", enrolment_port=443))
    assert "certfile /etc/broker/enrol.example.org.crt" in named.split("listener 443\n")[1]


def test_without_a_port_for_enrolment_there_is_no_second_door() -> None:
    lines = mosquitto_config(place(enrolment_port=None)).splitlines()
    assert sum(line.startswith("listener") for line in lines) == 1
    with pytest.raises(ConfigError, match="port 8883 for both"):
        mosquitto_config(place(enrolment_port=8883))


def test_the_files_are_for_their_owner_and_hold_the_initial_state(tmp_path: Path) -> None:
    write_broker_config(tmp_path / "out", place(), ["f1", "f2"])
    rights = tmp_path / "out" / "dynamic-security.json"
    assert json.loads(rights.read_text()) == initial_state(["f1", "f2"])
    assert rights.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("there", ["mosquitto.conf", "dynamic-security.json"])
def test_what_is_there_is_never_overwritten(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("in force")
    with pytest.raises(ConfigError, match="there already"):
        write_broker_config(tmp_path, place(), ["f1"])
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "in force"


def test_a_container_s_start_writes_the_configuration_anew_and_keeps_the_rights_in_force(tmp_path: Path) -> None:
    rights, config = tmp_path / "dynamic-security.json", tmp_path / "mosquitto.conf"
    write_broker_config(tmp_path, place(port=1), ["f1"], keep_rights=True)
    assert json.loads(rights.read_text()) == initial_state(["f1"])
    rights.write_text("in force")
    write_broker_config(tmp_path, place(port=2), ["f1"], keep_rights=True)
    assert rights.read_text() == "in force"
    assert config.read_text() == mosquitto_config(place(port=2))


@pytest.mark.parametrize("federation", ["#", "f1/#", "", "F1"])
def test_a_federation_that_is_no_name_is_refused(tmp_path: Path, federation: str) -> None:
    with pytest.raises(ConfigError, match="--federation"):
        write_broker_config(tmp_path, place(), [federation])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["a b", "a\nallow_anonymous true", "a\tb"])
def test_a_value_that_would_become_a_setting_of_its_own_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="blanks"):
        mosquitto_config(place(host=text))
    with pytest.raises(ConfigError, match="blanks"):
        mosquitto_config(place(enrolment_host=text))
    with pytest.raises(ConfigError, match="blanks"):
        mosquitto_config(place(identity=Path(text)))
