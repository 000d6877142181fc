"""Draws what commands have printed as pictures of a terminal, for docs/install.md and docs/operations.md.

    pytest -m containers tests/containers/appliance/test_joining.py --basetemp=/tmp/joining
    python docker/pictures.py /tmp/joining/test_10_*/shown docs/pictures

The test leaves what each command of the hospital's IT desk has printed in `shown`. Digests, keys and signatures are
shortened, nothing else is changed.
"""

import argparse
import re
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURES = {
    "appliance-init": "appliance-init",
    "appliance-install": "appliance-install",
    "appliance-pending": "appliance-agent-pending",
    "appliance-upgrade": "appliance-upgrade",
    "appliance-return": "appliance-upgrade---force",
}
"""A picture's name, and that of the file with the text."""

WIDTH = 128
LONG = re.compile(r"[A-Za-z0-9+/=]{40,}")
COLOURS = {r"^ok +": "green", r"^skipped +": "dim", r"^warning +": "yellow", r"^failed.*": "red", r"^\$ .*": "bold"}


def picture(name: str, text: str) -> str:
    """A text as SVG, which names no fonts of another host."""
    drawn = Text(LONG.sub(lambda found: f"{found[0][:12]}…", text.rstrip()))
    for pattern, style in COLOURS.items():
        drawn.highlight_regex(f"(?m){pattern}", style)
    console = Console(record=True, width=WIDTH, file=StringIO(), force_terminal=True, color_system="truecolor")
    console.print(drawn)
    svg = console.export_svg(title="hospital", unique_id=name)
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shown", type=Path, help="folder with what the commands have printed")
    parser.add_argument("out", type=Path, help="folder to write to")
    arguments = parser.parse_args()
    for name, words in PICTURES.items():
        path = arguments.out / f"{name}.svg"
        path.write_text(picture(name, (arguments.shown / f"{words}.txt").read_text()))
        print(path)


if __name__ == "__main__":
    main()
