"""Every topic string: built here, parsed here, and nowhere else.

    fl/v1/{federation}/pub/announce                      coordinator to all, retained
    fl/v1/{federation}/pub/m/{part}/c/{index}            a chunk of a part, to whoever downloads it now
    fl/v1/{federation}/dn/{site}/...                     coordinator to one site
    fl/v1/{federation}/up/{site}/{shard}/...             one site to the coordinator
    fl/v1/{federation}/enrol/{token}/...                 a hospital that is not a site yet, and the coordinator

The site of an upward message is the topic's, which the broker authenticated, never the payload's. The shard
spreads sites over several coordinator replicas.
"""

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum

from fedward.errors import PeerError, RejectReason
from fedward.limits import MAX_CHUNKS
from fedward.pack import NAME

ROOT = "fl/v1"
NUM_SHARDS = 32
INDEX = re.compile(r"0|[1-9][0-9]{0,4}")
"""A chunk index in a topic: decimal, without leading zeros, so that every chunk has one topic only."""

TOKEN_ID = re.compile(r"[0-9a-f]{32}")

MAX_TOPIC = 512
"""Characters of a topic that is parsed; ours have at most about 230."""


class Up(StrEnum):
    """What a site sends."""

    OFFER = "offer"
    CHUNK = "u"
    GET = "get"
    EVALUATION = "evaluation"
    STATUS = "status"
    TELEMETRY = "telemetry"
    RENEWAL = "renewal"


class Down(StrEnum):
    """What the coordinator sends."""

    ANNOUNCE = "announce"
    CHUNK = "m"
    GRANT = "grant"
    RECEIPT = "receipt"
    CONTROL = "ctl"
    RENEWED = "renewed"
    KEY = "key"


CARRIED = ("update", "evaluation", "telemetry", "other")
"""What leaves a hospital, as a data protection officer sees it. Four words: each is a series of every site."""


class Enrol(StrEnum):
    """What a hospital that holds a token says and hears."""

    REQUEST = "request"
    ANSWER = "answer"


@dataclass(frozen=True)
class Address:
    """A parsed topic. `owner` is the update's id or the part's digest, of offers and chunks; `index` of chunks only;
    `token` the id of the token, of enrolments only."""

    federation: str
    kind: Up | Down | Enrol
    site: str | None = None
    owner: bytes | None = None
    index: int | None = None
    token: str | None = None


def carried_by(kind: object) -> str:
    """What a message of this kind carries: one of CARRIED."""
    match kind:
        case Up.OFFER | Up.CHUNK:
            return "update"
        case Up.EVALUATION | Up.TELEMETRY:
            return str(kind)
    return "other"


def shard(site: str) -> str:
    """The shard of a site, s00 to s31: stable over releases and machines."""
    return f"s{hashlib.sha256(site.encode()).digest()[0] % NUM_SHARDS:02d}"


def announce(federation: str) -> str:
    return f"{ROOT}/{federation}/pub/announce"


def part_chunk(federation: str, part_digest: bytes, index: int) -> str:
    """A chunk for all who are downloading the part."""
    return f"{ROOT}/{federation}/pub/m/{part_digest.hex()}/c/{index}"


def part_chunks(federation: str, part_digest: bytes) -> str:
    """The filter that an agent holds while it downloads the part."""
    return f"{ROOT}/{federation}/pub/m/{part_digest.hex()}/c/+"


def any_part_chunks(federation: str) -> str:
    """What matches every filter that `part_chunks` builds: for access rules."""
    return f"{ROOT}/{federation}/pub/m/+/c/+"


def pub_all(federation: str) -> str:
    """All that the coordinator says to everybody: for access rules."""
    return f"{ROOT}/{federation}/pub/#"


def down(federation: str, site: str, kind: Down) -> str:
    return f"{ROOT}/{federation}/dn/{site}/{kind}"


def down_chunk(federation: str, site: str, part_digest: bytes, index: int) -> str:
    """A chunk for the one site that lacks it."""
    return f"{ROOT}/{federation}/dn/{site}/m/{part_digest.hex()}/c/{index}"


def down_all(federation: str, site: str) -> str:
    return f"{ROOT}/{federation}/dn/{site}/#"


def down_to_all(federation: str) -> str:
    """All that the coordinator says to single sites: for access rules."""
    return f"{ROOT}/{federation}/dn/#"


def up(federation: str, site: str, kind: Up) -> str:
    return f"{ROOT}/{federation}/up/{site}/{shard(site)}/{kind}"


def offer(federation: str, site: str, update_id: bytes) -> str:
    """The id stands in the topic too, so that even an offer that can't be read gets its receipt."""
    return f"{up(federation, site, Up.OFFER)}/{update_id.hex()}"


def update_chunk(federation: str, site: str, update_id: bytes, index: int) -> str:
    return f"{ROOT}/{federation}/up/{site}/{shard(site)}/u/{update_id.hex()}/c/{index}"


def up_own(federation: str, site: str) -> str:
    """All that one site says: for access rules."""
    return f"{ROOT}/{federation}/up/{site}/{shard(site)}/#"


def up_all(federation: str) -> str:
    return f"{ROOT}/{federation}/up/#"


def enrolment(federation: str, token_id: str, kind: Enrol) -> str:
    return f"{ROOT}/{federation}/enrol/{token_id}/{kind}"


def enrolment_requests(federation: str) -> str:
    """The filter under which the coordinator hears all who hold a token."""
    return f"{ROOT}/{federation}/enrol/+/{Enrol.REQUEST}"


def parse(topic: str) -> Address:
    """A topic -> its address. Raises PeerError (MALFORMED) for anything that the functions above do not build."""
    levels = topic.split("/") if len(topic) <= MAX_TOPIC else []
    match levels:
        case ["fl", "v1", federation, "pub", "announce"] if NAME.fullmatch(federation):
            return Address(federation, Down.ANNOUNCE)
        case ["fl", "v1", federation, "pub", "m", owner, "c", index] if NAME.fullmatch(federation):
            return Address(federation, Down.CHUNK, None, _digest(owner), _index(index))
        case ["fl", "v1", federation, "dn", site, *rest] if NAME.fullmatch(federation) and NAME.fullmatch(site):
            return _of_site(federation, site, rest, Down)
        case ["fl", "v1", federation, "up", site, part, *rest] if (
            NAME.fullmatch(federation) and NAME.fullmatch(site) and part == shard(site)
        ):
            return _of_site(federation, site, rest, Up)
        case ["fl", "v1", federation, "enrol", token, kind] if (
            NAME.fullmatch(federation) and TOKEN_ID.fullmatch(token) and kind in set(Enrol)
        ):
            return Address(federation, Enrol(kind), token=token)
    raise PeerError(RejectReason.MALFORMED, f"a topic of {len(levels)} levels that is not in the topic tree")


def sender(topic: str) -> str | None:
    """The site below whose upward topics this lies, also where `parse` knows nothing there; None for any other."""
    match topic[:MAX_TOPIC].split("/"):
        case ["fl", "v1", _, "up", site, *_] if NAME.fullmatch(site):
            return site
    return None


def _of_site(federation: str, site: str, rest: list[str], kinds: type[Up] | type[Down]) -> Address:
    match rest:
        case [kind, owner, "c", index] if kind == kinds.CHUNK:
            return Address(federation, kinds.CHUNK, site, _digest(owner), _index(index))
        case [kind, owner] if kind == Up.OFFER and kinds is Up:
            return Address(federation, Up.OFFER, site, _digest(owner))
        case [kind] if kind in set(kinds) - {kinds.CHUNK, Up.OFFER, Down.ANNOUNCE}:
            return Address(federation, kinds(kind), site)
    raise PeerError(RejectReason.MALFORMED, "a topic below a site that is not in the topic tree")


def _digest(text: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != 32 or digest.hex() != text:
        raise PeerError(RejectReason.MALFORMED, "expected 64 lower-case hexadecimal digits in the topic")
    return digest


def _index(text: str) -> int:
    if not (INDEX.fullmatch(text) and int(text) < MAX_CHUNKS):
        raise PeerError(RejectReason.MALFORMED, f"expected a chunk index below {MAX_CHUNKS} in the topic")
    return int(text)
