"""A release in one file: what the publisher made is read, and nothing else."""

import base64
import io
import itertools
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_agent.appliance.config import ApplianceConfig
from edge_agent.appliance.preparing.bundle import IMAGE, NOTE, SBOM, SIGNATURE, Bundle, write_bundle
from edge_agent.appliance.preparing.publisher import (
    from_registry,
    key_of,
    make_release_key,
    sign_digest,
    signed_digest,
)
from fedward.errors import ConfigError, IntegrityError
from fedward.identity.keys import load_signing_key, make_signing_key
from fedward.identity.release import PublisherKey, check_release, read_release_key

IMAGE_BYTES = bytes(range(256)) * 5
SBOM_BYTES = b'{"bomFormat": "CycloneDX"}'
DIGEST = "registry.example.org/fedward-agent@sha256:" + "ab" * 32


@dataclass(frozen=True)
class Published:
    """A bundle, its bytes, and the keys."""

    path: Path
    content: bytes
    key: PublisherKey
    private: Path


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    folder = tmp_path_factory.mktemp("publisher")
    private = folder / "publisher.key"
    key = make_signing_key(private)
    (folder / IMAGE).write_bytes(IMAGE_BYTES)
    path = folder / "fedward.bundle"
    write_bundle(path, folder / IMAGE, SBOM_BYTES, ("1.0", "fedward-agent:1.0"), key)
    return Published(path, path.read_bytes(), key.public_key(), private)


def test_a_bundle_is_read_as_it_was_made(published: Published) -> None:
    bundle = Bundle(io.BytesIO(published.content))
    note = bundle.verify(published.key)
    assert (note.version, note.image) == ("1.0", "fedward-agent:1.0")
    assert b"".join(bundle.pieces(IMAGE)) == IMAGE_BYTES


def test_a_bundle_with_any_one_byte_changed_is_refused(published: Published) -> None:
    """Of every byte its lowest and its highest bit: also of padding, of the tar's headers and of its end."""
    accepted = []
    for place, bit in itertools.product(range(len(published.content)), (1, 128)):
        changed = bytearray(published.content)
        changed[place] ^= bit
        try:
            Bundle(io.BytesIO(bytes(changed))).verify(published.key)
            accepted.append(place)
        except IntegrityError:
            pass
    assert not accepted


def test_an_image_that_is_exchanged_after_it_was_proven_never_comes_whole(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.appliance.preparing.bundle.READ_BYTES", 100)
    file = io.BytesIO(published.content)
    bundle = Bundle(file)
    part = bundle.verify(published.key).parts[IMAGE]
    assert b"".join(bundle.proven(IMAGE, part)) == IMAGE_BYTES
    file.getbuffer()[published.content.index(IMAGE_BYTES)] ^= 1
    got = []
    with pytest.raises(IntegrityError, match=f"{IMAGE} is not what the publisher has signed"):
        got.extend(bundle.proven(IMAGE, part))
    assert len(b"".join(got)) < len(IMAGE_BYTES)


@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content + b"\0", lambda _: b""])
def test_a_bundle_that_is_cut_or_longer_is_refused(published: Published, change: object) -> None:
    with pytest.raises(IntegrityError):
        Bundle(io.BytesIO(change(published.content))).verify(published.key)  # type: ignore[operator]


def test_a_bundle_of_another_publisher_is_refused(published: Published, tmp_path: Path) -> None:
    other = make_signing_key(tmp_path / "other.key").public_key()
    with pytest.raises(IntegrityError, match="not signed by the publisher whose key this is"):
        Bundle(io.BytesIO(published.content)).verify(other)


def members_of(path: Path) -> dict[str, tuple[bytes, dict[str, object]]]:
    """Content and header of each member, by name."""
    with tarfile.open(path) as archive:
        return {each.name: (_content(archive, each), each.get_info()) for each in archive}


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None
    return file.read()


def test_two_bundles_of_the_same_image_differ_in_the_signature_alone(published: Published, tmp_path: Path) -> None:
    (tmp_path / IMAGE).write_bytes(IMAGE_BYTES)
    key = load_signing_key(published.private)
    write_bundle(tmp_path / "again", tmp_path / IMAGE, SBOM_BYTES, ("1.0", "fedward-agent:1.0"), key)
    first, second = members_of(published.path), members_of(tmp_path / "again")
    assert list(first) == [SIGNATURE, NOTE, SBOM, IMAGE]
    del first[SIGNATURE], second[SIGNATURE]
    assert first == second


def test_openssl_verifies_the_signature_of_a_release(published: Published, tmp_path: Path) -> None:
    members = members_of(published.path)
    (tmp_path / NOTE).write_bytes(members[NOTE][0])
    (tmp_path / SIGNATURE).write_bytes(base64.b64decode(members[SIGNATURE][0]))
    public = tmp_path / "publisher.pub"
    subprocess.run(["openssl", "ec", "-in", published.private, "-pubout", "-out", public], check=True)
    verify = ["openssl", "dgst", "-sha256", "-verify", public, "-signature", tmp_path / SIGNATURE]
    assert subprocess.run([*verify, tmp_path / NOTE], check=False).returncode == 0
    (tmp_path / NOTE).write_bytes((tmp_path / NOTE).read_bytes() + b" ")
    assert subprocess.run([*verify, tmp_path / NOTE], check=False).returncode != 0


def test_an_image_in_a_registry_is_signed_by_its_digest_whatever_mirror_has_it(published: Published) -> None:
    signature = sign_digest(DIGEST, published.private)
    mirror = "mirror.hospital/x/fedward-agent@" + DIGEST.partition("@")[2]
    check_release(published.key, signed_digest(mirror), signature)
    with pytest.raises(IntegrityError):
        check_release(published.key, signed_digest(DIGEST[:-1] + "c"), signature)


def config_of(**settings: object) -> ApplianceConfig:
    return ApplianceConfig.model_validate({"config_folder": "/srv"} | settings)


class NoEngine:
    """Nothing may be asked of it."""


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        ({}, ConfigError, "image is missing"),
        ({"image": DIGEST}, ConfigError, "image_signature is missing"),
        ({"image": DIGEST, "image_signature": "AAAA"}, IntegrityError, "not signed by the publisher"),
        ({"image": DIGEST, "image_signature": "no base64"}, IntegrityError, "not signed by the publisher"),
    ],
)
def test_an_unsigned_image_is_refused_before_the_engine_hears_of_it(
    published: Published, config: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        from_registry(config_of(**config), NoEngine(), published.key)  # type: ignore[arg-type]


def test_without_a_publishers_key_nothing_is_believed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set release_key in"):
        key_of(config_of(), None)
    with pytest.raises(ConfigError, match="not found"):
        key_of(config_of(), tmp_path / "none.pub")
    with pytest.raises(ConfigError, match="expected a P-256 public key"):
        read_release_key(b"-----BEGIN NOTHING-----")
    with pytest.raises(ConfigError, match="expected a P-256 public key"):
        read_release_key(b"MFkw")


def test_a_publishers_new_keys_sign_and_are_known_as_a_file_and_as_a_line(tmp_path: Path) -> None:
    private, public = tmp_path / "release.key", tmp_path / "release.pub"
    line = make_release_key(private, public)
    signature = sign_digest(DIGEST, private)
    for settings in ({"release_key": line}, {"release_key_file": public}):
        check_release(key_of(config_of(**settings), None), signed_digest(DIGEST), signature)
    assert private.stat().st_mode & 0o077 == 0
    before = public.read_bytes()
    with pytest.raises(ConfigError, match="there already"):
        make_release_key(private, public)
    private.unlink()
    with pytest.raises(ConfigError, match="there already"):
        make_release_key(private, public)
    assert public.read_bytes() == before
