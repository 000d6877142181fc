"""Keys, certificates, signatures and seals: what is accepted, and that nothing else is."""

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from fedward.errors import ConfigError, PeerError, RejectReason
from fedward.identity.certificates import (
    DAY_S,
    FileAuthority,
    Role,
    check_certificate,
    make_request,
    parse_certificate,
    parse_request,
)
from fedward.identity.keys import check_private, load_sealing_key, load_signing_key, make_sealing_key, make_signing_key
from fedward.identity.sealing import (
    SEGMENT_BYTES,
    TAG_BYTES,
    known_seal,
    new_seal,
    opened_size,
    public_half,
    sealed_chunks,
    sealed_size,
)
from fedward.identity.signing import Context, check_signature, sign
from fedward.limits import CHUNK_BYTES

NOW_S = 1_790_000_000.0
CONTEXT = Context("lungs", "north", "coordinator", "offer", 1, 7)


@pytest.fixture
def authority(tmp_path: Path) -> FileAuthority:
    return FileAuthority.make(tmp_path / "ca", "lungs authority", NOW_S)


def test_a_key_is_kept_where_only_its_owner_reads_it_and_is_never_replaced(tmp_path: Path) -> None:
    key = make_signing_key(tmp_path / "north.key")
    assert (tmp_path / "north.key").stat().st_mode & 0o777 == 0o600
    assert load_signing_key(tmp_path / "north.key").private_numbers() == key.private_numbers()
    with pytest.raises(ConfigError, match="no key is ever replaced"):
        make_signing_key(tmp_path / "north.key")


def test_a_key_that_others_can_read_is_refused_with_what_to_do(tmp_path: Path) -> None:
    make_sealing_key(tmp_path / "sealing.key")
    (tmp_path / "sealing.key").chmod(0o640)
    with pytest.raises(ConfigError, match=r"mode 640.*chmod 600"):
        load_sealing_key(tmp_path / "sealing.key")


def test_what_is_no_key_is_refused_without_a_word_of_its_content(tmp_path: Path) -> None:
    (tmp_path / "north.key").write_text("-----BEGIN PRIVATE KEY-----\nsecret-content\n-----END PRIVATE KEY-----\n")
    (tmp_path / "north.key").chmod(0o600)
    with pytest.raises(ConfigError, match="expected a private key as PEM") as refused:
        load_signing_key(tmp_path / "north.key")
    assert "secret-content" not in str(refused.value)


def test_keys_of_the_two_kinds_are_not_taken_for_each_other(tmp_path: Path) -> None:
    make_sealing_key(tmp_path / "sealing.key")
    make_signing_key(tmp_path / "signing.key")
    with pytest.raises(ConfigError, match="expected a P-256"):
        load_signing_key(tmp_path / "sealing.key")
    with pytest.raises(ConfigError, match="expected an X25519"):
        load_sealing_key(tmp_path / "signing.key")


def test_a_certificate_holds_for_its_name_and_its_time_under_its_authority(
    tmp_path: Path, authority: FileAuthority
) -> None:
    request = parse_request(make_request(make_signing_key(tmp_path / "north.key"), "north"))
    certificate = authority.sign(request, Role.CLIENT, NOW_S, days=30)
    assert certificate.fingerprint == request.fingerprint
    assert len(request.fingerprint.split("-")) == 16
    check_certificate(certificate, authority.certificate, "north", NOW_S - DAY_S / 2)  # a clock that is slow
    check_certificate(certificate, authority.certificate, "north", NOW_S + 29 * DAY_S)
    with pytest.raises(ConfigError, match=r"it is .* check this machine's clock, or renew it"):
        check_certificate(certificate, authority.certificate, "north", NOW_S + 31 * DAY_S)
    with pytest.raises(ConfigError, match="is for north, expected one for south"):
        check_certificate(certificate, authority.certificate, "south", NOW_S)


def test_a_certificate_of_another_authority_with_the_same_name_is_refused(
    tmp_path: Path, authority: FileAuthority
) -> None:
    rogue = FileAuthority.make(tmp_path / "rogue", "lungs authority", NOW_S)
    request = parse_request(make_request(make_signing_key(tmp_path / "north.key"), "north"))
    with pytest.raises(ConfigError, match="not signed by the federation's authority"):
        check_certificate(rogue.sign(request, Role.CLIENT, NOW_S, 30), authority.certificate, "north", NOW_S)


def test_a_request_that_another_key_has_signed_is_refused(tmp_path: Path) -> None:
    pem = make_request(make_signing_key(tmp_path / "north.key"), "north")
    request = x509.load_pem_x509_csr(pem)
    der = bytearray(request.public_bytes(Encoding.DER))
    der[-1] ^= 1
    with pytest.raises(ConfigError):
        parse_request(x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM))


def test_what_is_no_certificate_is_refused() -> None:
    for read in (parse_certificate, parse_request):
        with pytest.raises(ConfigError, match="expected a certificate"):
            read(b"-----BEGIN NOTHING-----")


def test_the_list_of_revoked_certificates_names_them(tmp_path: Path, authority: FileAuthority) -> None:
    request = parse_request(make_request(make_signing_key(tmp_path / "north.key"), "north"))
    certificate = authority.sign(request, Role.CLIENT, NOW_S, 30)
    revoked = x509.load_pem_x509_crl(authority.revocations([certificate.serial], NOW_S))
    assert [entry.serial_number for entry in revoked] == [certificate.serial]


@pytest.mark.parametrize(
    "change",
    [
        {"federation": "hearts"},
        {"sender": "south"},
        {"receiver": "north"},
        {"kind": "get"},
        {"protocol_version": 2},
        {"counter": 8},
    ],
)
def test_a_signature_holds_in_its_own_context_only(tmp_path: Path, change: dict[str, object]) -> None:
    key = make_signing_key(tmp_path / "north.key")
    signature = sign(key, CONTEXT, b"body")
    check_signature(key.public_key(), CONTEXT, b"body", signature)
    with pytest.raises(PeerError) as refused:
        check_signature(key.public_key(), replace(CONTEXT, **change), b"body", signature)  # type: ignore[arg-type]
    assert refused.value.reason is RejectReason.BAD_SIGNATURE


@pytest.mark.parametrize("signature", [b"", b"\x30\x00", bytes(72)])
def test_what_is_no_signature_is_refused(tmp_path: Path, signature: bytes) -> None:
    key = make_signing_key(tmp_path / "north.key")
    with pytest.raises(PeerError, match="has not signed"):
        check_signature(key.public_key(), CONTEXT, b"body", signature)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a file of root's, seen by somebody else")
@pytest.mark.parametrize(("mode", "owner", "accepted"), [(0o640, 0, True), (0o644, 0, False), (0o640, 65534, False)])
def test_a_secret_of_roots_may_be_its_groups_as_kubernetes_hands_it_out(mode: int, owner: int, accepted: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = make_sealing_key_in(Path(folder), mode, owner)
        os.seteuid(65534)
        try:
            if accepted:
                check_private(path)
            else:
                with pytest.raises(ConfigError, match="others can reach it"):
                    check_private(path)
        finally:
            os.seteuid(0)


def make_sealing_key_in(folder: Path, mode: int, owner: int) -> Path:
    folder.chmod(0o755)
    make_sealing_key(folder / "sealing.key")
    os.chown(folder / "sealing.key", owner, 65534)
    (folder / "sealing.key").chmod(mode)
    return folder / "sealing.key"


def test_no_two_contexts_are_signed_alike() -> None:
    a = replace(CONTEXT, federation="ab", sender="c").covers(b"")
    b = replace(CONTEXT, federation="a", sender="bc").covers(b"")
    assert a != b


def sealed_by(key: X25519PrivateKey, payload: bytes, purpose: bytes = b"update 1") -> tuple[bytes, list[bytes]]:
    """The fresh public half, and the sealed segments."""
    seal = new_seal(public_half(key), purpose, len(payload))
    return seal.public, [bytes(chunk) for chunk in sealed_chunks(seal, payload)]


def opened(key: X25519PrivateKey, public: bytes, pieces: list[bytes], purpose: bytes = b"update 1") -> bytes:
    seal = known_seal(key, public, purpose, opened_size(sum(map(len, pieces))))
    return b"".join(seal.open(number, piece) for number, piece in enumerate(pieces))


def is_not_opened(key: X25519PrivateKey, public: bytes, pieces: list[bytes], purpose: bytes = b"update 1") -> None:
    with pytest.raises(PeerError) as refused:
        opened(key, public, pieces, purpose)
    assert refused.value.reason is RejectReason.CANNOT_OPEN


@pytest.fixture
def sealing_key(tmp_path: Path) -> X25519PrivateKey:
    return make_sealing_key(tmp_path / "sealing.key")


@pytest.mark.parametrize("size", [1, SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 1, 3 * SEGMENT_BYTES])
def test_what_is_sealed_comes_out_again_chunk_by_chunk(sealing_key: X25519PrivateKey, size: int) -> None:
    payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
    public, pieces = sealed_by(sealing_key, payload)
    assert {len(piece) for piece in pieces[:-1]} <= {CHUNK_BYTES}
    assert sum(map(len, pieces)) == sealed_size(size)
    assert opened_size(sealed_size(size)) == size
    assert opened(sealing_key, public, pieces) == payload


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 2**31), bit=st.integers(0, 7))
def test_a_sealed_payload_with_one_bit_changed_is_not_opened(
    tmp_path_factory: pytest.TempPathFactory, at: int, bit: int
) -> None:
    key = make_sealing_key(tmp_path_factory.mktemp("keys") / "sealing.key")
    public, pieces = sealed_by(key, bytes(SEGMENT_BYTES + 5))
    changed = bytearray(b"".join(pieces))
    changed[at % len(changed)] ^= 1 << bit
    is_not_opened(key, public, [bytes(changed[:CHUNK_BYTES]), bytes(changed[CHUNK_BYTES:])])


def test_segments_are_not_dropped_repeated_exchanged_or_cut_off(sealing_key: X25519PrivateKey) -> None:
    public, [one, two, three] = sealed_by(sealing_key, bytes(3 * SEGMENT_BYTES))
    for pieces in ([one, three], [one, one, two, three], [two, one, three], [one, two], [two, three], [three]):
        is_not_opened(sealing_key, public, pieces)


def test_what_is_sealed_for_one_update_or_coordinator_is_not_opened_as_another(
    sealing_key: X25519PrivateKey, tmp_path: Path
) -> None:
    public, pieces = sealed_by(sealing_key, b"delta")
    is_not_opened(sealing_key, public, pieces, b"update 2")
    is_not_opened(make_sealing_key(tmp_path / "other.key"), public, pieces)
    is_not_opened(sealing_key, public_half(sealing_key), pieces)


@pytest.mark.parametrize("public", [bytes(32), b"\x01" + bytes(31)])
def test_a_key_that_would_make_the_secret_known_to_all_is_refused(sealing_key: X25519PrivateKey, public: bytes) -> None:
    is_not_opened(sealing_key, public, [bytes(20)])


@pytest.mark.parametrize("size", [0, 1, TAG_BYTES, CHUNK_BYTES + 1, CHUNK_BYTES + TAG_BYTES])
def test_a_size_that_nothing_sealed_has_is_refused(size: int) -> None:
    with pytest.raises(PeerError, match="no payload has"):
        opened_size(size)


def test_the_same_segment_is_sealed_to_the_same_bytes_again(sealing_key: X25519PrivateKey) -> None:
    """So that a chunk that is found on disk, opened, can be held against its digest."""
    public, [piece] = sealed_by(sealing_key, b"delta")
    assert known_seal(sealing_key, public, b"update 1", 5).close(0, b"delta") == piece
