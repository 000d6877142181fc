"""A container's file system of a few Debian packages: their files, and no shell, package manager or compiler.

    python docker/rootfs.py python fedward-base:bookworm

makes the image `fedward-base:bookworm` of the packages that SYSTEMS names. It needs mmdebstrap, a Debian mirror (apt's
own settings say which) and a Docker daemon, and no registry. No script of a package runs. The same packages give the
same bytes.
"""

import argparse
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from archive import FILES_AT_S

USER_ID = 10001
"""Everything runs as this user, in every image."""

SUITE = "bookworm"
DEBS = "var/cache/apt/archives/"
PROGRAM_FOLDERS = ("bin/", "sbin/", "usr/bin/", "usr/sbin/", "usr/games/", "usr/local/", "usr/libexec/")
LEFT_OUT = (
    "boot/", "dev/", "etc/alternatives/", "etc/apt/", "etc/cron", "etc/debconf.conf", "etc/default/", "etc/dpkg/",
    "etc/adduser.conf", "etc/deluser.conf", "etc/fstab", "etc/init", "etc/logrotate.d/", "etc/mtab", "etc/pam.d/",
    "etc/perl/", "etc/resolv.conf", "etc/rmt", "etc/security/", "lib/systemd/", "lib/udev/",
    "usr/lib/binfmt.d/", "usr/lib/dpkg/", "usr/lib/mime/", "usr/lib/systemd/", "usr/lib/tmpfiles.d/", "usr/lib/udev/",
    "usr/lib/x86_64-linux-gnu/gconv/", "usr/lib/x86_64-linux-gnu/perl", "usr/share/apport/",
    "usr/share/bash-completion/", "usr/share/binfmts/", "usr/share/bug/", "usr/share/debconf/", "usr/share/doc-base/",
    "usr/share/dpkg/", "usr/share/gdb/", "usr/share/info/", "usr/share/lintian/", "usr/share/locale/",
    "usr/share/man/", "usr/share/menu/", "usr/share/perl", "usr/share/pixmaps/", "usr/share/polkit",
    "usr/share/zsh/", "var/",
)  # fmt: skip
"""Beginnings of paths that no program here reads. Of `usr/share/doc/` the licences stay."""

FILES = {
    "etc/passwd": f"root:x:0:0:root:/:/none\nfedward:x:{USER_ID}:{USER_ID}:fedward:/tmp:/none\n",
    "etc/group": f"root:x:0:\nfedward:x:{USER_ID}:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/os-release": 'ID=debian\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n',
}


@dataclass(frozen=True)
class System:
    """What an image holds, and how it starts."""

    packages: tuple[str, ...]
    programs: tuple[str, ...]
    """The only ones that stay of the folders of programs."""
    folders: tuple[str, ...] = ()
    """The user's own: what is mounted there as a new volume is the user's, too."""
    links: Mapping[str, str] | None = None
    changes: tuple[str, ...] = ()
    """Instructions of a Dockerfile for `docker import`."""


SYSTEMS = {
    "python": System(
        # tzdata: a policy's hours are those of a time zone. libstdc++6 and zlib1g: torch, numpy.
        packages=("python3.11-minimal", "libpython3.11-stdlib", "libstdc++6", "zlib1g", "tzdata"),
        programs=("usr/bin/python3.11", "usr/bin/python3"),
        links={"usr/bin/python3": "python3.11"},
        changes=("CMD python3",),
    ),
    "broker": System(
        packages=("mosquitto",),
        programs=("usr/sbin/mosquitto",),
        folders=("var/lib/mosquitto",),
        changes=(
            f"USER {USER_ID}:{USER_ID}",
            'ENTRYPOINT ["/usr/sbin/mosquitto"]',
            'CMD ["-c", "/var/lib/mosquitto/mosquitto.conf"]',
            "EXPOSE 8883",
        ),
    ),
    "proxy": System(
        packages=("tinyproxy-bin",),
        programs=("usr/bin/tinyproxy",),
        changes=(
            f"USER {USER_ID}:{USER_ID}",
            'ENTRYPOINT ["/usr/bin/tinyproxy", "-d"]',
            'CMD ["-c", "/etc/tinyproxy/tinyproxy.conf"]',
            "EXPOSE 3128",
        ),
    ),
    "prometheus": System(
        packages=("prometheus",),
        programs=("usr/bin/prometheus",),
        folders=("var/lib/prometheus",),
        changes=(
            f"USER {USER_ID}:{USER_ID}",
            'ENTRYPOINT ["/usr/bin/prometheus"]',
            'CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/var/lib/prometheus"]',
            "EXPOSE 9090",
        ),
    ),
}


def stays(path: str, programs: Iterable[str]) -> bool:
    """Whether a file of a package, by its path without the leading slash, belongs into the image."""
    if path.startswith(PROGRAM_FOLDERS):
        return path in programs
    if path.startswith("usr/share/doc/"):
        return path.endswith("/copyright")
    return not path.startswith(LEFT_OUT)


Member = tuple[tarfile.TarInfo, bytes | None]


def members(packed: tarfile.TarFile, system: System) -> Iterator[Member]:
    """What the image's tar holds, by path: the packages' files that stay, their names and versions, and our own."""
    found = dict(kept(packed, system))
    for name, text in FILES.items():
        found[name] = text_file(name, text.encode())
    for name, target in (system.links or {}).items():
        link = tarfile.TarInfo(name)
        link.type, link.linkname = tarfile.SYMTYPE, target
        found[name] = (link, None)
    found["tmp"] = folder("tmp", 0o1777)
    for name in system.folders:
        found[name] = folder(name, 0o700, USER_ID)
    for path in list(found):
        for parent in map(str, list(Path(path).parents)[:-1]):
            found.setdefault(parent, folder(parent, 0o755))
    for path in sorted(found, key=lambda path: (found[path][0].islnk(), path)):  # a hard link after its file
        yield found[path]


def kept(packed: tarfile.TarFile, system: System) -> Iterator[tuple[str, Member]]:
    """The files of the packages that stay, by path, and what each package says of itself."""
    for member in packed:
        path = member.name.removeprefix("./")
        file = packed.extractfile(member) if member.isreg() else None
        if path.startswith(DEBS) and path.endswith(".deb") and file:
            control = control_of(file.read(), system)
            # Where scanners look for the packages of an image without dpkg.
            name = f"var/lib/dpkg/status.d/{Path(path).name.split('_')[0]}"
            if control:
                yield name, text_file(name, control)
        elif not member.isdir() and stays(path, system.programs):
            member.name = path
            member.linkname = member.linkname.removeprefix("./") if member.islnk() else member.linkname
            yield path, (member, file.read() if file else None)


def text_file(name: str, content: bytes) -> Member:
    """A member that everybody may read."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644
    return member, content


def folder(name: str, mode: int, owner: int = 0) -> Member:
    """A folder as a member."""
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.uid, member.gid = tarfile.DIRTYPE, mode, owner, owner
    return member, None


def control_of(deb: bytes, system: System) -> bytes | None:
    """Name, version and the rest that a package says of itself; None where none of its files stays but its licence."""
    with tempfile.NamedTemporaryFile(suffix=".deb") as file:
        file.write(deb)
        file.flush()
        listed = subprocess.run(["dpkg-deb", "--fsys-tarfile", file.name], check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(listed)) as packed:
            files = [member.name.removeprefix("./") for member in packed if not member.isdir()]
        if not any(stays(path, system.programs) for path in files if not path.startswith("usr/share/doc/")):
            return None
        return subprocess.run(["dpkg-deb", "-f", file.name], check=True, capture_output=True).stdout


def write(packed: tarfile.TarFile, system: System, out: Path) -> None:
    """The image's file system as a tar; every file has the same time, and none runs as another user."""
    with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as image:
        for member, content in members(packed, system):
            member.mtime, member.uname, member.gname, member.pax_headers = FILES_AT_S, "", "", {}
            member.mode &= 0o1777
            image.addfile(member, io.BytesIO(content) if content is not None else None)


def fetch(system: System, out: Path) -> None:
    """The packages with all that they depend on, unpacked into a tar, the packages themselves among it."""
    command = ["mmdebstrap", "--quiet", "--variant=extract", f"--include={','.join(system.packages)}"]
    command += ["--skip=cleanup/apt,cleanup/apt/cache", SUITE, str(out)]
    subprocess.run(command, check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("tag", help="of the image to make")
    parser.add_argument("--label", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    system = SYSTEMS[arguments.system]
    with tempfile.TemporaryDirectory() as scratch:
        packed, image = Path(scratch, "packed.tar"), Path(scratch, "image.tar")
        fetch(system, packed)
        with tarfile.open(packed) as opened:
            write(opened, system, image)
        labels = [f"LABEL {key}={json.dumps(text)}" for key, _, text in (one.partition("=") for one in arguments.label)]
        changes = [part for change in (*system.changes, *labels) for part in ("--change", change)]
        subprocess.run(["docker", "import", *changes, str(image), arguments.tag], check=True, stdout=subprocess.DEVNULL)
    return 0


if __name__ == "__main__":
    sys.exit(main())
