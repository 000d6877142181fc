"""Reading a process's configuration: a YAML file, overridden by FEDWARD_ environment variables, checked in full.

`FEDWARD_BROKER__PORT=8883` overrides `broker: {port: ...}`: two underscores step into a section, and the value
is read as YAML. An unknown or wrong key anywhere stops the start with one message that lists every problem.
"""

import re
import types
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from fedward.codec import CODECS
from fedward.errors import ConfigError
from fedward.identity.keys import check_private
from fedward.identity.signing import COORDINATOR
from fedward.identity.token import USER_PREFIX
from fedward.pack import NAME
from fedward.proxy import parse_proxy

PREFIX = "FEDWARD_"
NOT_SETTINGS = frozenset({"FEDWARD_DATA"})
"""Variables with our prefix that belong to the demo and the tests."""

DIRECT = "none"
"""As `broker.proxy`: no proxy, whatever the environment says."""

PASSWORD = re.compile(r":(?!//).*@", re.DOTALL)
"""What may hold one, in an address: it is never repeated in a message."""

Transport = Literal["tcp", "websockets"]
NameSetting = Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$")]
Model = TypeVar("Model", bound=BaseModel)


def known_codec(name: str) -> str:
    """The name itself. Raises ValueError for one that no codec has."""
    if name not in CODECS:
        raise ValueError(f"unknown codec; known: {', '.join(CODECS)}")
    return name


def update_codec(name: str) -> str:
    """The name itself. Raises ValueError for that of a codec that may not carry updates."""
    if not CODECS[known_codec(name)].carries_updates:
        able = [known for known, codec in CODECS.items() if codec.carries_updates]
        raise ValueError(f"its error doesn't average out, so it can't carry updates; choose {' or '.join(able)}")
    return name


def site_name(name: str) -> str:
    """The name itself. Raises ValueError for one that other parties of a federation have, at the broker too."""
    if name == COORDINATOR or name.startswith((f"{COORDINATOR}-", USER_PREFIX)):
        raise ValueError(f"the names {COORDINATOR}, {COORDINATOR}-... and {USER_PREFIX}... are not for sites")
    return name


SiteNameSetting = Annotated[NameSetting, AfterValidator(site_name)]
UpdateCodecSetting = Annotated[str, AfterValidator(update_codec)]


class Settings(BaseModel):
    """A section of a configuration file: unknown keys are refused, values never change after the start."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class TrustSettings(Settings):
    """Whom this side believes to be the broker. It shows no certificate of its own: it has none yet."""

    ca_file: Path
    """Certificate of the authority that has signed the broker's; those of the operating system don't count."""


class TlsSettings(TrustSettings):
    """Files of mutual TLS with the broker, as PEM. What is renewed there is used at the next connection."""

    certificate_file: Path
    """Certificate of this side."""
    key_file: Path
    """Private key of this side; its owner alone may read the file."""


def proxy_address(text: str) -> str:
    """The text itself. Raises ValueError unless it is `none` or the address of an HTTP proxy without a password."""
    if text != DIRECT and parse_proxy(text).password is not None:
        raise ValueError("a password is never written into this file: put it into broker.proxy_password_file")
    return text


class BrokerSettings(Settings):
    """Where the MQTT broker is, and how it is reached."""

    host: str = Field(min_length=1)
    """Name or address of the broker; with TLS its certificate must be for it."""
    port: int = Field(default=8883, ge=1, le=65_535)
    """TCP port of the broker: 8883 is MQTT over TLS, 443 passes more firewalls, 1883 is without TLS."""
    tls: TlsSettings | None = None
    """Files of mutual TLS. Unset, those of the identity's folder are used, and a broker on this machine is spoken to
    without TLS."""
    plain: bool = False
    """Speak to a broker on another machine without TLS. Messages are signed and updates sealed all the same; who says
    what to whom, and the model, are then open to all on the way, and the broker can't tell who connects."""
    transport: Transport = "tcp"
    """websockets (path /mqtt) is a last resort, where a firewall passes nothing else: uploads take 6 MB/s of a
    core at best, and a mosquitto 2.0 sends 40 kB/s to each client so (docs/protocol.md)."""
    proxy: Annotated[str, AfterValidator(proxy_address)] | None = None
    """HTTP proxy on the way: http://host:port or http://user@host:port, or none. Unset: https_proxy and no_proxy of
    the environment decide."""
    proxy_password_file: Path | None = None
    """File that holds the password of the proxy's user, for basic authentication; its owner alone may read it."""
    username: str | None = None
    """User name, where the broker asks for one."""
    password_file: Path | None = None
    """File that holds the password, which its owner alone may read: a secret is never written into this file."""
    keepalive_s: int = Field(default=30, ge=5, le=120)
    """Seconds between signs of life; firewalls drop silent connections after minutes."""
    will_delay_s: int = Field(default=30, ge=0, le=3600)
    """Seconds that the broker waits before it tells the others that this side is gone."""
    reconnect_max_s: float = Field(default=60, ge=0.1, le=3600)
    """Longest wait between two attempts to connect; the wait doubles up to here, with jitter."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.plain and self.tls is not None:
            raise ValueError("plain and tls contradict each other: leave one of them out")
        if self.proxy_password_file is not None and (self.proxy is None or "@" not in self.proxy):
            raise ValueError("proxy_password_file is set, and proxy names no user: expected http://user@host:port")
        return self

    def password(self) -> str | None:
        """The password from its file. Raises ConfigError when the file can't be read, or others can."""
        return read_secret("broker.password_file", self.password_file)

    def proxy_password(self) -> str | None:
        """The proxy's password from its file. Raises as `password` does."""
        return read_secret("broker.proxy_password_file", self.proxy_password_file)


def read_secret(setting: str, path: Path | None) -> str | None:
    """What a file holds, and no configuration does; None without one.

    Raises ConfigError when it can't be read, or others can.
    """
    if path is None:
        return None
    try:
        text = path.read_text().strip()
    except OSError as error:
        raise ConfigError(f"{setting}: can't read {path}: {error.strerror}") from error
    except UnicodeDecodeError:  # its text would quote the secret
        raise ConfigError(f"{setting}: can't read {path}: not text") from None
    try:
        check_private(path)
    except ConfigError as error:
        raise ConfigError(f"{setting}: {error}") from None
    return text


class IdentitySettings(Settings):
    """Who this party is: its key, its certificate, and the federation's authority."""

    folder: Path
    """Folder with the key and the certificates, as enrolment leaves it; its owner alone may read it."""


class HttpSettings(Settings):
    """The local HTTP endpoint: /metrics, /healthz, /readyz and /v1/state."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int | None = Field(default=None, ge=0, le=65_535)
    """Port to listen on; 0 takes a free one, and without a port there is no endpoint."""


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def check_identity(identity: IdentitySettings | None, broker: BrokerSettings) -> None:
    """Raises ValueError where messages would leave this machine unsigned."""
    if identity is None and not is_loopback(broker.host):
        raise ValueError(
            f"identity: missing, and the broker is not on this machine ({broker.host}): messages that leave it are "
            "signed and sealed; enrol (docs/enrolment.md), and name the folder in identity.folder"
        )


def load_settings(model: type[Model], path: Path, environment: Mapping[str, str]) -> Model:
    """The file at `path`, overridden by the environment, as `model`.

    Raises ConfigError with every problem: what was got, what was expected.
    """
    try:
        text = path.read_text()
    except FileNotFoundError as error:
        raise ConfigError(f"configuration file {path}: not found") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration file {path}: expected a text file, got: {error}") from error
    given = _parse_yaml(text, f"configuration file {path}")
    if not isinstance(given, dict):
        raise ConfigError(f"configuration file {path}: expected `key: value` lines, got {type(given).__name__}")
    for name, text in environment.items():
        if name.startswith(PREFIX) and name not in NOT_SETTINGS:
            value = _parse_yaml(text, f"environment variable {name}")
            _override(given, name.removeprefix(PREFIX).lower().split("__"), value)
    try:
        return model.model_validate(given)
    except ValidationError as error:
        problems = "\n".join(f"  - {problem}" for problem in _problems(error, model))
        raise ConfigError(f"{path} (with {PREFIX}... from the environment) has problems:\n{problems}") from None


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: what looks like a date and is none
        raise ConfigError(f"{where}: expected YAML, got: {error}") from error


def _override(given: dict[str, Any], keys: list[str], value: object) -> None:
    section = given
    for key in keys[:-1]:
        inner = section.get(key)
        section[key] = dict(inner) if isinstance(inner, dict) else {}
        section = section[key]
    section[keys[-1]] = value


def _problems(error: ValidationError, model: type[BaseModel]) -> Iterator[str]:
    for problem in error.errors(include_url=False, include_context=False):
        place = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            yield f"{place}: unknown setting; known here: {', '.join(_known(model, problem['loc'][:-1]))}"
        elif problem["type"] == "missing":
            yield f"{place}: missing"
        elif not place:  # of the file as a whole, whose content is no part of the message
            yield problem["msg"].removeprefix("Value error, ")
        else:
            yield f"{place}: {problem['msg']}, got {_short(problem['input'])}"


def _short(value: object) -> str:
    text = PASSWORD.sub(":***@", repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."


def _known(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    for part in place:
        field = model.model_fields.get(str(part))
        inner = _section_of(field.annotation) if field else None
        if inner is None:
            return []
        model = inner
    return sorted(model.model_fields)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """The section behind `Section` or `Section | None`."""
    options = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    sections = (option for option in options if isinstance(option, type) and issubclass(option, BaseModel))
    return next(sections, None)


def describe(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """One line a setting, for --help: its name, default and meaning."""
    for name, field in model.model_fields.items():
        section = _section_of(field.annotation)
        if section:
            yield from describe(section, f"{prefix}{name}.")
            continue
        default = "required" if field.is_required() else f"default {field.get_default(call_default_factory=True)!r}"
        yield f"  {prefix}{name} ({default}): {' '.join((field.description or '').split())}"
