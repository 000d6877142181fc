"""A PostgreSQL server on loopback with its data in a folder of its own, killed and started for real."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from fedward.errors import ConfigError, TransientError
from sandbox.ports import HOST, free_port

PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None, key=lambda path: int(path.parent.name))
MISSING = "no PostgreSQL server here; `apt-get install postgresql` brings it"
READY_S = 30.0
POLL_S = 0.05


class PostgresServer:
    """One server. As root it runs as the user `postgres`: PostgreSQL refuses root."""

    def __init__(self, folder: Path, *, fsync: bool = True) -> None:
        """Make its data, which takes a second. Without fsync it survives its processes, and no power cut.

        Raises ConfigError where PostgreSQL is not installed.
        """
        if PROGRAMS is None:
            raise ConfigError(MISSING)
        self._programs, self._data = PROGRAMS, folder / "data"
        self._user = "postgres" if os.geteuid() == 0 else None
        folder.mkdir(parents=True)
        if self._user:
            shutil.chown(folder, self._user)
        self.port = free_port(HOST)
        self._log = (folder.parent / "postgres.log").open("ab")
        self._numbers = count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "-D", str(self._data), "-A", "trust", "-U", "fedward", "--no-sync", "-E", "UTF8")
        (self._data / "postgresql.auto.conf").write_text(
            f"port = {self.port}\nlisten_addresses = '{HOST}'\nunix_socket_directories = ''\n"
            f"fsync = {'on' if fsync else 'off'}\n"
        )

    @classmethod
    @contextmanager
    def running(cls, *, fsync: bool = True) -> Iterator["PostgresServer"]:
        """A server for the block, in a folder of its own that its user can reach."""
        with tempfile.TemporaryDirectory(prefix="fedward-postgres-") as folder:
            Path(folder).chmod(0o755)
            server = cls(Path(folder) / "server", fsync=fsync)
            server.start()
            try:
                yield server
            finally:
                server.close()

    def start(self) -> None:
        """Start, and wait until it answers."""
        self._process = subprocess.Popen(  # noqa: S603 - ours
            [str(self._programs / "postgres"), "-D", str(self._data)],
            stdout=self._log,
            stderr=self._log,
            user=self._user,
        )
        deadline_s = time.monotonic() + READY_S
        while self._run("pg_isready", "-q", "-h", HOST, "-p", str(self.port), check=False):
            if time.monotonic() > deadline_s or self._process.poll() is not None:
                raise TransientError("PostgreSQL does not come up")
            time.sleep(POLL_S)

    def close(self) -> None:
        self.kill()
        self._log.close()

    def kill(self) -> None:
        """All of it at once, as a power cut does."""
        if self._process:
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
            for pid in (self._process.pid, *map(int, children)):
                os.kill(pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
            (self._data / "postmaster.pid").unlink(missing_ok=True)

    def new_url(self) -> str:
        """Of a new, empty database."""
        name = f"ledger_{next(self._numbers)}"
        self._ask(f"CREATE DATABASE {name}")
        return f"postgresql://fedward@{HOST}:{self.port}/{name}"

    def new_schema_url(self) -> str:
        """The same for most purposes, and made at once: a user whose tables lie apart, in one database with others."""
        name = f"user_{next(self._numbers)}"
        self._ask(f"CREATE ROLE {name} LOGIN; CREATE SCHEMA AUTHORIZATION {name}")
        return f"postgresql://{name}@{HOST}:{self.port}/postgres"

    def _ask(self, statement: str) -> None:
        self._run("psql", "-q", "-h", HOST, "-p", str(self.port), "-U", "fedward", "postgres", "-c", statement)

    def _run(self, program: str, *arguments: str, check: bool = True) -> int:
        command = [str(self._programs / program), *arguments]
        return subprocess.run(  # noqa: S603 - ours
            command, stdout=self._log, stderr=self._log, user=self._user, check=check, cwd="/"
        ).returncode
