"""Whatever reads certificates, tokens, seals and signatures, and the files of an upload, as targets of the fuzzer."""

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from benchmarks.fuzz_inputs import changed, changed_body, changed_json, changed_pem
from benchmarks.fuzz_targets import FEDERATION, SITE, Input, Target, golden_messages
from coordinator.uploads import Uploads
from fedward.chunks import manifest_of
from fedward.errors import ConfigError
from fedward.identity.authorities import check_revocations, check_signed
from fedward.identity.certificates import (
    FileAuthority,
    Role,
    make_request,
    parse_certificate,
    parse_request,
)
from fedward.identity.description import describe_certificate
from fedward.identity.handover import REQUEST, read_handover, write_handover
from fedward.identity.keys import load_signing_key, make_signing_key
from fedward.identity.model_key import KeyReceiver, ModelKey, check_receiver
from fedward.identity.sealing import known_seal, new_seal, opened_size, public_half, sealed_chunks
from fedward.identity.signing import COORDINATOR, checker, signer
from fedward.identity.token import PREFIX, Token, read_token, write_token
from fedward.limits import CHUNK_BYTES
from fedward.messages import Chunk, Offer, Receipt, SealedKey
from fedward.pack import pack, unpack

NOW_S = 1_790_000_000.0


def trust_targets(folder: Path) -> Iterator[Target]:
    """`folder` is for keys and certificates; it is made."""
    authority = FileAuthority.make(folder / "authority", "authority", NOW_S)
    key = make_signing_key(folder / "north.key")
    request = parse_request(make_request(key, SITE))
    certificate = authority.sign(request, Role.CLIENT, NOW_S, 30)
    broker = authority.sign(request, Role.BROKER, NOW_S, 30)
    revoked = authority.revocations([certificate.serial], NOW_S)
    pems = [request.pem, certificate.pem, broker.pem, authority.certificate.pem]

    def use_certificate(pem: bytes) -> None:
        check_signed(parse_certificate(pem), request, authority.certificate, NOW_S, 30)

    config = (ConfigError,)
    yield Target("request", lambda rng: (changed_pem(request.pem, rng.choice(pems), rng),), parse_request, config)
    own = pems[1:]
    yield Target(
        "certificate",
        lambda rng: (changed_pem(rng.choice(own), rng.choice(pems), rng),),
        use_certificate,
        config,
        share=20,
    )
    yield Target(
        "description", lambda rng: (changed_pem(rng.choice(own), rng.choice(pems), rng),), describe_certificate, ()
    )
    yield Target(
        "revocations",
        lambda rng: (changed_pem(revoked, rng.choice(pems), rng),),
        lambda pem: check_revocations(pem, authority.certificate, [certificate.serial]),
        config,
    )
    yield _token_target(authority)
    handover = write_handover(REQUEST, "0" * 32, golden_messages()["enrolment"])
    yield Target(
        "handover",
        lambda rng: (changed_json(handover, handover, rng),),
        lambda content: read_handover(content, REQUEST),
        config,
        share=20,
    )
    yield _signature_target(folder / "north.key")
    yield _seal_target()
    yield _model_key_target()
    yield _sealed_chunk_target()


def _token_target(authority: FileAuthority) -> Target:
    token = Token(
        federation=FEDERATION,
        site=SITE,
        token_id="0" * 32,
        host="broker.example.org",
        port=443,
        authority=authority.certificate,
        coordinator="-".join(["0123"] * 16),
        secret=bytes(range(32)),
    )
    text = write_token(token)
    encoded = text.removeprefix(PREFIX)
    content = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))[:-4]

    def make(rng: Random) -> Input:
        if rng.random() < 0.3:
            return (changed(text.encode(), b"", rng).decode(errors="replace"),)
        inside = changed(content, content, rng)
        return (PREFIX + urlsafe_b64encode(inside + hashlib.sha256(inside).digest()[:4]).decode().rstrip("="),)

    return Target("token", make, read_token, (ConfigError,), share=25)


def _signature_target(key_file: Path) -> Target:
    """A signed receipt: nothing that was changed in what counts may pass, so what passes must be the receipt."""
    key = load_signing_key(key_file)
    receipt = unpack(golden_messages()["receipt"], Receipt)
    signed = pack(receipt, signer(key, FEDERATION, COORDINATOR, SITE, lambda: 7))
    check = checker(key.public_key(), FEDERATION, COORDINATOR, SITE)

    def use(data: bytes) -> None:
        assert unpack(data, Receipt, check) == receipt, "a changed message passed for a signed one"

    return Target("signature", lambda rng: (changed(signed, signed, rng),), use, share=8)


def _seal_target() -> Target:
    """A sealed payload and its public half: what is opened must be what was sealed."""
    key, payload = X25519PrivateKey.generate(), bytes(range(256)) * 4
    seal = new_seal(public_half(key), b"purpose", len(payload))
    sealed = b"".join(map(bytes, sealed_chunks(seal, payload)))

    def make(rng: Random) -> Input:
        public = changed(seal.public, bytes(32), rng) if rng.random() < 0.2 else seal.public
        return public[:32].ljust(32, b"\0"), changed(sealed, sealed, rng)

    def use(public: bytes, content: bytes) -> None:
        size = opened_size(len(content))
        assert known_seal(key, public, b"purpose", size).open(0, content) == payload, "opened as something else"

    return Target("seal", make, use, share=8)


def _model_key_target() -> Target:
    """A model key that is given, and what a site says that it receives with: what is opened must be what was given."""
    receiver, key = KeyReceiver(FEDERATION, SITE), ModelKey.new()
    packed = pack(key.sealed_to(receiver.public, bytes(8), FEDERATION, SITE))

    def use(data: bytes) -> None:
        message = unpack(data, SealedKey)
        check_receiver(message.seal)
        assert receiver.open(message) == key, "opened as another key"

    return Target("model key", lambda rng: (changed_body(packed, packed, rng),), use, share=8)


def _sealed_chunk_target() -> Target:
    """A chunk of a part that was sealed: what is opened must be the chunk."""
    key, chunk = ModelKey.new(), bytes(range(256)) * 4
    sealed = key.close(bytes(32), 3, chunk)

    def use(content: bytes) -> None:
        assert key.open(bytes(32), 3, content) == chunk, "opened as something else"

    return Target("sealed chunk", lambda rng: (changed(sealed, sealed, rng),), use, share=8)


class UploadMachine:
    """The uploads of three sites, in any order: offers, chunks, what is no chunk, restarts, ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._uploads = Uploads(folder)
        self._payloads = [bytes([n]) * size for n, size in enumerate((1, 900, 70_000, CHUNK_BYTES, CHUNK_BYTES + 9))]
        valid = unpack(golden_messages()["offer"], Offer)
        self._offers = [
            replace(valid, update_id=bytes([number]) * 32, manifest=manifest_of(payload))
            for number, payload in enumerate(self._payloads)
        ]

    def target(self) -> Target:
        return Target("uploads", self.make, self.use, share=2)

    def make(self, rng: Random) -> Input:
        """A step: what, which site, an offer, a chunk."""
        at = rng.randrange(len(self._offers))
        offer, payload = self._offers[at], self._payloads[at]
        index = rng.choice((0, 0, 1, 2, 8191))
        piece = payload[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
        if rng.random() < 0.3:
            piece = changed(piece, b"other", rng)
        if rng.random() < 0.2:
            manifest = replace(offer.manifest, size_bytes=rng.choice((1, CHUNK_BYTES, CHUNK_BYTES + 1, 2**31)))
            offer = replace(offer, manifest=manifest)
        elif rng.random() < 0.3:
            offer = replace(offer, payload=changed(payload[:1000], b"", rng)[:2000])
        what = rng.choices(("offer", "chunk", "sync", "restart", "abandon", "finish"), (8, 16, 1, 1, 1, 3))[0]
        return what, rng.choice(("north", "south", "west")), offer, Chunk(offer.update_id, index, piece)

    def use(self, what: str, site: str, offer: Offer, chunk: Chunk) -> None:
        """One step. What is complete must be the promised payload."""
        match what:
            case "offer":
                self._uploads.open(site, offer)
            case "chunk":
                self._uploads.add(site, chunk)
            case "sync":
                self._uploads.sync()
            case "restart":
                self._uploads.close()
                self._uploads = Uploads(self._folder)
                self._uploads.tidy({"north", "south"})
            case "abandon":
                self._uploads.abandon(site, offer.update_id)
            case _:
                self._finish(site, offer.update_id)

    def _finish(self, site: str, update_id: bytes) -> None:
        upload = self._uploads.find(site, update_id)
        if upload.is_complete():
            promised = {manifest_of(payload).digest for payload in self._payloads}
            place = self._folder.parent / "finished"
            assert upload.collected.finish(lambda _: place) in promised, "another payload than the promised one"
            self._uploads.end(upload)


def upload_target(folder: Path) -> Target:
    """`folder` is for the files of the uploads; it is made."""
    return UploadMachine(folder).target()
