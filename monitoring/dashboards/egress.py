"""Egress: what left each hospital, by kind and size."""

from grafana_foundation_sdk.builders import dashboard as boards

from monitoring.looks import Panel, Query, board, chart, filled, matrix_of_sites, stacked, tile

KINDS = "Update: offers and chunks; other: presence, requests for versions and for certificates."


def dashboard() -> boards.Dashboard:
    """As the coordinator counted it, for a hospital's own log is the hospital's."""
    found = board(
        "fedward-egress",
        "Egress",
        "What left each hospital, by kind and size, as the coordinator counted it. `fedward agent egress` has the "
        "hospital's own account.",
    )
    return filled(found, [("In all", in_all()), ("By kind", by_kind()), ("By hospital", by_site())])


def in_all() -> list[Panel]:
    """Over the time that is shown."""
    bytes_sent = 'sum(increase(fed_site_egress_bytes_total{job="$job"}[$__range]))'
    messages = 'sum(increase(fed_egress_messages_total{job="$job"}[$__range]))'
    updates = 'sum(increase(fed_site_egress_bytes_total{job="$job",kind="update"}[$__range]))'
    return [
        tile("Left all hospitals", "Bytes, in the time shown.", "bytes", Query(bytes_sent), width=6),
        tile("Messages", "In the time shown.", "none", Query(messages), width=6).decimals(0),
        tile("A message", "Mean size.", "bytes", Query(f"{bytes_sent} / {messages}"), width=6),
        tile(
            "Not updates",
            "Share of the bytes that are not of updates: presence, telemetry, evaluations, requests.",
            "percentunit",
            Query(f"1 - {updates} / {bytes_sent}"),
            width=6,
        ).decimals(1),
    ]


def by_kind() -> list[Panel]:
    """Of all hospitals together."""
    rate_of_bytes = 'sum by (kind) (rate(fed_site_egress_bytes_total{job="$job"}[$__rate_interval]))'
    rate_of_messages = 'sum by (kind) (rate(fed_egress_messages_total{job="$job"}[$__rate_interval]))'
    return [
        stacked(chart("Bytes by kind", f"A second. {KINDS}", "Bps", Query(rate_of_bytes, "{{kind}}"))),
        stacked(chart("Messages by kind", f"A second. {KINDS}", "ops", Query(rate_of_messages, "{{kind}}"))),
        chart(
            "Size by kind",
            "Mean bytes of a message. A kind that grows says more than it did.",
            "bytes",
            Query(f"{rate_of_bytes} / {rate_of_messages}", "{{kind}}"),
        ),
    ]


def by_site() -> list[Panel]:
    """Who sent what."""
    by_site_and_kind = 'sum by (site, kind) (increase(fed_site_egress_bytes_total{job="$job"}[$__range]))'
    return [
        matrix_of_sites(
            "Bytes by hospital and kind", f"In the time shown. {KINDS}", "bytes", Query(by_site_and_kind), "kind"
        ),
        chart(
            "Ten hospitals that sent most",
            "Bytes a second, counted by the coordinator.",
            "Bps",
            Query(
                'topk(10, sum by (site) (rate(fed_site_egress_bytes_total{job="$job"}[$__rate_interval])))', "{{site}}"
            ),
            width=12,
        ),
        chart(
            "Told and counted",
            "What agents say that they sent, and what the coordinator counted. Far apart: much is lost or repeated.",
            "Bps",
            Query('sum(rate(fed_site_sent_bytes_total{job="$job"}[$__rate_interval]))', "told by agents"),
            Query('sum(rate(fed_site_egress_bytes_total{job="$job"}[$__rate_interval]))', "counted"),
            width=12,
        ),
    ]
