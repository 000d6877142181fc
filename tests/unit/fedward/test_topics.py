"""Topics: what is built is parsed back, and nothing else is parsed."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedward import topics
from fedward.errors import PeerError, RejectReason
from fedward.limits import MAX_CHUNKS, MAX_NAME
from fedward.topics import MAX_TOPIC, NUM_SHARDS, Address, Down, Enrol, Up

DIGEST = bytes(range(32))
HEX = DIGEST.hex()
TOKEN = HEX[:32]
LONGEST = "n" * MAX_NAME

BUILT = {
    topics.announce("f"): Address("f", Down.ANNOUNCE),
    topics.part_chunk("f", DIGEST, 0): Address("f", Down.CHUNK, None, DIGEST, 0),
    topics.down_chunk("f", "a", DIGEST, MAX_CHUNKS - 1): Address("f", Down.CHUNK, "a", DIGEST, MAX_CHUNKS - 1),
    topics.down("f", "a", Down.GRANT): Address("f", Down.GRANT, "a"),
    topics.down("f", "a", Down.RECEIPT): Address("f", Down.RECEIPT, "a"),
    topics.down("f", "a", Down.CONTROL): Address("f", Down.CONTROL, "a"),
    topics.offer("f", "a", DIGEST): Address("f", Up.OFFER, "a", DIGEST),
    topics.update_chunk("f", "a", DIGEST, 10): Address("f", Up.CHUNK, "a", DIGEST, 10),
    topics.up("f", "a", Up.GET): Address("f", Up.GET, "a"),
    topics.up("f", "a", Up.EVALUATION): Address("f", Up.EVALUATION, "a"),
    topics.up("f", "a", Up.STATUS): Address("f", Up.STATUS, "a"),
    topics.up("f", "a", Up.TELEMETRY): Address("f", Up.TELEMETRY, "a"),
    topics.up("f", "a", Up.RENEWAL): Address("f", Up.RENEWAL, "a"),
    topics.down("f", "a", Down.RENEWED): Address("f", Down.RENEWED, "a"),
    topics.down("f", "a", Down.KEY): Address("f", Down.KEY, "a"),
    topics.enrolment("f", TOKEN, Enrol.REQUEST): Address("f", Enrol.REQUEST, token=TOKEN),
    topics.enrolment("f", TOKEN, Enrol.ANSWER): Address("f", Enrol.ANSWER, token=TOKEN),
}
SHARD = topics.shard("a")
LEVELS = ["fl", "f", "pub", "dn", "up", "a", SHARD, "m", "u", "7", "07", HEX, "get", "enrol", TOKEN, "request"]


def chunk_topic(address: Address) -> str:
    federation, site, owner, index = address.federation, address.site, address.owner or b"", address.index or 0
    if site is None:
        return topics.part_chunk(federation, owner, index)
    return topics.down_chunk(federation, site, owner, index)


BUILDERS: dict[Up | Down | Enrol, Callable[[Address], str]] = {
    kind: lambda address: topics.up(address.federation, address.site or "", Up(address.kind)) for kind in Up
}
BUILDERS |= {
    kind: lambda address: topics.down(address.federation, address.site or "", Down(address.kind)) for kind in Down
}
BUILDERS |= {
    kind: lambda address: topics.enrolment(address.federation, address.token or "", Enrol(address.kind))
    for kind in Enrol
}
BUILDERS |= {
    Down.ANNOUNCE: lambda address: topics.announce(address.federation),
    Down.CHUNK: chunk_topic,
    Up.OFFER: lambda address: topics.offer(address.federation, address.site or "", address.owner or b""),
    Up.CHUNK: lambda address: topics.update_chunk(
        address.federation, address.site or "", address.owner or b"", address.index or 0
    ),
}


def matches(topic_filter: str, topic: str) -> bool:
    """MQTT's rule for filters without a + in the middle of a level."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if wanted[-1] == "#":
        return levels[: len(wanted) - 1] == wanted[:-1]
    return len(wanted) == len(levels) and all(w in ("+", level) for w, level in zip(wanted, levels, strict=True))


def assert_refused(topic: str) -> None:
    with pytest.raises(PeerError) as error:
        topics.parse(topic)
    assert error.value.reason is RejectReason.MALFORMED


@pytest.mark.parametrize("topic", BUILT)
def test_a_built_topic_is_parsed_back(topic):
    assert topics.parse(topic) == BUILT[topic]


def test_every_kind_has_a_topic():
    assert {address.kind for address in BUILT.values()} == {*Up, *Down, *Enrol}


def test_the_filters_match_what_they_are_for():
    up = {topic for topic in BUILT if matches(topics.up_all("f"), topic)}
    down = {topic for topic in BUILT if matches(topics.down_all("f", "a"), topic)}
    chunks = {topic for topic in BUILT if matches(topics.part_chunks("f", DIGEST), topic)}
    assert up == {topic for topic, address in BUILT.items() if isinstance(address.kind, Up)}
    assert down == {topic for topic, address in BUILT.items() if isinstance(address.kind, Down) and address.site}
    assert chunks == {topics.part_chunk("f", DIGEST, 0)}


def test_a_filter_never_matches_another_site_whose_name_begins_alike():
    assert not matches(topics.down_all("f", "a"), topics.down("f", "a2", Down.GRANT))


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "/",
        "fl",
        "fl/v1/f/pub",
        "fl/v2/f/pub/announce",
        "fl/v1/F/pub/announce",
        "fl/v1//pub/announce",
        "fl/v1/f/pub/announce/",
        "fl/v1/f/dn/a/announce",
        "fl/v1/f/dn/a/offer/" + HEX,
        "fl/v1/f/dn/a/m",
        "fl/v1/f/dn/+/grant",
        "fl/v1/f/dn/a/unknown",
        f"fl/v1/f/up/a/{SHARD}/offer",
        f"fl/v1/f/up/a/{SHARD}/u",
        f"fl/v1/f/up/a/{SHARD}/grant",
        f"fl/v1/f/up/a/{SHARD}/m/{HEX}/c/0",
        f"fl/v1/f/up/a/{SHARD}/get/{HEX}",
        "fl/v1/f/up/a/get",
        "fl/v1/f/up/a/s99/get",
        "$SYS/broker/uptime",
    ],
)
def test_a_topic_outside_the_tree_is_refused(topic):
    assert_refused(topic)


@pytest.mark.parametrize("index", ["", "-1", "+1", "00", "007", "1.0", "٣", "1 ", str(MAX_CHUNKS), "9" * 6])
def test_a_chunk_index_is_a_plain_number_below_the_limit(index):
    assert_refused(f"fl/v1/f/pub/m/{HEX}/c/{index}")


@pytest.mark.parametrize("digest", ["", HEX[:-2], HEX + "00", HEX.upper(), "zz" * 32, f" {HEX[1:]}"])
def test_a_digest_is_64_lower_case_digits(digest):
    assert_refused(f"fl/v1/f/pub/m/{digest}/c/0")


def test_a_topic_of_another_shard_than_its_site_is_refused():
    other = next(name for name in ("s00", "s01") if name != SHARD)
    assert_refused(f"fl/v1/f/up/a/{other}/get")


def test_the_longest_topic_is_within_the_limit():
    longest = topics.update_chunk(LONGEST, LONGEST, DIGEST, MAX_CHUNKS - 1)
    assert len(longest) <= MAX_TOPIC
    assert topics.parse(longest).site == LONGEST


def test_a_topic_beyond_the_limit_is_refused():
    assert_refused("fl/v1/f/pub/announce" + "/" * MAX_TOPIC)


def test_the_shard_of_a_site_never_changes():
    assert [topics.shard(site) for site in ("hospital-a", "hospital-b", "hospital-c")] == ["s24", "s27", "s30"]


def test_sites_spread_over_all_shards():
    assert {topics.shard(f"site-{number}") for number in range(1000)} == {f"s{at:02d}" for at in range(NUM_SHARDS)}


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(BUILT)), st.data())
def test_what_is_parsed_is_what_would_be_built(built, data):
    levels = built.split("/")
    for _ in range(data.draw(st.integers(0, 2))):
        place = data.draw(st.integers(0, len(levels) - 1))
        levels[place] = data.draw(st.sampled_from(LEVELS))
    topic = "/".join(levels)
    try:
        address = topics.parse(topic)
    except PeerError:
        return
    assert BUILDERS[address.kind](address) == topic


@pytest.mark.parametrize("topic", BUILT)
def test_who_sends_on_a_topic_is_known_of_the_sites_alone(topic):
    address = BUILT[topic]
    assert topics.sender(topic) == (address.site if isinstance(address.kind, Up) else None)


@pytest.mark.parametrize("rest", ["", "/s00", "/s00/nonsense", f"/{SHARD}/u/{HEX}/c/07", "/" + "x" * MAX_TOPIC])
def test_who_sends_is_known_where_the_rest_means_nothing(rest):
    assert topics.sender(f"fl/v1/f/up/a{rest}") == "a"
