"""`fedward coordinator` status, versions, sites, head, export: from the state folder, or from an API elsewhere."""

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol

from coordinator.api.answers import Federation, Head, Sites, Versions
from coordinator.api.client import ApiClient
from coordinator.api.reading import Reading
from coordinator.card import model_card
from coordinator.config import FederationConfig
from coordinator.database import reading
from coordinator.export import write_export
from coordinator.opening import engine_of, open_begun
from fedward.errors import ConfigError
from fedward.modelfile import load_model
from fedward.settings import TlsSettings, TrustSettings, load_settings, read_secret

VERBS = {
    "status": "version, buffer and sites, as the ledger has them",
    "versions": "the newest versions, or those before one",
    "sites": "what each site has delivered and, from an API, what it does now",
    "head": "the head of the ledger's chain: kept elsewhere, it shows later that nothing before it was changed",
    "export": "write a version as a safetensors file; with --config its model card, too",
}


class Source(Protocol):
    """Who is asked."""

    def federation(self) -> Federation:
        """As a whole."""

    def versions(self, before: int | None, limit: int) -> Versions:
        """Newest first."""

    def sites(self) -> Sites:
        """All that are admitted."""

    def head(self) -> Head:
        """Of the ledger's chain."""


def add_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]", settings: str) -> None:
    """Add the verbs; `settings` ends their help."""
    run = {"status": _status, "versions": _versions, "sites": _sites, "head": _head, "export": _export}
    for verb, text in VERBS.items():
        command = verbs.add_parser(
            verb, help=text, description=text, epilog=settings, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        source = command.add_mutually_exclusive_group(required=True)
        source.add_argument("--config", type=Path, help="federation.yaml, on the coordinator's machine")
        source.add_argument("--api", metavar="URL", help="address of a coordinator's API, from anywhere")
        command.add_argument("--token-file", type=Path, help="file that holds the API's token")
        command.add_argument("--ca-file", type=Path, help="authority of the API's certificate, PEM")
        command.add_argument("--certificate-file", type=Path, help="own certificate, in place of a token")
        command.add_argument("--key-file", type=Path, help="its key")
        command.set_defaults(run=run[verb], verb=verb)
        if verb == "versions":
            command.add_argument("--before", type=int, help="only versions below this one")
            command.add_argument("--limit", type=int, default=20, help="how many; default: 20, at most 200")
        if verb == "export":
            command.add_argument("--version", type=int, help="which version; default: the newest")
            command.add_argument("--out", type=Path, required=True, help="the file to write; the card goes beside it")


def _status(arguments: argparse.Namespace) -> None:
    with _source(arguments) as source:
        federation, sites = source.federation(), source.sites().sites
    print(f"federation {federation.name}: {federation.state}, task {federation.task}")
    size = "-" if federation.num_parameters is None else federation.num_parameters
    print(f"version    {federation.version} ({size} parameters, digest {federation.model_digest[:16]})")
    print(f"buffer     {federation.buffer_updates} updates since then")
    print(f"{'site':24} {'updates':>8} {'last base':>10} {'examples':>9} {'wish':>8}")
    for site in sites:
        base, examples = (
            (site.last_update.base_version, site.last_update.num_examples) if site.last_update else ("-", "-")
        )
        print(f"{site.site:24} {site.num_accepted:>8} {base:>10} {examples:>9} {site.wish or '-':>8}")
    for site in sorted((site for site in sites if site.quarantined), key=lambda site: site.site):
        norms = " ".join(f"{norm:.3g}" for norm in site.recent_norms)
        typical = federation.typical_norm or 0.0
        print(f"quarantine {site.site}: norms {norms}, the last one newest; typical is {typical:.3g}")


def _versions(arguments: argparse.Namespace) -> None:
    with _source(arguments) as source:
        page = source.versions(arguments.before, arguments.limit)
    print(f"{'version':>8} {'made':20} {'updates':>8} {'model':>6} digest")
    for version in page.versions:
        made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(version.created_at_s))
        kept = "kept" if version.kept else "-"
        print(f"{version.version:>8} {made:20} {version.num_updates:>8} {kept:>6} {version.model_digest}")
    if page.next_before is not None:
        print(f"more: --before {page.next_before}", file=sys.stderr)


def _sites(arguments: argparse.Namespace) -> None:
    with _source(arguments) as source:
        sites = source.sites().sites
    print(f"{'site':24} {'now':>12} {'accepted':>9} {'refused':>8} {'wish':>8} quarantine")
    for site in sites:
        held = "yes" if site.quarantined else "-"
        now = site.phase or "-"
        print(f"{site.site:24} {now:>12} {site.num_accepted:>9} {site.num_refused:>8} {site.wish or '-':>8} {held}")


def _head(arguments: argparse.Namespace) -> None:
    with _source(arguments) as source:
        print(source.head().mark)


def _export(arguments: argparse.Namespace) -> None:
    if arguments.out.suffix != ".safetensors":
        raise ConfigError(f"--out {arguments.out}: expected a name that ends in .safetensors; the card goes beside it")
    if arguments.api:
        _download(arguments)
    else:
        _export_here(arguments)


def _download(arguments: argparse.Namespace) -> None:
    client = _client(arguments)
    version = client.federation().version if arguments.version is None else arguments.version
    digest = client.download(version, arguments.out)
    print(f"version {version}: {arguments.out}, SHA-256 {digest}")


def _export_here(arguments: argparse.Namespace) -> None:
    config = _config(arguments)
    layout, _ = load_model(config.model)
    with closing(open_begun(config, layout)) as ledger:
        newest = ledger.newest_version()
        version = newest.version if arguments.version is None and newest else arguments.version
        write_export(config, ledger, layout, version, arguments.out)
        card = arguments.out.with_suffix(".md")
        card.write_text(model_card(ledger, version, hashlib.sha256(arguments.out.read_bytes()).digest()))
    print(f"version {version}: {arguments.out} and {card}")


@contextmanager
def _source(arguments: argparse.Namespace) -> Iterator[Source]:
    if arguments.api:
        yield _client(arguments)
        return
    config = _config(arguments)
    layout, _ = load_model(config.model)
    open_begun(config, layout).close()  # it is ours, and sound
    with closing(Here(config, layout.size)) as here:
        yield here


class Here(Reading):
    """The ledger of this machine's coordinator, whose model is at hand."""

    def __init__(self, config: FederationConfig, num_parameters: int) -> None:
        super().__init__(reading(engine_of(config)), config.sites)
        self._num_parameters = num_parameters

    def federation(self) -> Federation:
        return super().federation().model_copy(update={"num_parameters": self._num_parameters})


def _config(arguments: argparse.Namespace) -> FederationConfig:
    return load_settings(FederationConfig, arguments.config, os.environ)


def _client(arguments: argparse.Namespace) -> ApiClient:
    return ApiClient(arguments.api, read_secret("--token-file", arguments.token_file), _files(arguments))


def _files(arguments: argparse.Namespace) -> TrustSettings | None:
    ca_file, certificate_file, key_file = arguments.ca_file, arguments.certificate_file, arguments.key_file
    if (certificate_file is None) != (key_file is None):
        raise ConfigError("--certificate-file and --key-file go together")
    if ca_file is None:
        return None
    if certificate_file is None:
        return TrustSettings(ca_file=ca_file)
    return TlsSettings(ca_file=ca_file, certificate_file=certificate_file, key_file=key_file)
