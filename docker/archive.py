"""Makes an image's archive the same bytes whenever it is built of the same files.

`docker save` gives an archive with the times of this build in it. Here every file gets the same time, the order of
files and what names the builder go, and all digests are computed anew. Files of two releases that are the same have the
same layer then: who upgrades fetches what changed. The archive that comes out is one of Docker (`docker load`) and one
of OCI at once, so the image has a manifest, whose digest names it in every registry.
"""

import hashlib
import io
import json
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
FILES_AT_S = 315_532_800
"""1980: the time of every file. The image's own is that of its release."""

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
BUILDERS = ("container", "container_config", "docker_version", "moby.buildkit.buildinfo.v1", "moby.buildkit.cache.v0")
"""Keys of a configuration that say which machine built it."""


@dataclass(frozen=True)
class Blob:
    """A part of an image: its digest, and where its bytes are."""

    path: Path
    digest: str
    size_bytes: int

    @classmethod
    def of(cls, path: Path) -> "Blob":
        """The file at `path`."""
        with path.open("rb") as file:
            return cls(path, hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)

    @property
    def name(self) -> str:
        """In the archive."""
        return f"blobs/sha256/{self.digest}"

    def as_json(self, media_type: str) -> dict[str, Any]:
        """How a manifest refers to it."""
        return {"mediaType": media_type, "digest": f"sha256:{self.digest}", "size": self.size_bytes}


@dataclass(frozen=True)
class Archived:
    """What an archive holds."""

    manifest_digest: str
    """Names the image in a registry: NAME@sha256:..."""
    image_id: str
    """Names it at a Docker daemon; the digest of its configuration."""


def rewrite(saved: Path, out: Path, tag: str, created_s: int, scratch: Path) -> Archived:
    """Write the image of `saved`, which `docker save` made, to `out`, tagged `tag`, as one made at `created_s`."""
    with tarfile.open(saved) as opened:
        entry = json.load(_member(opened, "manifest.json"))[0]
        config = json.load(_member(opened, entry["Config"]))
        layers = [_layer(_member(opened, name), scratch / f"layer{n}") for n, name in enumerate(entry["Layers"])]
    settled = _write(scratch / "config", settled_config(config, [layer.digest for layer in layers], created_s))
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": settled.as_json(CONFIG_TYPE),
        "layers": [layer.as_json(LAYER_TYPE) for layer in layers],
    }
    described = _write(scratch / "manifest", manifest)
    named = described.as_json(MANIFEST_TYPE) | {"annotations": {"org.opencontainers.image.ref.name": tag}}
    texts = {
        "index.json": {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [named]},
        "manifest.json": [{"Config": settled.name, "RepoTags": [tag], "Layers": [layer.name for layer in layers]}],
        "oci-layout": {"imageLayoutVersion": "1.0.0"},
    }
    with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as archive:
        blobs = {blob.name: blob for blob in (settled, described, *layers)}
        for name in sorted(blobs):
            with blobs[name].path.open("rb") as file:
                archive.addfile(_entry(name, blobs[name].size_bytes), file)
        for name, content in sorted(texts.items()):
            encoded = _encode(content)
            archive.addfile(_entry(name, len(encoded)), io.BytesIO(encoded))
    return Archived(f"sha256:{described.digest}", f"sha256:{settled.digest}")


def settled_config(config: dict[str, Any], layers: list[str], created_s: int) -> dict[str, Any]:
    """An image's configuration with these layers, and nothing of the machine or the moment that built it."""
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(created_s))
    kept = {key: value for key, value in config.items() if key not in BUILDERS}
    kept["config"] = {key: value for key, value in kept["config"].items() if key not in ("Hostname", "Image")}
    kept["created"] = created
    kept["rootfs"] = {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in layers]}
    kept["history"] = [step | {"created": created} for step in kept.get("history", [])]
    return kept


def _layer(packed: IO[bytes], out: Path) -> Blob:
    """A layer whose members are in order of their paths, hard links behind what they link to."""
    with tarfile.open(fileobj=packed) as source, tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as target:
        for member in sorted(source.getmembers(), key=lambda member: (member.islnk(), member.name)):
            content = source.extractfile(member) if member.isreg() else None
            member.mtime, member.uname, member.gname = FILES_AT_S, "", ""
            # Times beyond whole seconds are here, too; rights beyond the mode stay.
            member.pax_headers = {key: text for key, text in member.pax_headers.items() if key.startswith("SCHILY")}
            target.addfile(member, content)
    return Blob.of(out)


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    file = archive.extractfile(name)
    if file is None:
        raise ValueError(f"{name}: no file in {archive.name!r}")
    return file


def _entry(name: str, size_bytes: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size_bytes, FILES_AT_S, 0o644
    return member


def _write(path: Path, content: object) -> Blob:
    path.write_bytes(_encode(content))
    return Blob.of(path)


def _encode(content: object) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
