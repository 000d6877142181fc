"""A PostgreSQL server for tests, which are skipped where there is none."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sandbox.postgres import MISSING, PROGRAMS, PostgresServer


@contextmanager
def server(*, fsync: bool = True) -> Iterator[PostgresServer]:
    if PROGRAMS is None:
        pytest.skip(MISSING)
    with PostgresServer.running(fsync=fsync) as running:
        yield running
