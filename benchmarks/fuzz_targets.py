"""Whatever reads what the other side sends, each beside valid inputs of its own and the refusals it documents."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import msgpack
import numpy as np

from benchmarks.fuzz_inputs import changed, changed_body, changed_json
from coordinator import receive as coordinator_receive
from coordinator.dynsec import parse_answers
from coordinator.verify import Terms, check_offer, check_update
from edge_agent import receive as agent_receive
from edge_agent.egress_lines import Chain, Head, What, line_of, messages_left, totals
from edge_agent.egress_log import read_head
from fedward import codec, topics
from fedward.chunks import check_manifest, indices_of, manifest_of
from fedward.errors import FedwardError, IntegrityError, PeerError
from fedward.identity.names import update_id_of
from fedward.layout import Layout, Tensor
from fedward.messages import Announcement, FederationState, Get, Offer, Part, PartKind
from fedward.pack import SIZE_LIMITS, pack, unpack
from fedward.recipe import apply_part, cheapest_recipe, initial_to_make

GOLDEN = Path(__file__).parents[1] / "tests" / "compat" / "golden"
FEDERATION, SITE = "sepsis", "north"
LAYOUT = Layout.of([Tensor("large", (65, 64)), Tensor("small", (7,)), Tensor("scalar", ())])
SEED = bytes(32)
Input = tuple[Any, ...]


@dataclass(frozen=True)
class Target:
    """One reader: `make` draws an input, `use` reads it; all that it may raise is in `refusals`."""

    name: str
    make: Callable[[Random], Input]
    use: Callable[..., object]
    refusals: tuple[type[FedwardError], ...] = (PeerError,)
    share: int = 10
    """Of the inputs, beside the other targets' shares."""


def golden_messages() -> dict[str, bytes]:
    """The envelope of every kind of message, several of some."""
    return {path.stem: bytes.fromhex(path.read_text()) for path in sorted(GOLDEN.glob("*.hex"))}


def message_targets() -> Iterator[Target]:
    """Every kind of message, bare; what a valid one of some kinds holds is read on."""
    envelopes = list(golden_messages().values())
    for kind in SIZE_LIMITS:
        own = [raw for raw in envelopes if msgpack.unpackb(raw)["m"] == kind.__name__.lower()]

        def make(rng: Random, own: list[bytes] = own) -> Input:
            how = changed_body if rng.random() < 0.7 else changed
            return (how(rng.choice(own), rng.choice(envelopes), rng),)

        yield Target(f"unpack {kind.__name__}", make, _use_message(kind), share=12)


def _use_message(kind: type) -> Callable[[bytes], None]:
    def use(data: bytes) -> None:
        message: object = unpack(data, kind)
        if isinstance(message, Announcement):
            initial_to_make(message)
            cheapest_recipe(message.parts, message.version, message.version - 1)
        elif isinstance(message, Offer):
            check_manifest(message.manifest)
        elif isinstance(message, Get):
            manifest = manifest_of(b"x")
            assert sum(1 for _ in indices_of(message.missing, manifest)) <= 1

    return use


def _offer(payload: bytes, name: str) -> tuple[str, bytes]:
    """A valid topic and offer, with its payload inside."""
    update_id = update_id_of(FEDERATION, SITE, 3, 1)
    offer = Offer(
        federation=FEDERATION,
        update_id=update_id,
        sequence=1,
        base_version=3,
        codec=name,
        layout_digest=LAYOUT.digest,
        num_examples=10,
        num_steps=5,
        work_s=1.0,
        manifest=manifest_of(payload),
        payload=payload,
    )
    return topics.offer(FEDERATION, SITE, update_id), pack(offer)


def payload_of(how: codec.Codec) -> bytes:
    """A valid payload of LAYOUT."""
    vector_P = np.random.default_rng(7).normal(size=LAYOUT.size).astype(np.float32)
    return how.encode(vector_P, LAYOUT, SEED)


def delivery_targets() -> Iterator[Target]:
    """A delivery at the coordinator, with the offer checked as far as its payload; one at an agent; a topic alone."""
    golden = golden_messages()
    up = [_offer(payload_of(how), name) for name, how in codec.CODECS.items()]
    for word in set(topics.Up) - {topics.Up.CHUNK, topics.Up.OFFER}:
        up += [(topics.up(FEDERATION, SITE, word), raw) for name, raw in golden.items() if name.startswith(word.value)]
    up.append((topics.update_chunk(FEDERATION, SITE, SEED, 3), bytes(100)))
    down = [(topics.announce(FEDERATION), raw) for name, raw in golden.items() if name.startswith("announcement")]
    kinds = {topics.Down.GRANT: "grant", topics.Down.RECEIPT: "receipt", topics.Down.CONTROL: "control"}
    down += [(topics.down(FEDERATION, SITE, kind), golden[name]) for kind, name in kinds.items()]
    down.append((topics.down(FEDERATION, SITE, topics.Down.RENEWED), golden["renewed"]))
    down.append((topics.down(FEDERATION, SITE, topics.Down.KEY), golden["sealedkey"]))
    down.append((topics.down_chunk(FEDERATION, SITE, SEED, 3), bytes(100)))
    down.append((topics.part_chunk(FEDERATION, SEED, 3), bytes(100)))
    yield Target("receive, coordinator", _deliveries(up), _receive_at_coordinator, share=50)
    yield Target("receive, agent", _deliveries(down), _receive_at_agent, share=30)
    names = [topic.encode() for topic, _ in up + down]
    names.append(topics.enrolment(FEDERATION, "0" * 32, topics.Enrol.REQUEST).encode())
    yield Target(
        "topics",
        lambda rng: (changed(rng.choice(names), rng.choice(names), rng).decode(errors="replace"),),
        topics.parse,
        share=20,
    )


def _deliveries(valid: Sequence[tuple[str, bytes]]) -> Callable[[Random], Input]:
    def make(rng: Random) -> Input:
        topic, payload = rng.choice(valid)
        if rng.random() < 0.1:
            topic = changed(topic.encode(), rng.choice(valid)[0].encode(), rng).decode(errors="replace")
        if b"\xa1v" in payload[:3] and rng.random() < 0.8:
            return topic, changed_body(payload, payload, rng)
        return topic, changed(payload, rng.choice(valid)[1], rng)

    return make


TERMS = Terms(LAYOUT, 5, 10, tuple(codec.CODECS), FederationState.RUNNING, None)


def _receive_at_agent(topic: str, payload: bytes) -> None:
    agent_receive.receive(topic, payload, SITE)


def _receive_at_coordinator(topic: str, payload: bytes) -> None:
    message = coordinator_receive.receive(topic, payload, FEDERATION, frozenset({SITE})).message
    if isinstance(message, Offer):
        check_offer(message, TERMS, repeated=False)
        if message.payload is not None:
            check_update(memoryview(message.payload), message, LAYOUT)


def codec_targets() -> Iterator[Target]:
    """Every codec's check, decoder and norm; and the recipe, which adds what comes down to a model."""
    payloads = {name: payload_of(how) for name, how in codec.CODECS.items()}
    for name, how in codec.CODECS.items():

        def make(rng: Random, name: str = name) -> Input:
            return (
                _of_same_size(changed(payloads[name], rng.choice(list(payloads.values())), rng), payloads[name], rng),
            )

        def use(payload: bytes, how: codec.Codec = how) -> None:
            codec.norm(payload, how, LAYOUT, SEED)
            codec.decode(payload, how, LAYOUT, SEED)

        yield Target(f"codec {name}", make, use, share=12)

    def make_part(rng: Random) -> Input:
        name = rng.choice(list(payloads))
        payload = _of_same_size(changed(payloads[name], b"", rng), payloads[name], rng)
        kind = rng.choice(list(PartKind))
        return Part(kind=kind, version=3, codec=name, manifest=manifest_of(payload or b"x")), payload

    def use_part(part: Part, payload: bytes) -> None:
        apply_part(np.zeros(LAYOUT.size, np.float32), part, memoryview(payload), LAYOUT)

    yield Target("recipe", make_part, use_part, share=20)


def _of_same_size(content: bytes, valid: bytes, rng: Random) -> bytes:
    """Mostly of the size that is expected, so that what is inside is looked at."""
    return content[: len(valid)] + valid[len(content) :] if rng.random() < 0.7 else content


def json_targets(folder: Path) -> Iterator[Target]:
    """The egress log, line by line, and its head; the answers of the broker's plugin. `folder` is made."""
    folder.mkdir()

    def read_saved(content: bytes) -> None:
        (folder / "head.json").write_bytes(content)
        read_head(folder)

    head, lines = Head(), []
    facts: Sequence[dict[str, str | int]] = (
        {"what": What.START, "software": "fedward", "ended": "new"},
        {"what": What.MESSAGE, "kind": "status", "size": 40, "sha256": "0" * 64},
        {"what": What.UNSENT, "of": 2},
        {"what": What.WILL, "kind": "status", "size": 40, "sha256": "0" * 64},
        {"what": What.CUT, "through": 1, "head": "0" * 64},
        {"what": What.TORN, "size": 3},
        {"what": What.STOP},
    )
    for fact in facts:
        line, head = line_of(head, "2026-11-24T12:00:00Z", fact)
        lines.append(line[:-1])

    def make_log(rng: Random) -> Input:
        at = rng.randrange(len(lines))
        return (*lines[:at], changed_json(lines[at], rng.choice(lines), rng), *lines[at + 1 :])

    def verify(*log: bytes) -> None:
        chain = Chain(head)
        followed = [chain.follow(line) for line in log]
        chain.check_end()
        chain.check_begin()
        totals(messages_left(followed))

    saved = json.dumps({"n": head.n, "digest": head.digest, "machine": "m"}).encode()
    yield Target("egress head", lambda rng: (changed_json(saved, saved, rng),), read_saved, (IntegrityError,))
    yield Target("egress log", make_log, verify, (IntegrityError,), share=25)
    first_only = lambda rng: (changed_json(rng.choice(lines), rng.choice(lines), rng),)  # noqa: E731
    yield Target("egress line", first_only, lambda line: list(messages_left([Chain().follow(line)])), (IntegrityError,))
    answer = (
        b'{"responses":[{"command":"listRoles","correlationData":"c","data":{"totalCount":1,"roles":[{"rolename":"r",'
        b'"acls":[{"acltype":"subscribeLiteral","topic":"a","priority":0,"allow":true}]}],"clients":[{"username":"u",'
        b'"roles":[{"rolename":"r"}],"groups":[{"groupname":"g"}]}]}}]}'
    )
    yield Target(
        "dynamic security",
        lambda rng: (changed_json(answer, answer, rng),),
        lambda payload: parse_answers(payload, "c", 1),
        share=25,
    )
