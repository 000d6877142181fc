"""The import table of the house: who may know whom. The table is docs/architecture.md's, held here."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SIDES = ("fedward", "edge_agent", "coordinator", "sandbox")

MAY_KNOW = {
    "fedward": {"fedward"},
    "edge_agent": {"fedward", "edge_agent"},
    "coordinator": {"fedward", "coordinator"},
    "sandbox": {"fedward", "edge_agent", "coordinator", "sandbox"},
}

ONLY_IN = {
    "paho": ["fedward/mqtt.py", "fedward/mqtt_client.py"],
    "ssl": ["fedward/tls.py", "fedward/mqtt_client.py", "fedward/doctor/"],
    "msgpack": ["fedward/pack.py"],
    "prometheus_client": ["edge_agent/metrics.py", "coordinator/metrics.py"],
    "docker": ["edge_agent/appliance/engine.py"],
    "cryptography": ["fedward/identity/"],
    "zstandard": ["fedward/codec/frame.py"],
    "opentelemetry": ["coordinator/traces.py"],
    "fastapi": ["coordinator/api/"],
    "starlette": ["coordinator/api/"],
    "uvicorn": ["coordinator/api/"],
    "anyio": ["coordinator/api/"],
    "sqlalchemy": [
        "coordinator/api/reading.py",
        "coordinator/ledger.py",
        "coordinator/chaining.py",
        "coordinator/database.py",
        "coordinator/evaluations.py",
        "coordinator/needed.py",
        "coordinator/opening.py",
        "coordinator/paces.py",
        "coordinator/migrations/",
        "coordinator/pruning.py",
        "coordinator/run.py",
        "coordinator/schema.py",
        "coordinator/tables.py",
        "coordinator/verdicts.py",
    ],
    "alembic": ["coordinator/schema.py", "coordinator/migrations/"],
    "yaml": ["fedward/settings.py", "edge_agent/cli.py", "edge_agent/training/tasks/", "sandbox/federation.py"],
    "sklearn": ["sandbox/"],
    "rich": ["sandbox/"],
    "matplotlib": ["sandbox/"],
    "iotcore": ["sandbox/broker.py"],
}

TORCH = "edge_agent/training/"
LAZY_TORCH = {"edge_agent/cli.py"}
"""May import torch inside a function: `run` sets its number of threads, the other verbs answer without it."""

PURE = [
    "fedward/errors.py", "fedward/limits.py", "fedward/messages.py", "fedward/layout.py", "fedward/pack.py",
    "fedward/topics.py", "fedward/recipe.py", "fedward/codec/", "coordinator/engine/", "coordinator/receive.py",
    "coordinator/verify.py", "coordinator/allowance.py", "coordinator/chain.py", "coordinator/wal.py",
    "coordinator/precision.py", "coordinator/access.py", "coordinator/api/access.py", "coordinator/api/answers.py",
    "coordinator/journeys.py",
    "coordinator/dynsec.py",
    "edge_agent/states.py", "edge_agent/policy.py", "edge_agent/receive.py", "edge_agent/asking.py",
    "edge_agent/choice.py", "edge_agent/uplink.py", "edge_agent/devices.py", "edge_agent/hours.py",
    "edge_agent/egress_lines.py", "edge_agent/appliance/steps.py", "edge_agent/appliance/orders.py",
    "edge_agent/appliance/machine.py", "edge_agent/appliance/state.py",
    "fedward/doctor/check.py", "fedward/doctor/way.py", "fedward/doctor/broker.py",
    "fedward/doctor/machine.py",
]  # fmt: skip
IMPURE_MODULES = {
    "time", "random", "secrets", "os", "socket", "threading", "queue", "logging", "pathlib", "subprocess", "io",
    "tempfile", "shutil", "http", "urllib", "prometheus_client", "paho", "sqlalchemy", "datetime",
}  # fmt: skip


def sources(*sides: str) -> list[str]:
    """The files of these sides, of all without an argument."""
    return [str(path.relative_to(ROOT)) for side in sides or SIDES for path in sorted((ROOT / side).rglob("*.py"))]


@cache
def imports(source: str) -> tuple[tuple[str, bool], ...]:
    """Top-level module names that a file imports; True where the import stands at the top of the module."""
    return tuple(_imports(source))


def _imports(source: str) -> Iterator[tuple[str, bool]]:
    tree = ast.parse((ROOT / source).read_text())
    at_top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")[0], id(node) in at_top
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0], id(node) in at_top


@pytest.mark.parametrize("side", SIDES)
def test_a_side_imports_only_what_it_may_know(side: str) -> None:
    sides = {(source, name) for source in sources(side) for name, _ in imports(source) if name in SIDES}
    assert not {(source, name) for source, name in sides if name not in MAY_KNOW[side]}


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_a_library_is_imported_in_its_home_only(library: str) -> None:
    users = [source for source in sources() if library in {name for name, _ in imports(source)}]
    strangers = [source for source in users if not source.startswith(tuple(ONLY_IN[library]))]
    assert not strangers, f"{library} may be imported in {ONLY_IN[library]} only"


def test_torch_is_imported_in_the_training_room_only() -> None:
    for source in sources():
        for name, at_top in imports(source):
            if name == "torch" and not source.startswith(TORCH):
                assert source in LAZY_TORCH, source
                assert not at_top, f"{source} imports torch at the top"


@pytest.mark.parametrize("room", PURE)
def test_a_pure_module_imports_no_io_clock_or_randomness(room: str) -> None:
    files = [source for source in sources() if source.startswith(room)]
    assert files, f"{room} is not there"
    assert not {(source, name) for source in files for name, _ in imports(source) if name in IMPURE_MODULES}


def test_the_import_graph_between_our_modules_has_no_cycle() -> None:
    graph = {source: set(our_imports(source)) for source in sources()}
    done: set[str] = set()

    def visit(source: str, path: tuple[str, ...]) -> None:
        assert source not in path, " -> ".join([*path, source])
        if source not in done:
            for target in sorted(graph.get(source, ())):
                visit(target, (*path, source))
            done.add(source)

    for source in graph:
        visit(source, ())


def our_imports(source: str) -> Iterator[str]:
    """Our own modules that a file imports at its top, as file paths."""
    for node in ast.parse((ROOT / source).read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in SIDES:
            for alias in node.names:
                for dotted in (f"{node.module}.{alias.name}", node.module):
                    path = dotted.replace(".", "/")
                    if (ROOT / f"{path}.py").exists():
                        yield f"{path}.py"
                        break


WAYS_OUT = {"socket", "ssl", "http", "urllib", "urllib3", "requests", "smtplib", "ftplib", "asyncio", "subprocess"}
"""What an agent could send something with, past its log. The HTTP page, which only answers, is fedward/http.py's."""


def test_the_agent_has_no_way_out_but_the_link_that_logs() -> None:
    for source in sources("edge_agent"):
        assert not WAYS_OUT & {name for name, _ in imports(source)}, source


def test_the_agent_knows_nothing_of_the_appliance_that_runs_it() -> None:
    inside = [source for source in sources("edge_agent") if not source.startswith("edge_agent/appliance/")]
    assert not [source for source in inside if any("/appliance/" in target for target in our_imports(source))]


def test_every_link_of_the_agent_to_a_broker_is_made_inside_the_one_that_logs() -> None:
    found = 0
    for source in sources("edge_agent"):
        calls = [node for node in ast.walk(ast.parse((ROOT / source).read_text())) if isinstance(node, ast.Call)]
        bare = {call for call in calls if ast.unparse(call.func) == "MqttLink"}
        logged = {argument for call in calls if ast.unparse(call.func) == "EgressLink" for argument in call.args}
        assert bare <= logged, f"{source} makes an MqttLink that nothing logs"
        found += len(bare)
    assert found, "where is the agent's link?"


def test_the_agent_takes_no_other_link_than_the_one_that_logs() -> None:
    tree = ast.parse((ROOT / "edge_agent/agent.py").read_text())
    (agent,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Agent")
    (init,) = (node for node in agent.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    assert {arg.arg: ast.unparse(arg.annotation) for arg in init.args.args if arg.annotation}["link"] == "EgressLink"


def test_api_and_traces_are_imported_only_where_they_are_switched_on() -> None:
    """Its libraries take a third of a second: nobody who does not serve it should wait for them."""
    command = (
        "import sys; import coordinator.cli; print(*sorted({'fastapi', 'uvicorn', 'opentelemetry'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
