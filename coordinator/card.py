"""The model card: where an exported model comes from, in words that a reviewer can check against the ledger."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from coordinator.ledger import Ledger
from coordinator.tables import StoredEvaluation, StoredUpdate, Totals


def model_card(ledger: Ledger, version: int, file_digest: bytes) -> str:
    """Markdown. Raises KeyError for a version that was never made."""
    row = ledger.version(version)
    updates = [update for update in ledger.accepted() if update.version is not None and update.version <= version]
    totals = {site: sums for site, sums in ledger.totals().items() if sums.num_accepted}
    num_folded = len(updates) + sum(sums.num_accepted for sums in totals.values())
    newest = ledger.newest_entry()
    head = newest.mark if newest else "none"
    made_at = datetime.fromtimestamp(row.created_at_s, UTC).isoformat(timespec="seconds")
    return "\n".join(
        [
            f"# {ledger.fact('federation')}, version {version}",
            "",
            f"- made: {made_at}",
            f"- task: {ledger.fact('task')}",
            f"- file SHA-256: `{file_digest.hex()}`",
            f"- model digest (SHA-256 of the float32 vector): `{row.model_digest.hex()}`",
            f"- layout digest: `{ledger.fact('layout')}`",
            f"- updates folded in: {num_folded}",
            f"- head of the ledger's chain when this was written: `{head}`; `fedward coordinator replay --head {head}`",
            "  proves that the model came out of that ledger",
            "",
            "## Sites",
            "",
            "| site | updates | examples (last update) | local steps | summed weight |",
            "| --- | --- | --- | --- | --- |",
            *_site_rows(updates, totals),
            "",
            "## Evaluation by the sites, on their own held-out records",
            "",
            "| version | metric | site | value | examples |",
            "| --- | --- | --- | --- | --- |",
            *_evaluation_rows(list(ledger.evaluations()), version),
            "",
            "## Settings",
            "",
            "```json",
            json.dumps(row.settings, indent=2, sort_keys=True),
            "```",
            "",
            "This model learnt from the records of the sites above; no record left its site. It is not a medical",
            "device, and it was measured on the sites' own held-out records only.",
            "",
        ]
    )


def _site_rows(updates: list[StoredUpdate], totals: Mapping[str, Totals]) -> list[str]:
    """`totals` are of older updates; of a site that has some, its last one is among `updates`."""
    rows = []
    for site in sorted({update.site for update in updates}):
        own = [update for update in updates if update.site == site]
        sums = totals.get(site, Totals())
        for update in own:
            sums += Totals.of(update)
        rows.append(f"| {site} | {sums.num_accepted} | {own[-1].num_examples} | {sums.num_steps} | {sums.weight:.2f} |")
    return rows


def _evaluation_rows(evaluations: list[StoredEvaluation], version: int) -> list[str]:
    """Of each site, its newest measurement that is not newer than the version."""
    latest = {(row.site, row.metric): row for row in evaluations if row.version <= version}
    return [
        f"| {row.version} | {metric} | {site} | {row.numerator / row.denominator:.4f} | {row.num_examples} |"
        for (site, metric), row in sorted(latest.items())
        if row.denominator > 0
    ]
