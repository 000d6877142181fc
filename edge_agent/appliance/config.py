"""How one agent's container is run on this machine. `fedward appliance install --help` prints every setting."""

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from fedward.identity.release import release_key_setting
from fedward.settings import DIRECT, NameSetting, Settings, proxy_address

PINNED = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")
GPUS = re.compile(r"auto|none|all|\d+(,\d+)*")

CONFIG_MOUNT = PurePosixPath("/etc/fedward")
SECRETS_MOUNT = PurePosixPath("/run/secrets")
STATE_MOUNT = PurePosixPath("/var/lib/fedward")
DATA_MOUNT = PurePosixPath("/data")
"""Where the container sees what it is given. The image's own program expects the first and the third."""


def pinned(image: str) -> str:
    """The reference itself. Raises ValueError for one that may mean another image tomorrow."""
    if not PINNED.fullmatch(image):
        raise ValueError("expected an image by its digest: registry/name@sha256:<64 hexadecimal digits>")
    return image


def gpu_choice(text: str) -> str:
    """The text itself. Raises ValueError unless it says which GPUs."""
    if not GPUS.fullmatch(text):
        raise ValueError("expected auto, none, all, or numbers of GPUs such as 0 or 0,1")
    return text


def below_data(path: PurePosixPath) -> PurePosixPath:
    """The path itself. Raises ValueError for a mount that could cover something of the image's."""
    if (path != DATA_MOUNT and DATA_MOUNT not in path.parents) or ".." in path.parts:
        raise ValueError(f"expected {DATA_MOUNT} or a path below it")
    return path


class ApplianceConfig(Settings):
    """One agent's container. Relative paths begin at the folder of the configuration file."""

    name: NameSetting = "fedward-agent"
    """Of the container, its state volume and its journal: one for each federation on this machine."""
    image: Annotated[str, AfterValidator(pinned)] | None = None
    """The agent's image in a registry, by digest; unset where the image comes in a bundle."""
    image_signature: str | None = None
    """The publisher's signature of the image's digest, as it came with the release."""
    release_key: Annotated[str, AfterValidator(release_key_setting)] | None = None
    """Public key of who publishes the images, as one line; without it and release_key_file it is the one that this
    package was delivered with."""
    release_key_file: Path | None = None
    """The same in a file, as PEM."""
    config_folder: Path
    """Folder on this machine with site.yaml, and policy.yaml where there is one; the container reads it as
    /etc/fedward."""
    secrets_folder: Path | None = None
    """Folder with files of passwords, where site.yaml names any; the container reads it as /run/secrets."""
    data: dict[Annotated[PurePosixPath, AfterValidator(below_data)], Path] = Field(default_factory=dict)
    """Records: path in the container, /data or below it, and the folder or file on this machine. Never written to."""
    folder: Path = Path("/var/lib/fedward-appliance")
    """Where the journal of changes and the snapshots of the state are kept on this machine, below the name."""
    gpu: Annotated[str, AfterValidator(gpu_choice)] = "auto"
    """auto: all NVIDIA GPUs where the engine can pass them; none, all, or numbers such as 0,1."""
    memory_gib: float = Field(default=8.0, ge=0.0625, le=65_536)
    """GiB of memory that the container may use; it gets no swap."""
    cpus: float | None = Field(default=None, ge=0.1, le=1024)
    """CPUs that the container may use; unset: all."""
    network: str = "bridge"
    """The Docker network that the container is in."""
    http_port: int | None = Field(default=None, ge=1, le=65_535)
    """Port of this machine, on 127.0.0.1 only, that shows the agent's /metrics and /readyz; unset: none."""
    proxy: Annotated[str, AfterValidator(proxy_address)] | None = None
    """HTTP proxy on the way to the broker, http://host:port. One with a password is set in site.yaml, broker.proxy."""
    no_proxy: str | None = None
    """Hosts that are reached without the proxy, with commas between."""
    health_s: float = Field(default=20.0, ge=1, le=3600)
    """Seconds in which a new container must be healthy; otherwise the one before comes back."""
    stop_s: int = Field(default=30, ge=1, le=3600)
    """Seconds that an agent is given to save its training step and leave."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.image_signature is not None and self.image is None:
            raise ValueError("image_signature is set, and image is not")
        if self.release_key is not None and self.release_key_file is not None:
            raise ValueError("release_key and release_key_file exclude each other")
        if self.proxy == DIRECT and self.no_proxy is not None:
            raise ValueError("proxy is none and no_proxy is set: leave one of them out")
        return self

    @property
    def home(self) -> Path:
        """Where the journal and the snapshots of this appliance are."""
        return self.folder / self.name

    def resolved(self, folder: Path) -> Self:
        """The same with absolute paths, where relative ones begin at `folder`."""
        paths = {
            name: (folder / path).absolute()
            for name in ("config_folder", "secrets_folder", "release_key_file", "folder")
            if (path := getattr(self, name)) is not None
        }
        data = {inside: (folder / outside).absolute() for inside, outside in self.data.items()}
        return self.model_copy(update=paths | {"data": data})
