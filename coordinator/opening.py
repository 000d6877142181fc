"""Which ledger a configuration means, and whether it may be used: by the one that works, and by the commands."""

from contextlib import closing
from pathlib import Path

from sqlalchemy.engine import Engine

from coordinator import database
from coordinator.backup import check_restored
from coordinator.chain import Mark
from coordinator.config import FederationConfig
from coordinator.damage import LEDGER_FILE, check_ledger_file, check_ledger_log, check_nothing_lost
from coordinator.database import load_from_file
from coordinator.ledger import Ledger
from fedward.errors import ConfigError
from fedward.files import move_durably
from fedward.layout import Layout

NOT_EMPTY = "the database of ledger.url is not empty: make a new one, and name that in ledger.url"


def engine_of(config: FederationConfig, *, leads: bool = False) -> Engine:
    """Of the ledger's database. Nothing is connected yet."""
    if config.ledger.url is None:
        return database.in_folder(config.state_folder)
    return database.on_server(config.ledger.url, config.ledger.password(), leads=leads)


def open_ledger(config: FederationConfig, layout: Layout, engine: Engine | None = None) -> Ledger:
    """The ledger of the one coordinator that works, checked. The caller leads, and holds the state folder's lock.

    Raises ConfigError when it belongs to another federation, task or model, IntegrityError when it is damaged.
    """
    check_restored(config.state_folder)
    if config.ledger.url is None:
        check_ledger_file(config.state_folder)
    else:
        _check_no_file(config.state_folder)
    ledger = Ledger(engine or engine_of(config))
    if config.ledger.url is not None and not ledger.has_begun():
        check_nothing_lost(config.state_folder, "the database of ledger.url")
    ledger.empty_log()
    _claim(ledger, config, layout)
    return ledger


def open_begun(config: FederationConfig, layout: Layout) -> Ledger:
    """The ledger for a command, beside a coordinator or without one. Raises ConfigError where no version is in it."""
    check_restored(config.state_folder)
    if config.ledger.url is None:
        check_ledger_log(config.state_folder)
        there = (config.state_folder / LEDGER_FILE).exists()
    else:
        there = True
    ledger = Ledger(engine_of(config), create=False) if there else None
    if ledger is None or not ledger.has_begun():
        raise ConfigError(f"{config.state_folder}: no version there yet; start `fedward coordinator run` first")
    _claim(ledger, config, layout)
    return ledger


def is_moved(config: FederationConfig) -> bool:
    """Whether a move of the ledger in the state folder died when it was in the database of `ledger.url` already.

    Raises ConfigError where another one is in there, LedgerAwayError where it can't be told.
    """
    with closing(Ledger(engine_of(config))) as there:
        head = there.newest_entry()
    if head is None:
        return False
    if (config.state_folder / LEDGER_FILE).exists():
        with closing(Ledger.in_folder(config.state_folder)) as here:
            if here.newest_entry() == head:
                return True
    raise ConfigError(NOT_EMPTY)


def move_ledger(config: FederationConfig) -> Mark:
    """Copy the ledger in the state folder into the empty database of `ledger.url`, and set its file aside.

    The caller holds the folder's lock. Killed at any point, it is done when it is called again. Returns the chain's
    head, which is the same in both. Raises ConfigError where one of them is not there, or the database is not empty;
    IntegrityError for a damaged file, which stays.
    """
    path = config.state_folder / LEDGER_FILE
    if config.ledger.url is None or not path.exists():
        raise ConfigError(f"move-ledger needs a ledger in the state folder ({path}), and ledger.url for where it goes")
    check_ledger_file(config.state_folder)
    with closing(Ledger.in_folder(config.state_folder)) as ledger:
        ledger.check_chain()
        ledger.empty_log()
        head = ledger.newest_entry()
    engine = engine_of(config)
    with closing(Ledger(engine)) as there:
        if there.newest_entry() is None:
            load_from_file(path, engine)
            there.check_chain()
        if head is None or there.newest_entry() != head:
            raise ConfigError(NOT_EMPTY)
    move_durably(path, path.with_name(f"{LEDGER_FILE}.moved"))
    return head.mark


def _claim(ledger: Ledger, config: FederationConfig, layout: Layout) -> None:
    """Write down whose ledger it is, or raise ConfigError when it is another's."""
    for name, value in (
        ("federation", config.federation),
        ("task", config.task),
        ("layout", layout.digest.hex()),
    ):
        ledger.claim(name, value)


def _check_no_file(state_folder: Path) -> None:
    path = state_folder / LEDGER_FILE
    if path.exists():
        raise ConfigError(
            f"{path}: a ledger is here, and ledger.url names another one: "
            "`fedward coordinator move-ledger` copies this one there and sets the file aside"
        )
