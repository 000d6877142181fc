"""The API over real HTTP on loopback: what it answers, from a federation that has run."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from coordinator.api.openapi import document
from coordinator.ledger import Ledger
from coordinator.tables import ALL, Verdict
from fedward.layout import vector_digest
from fedward.messages import FederationState
from fedward.modelfile import load_model
from tests.support.api import ROOT, Api, serving, write_token
from tests.support.coordinator_bench import Bench
from tests.support.site import Site
from tests.support.updates import FEDERATION, SMALL

pytestmark = pytest.mark.network


@pytest.fixture
def serve(folder: Path) -> Iterator[Callable[..., Api]]:
    """Serves the API of the folder's federation, with what the program that runs knows."""
    with ExitStack() as running:

        def begin(page: dict[str, Any] | None = None, **api: Any) -> Api:
            given = {"token_file": write_token(folder), **api}
            server = running.enter_context(serving(folder, page, **given))
            assert server.port
            return Api(server.port)

        yield begin


def test_a_federation_is_told_with_its_state_and_version(after_a_run: Path, serve: Callable[..., Api]) -> None:
    api = serve()
    (told,) = api.get("/v1/federations").json()["federations"]
    assert told == api.get(ROOT).json()
    facts = {name: told[name] for name in ("name", "task", "state", "version", "buffer_updates", "num_sites", "leads")}
    assert facts == {
        "name": FEDERATION,
        "task": "tabular",
        "state": "running",
        "version": 1,
        "buffer_updates": 1,
        "num_sites": 2,
        "leads": False,
    }


def test_a_wish_of_the_operator_shows_at_once(after_a_run: Path, serve: Callable[..., Api]) -> None:
    api = serve()
    ledger = Ledger.in_folder(after_a_run / "state")
    ledger.wish(ALL, FederationState.PAUSED, 1.0)
    ledger.wish("north", FederationState.PAUSED, 2.0)
    ledger.give_verdict("south", Verdict.REFUSED, 3.0)
    ledger.close()
    assert api.get(ROOT).json()["state"] == "paused"
    north, south = api.get(f"{ROOT}/sites").json()["sites"]
    assert (north["wish"], north["quarantined"]) == ("paused", False)
    assert (south["wish"], south["quarantined"]) == (None, True)


def test_versions_come_in_pages_newest_first(after_a_run: Path, serve: Callable[..., Api]) -> None:
    api = serve()
    first = api.get(f"{ROOT}/versions?limit=1").json()
    assert ([row["version"] for row in first["versions"]], first["next_before"]) == ([1], 1)
    second = api.get(f"{ROOT}/versions?limit=1&before={first['next_before']}").json()
    assert ([row["version"] for row in second["versions"]], second["next_before"]) == ([0], None)
    assert [row["num_updates"] for row in (*first["versions"], *second["versions"])] == [2, 0]


def test_a_version_tells_what_it_was_made_of(after_a_run: Path, serve: Callable[..., Api]) -> None:
    told = serve().get(f"{ROOT}/versions/1").json()
    ledger = Ledger.in_folder(after_a_run / "state")
    rows = ledger.updates_of(1)
    assert told["model_digest"] == ledger.version(1).model_digest.hex()
    ledger.close()
    assert [(row["site"], row["weight"], row["num_examples"]) for row in told["contributions"]] == [
        (row.site, row.weight, row.num_examples) for row in rows
    ]
    assert len(rows) == 2


def test_sites_are_told_with_what_the_running_coordinator_knows(
    start: Callable[..., Bench], north: Site, folder: Path, serve: Callable[..., Api]
) -> None:
    bench = start()
    bench.settle()
    api = serve(bench.service.page())
    told = {row["site"]: row for row in api.get(f"{ROOT}/sites").json()["sites"]}
    assert (told["north"]["online"], told["south"]["online"]) == (True, False)
    assert api.get(ROOT).json()["num_parameters"] == SMALL.size
    assert api.get(f"{ROOT}/sites/north").json()["phase"] == "idle"


def test_what_only_the_one_that_works_knows_is_null_from_one_that_stands_by(
    after_a_run: Path, serve: Callable[..., Api]
) -> None:
    north = serve().get(f"{ROOT}/sites/north").json()
    assert (north["online"], north["phase"]) == (None, None)
    assert (north["num_accepted"], north["last_update"]["base_version"]) == (2, 1)


def test_the_head_is_that_of_the_chain(after_a_run: Path, serve: Callable[..., Api]) -> None:
    ledger = Ledger.in_folder(after_a_run / "state")
    newest = ledger.newest_entry()
    ledger.close()
    assert newest
    assert serve().get(f"{ROOT}/ledger/head").json()["mark"] == str(newest.mark)


# The model.


def test_a_model_is_downloaded_whole_and_its_digest_is_the_etag(
    after_a_run: Path, serve: Callable[..., Api], tmp_path: Path
) -> None:
    api = serve()
    answer = api.get(f"{ROOT}/versions/1/model")
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'
    (tmp_path / "got.safetensors").write_bytes(answer.content)
    layout, vector_P = load_model(tmp_path / "got.safetensors")
    assert layout == SMALL
    assert vector_digest(vector_P).hex() == api.get(f"{ROOT}/versions/1").json()["model_digest"]


def test_a_download_goes_on_where_it_was_cut_off(after_a_run: Path, serve: Callable[..., Api]) -> None:
    api = serve()
    whole = api.get(f"{ROOT}/versions/0/model")
    rest = api.get(f"{ROOT}/versions/0/model", Range="bytes=1000-", If_Range=whole.headers["etag"])
    assert rest.status == 206
    assert whole.content[1000:] == rest.content


def test_a_file_that_the_caller_has_is_not_sent_again(after_a_run: Path, serve: Callable[..., Api]) -> None:
    api = serve()
    etag = api.get(f"{ROOT}/versions/0/model").headers["etag"]
    again = api.get(f"{ROOT}/versions/0/model", If_None_Match=etag)
    assert (again.status, again.content) == (304, b"")


def test_files_of_the_last_two_downloads_are_kept_and_no_more(after_a_run: Path, serve: Callable[..., Api]) -> None:
    api = serve()
    for version in (0, 1, 0):
        assert api.get(f"{ROOT}/versions/{version}/model").status == 200
    names = sorted(path.name.split("-")[0] for path in (after_a_run / "state" / "exports").iterdir())
    assert names == ["0", "1"]


def test_a_file_of_another_ledger_with_the_same_version_is_not_sent(
    after_a_run: Path, serve: Callable[..., Api]
) -> None:
    api = serve()
    (after_a_run / "state" / "exports" / f"1-{'0' * 64}-{'1' * 64}.safetensors").write_bytes(b"of a ledger before")
    assert not api.get(f"{ROOT}/versions/1/model").content.startswith(b"of a ledger before")


def test_a_version_whose_payloads_are_deleted_is_gone(after_a_run: Path, serve: Callable[..., Api]) -> None:
    ledger = Ledger.in_folder(after_a_run / "state")
    ledger.raise_floor(1)
    ledger.close()
    answer = serve().get(f"{ROOT}/versions/0/model")
    assert (answer.status, answer.json()["error"]) == (410, "not_kept")


def test_a_damaged_payload_is_told_to_the_log_and_not_to_the_caller(
    after_a_run: Path, serve: Callable[..., Api], caplog: pytest.LogCaptureFixture
) -> None:
    for path in (after_a_run / "state" / "blobs").iterdir():
        path.write_bytes(b"\0" * path.stat().st_size)
    answer = serve().get(f"{ROOT}/versions/1/model")
    assert (answer.status, answer.json()["error"]) == (503, "away")
    assert str(after_a_run) not in answer.content.decode()
    (record,) = [record for record in caplog.records if record.msg == "export_failed"]
    assert "IntegrityError" in vars(record)["detail"]


def test_a_coordinator_without_a_version_says_that_it_is_not_ready(folder: Path, serve: Callable[..., Api]) -> None:
    Ledger.in_folder(folder / "state").close()
    answer = serve().get(ROOT)
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")


def test_a_database_without_tables_is_asked_again_later(folder: Path, serve: Callable[..., Api]) -> None:
    answer = serve().get(ROOT)
    assert (answer.status, answer.json()["error"]) == (503, "away")


def test_the_committed_description_is_what_is_served(after_a_run: Path, serve: Callable[..., Api]) -> None:
    committed = Path(__file__).parents[3] / "docs" / "openapi.json"
    assert committed.read_text() == document(), "python -m coordinator.api.openapi > docs/openapi.json"
    assert serve().get("/openapi.json").json() == json.loads(document())


def test_every_field_of_the_description_says_what_it_is() -> None:
    schemas = json.loads(document())["components"]["schemas"]
    fields = [(kind, name, field) for kind, schema in schemas.items() for name, field in schema["properties"].items()]
    named = ("model_digest", "digest", "head", "versions", "sites", "federations")
    assert not [(kind, name) for kind, name, field in fields if "description" not in field and name not in named]
