"""Enrolment without a network: request and answer as files that people carry."""

import json
from base64 import b64decode, b64encode

from fedward.errors import ConfigError

REQUEST = "fedward enrolment request 1"
ANSWER = "fedward enrolment answer 1"
MAX_BYTES = 64 * 1024


def write_handover(what: str, token_id: str, payload: bytes) -> bytes:
    """A packed message as a file of text; `what` is REQUEST or ANSWER."""
    return json.dumps({"what": what, "token": token_id, "message": b64encode(payload).decode()}, indent=1).encode()


def read_handover(content: bytes, what: str) -> tuple[str, bytes]:
    """The token's id and the message. Raises ConfigError for another file; the message is still to be checked."""
    try:
        given = json.loads(content) if len(content) <= MAX_BYTES else None
        if isinstance(given, dict) and given.get("what") == what:
            return str(given["token"]), b64decode(given["message"], validate=True)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass  # as another file
    raise ConfigError(f"expected a file of `{what}`, got something else")
