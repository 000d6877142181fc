"""What the chart has from elsewhere in this repository: `make chart`. A test finds what is not up to date.

The settings of federation.yaml go into values.schema.json as the program knows them, without those that the chart sets
itself; rules and dashboards into files/; the table of all values into README.md.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "helm" / "coordinator"
FOLDERS = {"rules": "*.yml", "dashboards": "*.json"}
BEGIN, END = "<!-- values: made by `make chart` -->\n", "<!-- end -->\n"

SET_BY_CHART = {
    "FederationConfig": ("model", "state_folder", "identity", "http", "ledger"),
    "CoordinatorBrokerSettings": ("host", "port", "enrolment_port", "password_file", "proxy_password_file", "tls"),
    "AuthoritySettings": ("folder",),
    "ApiSettings": ("host", "port", "token_file", "tls"),
}
"""Files, ports and folders, which other values of the chart decide."""


def settings_schema() -> tuple[dict[str, Any], dict[str, Any]]:
    """Of `config`, and of the sections in it."""
    from coordinator.config import FederationConfig  # noqa: PLC0415 - only this part needs the coordinator

    whole = plain(FederationConfig.model_json_schema())
    sections = whole.pop("$defs")
    for name, keys in SET_BY_CHART.items():
        section = whole if name == "FederationConfig" else sections[name]
        for key in keys:
            del section["properties"][key]
        section["required"] = [key for key in section.get("required", ()) if key in section["properties"]]
    whole["required"].remove("broker")  # all that it needs is set by the chart
    whole["description"] = "federation.yaml, but for files, ports and folders, which this chart decides."
    used = set(references(whole))
    while more := {name for one in used for name in references(sections[one])} - used:
        used |= more
    return whole, {name: sections[name] for name in sorted(used)}


def plain(value: Any) -> Any:
    """Without titles, which repeat the names, and with descriptions of one line."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: plain(item) for key, item in value.items() if key != "title" or not isinstance(item, str)}
    if isinstance(kept.get("description"), str):
        kept["description"] = " ".join(kept["description"].split())
    return kept


def references(value: Any) -> Iterator[str]:
    """The names of the sections that a schema refers to."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"].rpartition("/")[2]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def schema(text: str) -> str:
    """values.schema.json with the settings of today."""
    whole = json.loads(text)
    whole["properties"]["config"], whole["$defs"] = settings_schema()
    return json.dumps(whole, indent=1) + "\n"


def rows(part: dict[str, Any], defaults: Any, prefix: str = "") -> Iterator[str]:
    """A row of the table for each value."""
    for name, value in part["properties"].items():
        path, default = f"{prefix}{name}", (defaults or {}).get(name)
        if "properties" in value and name != "config":
            yield from rows(value, default, f"{path}.")
        else:
            shown = (
                "required" if default in ("", {}) and name in part.get("required", ()) else f"`{json.dumps(default)}`"
            )
            yield f"| `{path}` | {shown} | {value['description']} |"


def readme(text: str, whole: dict[str, Any], defaults: Any) -> str:
    """README.md with the table of today."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    table = ["| value | default | meaning |", "| --- | --- | --- |", *rows(whole, defaults)]
    return before + BEGIN + "\n".join(table) + "\n" + END + after


def texts() -> dict[Path, str]:
    """Every file of the chart that is made, and what it should hold."""
    made = {CHART / "values.schema.json": schema((CHART / "values.schema.json").read_text())}
    whole, defaults = (
        json.loads(made[CHART / "values.schema.json"]),
        yaml.safe_load((CHART / "values.yaml").read_text()),
    )
    made[CHART / "README.md"] = readme((CHART / "README.md").read_text(), whole, defaults)
    for folder, pattern in FOLDERS.items():
        for path in sorted((ROOT / "monitoring" / folder).glob(pattern)):
            made[CHART / "files" / folder / path.name] = path.read_text()
    return made


def main() -> int:
    made = texts()
    shutil.rmtree(CHART / "files", ignore_errors=True)
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
