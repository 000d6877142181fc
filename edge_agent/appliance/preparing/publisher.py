"""Whose images are believed here, and how a publisher makes what hospitals install."""

import gzip
import importlib.resources
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edge_agent.appliance.config import ApplianceConfig
from edge_agent.appliance.engine import Engine
from edge_agent.appliance.preparing.bundle import IMAGE, Bundle, ReleaseNote, open_bundle, reading, write_bundle
from edge_agent.appliance.steps import Release
from fedward.errors import ConfigError, IntegrityError
from fedward.files import write_durably
from fedward.identity.keys import load_signing_key, make_signing_key
from fedward.identity.release import (
    PublisherKey,
    check_release,
    public_pem,
    read_release_key,
    release_key_line,
    sign_release,
)

DELIVERED_KEY = "release.pub"
"""A package that a publisher delivers has his key beside this file."""

NO_KEY = (
    "this package was delivered without one; set release_key in appliance.yaml to the line that the federation's "
    "operator has given you"
)


def key_of(config: ApplianceConfig, given: Path | None) -> PublisherKey:
    """The publisher's key: of the command line, of the configuration, or delivered. Raises ConfigError without one."""
    path = given or config.release_key_file
    if path is None and config.release_key is not None:
        return read_release_key(config.release_key.encode())
    source = path or importlib.resources.files("edge_agent.appliance.preparing") / DELIVERED_KEY
    try:
        return read_release_key(source.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"the publisher's key: {f'{path}: not found' if path else NO_KEY}") from None


def from_registry(config: ApplianceConfig, engine: Engine, key: PublisherKey) -> Release:
    """The image that the configuration names by a digest which the publisher has signed.

    Raises ConfigError where the configuration lacks one of them, IntegrityError where he has not.
    """
    if config.image is None or config.image_signature is None:
        missing = "image" if config.image is None else "image_signature"
        raise ConfigError(f"appliance.yaml: {missing} is missing; set it as the release says, or give --bundle FILE")
    try:
        check_release(key, signed_digest(config.image), config.image_signature)
    except IntegrityError as error:
        raise IntegrityError(f"image {config.image}: {error}") from None
    return engine.pull(config.image)


def from_bundle(path: Path, engine: Engine, key: PublisherKey) -> Release:
    """The image in a bundle.

    Raises IntegrityError where a byte of it is not as it was signed, ConfigError where it can't be read.
    """
    with open_bundle(path) as file:
        with reading(path):
            bundle = Bundle(file)
            said = bundle.verify(key)
        return engine.load(_image_of(bundle, said, path))


def _image_of(bundle: Bundle, said: ReleaseNote, path: Path) -> Iterator[bytes]:
    """An error of the file as ours, before the engine's SDK takes it for one of the network."""
    with reading(path):
        yield from bundle.proven(IMAGE, said.parts[IMAGE])


def signed_digest(image: str) -> bytes:
    """What is signed of an image in a registry: its digest, as text, whatever the registry is called."""
    return image.rpartition("@")[2].encode()


def make_release_key(private: Path, public: Path) -> str:
    """A publisher's pair of keys in two files; the public one as a line. Raises ConfigError where either is there."""
    if public.exists():
        raise ConfigError(f"{public}: there already; nothing was written")
    key = make_signing_key(private).public_key()
    write_durably(public, public_pem(key), 0o644)
    return release_key_line(key)


def sign_digest(image: str, key_file: Path) -> str:
    """The line for `image_signature`."""
    return sign_release(load_signing_key(key_file), signed_digest(image))


def make_bundle(engine: Engine, image: str, sbom: Path, key_file: Path, out: Path) -> ReleaseNote:
    """A bundle of an image that is here. Raises ConfigError for an image, a list or a key that can't be used."""
    key, release = load_signing_key(key_file), engine.find(image)
    if release is None:
        raise ConfigError(f"image {image}: not on this machine")
    try:
        listed = sbom.read_bytes()
    except OSError as error:
        raise ConfigError(f"--sbom {sbom}: {error.strerror}") from None
    with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=".bundle") as folder:
        archive = Path(folder) / IMAGE
        with archive.open("wb") as file, gzip.GzipFile("", "wb", 6, file, mtime=0) as compressed:
            for piece in engine.save(image):
                compressed.write(piece)
        return write_bundle(out, archive, listed, (release.version, image), key)
