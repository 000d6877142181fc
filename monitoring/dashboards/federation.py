"""Federation: does it learn, and does anything stand in its way?"""

from grafana_foundation_sdk.builders import dashboard as boards
from grafana_foundation_sdk.builders import stat
from grafana_foundation_sdk.models import dashboard as models

from fedward.messages import FederationState
from monitoring.looks import (
    BAD,
    GOOD,
    PLAIN,
    POOR,
    Panel,
    Query,
    below,
    board,
    chart,
    close_up,
    coded,
    filled,
    steps,
    tile,
    undefined,
    variable,
    words,
)

STATES = [state.value for state in FederationState]
ALERTS = 'alertname=~"Fedward.+",alertstate="firing",severity=~"critical|warning",job=~"$job|"'
"""Those without a job are of no federation: that there is none."""

FLOAT32_UP = (
    'sum(increase(fed_site_updates_accepted_total{{job="$job"}}[{0}])) * 4 * max(fed_model_parameters{{job="$job"}})'
)
FLOAT32_DOWN = FLOAT32_UP.replace("fed_site_updates_accepted_total", "fed_site_versions_fetched_total")


def dashboard() -> boards.Dashboard:
    """Of one federation, all hospitals together."""
    found = board(
        "fedward-federation",
        "Federation",
        "Does the federation learn, and does anything stand in its way?",
        variable("metric", "Metric", 'label_values(fed_evaluation_ratio{job="$job",metric!="loss"}, metric)'),
    )
    sections = [
        ("State", state()),
        ("Progress", progress()),
        ("Hospitals", hospitals()),
        ("Updates", updates()),
    ]
    return filled(found, sections)


def state() -> list[Panel]:
    """In words and colours, read from left to right."""
    states = {
        "-1": ("No answer", BAD),
        **{
            str(STATES.index(state)): word
            for state, word in (
                (FederationState.RUNNING, ("Running", GOOD)),
                (FederationState.PAUSED, ("Paused", POOR)),
                (FederationState.FINISHED, ("Finished", PLAIN)),
            )
        },
    }
    return [
        tile(
            "State",
            "What the operator wants of the federation. No answer: the coordinator is down, or none leads.",
            "none",
            Query(f'{coded("fed_federation_state", "state", STATES)} or max(up{{job="$job"}}) * 0 - 1'),
        ).mappings(words(states)),
        tile(
            "Hospitals up",
            "Share of the admitted hospitals that are connected. Less than all: see Hospitals for whom to call.",
            "percentunit",
            Query('max(fed_sites_online{job="$job"}) / max(fed_sites_admitted{job="$job"})'),
        )
        .mappings([*words({"1": ("All", GOOD)}), *words({"0": ("None", BAD)}), undefined("None admitted")])
        .thresholds(steps(BAD, (0.5, POOR), (1, GOOD)))
        .decimals(0),
        tile(
            "Quorum",
            "Hospitals online beyond those that a version needs. No spare: the next one lost stops the training.",
            "suffix: to spare",
            Query('max(fed_sites_online{job="$job"}) - max(fed_sites_needed{job="$job"})'),
        )
        .mappings([*words({"0": ("No spare", POOR)}), below(-1, "Lost", BAD)])
        .thresholds(steps(BAD, (0, POOR), (1, GOOD))),
        tile(
            "Version age",
            "Time since the current version was made. Long while it runs: see the buffer, and which hospitals deliver.",
            "s",
            Query('time() - max(fed_model_version_timestamp_seconds{job="$job"})'),
        )
        .thresholds(steps(GOOD, (3600, POOR), (2 * 3600, BAD)))
        .decimals(0),
        tile(
            "Refused, last hour",
            "Messages and updates that were refused. Many: see their reasons on Coordinator and broker.",
            "none",
            Query('sum(increase(fed_messages_refused_total{job="$job"}[1h]))'),
        )
        .mappings(words({"0": ("None", GOOD)}))
        .thresholds(steps(GOOD, (1, POOR), (100, BAD)))
        .decimals(0),
        tile(
            "First certificate ends in",
            "The coordinator's own or a hospital's. Renewal goes by itself: less than 7 days means that it failed.",
            "s",
            Query('min(fed_certificate_expires_timestamp_seconds{job="$job"}) - time()'),
        )
        .thresholds(steps(BAD, (7 * 86_400, POOR), (14 * 86_400, GOOD)))
        .decimals(0)
        .no_value("None in use"),
        tile(
            "Alerts firing",
            "Critical and warning, of this federation. Each has a page in docs/runbooks.",
            "none",
            Query(f"count(ALERTS{{{ALERTS}}}) or vector(0)"),
        )
        .mappings(words({"0": ("None", GOOD)}))
        .thresholds(steps(GOOD, (1, BAD))),
        tile(
            "Model version",
            "The current version, one more with each aggregation.",
            "none",
            Query('max(fed_model_version{job="$job"})'),
        ),
    ]


def progress() -> list[Panel]:
    """How fast, and how good."""
    return [
        chart(
            "Versions an hour",
            "At the pace of the last minutes. Falling to 0 while it runs: see the buffer and the hospitals' phases.",
            "none",
            Query('sum(rate(fed_version_seconds_count{job="$job"}[$__rate_interval])) * 3600', "versions an hour"),
        ),
        close_up(
            chart(
                "Metrics of all held-out records",
                "Of each hospital's latest evaluation, together. Falling: compare versions; see the worst hospital.",
                "percentunit",
                Query('max by (metric) (fed_evaluation_ratio{job="$job",metric!="loss"})', "{{metric}}"),
            )
        ),
        chart(
            "Loss of held-out records",
            "All together, and where it is worst. Rising in both: the training diverges; in one: look there.",
            "none",
            Query('max(fed_evaluation_ratio{job="$job",metric="loss"})', "all"),
            Query('max(fed_evaluation_worst_ratio{job="$job",metric="loss"})', "worst hospital"),
        ),
    ]


def hospitals() -> list[Panel]:
    """Who falls behind."""
    return [
        close_up(
            chart(
                "Worst hospital",
                "Each metric where it is worst. Far below the one of all: the model does not serve that hospital.",
                "percentunit",
                Query('max by (metric) (fed_evaluation_worst_ratio{job="$job",metric!="loss"})', "{{metric}}"),
            )
        ),
        close_up(
            chart(
                "Ten lowest: $metric",
                "The hospitals with the lowest value of the metric chosen above.",
                "percentunit",
                Query(
                    'bottomk(10, max by (site) (fed_site_evaluation_ratio{job="$job",metric="$metric"}))', "{{site}}"
                ),
            )
        ),
        chart(
            "Staleness of folded updates",
            "Versions made between an update's base and its folding. High: a slow hospital, whose updates weigh less.",
            "none",
            Query('max(fed_site_staleness_versions{job="$job"})', "highest"),
            Query('avg(fed_site_staleness_versions{job="$job"})', "mean"),
        ),
    ]


def updates() -> list[Panel]:
    """What waits, and what the codecs save."""
    as_float32 = FLOAT32_UP.format("$__rate_interval").replace("increase(", "rate(")
    return [
        chart(
            "Buffer",
            "Accepted updates since the last version, and how many make one. Not filling: see the hospitals' phases.",
            "none",
            Query('max(fed_buffer_updates{job="$job"})', "waiting"),
            Query('max(fed_buffer_size{job="$job"})', "makes a version"),
        ),
        chart(
            "Updates on the wire, against float32",
            "What accepted updates took, with all that carries them, and what they would take as plain float32.",
            "Bps",
            Query('sum(rate(fed_site_egress_bytes_total{job="$job",kind="update"}[$__rate_interval]))', "as they came"),
            Query(as_float32, "as float32"),
        ),
        saved(
            "Saved, up",
            "Share of bytes that the codec of updates saved. Below 0: the model is smaller than its envelope.",
            f'1 - sum(increase(fed_site_egress_bytes_total{{job="$job",kind="update"}}[$__range])) / '
            f"({FLOAT32_UP.format('$__range')})",
        ),
        saved(
            "Saved, down",
            "Share of bytes that codec and broadcast of versions saved, against each hospital fetching float32.",
            f'1 - sum(increase(fed_sent_bytes_total{{job="$job"}}[$__range])) / ({FLOAT32_DOWN.format("$__range")})',
        ),
    ]


def saved(title: str, description: str, expr: str) -> stat.Panel:
    """A share, over the time that is shown."""
    made = tile(title, description, "percentunit", Query(expr), width=4)
    made = made.grid_pos(models.GridPos(w=4, h=8))
    return made.mappings([undefined("Nothing sent")]).thresholds(steps(PLAIN, (0.5, GOOD))).decimals(0)
