"""Prints docs/openapi.json: `python -m coordinator.api.openapi > docs/openapi.json`."""

import json
import sys
from typing import Any, cast

from coordinator.api.app import make_app


def document() -> str:
    """What /openapi.json answers, for people to read: the same of every federation, so none has to be there."""
    nothing = cast(Any, None)
    return json.dumps(make_app("none", nothing, nothing, dict).openapi(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
