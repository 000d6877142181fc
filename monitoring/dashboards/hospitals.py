"""Hospitals: who is there, who contributes, and what one of them has been doing."""

from grafana_foundation_sdk.builders import dashboard as boards

from coordinator.metrics import SITE_PHASES
from fedward.messages import Phase
from monitoring.looks import (
    BAD,
    GOOD,
    POOR,
    Column,
    Panel,
    Query,
    Words,
    board,
    chart,
    close_up,
    coded,
    filled,
    numbered,
    steps,
    table_of_sites,
    tile,
    timeline,
    variable,
    words,
)

COLOURS = {
    Phase.IDLE: "#8AB8FF",
    Phase.FETCHING: "purple",
    Phase.TRAINING: GOOD,
    Phase.PUBLISHING: "blue",
    Phase.PAUSED: "yellow",
    Phase.REFUSED_BY_POLICY: POOR,
    Phase.FULL: BAD,
    Phase.FAILED: BAD,
    "offline": "#8E8E8E",
    "leaving": "#C4C4C4",
}
PHASES: Words = {phase: (phase.replace("_", " ").capitalize(), COLOURS[phase]) for phase in SITE_PHASES}
PHASE_OF_SITE = coded("fed_site_phase", "phase", SITE_PHASES, 'site="$site"')
ONE = '{job="$job",site="$site"}'


def dashboard() -> boards.Dashboard:
    """All hospitals in a table, and the one that is chosen."""
    found = board(
        "fedward-hospitals",
        "Hospitals",
        "Who is there, who contributes, and what one of them has been doing.",
        variable("site", "Hospital", 'label_values(fed_site_heard_timestamp_seconds{job="$job"}, site)'),
    )
    sections = [
        ("All hospitals", [everybody()]),
        ("$site", now()),
        ("$site: its time", [over_time()]),
        ("$site: its work", work()),
    ]
    return filled(found, sections)


def everybody() -> Panel:
    """One row a hospital."""

    def of(metric: str) -> str:
        return f'max by (site) ({metric}{{job="$job"}})'

    behind = 'max(fed_model_version{job="$job"})'
    accepted = 'sum by (site) (increase(fed_site_updates_accepted_total{job="$job"}[$__range]))'
    everything = 'scalar(sum(increase(fed_site_updates_accepted_total{job="$job"}[$__range])))'
    columns = [
        Column("Phase", 'max by (site, phase) (fed_site_phase{job="$job"} == 1)', label="phase", words=PHASES),
        Column("Last heard", f"time() - {of('fed_site_heard_timestamp_seconds')}", "s"),
        Column("Versions behind", f"scalar({behind}) - {of('fed_site_model_version')}"),
        Column("Software", 'max by (site, software) (fed_site_info{job="$job"})', label="software"),
        Column("Device", 'max by (site, device) (fed_site_info{job="$job"})', label="device"),
        Column("GPUs", of("fed_site_gpus")),
        Column("Accepted", of("fed_site_updates_accepted_total")),
        Column("Refused", of("fed_site_updates_refused_total")),
        Column("Contribution", f"{accepted} / {everything}", "percentunit"),
        Column("Weight", of("fed_site_weight")),
        Column("Clock skew", of("fed_site_clock_skew_seconds"), "s"),
        Column("Quarantine", of("fed_site_quarantined"), words={"0": ("No", GOOD), "1": ("In quarantine", BAD)}),
    ]
    return table_of_sites(
        "All hospitals",
        "Contribution: share of the updates accepted in the time shown. A name leads to its hospital, below.",
        columns,
    )


def now() -> list[Panel]:
    """What the hospital is doing."""
    return [
        tile(
            "Phase", "What its agent is doing now; offline: call the hospital.", "none", Query(PHASE_OF_SITE)
        ).mappings(words(numbered(list(PHASES.values())))),
        tile(
            "Last heard",
            "Time since anything came from it. An agent speaks every 15 seconds: minutes mean that its link is down.",
            "s",
            Query(f"time() - max(fed_site_heard_timestamp_seconds{ONE})"),
        )
        .thresholds(steps(GOOD, (60, POOR), (600, BAD)))
        .decimals(0),
        tile(
            "Versions behind",
            "Current version less the one it holds. Growing: its link is slow, or its disk is full.",
            "none",
            Query(f'max(fed_model_version{{job="$job"}}) - max(fed_site_model_version{ONE})'),
        ).thresholds(steps(GOOD, (5, POOR), (20, BAD))),
        tile(
            "GPUs",
            "That its agent trains with. 0 where there was one: driver or container toolkit.",
            "none",
            Query(f"max(fed_site_gpus{ONE})"),
        ),
        tile(
            "Updates accepted",
            "Since it was admitted.",
            "none",
            Query(f"max(fed_site_updates_accepted_total{ONE})"),
        ),
        tile(
            "Updates refused",
            "Since it was admitted. Rising: the coordinator's log has the reason of each.",
            "none",
            Query(f"max(fed_site_updates_refused_total{ONE})"),
        ).thresholds(steps(GOOD, (1, POOR))),
        tile(
            "Clock skew",
            "Its clock less the coordinator's. Minutes: its certificates may be refused; see its time service.",
            "s",
            Query(f"max(fed_site_clock_skew_seconds{ONE})"),
        )
        .thresholds(steps(BAD, (-60, POOR), (-10, GOOD), (10, POOR), (60, BAD)))
        .decimals(1),
        tile(
            "Certificate ends in",
            "Renewed by its agent when a quarter of its life is left; less means that this failed.",
            "s",
            Query(f"max(fed_site_certificate_expires_timestamp_seconds{ONE}) - time()"),
        )
        .thresholds(steps(BAD, (7 * 86_400, POOR), (14 * 86_400, GOOD)))
        .decimals(0)
        .no_value("None in use"),
    ]


def over_time() -> Panel:
    """What the hospital has been doing."""
    return timeline(
        "Phases",
        "What its agent was doing, and when it was away.",
        numbered(list(PHASES.values())),
        Query(PHASE_OF_SITE, "$site"),
    )


def work() -> list[Panel]:
    """Link, device, contribution, quality."""
    return [
        chart(
            "Link",
            "Payload bytes that the agent sent and received, and the rate at which its link carries updates up.",
            "Bps",
            Query(f"sum(rate(fed_site_sent_bytes_total{ONE}[$__rate_interval]))", "sent"),
            Query(f"sum(rate(fed_site_received_bytes_total{ONE}[$__rate_interval]))", "received"),
            Query(f"max(fed_site_uplink_bytes_per_second{ONE})", "what the link carries up"),
        ),
        chart(
            "Training step",
            "Median time of a step. Rising: another job uses the device; a jump up: the GPU is gone.",
            "s",
            Query(f"max(fed_site_step_seconds{ONE})", "a step"),
        ),
        chart(
            "GPUs in use",
            "By the agent's own count; 0 on a machine without.",
            "none",
            Query(f"max(fed_site_gpus{ONE})", "GPUs"),
        ),
        chart(
            "Updates accepted an hour",
            "Its contribution, beside the mean hospital's.",
            "none",
            Query(f"sum(rate(fed_site_updates_accepted_total{ONE}[$__rate_interval])) * 3600", "$site"),
            Query(
                'avg(rate(fed_site_updates_accepted_total{job="$job"}[$__rate_interval])) * 3600',
                "mean of all hospitals",
            ),
        ),
        chart(
            "Weight of its updates",
            "Of the last one that was folded. Near 0: stale, few examples, or capped.",
            "none",
            Query(f"max(fed_site_weight{ONE})", "$site"),
            Query('avg(fed_site_weight{job="$job"})', "mean of all hospitals"),
        ),
        chart(
            "Norm of its updates",
            "Of the last accepted one, beside the mean. Far off: its data or its preprocessing differ.",
            "none",
            Query(f"max(fed_site_update_norm{ONE})", "$site"),
            Query('avg(fed_site_update_norm{job="$job"})', "mean of all hospitals"),
        ),
        chart(
            "Training loss",
            "Mean of its last training. Rising while others fall: compare its data.",
            "none",
            Query(f"max(fed_site_train_loss{ONE})", "$site"),
            Query('avg(fed_site_train_loss{job="$job"})', "mean of all hospitals"),
        ),
        close_up(
            chart(
                "Evaluation",
                "The model on its held-out records.",
                "percentunit",
                Query(
                    'max by (metric) (fed_site_evaluation_ratio{job="$job",site="$site",metric!="loss"})', "{{metric}}"
                ),
            )
        ),
        chart(
            "Staleness",
            "Of its last folded update, in versions.",
            "none",
            Query(f"max(fed_site_staleness_versions{ONE})", "$site"),
        ),
    ]
