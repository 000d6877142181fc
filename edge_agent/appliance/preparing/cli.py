"""`fedward appliance init`, `bundle` and `sign`: what comes before an installation."""

import argparse
from pathlib import Path, PurePosixPath

from edge_agent.appliance.config import pinned
from edge_agent.appliance.engine import Engine
from edge_agent.appliance.preparing.beginning import BROKER_PORT, SITE, Beginning, files_of
from edge_agent.appliance.preparing.publisher import make_bundle, make_release_key, sign_digest
from edge_agent.policy import Approving
from fedward.errors import ConfigError
from fedward.files import write_durably
from fedward.identity.keys import check_private
from fedward.identity.release import release_key_setting
from fedward.identity.token import read_token


def add_preparing(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add these verbs to `fedward appliance`."""
    _add_init(verbs)
    _add_publishing(verbs)


def _add_init(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "write the first appliance.yaml, config/site.yaml and config/policy.yaml, to be looked at and changed"
    init = verbs.add_parser("init", help=text, description=text)
    init.add_argument("--token-file", type=Path, required=True, help="the token of the coordinator's operator")
    init.add_argument("--task", required=True, help="what is to be trained")
    init.add_argument("--records", type=Path, required=True, help="folder on this machine with the records")
    init.add_argument("--option", action="append", default=[], metavar="NAME=FILE", help="of the task: a file in there")
    init.add_argument("--broker", metavar="HOST:PORT", help=f"default: the token's host, port {BROKER_PORT}")
    init.add_argument("--proxy", help="HTTP proxy on the way to the broker: http://host:port")
    publisher = init.add_mutually_exclusive_group()
    publisher.add_argument("--release-key", metavar="KEY", help="the publisher's public key, as one line")
    publisher.add_argument("--release-key-file", type=Path, help="the same in a file, as PEM")
    init.add_argument("--image", help="registry/name@sha256:...; left out where the image comes in a bundle")
    init.add_argument("--image-signature", help="the publisher's, of the image's digest")
    init.add_argument("--approval", choices=list(Approving), default=Approving.BY_HAND, help="default: %(default)s")
    init.set_defaults(run=_init)


def _init(arguments: argparse.Namespace) -> int:
    check_private(arguments.token_file)
    token = read_token(arguments.token_file.read_text())
    host, port = _place(arguments.broker) if arguments.broker else (token.host, BROKER_PORT)
    begin = Beginning(
        federation=token.federation,
        site=token.site,
        host=host,
        port=port,
        task=arguments.task,
        records=str(arguments.records.absolute()),
        options=dict(map(_option, arguments.option)),
        approval=arguments.approval,
        proxy=arguments.proxy,
        image=arguments.image,
        image_signature=arguments.image_signature,
        release_key=_key(arguments.release_key) if arguments.release_key else None,
        release_key_file=str(arguments.release_key_file.absolute()) if arguments.release_key_file else None,
    )
    files = files_of(begin)
    there = [name for name in files if Path(name).exists()]
    if there:
        raise ConfigError(f"{', '.join(there)}: there already; nothing was written")
    Path(SITE).parent.mkdir(exist_ok=True)
    for name, text in files.items():
        write_durably(Path(name), text.encode(), 0o644)
        print(f"{name}: written")
    print("look at them, then: fedward appliance install")
    return 0


def _place(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"--broker {text}: expected HOST:PORT")
    return host, int(port)


def _key(text: str) -> str:
    try:
        return release_key_setting(text)
    except ValueError as error:
        raise ConfigError(f"--release-key: {error}") from None


def _option(text: str) -> tuple[str, str]:
    name, _, path = text.partition("=")
    if not name.isidentifier() or not path or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ConfigError(f"--option {text}: expected NAME=FILE, with FILE below the folder of --records")
    return name, path


def _add_publishing(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """What a publisher needs."""
    text = "for publishers: make the pair of keys that releases are signed and checked with"
    key = verbs.add_parser("release-key", help=text, description=text)
    key.add_argument("--out", type=Path, required=True, help="file for the private key; the public one goes beside it")
    key.set_defaults(run=_release_key)
    bundle = verbs.add_parser("bundle", help="for publishers: a release in one file")
    bundle.add_argument("--image", required=True, help="name of the image on this machine")
    bundle.add_argument("--sbom", type=Path, required=True, help="what it is made of, as CycloneDX")
    bundle.add_argument("--out", type=Path, required=True, help="the file to write")
    bundle.set_defaults(run=_bundle)
    sign = verbs.add_parser("sign", help="for publishers: image_signature of an image in a registry")
    sign.add_argument("image", help="registry/name@sha256:...")
    sign.set_defaults(run=_sign)
    for command in (bundle, sign):
        command.add_argument("--key", type=Path, required=True, help="private key, P-256 as PEM, for its owner alone")


def _release_key(arguments: argparse.Namespace) -> int:
    public = arguments.out.with_suffix(".pub")
    line = make_release_key(arguments.out, public)
    print(f"{arguments.out}: private; who has it decides what hospitals run")
    print(f"{public}: public, as PEM; as one line, for `release_key` of settings:\n{line}")
    return 0


def _bundle(arguments: argparse.Namespace) -> int:
    engine = Engine("", "")
    try:
        note = make_bundle(engine, arguments.image, arguments.sbom, arguments.key, arguments.out)
    finally:
        engine.close()
    print(f"{arguments.out}: {note.image}, version {note.version}")
    return 0


def _sign(arguments: argparse.Namespace) -> int:
    try:
        print(sign_digest(pinned(arguments.image), arguments.key))
    except ValueError as error:
        raise ConfigError(f"{arguments.image}: {error}") from None
    return 0
