"""One rule or one part at a time: no torch, no network but a loopback page, seconds for all of them."""

from tests.support.memory import tmp_path  # noqa: F401 - a fixture
