"""Writing a file so that it is whole or not there, whatever dies when."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path


def write_durably(path: Path, content: bytes | memoryview, mode: int = 0o666) -> None:
    """Write `content` to `path`; when this returns it survives power loss, and nobody ever sees a half of it.

    A new file may be reached as `mode` says, less what the process's umask takes away.

    A disk that is full or fails raises OSError, and leaves what was there before and nothing else.
    """
    write_all(path, [content], mode)


def write_all(path: Path, pieces: Iterable[bytes | memoryview], mode: int = 0o666) -> None:
    """`write_durably`, of content that comes in pieces."""
    write_pieces(path.with_name(f".{path.name}.{os.getpid()}.part"), pieces, lambda: path, mode)


def write_pieces(
    partial: Path, pieces: Iterable[bytes | memoryview], name: Callable[[], Path], mode: int = 0o666
) -> None:
    """Write the pieces to `partial`, and then durably give it the name, which is asked for when all were written.

    Whatever is raised, also by `pieces`, nothing is left of the file: it would keep the room that all else needs.
    """
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        move_durably(partial, name())
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def move_durably(source: Path, target: Path) -> None:
    """Rename within one file system and make the new name survive power loss."""
    source.replace(target)
    sync_folder(target.parent)


def sync_file(path: Path) -> None:
    """Make the content of a file survive power loss."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def stamp_of(path: Path) -> tuple[int, int, int] | None:
    """What changes when the file behind this name is another one, or was written to; None when there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
