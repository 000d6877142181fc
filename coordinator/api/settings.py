"""Who may ask the API, and where: off by default, on this machine only by default, and to strangers never."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from fedward.errors import ConfigError
from fedward.settings import Settings, TlsSettings, is_loopback, read_secret

SHORTEST_TOKEN = 32
"""Characters: `openssl rand -hex 32` makes 64. Nobody should be able to guess one."""


class ApiSettings(Settings):
    """The read-only API (docs/api.md): federation, versions, sites, models, the ledger's head."""

    host: str = "127.0.0.1"
    """Address to listen on; another machine's callers need a token or a certificate."""
    port: int | None = Field(default=None, ge=0, le=65_535)
    """Port to listen on; 0 takes a free one, and without a port there is no API."""
    token_file: Path | None = None
    """File that holds the token of those who may ask, 32 characters or more; its owner alone may read the file."""
    tls: TlsSettings | None = None
    """Files of TLS, as PEM: the server's certificate, for the name that callers use, its key, and the authority whose
    certificates callers show."""
    readers: list[str] = Field(default=[])
    """Names in the certificates of those who may ask without a token. Needs tls."""
    plain: bool = False
    """Let a token travel without TLS to an address of another machine: only behind something that speaks TLS."""

    @model_validator(mode="after")
    def _nobody_uninvited(self) -> Self:
        if self.readers and self.tls is None:
            raise ValueError("api.readers: needs api.tls: who asks is told by the certificate")
        if self.plain and self.tls is not None:
            raise ValueError("api.plain and api.tls contradict each other: leave one of them out")
        if self.port is None or is_loopback(self.host):
            return self
        if not self.guarded:
            raise ValueError(
                f"api.host: {self.host} can be reached from other machines: name a token in api.token_file, or files "
                "in api.tls and names in api.readers"
            )
        if self.tls is None and not self.plain:
            raise ValueError(
                f"api.tls: missing, and {self.host} can be reached from other machines: the token would be open to all "
                "on the way; api.plain allows it, behind something that speaks TLS"
            )
        return self

    @property
    def guarded(self) -> bool:
        """Whether callers have to say who they are."""
        return self.token_file is not None or bool(self.readers)

    def token(self) -> str | None:
        """The token from its file. Raises ConfigError when it can't be read, others can, or it is easily guessed."""
        token = read_secret("api.token_file", self.token_file)
        if token is None:
            return None
        if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
            raise ConfigError(
                f"api.token_file: expected {SHORTEST_TOKEN} or more printable characters without a space; "
                "`openssl rand -hex 32` makes some"
            )
        return token
