"""A whole coordinator, or a whole agent with its training, in one process around a broker in memory."""

from tests.support.memory import tmp_path  # noqa: F401 - a fixture
