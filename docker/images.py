"""Builds the images: `make images`. docker/README.md says what they are and how to check one.

Everything that an image holds is fetched before its build, by hash, and the build has no network. What comes out, in
build/images: an archive for each image, a list of its contents (CycloneDX), and `images.json` with all digests, which
is what docker/release.py signs.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from archive import FILES_AT_S, Archived, rewrite

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "build" / "images"
WHEELS = ROOT / "build" / "wheels"
CONTEXTS = ROOT / "build" / "contexts"
LABEL = "org.opencontainers.image"
BASE = "fedward-base:bookworm"
PLATFORMS = [*(f"manylinux_2_{minor}_x86_64" for minor in range(5, 37)), "manylinux2014_x86_64", "linux_x86_64", "any"]
"""What Debian 12's C library runs, whatever this machine has."""


@dataclass(frozen=True)
class Image:
    """What goes into an image."""

    name: str
    """The tag goes behind it: the version, or with a variant version-variant."""
    dockerfile: str
    lock: str
    sides: tuple[str, ...]
    """Of this repository's packages; the others are not there."""
    title: str
    variant: str = ""

    @property
    def label(self) -> str:
        """A short name, for files and for this program's arguments."""
        return f"{self.name}-{self.variant}" if self.variant else self.name

    def tag(self, version: str) -> str:
        """Name and tag."""
        return f"fedward-{self.name}:{version}{f'-{self.variant}' if self.variant else ''}"


ALL_SIDES = ("fedward", "edge_agent", "coordinator", "sandbox")
IMAGES = {
    image.label: image
    for image in (
        Image("agent", "agent.Dockerfile", "agent-cpu", ("fedward", "edge_agent"), "Fedward edge agent", "cpu"),
        Image("agent", "agent.Dockerfile", "agent-cuda", ("fedward", "edge_agent"), "Fedward edge agent", "cuda"),
        Image(
            "coordinator", "coordinator.Dockerfile", "coordinator", ("fedward", "coordinator"), "Fedward coordinator"
        ),
        Image("evaluation", "evaluation/Dockerfile", "evaluation", ALL_SIDES, "Fedward evaluation, see compose.yaml"),
    )
}
DEFAULT = ("agent-cpu", "coordinator", "evaluation", "broker", "proxy", "prometheus")
STAYS_HERE = frozenset({"evaluation"})
"""Built for this machine's daemon on one of the others, and no part of a release."""

AT_ONCE = 4
"""Images that are made at the same time: each waits for a mirror, the daemon or a disk most of the time."""

ONE_PRUNES = threading.Lock()
"""The daemon refuses to prune twice at once."""

SYSTEMS = {
    "broker": "mosquitto of Debian",
    "proxy": "tinyproxy of Debian, as a hospital's proxy in the evaluation",
    "prometheus": "Prometheus of Debian",
}


@dataclass(frozen=True)
class Release:
    """What all images of a build have in common."""

    version: str
    revision: str
    created_s: int
    base: str
    docker: str

    def labels(self, title: str, tag: str) -> dict[str, str]:
        """What every image says of itself."""
        told = {"title": title, "version": self.version, "revision": self.revision, "ref.name": tag}
        return {f"{LABEL}.{key}": text for key, text in told.items()}

    @classmethod
    def of(cls, base: str, revision: str | None) -> "Release":
        """This checkout. `revision` goes before what git says, and SOURCE_DATE_EPOCH before the time of the commit."""
        changed = "" if revision or not _output("git", "status", "--porcelain") else "-changed"
        revision = revision or _output("git", "rev-parse", "HEAD") + changed
        created_s = int(os.environ.get("SOURCE_DATE_EPOCH") or _output("git", "log", "-1", "--format=%ct"))
        [version] = re.findall(r'^__version__ = "(.+)"$', (ROOT / "fedward" / "__init__.py").read_text(), re.MULTILINE)
        return cls(version, revision, created_s, base, docker_that_builds())


def docker_that_builds() -> str:
    """A client with BuildKit: DOCKER of the environment, else the first that has it."""
    candidates = [os.environ["DOCKER"]] if "DOCKER" in os.environ else [shutil.which("docker"), "/usr/bin/docker"]
    for found in filter(None, candidates):
        version = _output(found, "version", "--format", "{{.Client.Version}}")
        has_buildx = subprocess.run([found, "buildx", "version"], capture_output=True, check=False).returncode == 0
        if has_buildx or int(version.split(".")[0]) < 23:  # older clients speak BuildKit themselves
            return found
    raise SystemExit(f"no Docker client with BuildKit among {candidates}: install docker-buildx, or set DOCKER")


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.strip()


def fetch(lock: str) -> Path:
    """The folder of all files that a lock names, each proven by its hash. Fetched once for each content of the lock."""
    path = ROOT / "docker" / "locks" / f"{lock}.txt"
    folder = WHEELS / f"{lock}-{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        target = ["--python-version", "3.11", "--implementation", "cp"]
        target += [part for abi in ("cp311", "abi3", "none") for part in ("--abi", abi)]
        target += [part for platform in PLATFORMS for part in ("--platform", platform)]
        command = [sys.executable, "-m", "pip", "download", "-qq", "--require-hashes", "--no-deps"]
        command += ["--only-binary", ":all:", *target, "--dest", scratch, "--requirement", str(path)]
        subprocess.run(command, check=True)
        Path(scratch).rename(folder)
        Path(scratch).mkdir()  # for the context manager to delete
    return folder


def fetch_all(locks: Iterable[str]) -> None:
    """Fetch the files of these locks, one after the other: several images share some."""
    for lock in locks:
        fetch(lock)


def context(image: Image) -> Path:
    """A folder with all that the build of an image reads."""
    folder = CONTEXTS / image.label
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "wheels").mkdir(parents=True)
    for wheel in {path.name: path for lock in ("build", image.lock) for path in fetch(lock).iterdir()}.values():
        os.link(wheel, folder / "wheels" / wheel.name)
    [installer] = fetch("build").glob("pip-*.whl")
    os.link(installer, folder / "pip.whl")
    shutil.copy(ROOT / "docker" / "locks" / f"{image.lock}.txt", folder / "lock.txt")
    shutil.copy(ROOT / "docker" / "install.py", folder)
    for extra in sorted((ROOT / "docker" / "evaluation").glob("*.py")) if image.name == "evaluation" else ():
        shutil.copy(extra, folder)
    for side in image.sides:
        shutil.copytree(ROOT / side, folder / "source" / side, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder / "source")
    return folder


def build(image: Image, release: Release, *, use_cache: bool = True) -> None:
    """Build an image without a network."""
    tag = image.tag(release.version)
    command = [release.docker, "build", "--quiet", "--network", "none", "--tag", tag]
    command += ["--file", str(ROOT / "docker" / image.dockerfile), "--build-arg", f"BASE={release.base}"]
    if image.name == "evaluation":
        command += ["--build-arg", f"AGENT={IMAGES['agent-cpu'].tag(release.version)}"]
    labels = release.labels(image.title, tag) | {f"{LABEL}.base.name": release.base}
    command += [part for key, text in labels.items() for part in ("--label", f"{key}={text}")]
    command += ["--label", f"org.fedward.variant={image.variant}"] if image.variant else []
    command += [] if use_cache else ["--no-cache"]
    subprocess.run([*command, str(context(image))], check=True, env=os.environ | {"DOCKER_BUILDKIT": "1"}, stdout=2)


def build_system(name: str, tag: str, labels: Mapping[str, str]) -> None:
    """Make the image of a few Debian packages."""
    command = [sys.executable, str(ROOT / "docker" / "rootfs.py"), name, tag]
    subprocess.run([*command, *(f"--label={key}={text}" for key, text in labels.items())], check=True)


def archive(tag: str, out: Path, release: Release) -> Archived:
    """Save an image so that its bytes depend on nothing but what is in it, and give the daemon that one."""
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        saved = Path(scratch, "saved.tar")
        subprocess.run([release.docker, "save", "--output", str(saved), tag], check=True)
        done = rewrite(saved, out, tag, release.created_s, Path(scratch))
    subprocess.run([release.docker, "load", "--quiet", "--input", str(out)], check=True, stdout=subprocess.DEVNULL)
    forget(tag, release)  # the one that was just built among them
    return done


def forget(tag: str, release: Release) -> None:
    """Delete the images that had this name before and have none any more."""
    nameless = ["image", "prune", "--force", "--filter", f"label={LABEL}.ref.name={tag}"]
    with ONE_PRUNES:
        subprocess.run([release.docker, *nameless], check=True, stdout=subprocess.DEVNULL)


@dataclass(frozen=True)
class Options:
    """How images are made."""

    release: Release
    out: Path
    syft: Path | None
    use_cache: bool


def finish(label: str, tag: str, options: Options) -> Mapping[str, str]:
    """Write what there is to have of an image that was built; its entry in images.json."""
    packed = options.out / f"{label}.tar"
    made = archive(tag, packed, options.release)
    entry = {"tag": tag, "digest": made.manifest_digest, "image_id": made.image_id}
    entry |= {"archive": packed.name, "archive_sha256": digest(packed)}
    if options.syft:
        contents = options.out / f"{label}.cdx.json"
        contents.write_text(contents_of(packed, label, made, options.syft))
        entry |= {"contents": contents.name, "contents_sha256": digest(contents)}
    print(f"{tag} {entry['digest']}", flush=True)
    return entry


def contents_of(packed: Path, label: str, made: Archived, syft: Path) -> str:
    """What an image consists of, as CycloneDX: Debian's and Python's packages with their versions."""
    listed = json.loads(_output(str(syft), "scan", "--quiet", f"docker-archive:{packed}", "--output", "cyclonedx-json"))
    listed["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, made.manifest_digest)}"
    listed["metadata"].pop("timestamp", None)
    listed["metadata"]["component"] |= {"name": label, "version": made.manifest_digest}
    return json.dumps(listed, indent=1, sort_keys=True) + "\n"


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make(labels: Sequence[str], options: Options, *, base: bool) -> dict[str, Mapping[str, str]]:
    """Make these images, several at once, with `base` also what they are built on; their entries in images.json."""
    images = [label for label in labels if label in IMAGES]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        first = [pool.submit(fetch_all, ["build", *(IMAGES[label].lock for label in images)])] if images else []
        first += [pool.submit(make_base, options)] if base else []
        steps = {label: pool.submit(make_system, label, options) for label in labels if label in SYSTEMS}
        for step in first:
            step.result()
        steps |= {label: pool.submit(make_image, label, options) for label in images if label not in STAYS_HERE}
        entries = {label: steps[label].result() for label in labels if label in steps}
    for label in STAYS_HERE.intersection(images):  # built on one of the others
        build(IMAGES[label], options.release, use_cache=options.use_cache)
        forget(IMAGES[label].tag(options.release.version), options.release)
        print(IMAGES[label].tag(options.release.version), flush=True)
    return entries


def make_base(options: Options) -> None:
    """The base again is the same image: what was built on it is found in the cache."""
    build_system("python", BASE, {f"{LABEL}.ref.name": BASE})
    packed = options.out / "base.tar"
    archive(BASE, packed, replace(options.release, created_s=FILES_AT_S))
    packed.unlink()


def make_system(label: str, options: Options) -> Mapping[str, str]:
    """Make one of SYSTEMS; its entry."""
    tag = f"fedward-{label}:{options.release.version}"
    build_system(label, tag, options.release.labels(SYSTEMS[label], tag))
    return finish(label, tag, options)


def make_image(label: str, options: Options) -> Mapping[str, str]:
    """Make one of IMAGES; its entry."""
    build(IMAGES[label], options.release, use_cache=options.use_cache)
    return finish(label, IMAGES[label].tag(options.release.version), options)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [*IMAGES, *SYSTEMS]
    parser.add_argument(
        "images", nargs="*", metavar="IMAGE", help=f"of {' '.join(known)}; default: {' '.join(DEFAULT)}"
    )
    parser.add_argument("--base", help=f"image to build on, by digest; without it {BASE} is made of Debian packages")
    parser.add_argument("--syft", type=Path, help="writes the lists of contents; without it there are none")
    parser.add_argument("--out", type=Path, default=OUT, help=f"folder to write to; default: {OUT.relative_to(ROOT)}")
    parser.add_argument("--revision", help="of the source, for the label; default: what git says")
    parser.add_argument("--no-cache", action="store_true", help="use nothing of an earlier build")
    arguments = parser.parse_args()
    if unknown := set(arguments.images) - set(known):
        parser.error(f"unknown: {' '.join(sorted(unknown))}; known: {' '.join(known)}")
    release = Release.of(arguments.base or BASE, arguments.revision)
    arguments.out.mkdir(parents=True, exist_ok=True)
    options = Options(release, arguments.out, arguments.syft, not arguments.no_cache)
    entries = make(arguments.images or DEFAULT, options, base=not arguments.base)
    head = {"version": release.version, "revision": release.revision, "created_s": release.created_s}
    document = json.dumps(head | {"images": entries}, indent=1, sort_keys=True) + "\n"
    (arguments.out / "images.json").write_text(document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
