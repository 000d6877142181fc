"""The journal on disk: what counts and what is under way, whatever dies when."""

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from edge_agent.appliance.steps import Journal
from fedward.errors import ConfigError, IntegrityError
from fedward.files import write_durably

JOURNAL = TypeAdapter(Journal)


class JournalFile:
    """One small file in the appliance's folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Journal:
        """Raises IntegrityError for a file that nobody here has written, ConfigError where this user may not read."""
        try:
            return JOURNAL.validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return Journal()
        except OSError as error:
            raise ConfigError(f"{self._path}: {error.strerror}; run this as root") from None
        except ValidationError:
            raise IntegrityError(
                f"{self._path}: no journal of an appliance; restore it, or put it aside and run "
                "`fedward appliance uninstall --keep-state`, then `install` again"
            ) from None

    def save(self, journal: Journal) -> None:
        """When this returns, it survives power loss."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_durably(self._path, JOURNAL.dump_json(journal, indent=2))
