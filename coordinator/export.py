"""A version as a safetensors file: for `fedward coordinator export`, and for the API in a process of its own.

    python -m coordinator.export VERSION OUT < CONFIGURATION

To make it takes four times the model's memory and a core, for seconds where it is large: the coordinator's process has
neither to spare.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from coordinator.blobs import BlobFolder
from coordinator.config import FederationConfig
from coordinator.database import reading
from coordinator.ledger import Ledger
from coordinator.making import Settings
from coordinator.opening import engine_of
from coordinator.versions import Versions
from fedward.errors import ConfigError
from fedward.layout import Layout
from fedward.modelfile import TASK_KEY, load_model, save_model

POLITE = 10
"""How far the process that works for the API stands behind the coordinator's, for the processor."""


def write_export(config: FederationConfig, ledger: Ledger, layout: Layout, version: int, out: Path) -> None:
    """Write the model at `version` with where it comes from. Raises ConfigError for a version that is not there."""
    blobs = BlobFolder(config.state_folder / "blobs")
    versions = Versions(ledger, blobs, layout, Settings(config.engine, config.model_codec))
    try:
        vector_P = versions.vector(version)
    except KeyError:
        newest = ledger.newest_version()
        raise ConfigError(f"version {version} was never made; the newest is {newest and newest.version}") from None
    save_model(out, layout, vector_P, origin_of(config, ledger, version))


def origin_of(config: FederationConfig, ledger: Ledger, version: int) -> Mapping[str, str]:
    """What the file says of itself."""
    return {
        "fedward.federation": config.federation,
        TASK_KEY: config.task,
        "fedward.version": str(version),
        "fedward.model_digest": ledger.version(version).model_digest.hex(),
    }


def main() -> None:
    """The process that works for the API."""
    os.nice(POLITE)
    version, out = int(sys.argv[1]), Path(sys.argv[2])
    config = FederationConfig.model_validate_json(sys.stdin.read())
    layout = load_model(config.model)[0]  # and let go of the initial model
    ledger = Ledger(reading(engine_of(config)), create=False)
    write_export(config, ledger, layout, version, out)


if __name__ == "__main__":
    main()
