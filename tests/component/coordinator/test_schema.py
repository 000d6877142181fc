"""The ledger's tables over releases: a new ledger, an older one and a newer one."""

from collections.abc import Callable

import pytest
import sqlalchemy as sql
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Engine

from coordinator.ledger import Ledger
from coordinator.schema import MIGRATIONS, NEEDED, REVISION, migrate
from coordinator.tables import METADATA
from fedward.errors import ConfigError


def test_this_release_needs_what_the_newest_migration_makes() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_heads() == [NEEDED]


def test_the_migrations_make_the_tables_of_this_release(engine_of: Callable[..., Engine]) -> None:
    engine = engine_of()
    assert migrate(engine) == NEEDED
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    ledger = Ledger(engine, create=False)
    ledger.claim("federation", "ward")
    ledger.close()


def test_a_new_ledger_has_the_revision_of_this_release_and_needs_no_migration(engine_of: Callable[..., Engine]) -> None:
    Ledger(engine_of()).close()
    engine = engine_of()
    with engine.connect() as connection:
        assert connection.execute(sql.select(REVISION.c.version_num)).scalars().all() == [NEEDED]
    assert migrate(engine) == NEEDED
    engine.dispose()


def test_a_ledger_from_before_the_first_release_goes_on(engine_of: Callable[..., Engine]) -> None:
    before = Ledger(engine_of())
    before.claim("federation", "ward")
    before.close()
    engine = engine_of()
    REVISION.drop(engine)
    engine.dispose()
    ledger = Ledger(engine_of())
    assert ledger.fact("federation") == "ward"
    ledger.close()


@pytest.mark.parametrize("create", [True, False])
def test_a_ledger_of_a_newer_release_is_left_alone(engine_of: Callable[..., Engine], create: bool) -> None:
    Ledger(engine_of()).close()
    engine = engine_of()
    with engine.begin() as connection:
        connection.execute(sql.update(REVISION).values(version_num="9999"))
    with pytest.raises(ConfigError, match="9999, which a newer release made"):
        Ledger(engine, create=create)
    engine.dispose()
