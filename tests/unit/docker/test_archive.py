"""That an image's archive depends on what is in it, and on nothing else."""

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from archive import rewrite

EPOCH_S = 1_700_000_000
TAG = "ward:1"
FILES = (("etc/a", b"one"), ("etc/b", b"two"), ("etc/c", b"three"))


def layer(files: Sequence[tuple[str, bytes]], mtime: float, owner: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as out:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.uname = len(content), mtime, owner
            out.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("etc/0")  # goes before what it links to
        link.type, link.linkname, link.mtime = tarfile.LNKTYPE, "etc/c", mtime
        out.addfile(link)
    return packed.getvalue()


def saved(path: Path, content: bytes, created: str, host: str) -> Path:
    """An archive as `docker save` writes it."""
    config = {
        "created": created,
        "container_config": {"Hostname": host},
        "config": {"Hostname": host, "User": "10001"},
        "history": [{"created": created, "created_by": "COPY"}],
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(content).hexdigest()]},
    }
    manifest = [{"Config": "c.json", "RepoTags": [TAG], "Layers": ["l/layer.tar"]}]
    parts = {"c.json": json.dumps(config), "manifest.json": json.dumps(manifest)}
    with tarfile.open(path, "w") as out:
        for name, encoded in {**{name: text.encode() for name, text in parts.items()}, "l/layer.tar": content}.items():
            member = tarfile.TarInfo(name)
            member.size = len(encoded)
            out.addfile(member, io.BytesIO(encoded))
    return path


def rewritten(folder: Path, content: bytes, created: str, host: str) -> tuple[bytes, str]:
    folder.mkdir()
    source = saved(folder / "saved.tar", content, created, host)
    done = rewrite(source, folder / "out.tar", TAG, EPOCH_S, folder)
    return (folder / "out.tar").read_bytes(), done.image_id


def test_the_same_files_give_the_same_bytes_whoever_builds_them_and_when(tmp_path: Path) -> None:
    one = rewritten(tmp_path / "a", layer(FILES, 1.5, "anna"), "2026-01-01T00:00:00Z", "north")
    other = rewritten(tmp_path / "b", layer(FILES[::-1], 2e9, "bert"), "2027-02-02T00:00:00Z", "south")
    assert one == other


def test_another_file_gives_another_image(tmp_path: Path) -> None:
    one = rewritten(tmp_path / "a", layer(FILES, 0, ""), "2026-01-01T00:00:00Z", "north")
    other = rewritten(tmp_path / "b", layer((*FILES[:2], ("etc/c", b"four")), 0, ""), "2026-01-01T00:00:00Z", "north")
    assert one[1] != other[1]


def test_every_digest_in_the_archive_is_that_of_what_it_names(tmp_path: Path) -> None:
    packed, image_id = rewritten(tmp_path / "a", layer(FILES, 0, ""), "2026-01-01T00:00:00Z", "north")
    with tarfile.open(fileobj=io.BytesIO(packed)) as opened:
        content = {name: opened.extractfile(name).read() for name in opened.getnames()}  # type: ignore[union-attr]
    for name, blob in content.items():
        if name.startswith("blobs/sha256/"):
            assert hashlib.sha256(blob).hexdigest() == name.removeprefix("blobs/sha256/")
    [entry] = json.loads(content["manifest.json"])
    [described] = json.loads(content["index.json"])["manifests"]
    manifest = json.loads(content["blobs/sha256/" + described["digest"].removeprefix("sha256:")])
    assert entry["Config"] == "blobs/sha256/" + image_id.removeprefix("sha256:")
    assert manifest["config"]["digest"] == image_id
    assert json.loads(content[entry["Config"]])["rootfs"]["diff_ids"] == [manifest["layers"][0]["digest"]]


def test_a_hard_link_stands_behind_what_it_links_to(tmp_path: Path) -> None:
    packed, _ = rewritten(tmp_path / "a", layer(FILES, 0, ""), "2026-01-01T00:00:00Z", "north")
    with tarfile.open(fileobj=io.BytesIO(packed)) as opened:
        [entry] = json.load(opened.extractfile("manifest.json"))  # type: ignore[arg-type]
        with tarfile.open(fileobj=opened.extractfile(entry["Layers"][0])) as inner:
            assert inner.getnames() == ["etc/a", "etc/b", "etc/c", "etc/0"]
            assert inner.extractfile("etc/0").read() == b"three"  # type: ignore[union-attr]
