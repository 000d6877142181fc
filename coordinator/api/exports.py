"""Files to download: a version's model is made once, in a process of its own, and a few are kept.

What is downloaded is a file, however slow its reader: no model is in this process's memory.
"""

import asyncio
import hashlib
import re
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

from coordinator.config import FederationConfig
from fedward.disk import has_room
from fedward.errors import TransientError
from fedward.files import stamp_of

KEPT = 2
"""Files that stay, the newest made ones: each is as large as the model."""

LEFT_S = 3600.0
"""A half-written file of this age is what a crash left: none takes as long."""

NAME = re.compile(r"([0-9]{1,18})-([0-9a-f]{64})-([0-9a-f]{64})\.safetensors")
"""Version, digest of its model, digest of the file. A ledger that was restored may have another model at a version."""


@dataclass(frozen=True)
class Export:
    """A file that is there."""

    version: int
    model_digest: str
    path: Path
    digest: str
    """SHA-256 of the file, in hexadecimal, as that of the model."""


class Exports:
    """Files in the state folder, also of another coordinator on it. All of it runs in one event loop."""

    def __init__(self, config: FederationConfig) -> None:
        self._config = config
        self._folder = config.state_folder / "exports"
        self._making: tuple[int, asyncio.Task[Export]] | None = None

    def begin(self, now_s: float) -> None:
        """Drop what a crash left half-written."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in self._folder.glob("*.part"):
            if now_s - path.stat().st_mtime > LEFT_S:
                path.unlink(missing_ok=True)

    async def of(self, version: int, model_digest: str) -> Export:
        """The file of a version that is kept, made now where it is not there yet.

        Raises TransientError while another version's is made, where there is no room, or when it could not be made.
        """
        for export in self._there():
            if (export.version, export.model_digest) == (version, model_digest):
                return export
        if self._making is None:
            task = asyncio.create_task(self._make(version, model_digest))
            self._making = (version, task)
            task.add_done_callback(self._made)
        of, task = self._making
        if of != version:
            raise TransientError(f"version {of} is just being made ready for somebody; ask again in a few seconds")
        try:
            return await asyncio.shield(task)  # whoever hangs up does not end it for the others
        except asyncio.CancelledError:
            if task.cancelled():
                raise TransientError("the coordinator is being stopped") from None
            raise

    async def close(self) -> None:
        """End what is being made."""
        if self._making:
            _, task = self._making
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _made(self, task: "asyncio.Task[Export]") -> None:
        self._making = None
        if not task.cancelled():
            task.exception()  # seen, also where nobody waits any more

    def _there(self) -> list[Export]:
        """Newest made first."""
        found = [(NAME.fullmatch(path.name), path) for path in self._folder.iterdir()]
        exports = [Export(int(match[1]), match[2], path, match[3]) for match, path in found if match]
        return sorted(exports, key=lambda export: stamp_of(export.path) or (0, 0, 0), reverse=True)

    async def _make(self, version: int, model_digest: str) -> Export:
        if not has_room(self._config.state_folder, 2 * self._config.model.stat().st_size):  # updates need some, too
            raise TransientError("no room on the coordinator's disk for the file")
        partial = self._folder / f"{secrets.token_hex(8)}.part"  # two containers may have the same process id
        try:
            await self._run(version, partial)
            digest = await asyncio.to_thread(_digest_of, partial)
            path = partial.replace(self._folder / f"{version}-{model_digest}-{digest}.safetensors")
        finally:
            partial.unlink(missing_ok=True)
        for export in self._there()[KEPT:]:
            export.path.unlink(missing_ok=True)  # who reads it reads on
        return Export(version, model_digest, path, digest)

    async def _run(self, version: int, out: Path) -> None:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "coordinator.export", str(version), str(out)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, said = await child.communicate(self._config.model_dump_json().encode())
        except asyncio.CancelledError:
            child.kill()
            await child.wait()
            raise
        if child.returncode != 0:
            last = said.decode(errors="replace").strip().splitlines()[-1:]
            raise ExportError(f"version {version}: its file could not be made", "".join(last))


class ExportError(TransientError):
    """The process that makes a file failed; what it said is for the log, not for whoever asked."""

    def __init__(self, message: str, said: str) -> None:
        super().__init__(message)
        self.said = said


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
