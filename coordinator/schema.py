"""The tables of a ledger as this release needs them, and how an older ledger comes by them (coordinator/migrations).

A new ledger gets its tables at once. An older one on a server is brought up by `fedward coordinator migrate`, while the
coordinator of the release before works on: a migration adds, and the next release may take away (docs/adr/0008).
"""

from pathlib import Path

import sqlalchemy as sql
from sqlalchemy.engine import Connection, Engine

from coordinator.tables import FACTS, METADATA
from fedward.errors import ConfigError

NEEDED = "0001"
"""Revision of the tables of this release: the newest one in migrations/versions."""

FIRST = "0001"
"""Of a ledger with tables and without a revision: it was made before the first release."""

MIGRATIONS = Path(__file__).parent / "migrations"
REVISION = sql.Table("alembic_version", sql.MetaData(), sql.Column("version_num", sql.String(32), primary_key=True))


def make_tables(engine: Engine) -> None:
    """Make the tables of an empty ledger, which only one process may do at a time. Raises ConfigError as `check`."""
    if not sql.inspect(engine).has_table(FACTS.name):
        METADATA.create_all(engine)
    if not sql.inspect(engine).has_table(REVISION.name):
        with engine.begin() as connection:
            REVISION.create(connection)
            connection.execute(sql.insert(REVISION).values(version_num=FIRST if _is_begun(connection) else NEEDED))
    check(engine)


def check(engine: Engine) -> None:
    """Raise ConfigError for a ledger of another revision than this release needs. None yet is none."""
    if not sql.inspect(engine).has_table(REVISION.name):
        return
    with engine.connect() as connection:
        found = connection.execute(sql.select(REVISION.c.version_num)).scalar()
    if found == NEEDED:
        return
    if _known(str(found)):
        raise ConfigError(f"the ledger has tables of revision {found}: `fedward coordinator migrate` makes {NEEDED}")
    raise ConfigError(f"the ledger has tables of revision {found}, which a newer release made: install that one")


def migrate(engine: Engine) -> str:
    """Bring the tables of a ledger up, all of it or nothing, and return the revision."""
    from alembic import command  # noqa: PLC0415 - no other command needs it, and it takes long to import
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, NEEDED)
    return NEEDED


def _is_begun(connection: Connection) -> bool:
    return connection.execute(sql.select(FACTS.c.name).limit(1)).first() is not None


def _known(revision: str) -> bool:
    return any(path.name.startswith(f"{revision}_") for path in (MIGRATIONS / "versions").glob("*.py"))
