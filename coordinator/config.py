"""The coordinator's configuration: one federation. `fedward coordinator run --help` prints every setting."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic.dataclasses import dataclass

from coordinator.api.settings import ApiSettings
from coordinator.engine.settings import EngineSettings
from coordinator.precision import AUTO, Precision
from fedward.codec import CODECS
from fedward.identity.release import release_key_setting
from fedward.limits import CHUNK_BYTES, MAX_CODECS, MAX_PAYLOAD_BYTES, MIB
from fedward.messages import Work
from fedward.settings import (
    BrokerSettings,
    HttpSettings,
    IdentitySettings,
    NameSetting,
    Settings,
    SiteNameSetting,
    UpdateCodecSetting,
    check_identity,
    is_loopback,
    known_codec,
    read_secret,
    update_codec,
)


def _codec_for_updates(name: str) -> str:
    return name if name == AUTO else update_codec(name)


def _codec_for_models(name: str) -> str:
    if not CODECS[known_codec(name)].deterministic:
        able = [known for known, codec in CODECS.items() if codec.deterministic]
        raise ValueError(f"decoding differs between machines, so it can't carry a model; choose {' or '.join(able)}")
    return name


def _server_url(text: str) -> str:
    url = urlsplit(text)
    if url.scheme != "postgresql" or not url.hostname or not url.path.strip("/"):
        raise ValueError("expected postgresql://USER@HOST:PORT/NAME")
    if url.password is not None or "password=" in url.query:
        raise ValueError("a password is never written into this file: put it into ledger.password_file")
    if "sslmode=" in url.query or is_loopback(url.hostname):
        return text
    return text + ("&" if url.query else "?") + "sslmode=verify-full"


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class WorkSettings(Work):
    """The work order, with unknown keys refused."""


class Authorisation(StrEnum):
    """Who gives sites their rights at the broker."""

    NONE = "none"
    DYNAMIC_SECURITY = "dynamic-security"


class FinishSettings(Settings):
    """When the federation is finished by itself; without a setting it runs until the operator ends it."""

    version: int | None = Field(default=None, ge=1)
    """Finish with this version."""
    metric: NameSetting | None = None
    """Finish when this metric reaches `value`, over all sites' held-out records and in the median of the sites."""
    value: float | None = None
    """What `metric` has to reach: from below, or from above where the metric is `loss`."""

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.metric is None) != (self.value is None):
            raise ValueError("metric and value go together")
        return self


class RetentionSettings(Settings):
    """How far back the coordinator's state reaches."""

    versions: int = Field(default=100, ge=1, le=1_000_000)
    """Newest versions whose payloads are kept, so that they can be replayed and exported; more than
    engine.max_staleness."""
    records: int = Field(default=10_000, ge=1, le=1_000_000)
    """Newest versions whose rows are kept in the ledger; at least `versions`."""

    @model_validator(mode="after")
    def _rows_outlive_payloads(self) -> Self:
        if self.records < self.versions:
            raise ValueError(f"records must be at least versions, which is {self.versions}")
        return self


ENROLMENT_PORT = 8884
"""Of the broker's listener for those who hold a token and have no certificate yet."""


class CoordinatorBrokerSettings(BrokerSettings):
    """Where the MQTT broker is, and who sees to its access rights."""

    authorisation: Authorisation = Authorisation.NONE
    """Who gives sites their rights at the broker: none (its operator), or dynamic-security (this coordinator, through
    mosquitto's plugin)."""
    enrolment_port: int = Field(default=ENROLMENT_PORT, ge=1, le=65_535)
    """TCP port of the broker's listener for those who enrol; `invite` writes it into the token. Without TLS it is
    `port`."""


class LimitSettings(Settings):
    """How much of the coordinator one site may use, so that it can't starve the others."""

    messages_s: float = Field(default=100.0, gt=0, le=1e6)
    """Messages a second of one site, in the long run; ten seconds of it at once. Chunks are counted by bytes alone."""
    bytes_s: float = Field(default=128 * MIB, ge=CHUNK_BYTES, le=1e12)
    """Bytes a second of one site, in the long run; ten seconds of it at once."""
    storage_bytes: int = Field(default=4 * MAX_PAYLOAD_BYTES, ge=1)
    """Bytes of one site's accepted updates that wait for a version; further ones are told to come later."""


class AuthoritySettings(Settings):
    """What signs the certificates of this federation; without a setting it is offline, and requests wait for it."""

    folder: Path | None = None
    """Folder with the authority's key (ca.key) and certificate (ca.crt), where both are on this machine."""
    command: list[str] | None = Field(default=None, min_length=1)
    """A program and its arguments that signs: the client of a key service. docs/enrolment.md has what it must do."""
    timeout_s: float = Field(default=10.0, ge=0.1, le=60)
    """Seconds that the program may take; the coordinator's loop waits for it."""
    days: float = Field(default=90.0, ge=1, le=3650)
    """Days that a certificate lasts; agents renew theirs when a third of that is left."""

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.folder is not None and self.command is not None:
            raise ValueError("folder and command exclude each other")
        return self


class InstallationSettings(Settings):
    """What hospitals install: `invite` writes it into the commands that it shows; unset, they have a place for it."""

    release_key: Annotated[str, AfterValidator(release_key_setting)] | None = None
    """Public key of who publishes the agent's images, as one line: the release says it."""
    image: str | None = None
    """The agent's image by its digest, registry/name@sha256:...; unset where releases come in bundles."""
    image_signature: str | None = None
    """The publisher's signature of the image's digest."""

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.image is None) != (self.image_signature is None):
            raise ValueError("image and image_signature go together")
        return self


class LedgerSettings(Settings):
    """Which database holds the ledger; without a setting a SQLite file in state_folder does."""

    url: Annotated[str, AfterValidator(_server_url)] | None = None
    """A PostgreSQL database, postgresql://USER@HOST:PORT/NAME, of this federation alone. libpq's parameters may follow
    after a '?'; without sslmode among them a server elsewhere has to prove its name (verify-full)."""
    password_file: Path | None = None
    """File that holds the user's password."""

    def password(self) -> str | None:
        """The password from its file. Raises ConfigError when the file can't be read."""
        return read_secret("ledger.password_file", self.password_file)


class FederationConfig(Settings):
    """One federation."""

    @field_validator("sites")
    @classmethod
    def _each_site_once(cls, sites: list[str]) -> list[str]:
        if len(set(sites)) != len(sites):
            raise ValueError("a site is listed twice")
        return sites

    @field_validator("retention")
    @classmethod
    def _every_base_is_kept(cls, retention: RetentionSettings, info: ValidationInfo) -> RetentionSettings:
        engine = info.data.get("engine")  # None where its own problems are told
        if engine is not None and retention.versions <= engine.max_staleness:
            raise ValueError(
                f"versions must be more than engine.max_staleness, which is {engine.max_staleness}: "
                "an update may be based on any version up to that age"
            )
        return retention

    federation: NameSetting
    """Name of the federation: a topic level, so a-z, 0-9 and '-'."""
    sites: list[SiteNameSetting] = Field(min_length=1)
    """The admitted sites."""
    task: NameSetting
    """Name of the task that the sites have installed and allow."""
    model: Path
    """The initial model, a safetensors file: `fedward agent init-model` writes it."""
    work: WorkSettings
    """What a site does with a version: local_epochs, batch_size, local_lr, optimizer (sgd, adam), momentum,
    weight_decay, and the bounds max_steps and max_seconds."""
    state_folder: Path
    """Where ledger and blobs live."""
    broker: CoordinatorBrokerSettings
    """Where the MQTT broker is."""
    identity: IdentitySettings | None = None
    """The coordinator's keys and the register of enrolled sites. Unset, messages are neither signed nor sealed, which
    is allowed only with a broker on this machine, to try things out."""
    authority: AuthoritySettings = AuthoritySettings()
    """What signs certificates."""
    installation: InstallationSettings = InstallationSettings()
    """What hospitals install, for `invite` to show."""
    ledger: LedgerSettings = LedgerSettings()
    """Where the ledger is. Beside a database on a server another coordinator may stand by, on the same state_folder."""
    http: HttpSettings = HttpSettings()
    """The HTTP endpoint."""
    api: ApiSettings = ApiSettings()
    """The read-only API, for operators and their programs."""
    engine: EngineSettings = EngineSettings()
    """How updates are weighed, buffered and folded."""
    codec: Annotated[str, AfterValidator(_codec_for_updates)] = "eden4"
    """Codec of the updates that sites send where their links and policies allow it; auto: q8 for a model below a
    million parameters, else eden4."""
    codecs: list[UpdateCodecSetting] = Field(default=["q8", "eden4", "eden2", "eden1"], max_length=MAX_CODECS - 1)
    """Codecs that updates may come in, beside `codec`: a site on a slow link takes one of fewer bits."""
    precise_versions: int = Field(default=1, ge=0, le=1_000_000)
    """At so many first versions, and as many last ones before finish.version, updates are asked for in the next more
    precise one of the allowed codecs, up to 8 bits; and the model's last deltas travel at 8 bits or more."""
    model_codec: Annotated[str, AfterValidator(_codec_for_models)] = "uqz"
    """Codec of the model deltas that sites download."""
    sealed_model: bool = False
    """Seal the model to the members, so that whoever holds the broker can't read it. Needs an identity, and agents that
    know how: an older one can't download such a model."""
    gather_s: float = Field(default=0.25, ge=0, le=60)
    """Seconds in which requests for the same chunk are gathered, so that it is sent once to all who asked; it leaves at
    once when all sites that are online have asked, which is known from a second after the first connection."""
    retention: RetentionSettings = Field(default=RetentionSettings(), validate_default=True)
    """How far back replay, export and the ledger reach."""
    limits: LimitSettings = LimitSettings()
    """How much one site may send."""
    finish: FinishSettings = FinishSettings()
    """When the federation is finished."""

    @model_validator(mode="after")
    def _signed_where_it_leaves(self) -> Self:
        check_identity(self.identity, self.broker)
        if self.sealed_model and self.identity is None:
            raise ValueError("sealed_model: needs an identity: the model is sealed to those who are enrolled")
        return self

    @property
    def precision(self) -> Precision:
        """Which versions travel precisely."""
        return Precision(self.precise_versions, self.finish.version)
