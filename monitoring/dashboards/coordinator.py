"""Coordinator and broker: what is asked of them and how they do it (RED), and what they have left for it (USE)."""

from grafana_foundation_sdk.builders import dashboard as boards

from coordinator.provision import BrokerAccess
from monitoring.looks import (
    BAD,
    GOOD,
    PLAIN,
    POOR,
    Panel,
    Query,
    board,
    chart,
    coded,
    filled,
    numbered,
    stacked,
    steps,
    tile,
    words,
)

ACCESS = [state.value for state in BrokerAccess]
JOB = '{job="$job"}'


def dashboard() -> boards.Dashboard:
    """Of one coordinator with its standby, and its broker."""
    found = board(
        "fedward-coordinator",
        "Coordinator and broker",
        "Do coordinator and broker keep up, and what would run out first?",
    )
    sections = [
        ("State", state()),
        ("What is asked: rate, errors, duration", asked()),
        ("What there is: utilisation, saturation", capacity()),
        ("Broker", broker()),
    ]
    return filled(found, sections)


def state() -> list[Panel]:
    """In words and colours."""
    access = {
        BrokerAccess.UNUSED: ("Not used", PLAIN),
        BrokerAccess.PROVISIONED: ("Held", GOOD),
        BrokerAccess.FAILED: ("Failed", BAD),
    }
    return [
        tile(
            "Leader",
            "The coordinator that works. None: see the ledger's database, and whether the processes run.",
            "suffix: lead",
            Query(f"sum(fed_coordinator_leads{JOB})"),
        )
        .mappings(words({"0": ("None", BAD), "1": ("Works", GOOD)}))
        .thresholds(steps(BAD)),
        tile(
            "Broker",
            "The coordinator's connection. Lost: is the broker up, is its certificate valid?",
            "none",
            Query(f"max(fed_broker_connected{JOB})"),
        ).mappings(words({"0": ("Lost", BAD), "1": ("Connected", GOOD)})),
        tile(
            "Access rights",
            "How far the broker holds the federation's access rights. Failed: the log says why.",
            "none",
            Query(coded("fed_broker_access", "state", ACCESS)),
        ).mappings(words(numbered([access.get(one, (one.value.capitalize(), POOR)) for one in BrokerAccess]))),
        tile(
            "Loop busy",
            "Share of the time that the coordinator's loop worked. Above 90 %: it can't keep up.",
            "percentunit",
            Query(f"max(rate(fed_busy_seconds_total{JOB}[5m]))"),
        )
        .thresholds(steps(GOOD, (0.7, POOR), (0.9, BAD)))
        .decimals(1),
        tile(
            "Broker holds",
            "Messages that the broker keeps for somebody. Rising: the coordinator or a hospital does not take its own.",
            "none",
            Query(f"max(fed_broker_stored_messages{JOB})"),
        )
        .thresholds(steps(GOOD, (10_000, POOR), (50_000, BAD)))
        .no_value("Not told"),
        tile(
            "Disk free",
            "Below the state folder. Low: offers are answered `busy`, then the coordinator stops.",
            "bytes",
            Query(f"min(fed_disk_free_bytes{JOB})"),
        )
        .thresholds(steps(BAD, (2 * 2**30, POOR), (10 * 2**30, GOOD)))
        .decimals(0),
        tile(
            "Dropped, last hour",
            "Messages that the broker dropped: its queues are too short, or somebody does not read.",
            "none",
            Query(f"sum(increase(fed_broker_dropped_messages_total{JOB}[1h]))"),
        )
        .mappings(words({"0": ("None", GOOD)}))
        .thresholds(steps(GOOD, (1, POOR), (100, BAD)))
        .decimals(0)
        .no_value("Not told"),
        tile(
            "Last replay",
            "Whether every version came out again from the ledger. Differs: stop, and see the runbook.",
            "none",
            Query(f"min(fed_replay_matches{JOB})"),
        )
        .mappings(words({"0": ("Differs", BAD), "1": ("Matches", GOOD)}))
        .no_value("Never run"),
    ]


def asked() -> list[Panel]:
    """Rate, errors and duration, of messages and of versions."""
    seconds = 'histogram_quantile({0}, sum by (le) (rate({1}_bucket{{job="$job"}}[$__rate_interval])))'
    return [
        stacked(
            chart(
                "Messages handled",
                "By kind, a second. None while hospitals are up: see the broker.",
                "ops",
                Query(f"sum by (kind) (rate(fed_message_seconds_count{JOB}[$__rate_interval]))", "{{kind}}"),
            )
        ),
        stacked(
            chart(
                "Messages refused",
                "By reason, a second; docs/protocol.md has each reason.",
                "ops",
                Query(f"sum by (reason) (rate(fed_messages_refused_total{JOB}[$__rate_interval])) > 0", "{{reason}}"),
            )
        ),
        chart(
            "Time to handle a message",
            "Half are faster, 19 of 20 are faster. Rising: disk or database are slow.",
            "s",
            Query(seconds.format(0.5, "fed_message_seconds"), "half"),
            Query(seconds.format(0.95, "fed_message_seconds"), "19 of 20"),
        ),
        chart(
            "Versions made",
            "A second. 0 while it runs: see Federation.",
            "ops",
            Query(f"sum(rate(fed_version_seconds_count{JOB}[$__rate_interval]))", "versions"),
        ),
        chart(
            "Chunks that brought nothing",
            "Share of the chunks of updates that were there already. Rising: links that break.",
            "percentunit",
            Query(
                f"sum(rate(fed_chunks_redundant_total{JOB}[$__rate_interval])) / "
                f"sum(rate(fed_chunks_received_total{JOB}[$__rate_interval]))",
                "redundant",
            ),
        ),
        chart(
            "Time to make a version",
            "And to store it. Rising: the disk is slow, or the model or the buffer has grown.",
            "s",
            Query(seconds.format(0.5, "fed_version_seconds"), "half"),
            Query(seconds.format(0.95, "fed_version_seconds"), "19 of 20"),
        ),
    ]


def capacity() -> list[Panel]:
    """How much is used, and how much is left."""
    return [
        chart(
            "Loop and processor",
            "Share of the time that the one thread of the coordinator worked. Near 100 %: it does not keep up.",
            "percentunit",
            Query(f"max(rate(fed_busy_seconds_total{JOB}[$__rate_interval]))", "loop"),
            Query(f"max(rate(process_cpu_seconds_total{JOB}[$__rate_interval]))", "processor, all threads"),
        ),
        stacked(
            chart(
                "What the loop is busy with",
                "Share of the time, by kind of message, and for versions. A kind that grows alone: see who sends it.",
                "percentunit",
                Query(f"sum by (kind) (rate(fed_message_seconds_sum{JOB}[$__rate_interval]))", "{{kind}}"),
                Query(f"sum(rate(fed_version_seconds_sum{JOB}[$__rate_interval]))", "versions"),
            )
        ),
        chart(
            "Memory",
            "Resident. Rising without end is a fault: report it, with the time since the start.",
            "bytes",
            Query(f"max(process_resident_memory_bytes{JOB})", "resident"),
        ),
        chart(
            "Open files",
            "Near the limit: connections or files are not closed.",
            "none",
            Query(f"max(process_open_fds{JOB})", "open"),
            Query(f"max(process_max_fds{JOB})", "limit"),
        ),
        chart(
            "Disk",
            "What payloads and ledger take, and what is left. See `retention` for how much is kept.",
            "bytes",
            Query(f"max(fed_blobs_bytes{JOB})", "payloads"),
            Query(f"max(fed_ledger_bytes{JOB})", "ledger"),
            Query(f"min(fed_disk_free_bytes{JOB})", "free"),
            width=16,
        ),
    ]


def broker() -> list[Panel]:
    """What the broker says of itself, and what the coordinator exchanges with it."""
    return [
        chart(
            "Clients",
            "Connected to the broker, all federations together.",
            "none",
            Query(f"max(fed_broker_clients{JOB})", "clients"),
        ),
        chart(
            "Messages stored",
            "Retained and queued. Rising: somebody is away and the broker keeps what is meant for it.",
            "none",
            Query(f"max(fed_broker_stored_messages{JOB})", "stored"),
        ),
        chart(
            "Messages dropped",
            "A second. Any: a queue is too short for how long a hospital is away; what was dropped comes again, later.",
            "ops",
            Query(f"sum(rate(fed_broker_dropped_messages_total{JOB}[$__rate_interval]))", "dropped"),
        ),
        chart(
            "Coordinator's traffic",
            "Payload bytes to and from the broker.",
            "Bps",
            Query(f"sum(rate(fed_sent_bytes_total{JOB}[$__rate_interval]))", "sent"),
            Query(f"sum(rate(fed_received_bytes_total{JOB}[$__rate_interval]))", "received"),
        ),
        chart(
            "Coordinator's connection",
            "1 while it is connected to the broker. Gaps: the network between the two.",
            "none",
            Query(f"max(fed_broker_connected{JOB})", "connected"),
        ),
        chart(
            "Broker's uptime",
            "Falls to 0 when the broker starts anew: what it queued may be gone, and comes again.",
            "s",
            Query(f"max(fed_broker_uptime_seconds{JOB})", "uptime"),
        ),
    ]
