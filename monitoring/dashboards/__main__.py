"""`python -m monitoring.dashboards` writes the JSON of every dashboard beside this file, `--check` compares it."""

import argparse
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from monitoring.dashboards import DASHBOARDS

FOLDER = Path(__file__).parent


def text_of(name: str) -> str:
    """The file of a dashboard, the same at every call."""
    board = DASHBOARDS[name]().build()
    for number, panel in enumerate(board.panels or [], start=1):
        panel.id_val = number
    return JSONEncoder(sort_keys=True, indent=2).encode(board) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the JSON of every dashboard.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is not as it would be")
    check = parser.parse_args().check
    paths = {name: FOLDER / f"{name}.json" for name in DASHBOARDS}
    if check:
        differing = [name for name, path in paths.items() if not path.exists() or path.read_text() != text_of(name)]
        sys.exit(f"not as `python -m monitoring.dashboards` writes them: {', '.join(differing)}" if differing else 0)
    for name, path in paths.items():
        path.write_text(text_of(name))


if __name__ == "__main__":
    main()
