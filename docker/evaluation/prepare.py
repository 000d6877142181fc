"""Prepares the federation of compose.yaml: authority, keys, certificates, invitations, records, all files. Runs once.

It does what people at the centre and in each hospital would do, with the same commands, and carries the files between
them. Here it holds all of their folders at once, so it is for an evaluation only: docs/enrolment.md has the real way.
"""

import os
import re
import shutil
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import yaml

from fedward.cli import main
from sandbox.datasets import split

PLACE = Path("/prepare")
CENTRE, BROKER = PLACE / "centre", PLACE / "broker"
DONE = CENTRE / "prepared"
FEDERATION, TASK = "evaluation", "breast-cancer"
SITES = ("hospital-a", "hospital-b", "hospital-c")
FOLDERS = (CENTRE, BROKER, *(PLACE / f"{site}{kind}" for site in SITES for kind in ("", "-records")))
USER_ID = 10001
HOST, PORT = "broker", 8883
BROKER_HOME = Path("/var/lib/mosquitto")
"""Where the broker's container has what is BROKER here."""


def fedward(folder: Path, *arguments: object) -> str:
    """Run a command in a party's folder, and return what it printed. Ends this program where the command fails.

    What `invite` prints is a secret, and this program's output is kept as a log.
    """
    print("$ fedward", *arguments, flush=True)
    os.chdir(folder)
    printed = StringIO()
    with redirect_stdout(printed):
        code = main([str(argument) for argument in arguments])
    print("(a token)\n" if "invite" in arguments else printed.getvalue(), end="", flush=True)
    if code != 0:
        sys.exit(code)
    return printed.getvalue()


def operator(verb: str, *arguments: object) -> str:
    """A command at the centre."""
    return fedward(CENTRE, "coordinator", verb, *arguments, "--config", "federation.yaml")


def write(path: Path, settings: object) -> None:
    """A YAML file."""
    path.write_text(yaml.safe_dump(settings, sort_keys=False))


def prepare_centre(finish_version: int) -> None:
    """The authority, the coordinator's keys, the first model, and the broker's folder."""
    settings = {
        "federation": FEDERATION,
        "sites": list(SITES),
        "task": TASK,
        "model": "initial.safetensors",
        "work": {"local_epochs": 2, "batch_size": 16, "local_lr": 0.02, "momentum": 0.9},
        "state_folder": "state",
        "broker": {"host": HOST, "port": PORT, "authorisation": "dynamic-security", "reconnect_max_s": 2},
        "identity": {"folder": "identity"},
        "authority": {"folder": "authority"},
        "engine": {"buffer_size": len(SITES) - 1},
        "finish": {"version": finish_version},
    }
    write(CENTRE / "federation.yaml", settings)
    fedward(CENTRE, "agent", "init-model", "--task", TASK, "--out", "initial.safetensors")
    fedward(CENTRE, "coordinator", "ca", "--out", "authority")
    operator("identity")
    operator("identity", "--broker", HOST)
    place = ("--host", HOST, "--port", PORT, "--identity", BROKER_HOME / "identity", "--state", BROKER_HOME)
    fedward(BROKER, "coordinator", "broker-config", "--out", BROKER, "--federation", FEDERATION, *place)
    shutil.copytree(CENTRE / "identity" / "broker", BROKER / "identity")


def prepare_hospital(site: str, records: Path) -> None:
    """A hospital's files and records; then it enrols by files, as without a network."""
    folder = PLACE / site
    settings = {
        "site": site,
        "federation": FEDERATION,
        "tasks": {TASK: {"train": "/data/train.csv", "held_out": "/data/held_out.csv"}},
        "state_folder": "state",
        "broker": {"host": HOST, "port": PORT, "proxy": "http://proxy:3128", "reconnect_max_s": 2},
        "identity": {"folder": "identity"},
        "policy_file": "policy.yaml",
        "threads": 1,
        "telemetry_s": 1,
    }
    write(folder / "site.yaml", settings)
    write(folder / "policy.yaml", {"federations": [FEDERATION], "tasks": {TASK: "any"}, "approval": "automatic"})
    for name in ("train.csv", "held_out.csv"):
        shutil.copy(records / name, PLACE / f"{site}-records")
    token = folder / "token.txt"
    token.touch(0o600)
    token.write_text(operator("invite", site))
    enrol = ("agent", "enroll", "--config", "site.yaml", "--token-file", token)
    said = fedward(folder, *enrol, "--request-out", "request.json")
    [fingerprint] = re.findall(r"key: (\S+)", said)
    operator("requests", "--in", folder / "request.json")
    operator("admit", site, "--fingerprint", fingerprint)
    operator("answer", site, "--out", folder / "answer.json")
    fedward(folder, *enrol, "--answer", "answer.json")


def make_folders() -> None:
    """While the image is built, as root: where new volumes are mounted, and become the user's."""
    for folder in FOLDERS:
        folder.mkdir(parents=True, mode=0o700)
        os.chown(folder, USER_ID, USER_ID)


def clear(folder: Path) -> None:
    """Away with what an attempt that was cut short has left."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def prepare() -> None:
    """Everything, unless it was done before. The sites in BY_HAND are left to people, with their appliances."""
    if DONE.exists():
        print("prepared already")
        return
    for folder in FOLDERS:
        clear(folder)
    prepare_centre(int(os.environ["FINISH_VERSION"]))
    scratch = Path("/tmp/records")  # noqa: S108 - nobody else is in this container
    by_hand = os.environ["BY_HAND"].split()
    for site in split(TASK, len(SITES), None, scratch):
        if site.name not in by_hand:
            prepare_hospital(site.name, scratch / site.name)
    DONE.touch()


if __name__ == "__main__":
    make_folders() if sys.argv[1:] == ["folders"] else prepare()
