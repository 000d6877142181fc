"""What PostgreSQL adds to a ledger: one that leads, others that write beside it, and a server that goes away."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sql
from sqlalchemy.engine import Engine

from coordinator.chain import anchor_of
from coordinator.config import LedgerSettings
from coordinator.database import LedgerAwayError, lead, load_from_file, on_server
from coordinator.ledger import Ledger
from coordinator.tables import ALL
from fedward.cli import EXIT_CONFIG, main
from fedward.errors import ConfigError, RejectReason
from fedward.messages import FederationState
from sandbox.postgres import PostgresServer
from tests.support.coordinator_bench import at
from tests.support.updates import offer_of

NUM_WISHES = 25


@pytest.fixture
def connect(postgres: PostgresServer) -> Iterator[Callable[..., Engine]]:
    """Connects to one new database, each time as another process would."""
    url, engines = postgres.new_url(), []

    def connected(*, leads: bool = True) -> Engine:
        engines.append(on_server(url, leads=leads))
        return engines[-1]

    yield connected
    for engine in engines:
        engine.dispose()


def end_session_of(engine: Engine, by: Engine) -> None:
    """As the server does when it loses sight of the machine."""
    with engine.connect() as connection:
        pid = connection.execute(sql.select(sql.func.pg_backend_pid())).scalar_one()
    with by.connect() as connection:
        assert connection.execute(sql.select(sql.func.pg_terminate_backend(pid, 5000))).scalar_one()


def test_one_leads_until_its_session_ends(connect: Callable[..., Engine]) -> None:
    first, second = connect(), connect()
    assert lead(first)
    assert not lead(second)
    first.dispose()
    assert lead(second)


def test_who_lost_the_lock_can_write_nothing_more(connect: Callable[..., Engine]) -> None:
    first, second = connect(), connect()
    assert lead(first)
    before = Ledger(first)
    end_session_of(first, by=second)
    assert lead(second)
    for _ in range(3):
        with pytest.raises(LedgerAwayError):
            before.add_update(offer_of(b"late", 1), "north", at(1.0), 0.5, None)
    assert Ledger(second).updates() == ()


def test_a_command_writes_beside_the_one_that_leads_and_the_chain_holds(connect: Callable[..., Engine]) -> None:
    leader = connect()
    assert lead(leader)
    ledger, beside = Ledger(leader), Ledger(connect(leads=False), create=False)

    def wish() -> None:
        for number in range(NUM_WISHES):
            beside.wish(ALL, FederationState.PAUSED, float(number))

    thread = threading.Thread(target=wish)
    thread.start()
    for seed in range(NUM_WISHES):
        ledger.add_update(offer_of(f"payload {seed}".encode(), seed), "north", at(float(seed)), 0.5, None)
    thread.join()
    assert len(ledger.chain()) == 2 * NUM_WISHES
    ledger.check_chain()


@pytest.mark.parametrize("port", ["1", "port of nobody"])
def test_a_server_that_is_not_there_is_away(port: str) -> None:
    url = "postgresql://fedward@127.0.0.1:1/ledger" if port == "1" else "postgresql://fedward@nowhere.invalid/ledger"
    with pytest.raises(LedgerAwayError, match="no answer"):
        lead(on_server(url, leads=True))


def test_a_moved_ledger_is_the_same_and_goes_on(tmp_path: Path, connect: Callable[..., Engine]) -> None:
    file = Ledger.in_folder(tmp_path)
    file.claim("federation", "ward")
    for seed in range(3):
        reason = RejectReason.STALE if seed == 1 else None
        file.add_update(offer_of(f"payload {seed}".encode(), seed), "north", at(float(seed)), 0.5, reason)
    file.wish(ALL, FederationState.PAUSED, 1.0)
    engine = connect()
    moved = Ledger(engine)
    file.empty_log()
    load_from_file(tmp_path / "ledger.sqlite", engine)
    assert (moved.chain(), moved.updates(), moved.wishes()) == (file.chain(), file.updates(), file.wishes())
    row = moved.add_update(offer_of(b"the next", 9), "south", at(9.0), 0.5, None)
    assert row.number == file.updates()[-1].number + 1
    moved.wish("north", FederationState.PAUSED, 2.0)
    moved.check_chain()
    assert anchor_of(moved.chain()) is None
    file.close()


def test_a_copy_of_a_ledger_on_a_server_is_a_file_with_the_same_chain(
    tmp_path: Path, connect: Callable[..., Engine]
) -> None:
    ledger = Ledger(connect())
    ledger.claim("federation", "ward")
    ledger.add_update(offer_of(b"payload", 1), "north", at(1.0), 0.5, None)
    ledger.copy_to(tmp_path / "ledger.sqlite")
    copy = Ledger.in_folder(tmp_path)
    copy.check_chain()
    assert copy.chain() == ledger.chain()
    copy.close()


def use(folder: Path, url: str) -> Path:
    """federation.yaml with a ledger on a server."""
    config = folder / "federation.yaml"
    config.write_text(config.read_text() + f"\nledger: {{url: '{url}'}}\n")
    return config


def fedward(verb: str, config: Path, *arguments: str) -> int:
    return main(["coordinator", verb, "--config", str(config), *arguments])


def test_a_state_folder_moves_to_a_server_and_every_version_comes_out_again(
    after_a_run: Path, postgres: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    config = use(after_a_run, postgres.new_url())
    assert fedward("status", config) == EXIT_CONFIG
    assert fedward("move-ledger", config) == 0
    assert not (after_a_run / "state" / "ledger.sqlite").exists()
    assert fedward("replay", config) == 0
    assert "1 versions made again" in capsys.readouterr().out.replace("2 versions", "1 versions")
    assert fedward("move-ledger", config) == EXIT_CONFIG


def test_a_move_that_died_before_the_file_was_set_aside_is_finished(
    after_a_run: Path, postgres: PostgresServer
) -> None:
    config, state = use(after_a_run, postgres.new_url()), after_a_run / "state"
    assert fedward("move-ledger", config) == 0
    (state / "ledger.sqlite.moved").rename(state / "ledger.sqlite")
    assert fedward("move-ledger", config) == 0
    assert fedward("replay", config) == 0


def of_another_federation(url: str) -> Ledger:
    other = Ledger(on_server(url))
    other.claim("federation", "other")
    return other


def test_a_ledger_is_not_moved_over_another_one(
    after_a_run: Path, postgres: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    url = postgres.new_url()
    other = of_another_federation(url)
    assert fedward("move-ledger", use(after_a_run, url)) == EXIT_CONFIG
    assert "not empty" in capsys.readouterr().err
    assert other.fact("federation") == "other"
    assert (after_a_run / "state" / "ledger.sqlite").exists()


def test_a_backup_of_a_server_is_restored_to_another_one(after_a_run: Path, postgres: PostgresServer) -> None:
    config = use(after_a_run, postgres.new_url())
    assert fedward("move-ledger", config) == 0
    assert fedward("backup", config, "--out", str(after_a_run / "backup")) == 0
    text = config.read_text().replace("/state", "/new").rsplit("ledger:", 1)[0]
    config.write_text(text + f"ledger: {{url: '{postgres.new_url()}'}}\n")
    assert fedward("restore", config, "--from", str(after_a_run / "backup")) == 0
    assert fedward("replay", config) == 0
    assert not (after_a_run / "new" / "ledger.sqlite").exists()


def restoring(after_a_run: Path, url: str) -> Path:
    """federation.yaml of a new state folder and this database, beside a backup."""
    config = after_a_run / "federation.yaml"
    assert fedward("backup", config, "--out", str(after_a_run / "backup")) == 0
    config.write_text(config.read_text().replace("/state", "/new"))
    return use(after_a_run, url)


def test_a_restore_to_a_database_that_is_not_empty_touches_nothing(
    after_a_run: Path, postgres: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    url = postgres.new_url()
    other = of_another_federation(url)
    config = restoring(after_a_run, url)
    (after_a_run / "new").mkdir()
    (after_a_run / "new" / "old").write_text("state")
    assert fedward("restore", config, "--from", str(after_a_run / "backup"), "--force") == EXIT_CONFIG
    assert "not empty" in capsys.readouterr().err
    assert {path.name for path in (after_a_run / "new").iterdir()} == {"old", ".lock"}
    other.close()


def test_a_restore_that_died_in_the_move_to_a_database_is_finished_by_the_same_one(
    after_a_run: Path, postgres: PostgresServer
) -> None:
    config = restoring(after_a_run, postgres.new_url())
    arguments = ("restore", config, "--from", str(after_a_run / "backup"))
    assert fedward(*arguments) == 0
    state = after_a_run / "new"
    (state / "ledger.sqlite.moved").rename(state / "ledger.sqlite")
    assert fedward(*arguments) == 0
    assert not (state / "ledger.sqlite").exists()
    assert not list(state.glob("replaced-*"))
    assert fedward("replay", config) == 0


def read_only(engine: Engine) -> None:
    """Its database from now on, for new sessions, as it is on a replica."""
    with engine.connect() as connection:
        name = connection.execute(sql.select(sql.func.current_database())).scalar_one()
        connection.execute(sql.text(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'))
        connection.commit()


def test_nobody_leads_on_a_server_that_only_reads(connect: Callable[..., Engine]) -> None:
    ledger = Ledger(connect())
    read_only(connect(leads=False))
    ledger.close()
    with pytest.raises(LedgerAwayError):
        lead(connect())
    with pytest.raises(LedgerAwayError, match="25006"):
        Ledger(connect(leads=False), create=False).wish(ALL, FederationState.PAUSED, 1.0)


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("sqlite:///x", "expected postgresql"),
        ("postgresql://host", "expected postgresql"),
        ("postgresql://a:secret@host/x", "never written"),
        ("postgresql://a@host/x?password=secret", "never written"),
    ],
)
def test_an_address_that_is_none_or_holds_a_password_is_refused_without_telling_it(url: str, what: str) -> None:
    with pytest.raises(ValueError, match=what) as refused:
        LedgerSettings(url=url)
    assert what in str(refused.value)


def test_a_server_elsewhere_has_to_prove_its_name() -> None:
    assert LedgerSettings(url="postgresql://a@db.example.org/x").url == (
        "postgresql://a@db.example.org/x?sslmode=verify-full"
    )
    assert LedgerSettings(url="postgresql://a@db/x?sslmode=require").url == "postgresql://a@db/x?sslmode=require"
    assert LedgerSettings(url="postgresql://a@127.0.0.1/x").url == "postgresql://a@127.0.0.1/x"


def test_a_password_that_can_not_be_read_is_told_by_its_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ledger\.password_file"):
        LedgerSettings(url="postgresql://a@127.0.0.1/x", password_file=tmp_path / "none").password()
