"""Small tars, in which the engine takes and gives files of a container."""

import io
import tarfile
from collections.abc import Iterable, Iterator, Mapping

USER_ID = 10001
"""Owner of what the agent is given: the image's user."""


def folder_archive(folder: str, files: Mapping[str, bytes]) -> bytes:
    """A tar of a folder with these files, which the image's user alone can reach."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        top = tarfile.TarInfo(folder)
        top.type, top.mode, top.uid, top.gid = tarfile.DIRTYPE, 0o700, USER_ID, USER_ID
        archive.addfile(top)
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size, member.mode, member.uid, member.gid = len(content), 0o400, USER_ID, USER_ID
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def only_file(pieces: Iterable[bytes]) -> bytes:
    """Content of the one file in a tar. Raises ValueError where it holds something else."""
    with tarfile.open(fileobj=Pieces(pieces), mode="r|") as archive:
        member = archive.next()
        file = archive.extractfile(member) if member else None
        if file is None:
            raise ValueError("expected one file")
        return file.read()


class Pieces(io.RawIOBase):
    """Bytes that come in pieces, as a file to be read once."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces: Iterator[bytes] = iter(pieces)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """`size` bytes, less only at the end."""
        taken = bytearray(self._rest)
        while size < 0 or len(taken) < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            taken += piece
        end = len(taken) if size < 0 else size
        self._rest = bytes(taken[end:])
        return bytes(taken[:end])
