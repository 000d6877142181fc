"""A release in one file, for machines without a network: the image, what is in it, and the publisher's word on both.

A bundle is a plain tar of four members in this order, whose every byte is either given or proven, so that one that was
changed anywhere is refused before the engine gets anything of it:

    release.json.sig   the publisher's signature of release.json, base64
    release.json       version, name of the image, and of each part its size and SHA-256
    sbom.cdx.json      what the image is made of (CycloneDX)
    image.tar.gz       the image, as `docker save` writes it
"""

import hashlib
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedward.errors import ConfigError, IntegrityError
from fedward.files import write_pieces
from fedward.identity.release import PublisherKey, SigningKey, check_release, sign_release
from fedward.limits import KIB, MIB

SIGNATURE, NOTE, SBOM, IMAGE = "release.json.sig", "release.json", "sbom.cdx.json", "image.tar.gz"
GIB = 1024 * MIB
LARGEST = {SIGNATURE: KIB, NOTE: 64 * KIB, SBOM: 64 * MIB, IMAGE: 64 * GIB}
"""Of each member, in the order of the file: bounds of what is not proven yet."""

READ_BYTES = MIB
END = bytes(2 * tarfile.BLOCKSIZE)


class Part(BaseModel):
    """A member whose bytes are these and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)


class ReleaseNote(BaseModel):
    """What the publisher says of a release."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    version: str = Field(max_length=100)
    image: str = Field(max_length=300)
    """Name of the image in the archive."""
    parts: dict[str, Part]


class Bundle:
    """An open bundle. Nothing of it is believed before `verify`."""

    def __init__(self, file: IO[bytes]) -> None:
        """Find the members. Raises IntegrityError where the file is not laid out as a bundle is, to the last byte."""
        self._file = file
        self._places: dict[str, tuple[int, int]] = {}
        for name, largest in LARGEST.items():
            size = _size_in(file.read(tarfile.BLOCKSIZE), name, largest)
            self._places[name] = (file.tell(), size)
            file.seek(size, 1)
            if any(padding := file.read(-size % tarfile.BLOCKSIZE)) or len(padding) != -size % tarfile.BLOCKSIZE:
                raise IntegrityError(f"bundle: bytes between {name} and the next part are not as they were made")
        if file.read(len(END) + 1) != END:
            raise IntegrityError("bundle: it does not end as it was made")

    def verify(self, key: PublisherKey) -> ReleaseNote:
        """What the publisher says, once every byte is proven. Raises IntegrityError for anything else."""
        note = self._read(NOTE)
        try:
            check_release(key, note, self._read(SIGNATURE).decode("ascii", errors="replace"))
            said = ReleaseNote.model_validate_json(note)
        except IntegrityError as error:
            raise IntegrityError(f"bundle: {error}") from None
        except ValidationError:
            raise IntegrityError("bundle: signed, and of a format that this version can't read; upgrade it") from None
        if said.parts.keys() != {SBOM, IMAGE}:
            raise IntegrityError(f"bundle: expected the parts {SBOM} and {IMAGE}")
        for name, part in said.parts.items():
            for _ in self.proven(name, part):
                pass
        return said

    def proven(self, name: str, part: Part) -> Iterator[bytes]:
        """A member's bytes, the last of them only when all are the signed ones: nobody can use what is without its end.

        So it is proven once more whenever it is read, whoever may have written to the file since. Raises IntegrityError
        in place of the last ones.
        """
        digest, held = hashlib.sha256(), b""
        for piece in self.pieces(name):
            digest.update(piece)
            if held:
                yield held
            held = piece
        if (self._places[name][1], digest.hexdigest()) != (part.size_bytes, part.sha256):
            raise IntegrityError(f"bundle: {name} is not what the publisher has signed; get the file again")
        yield held

    def pieces(self, name: str) -> Iterator[bytes]:
        """A member's bytes."""
        start, left = self._places[name]
        self._file.seek(start)
        while left:
            piece = self._file.read(min(READ_BYTES, left))
            if not piece:
                raise IntegrityError(f"bundle: it ends within {name}")
            left -= len(piece)
            yield piece

    def _read(self, name: str) -> bytes:
        return b"".join(self.pieces(name))


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raises ConfigError, which names the file, where it can't be read: it is not there, or its disk fails."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"--bundle {path}: {error.strerror}") from None


def open_bundle(path: Path) -> IO[bytes]:
    """Raises ConfigError for a file that can't be read."""
    with reading(path):
        return path.open("rb")


def write_bundle(out: Path, image: Path, sbom: bytes, said: tuple[str, str], key: SigningKey) -> ReleaseNote:
    """Make a bundle of a compressed image archive; `said` are the version and the image's name in the archive."""
    with image.open("rb") as file:
        digest, size = hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
    parts = {
        SBOM: Part(sha256=hashlib.sha256(sbom).hexdigest(), size_bytes=len(sbom)),
        IMAGE: Part(sha256=digest, size_bytes=size),
    }
    note = ReleaseNote(version=said[0], image=said[1], parts=parts)
    text = note.model_dump_json(indent=2).encode()
    small = {SIGNATURE: sign_release(key, text).encode(), NOTE: text, SBOM: sbom}

    def pieces() -> Iterator[bytes]:
        for name, content in small.items():
            yield _header(name, len(content)) + content + bytes(-len(content) % tarfile.BLOCKSIZE)
        yield _header(IMAGE, size)
        with image.open("rb") as file:
            while piece := file.read(READ_BYTES):
                yield piece
        yield bytes(-size % tarfile.BLOCKSIZE) + END

    write_pieces(out.with_name(f".{out.name}.part"), pieces(), lambda: out)
    return note


def _header(name: str, size: int) -> bytes:
    """The same for every bundle: no owner, no time."""
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT)


def _size_in(header: bytes, name: str, largest: int) -> int:
    try:
        size = tarfile.TarInfo.frombuf(header, "ascii", "strict").size
    except (tarfile.TarError, ValueError):
        size = -1
    if not 0 <= size <= largest or header != _header(name, size):
        raise IntegrityError(f"bundle: where {name} should begin is something else: not a bundle, or changed")
    return size
