"""What the broker answered, judged: let in or not, what it allows, how large its messages may be. Pure."""

from collections.abc import Mapping

from fedward.doctor.check import Check, failed, ok, skipped, warning
from fedward.doctor.facts import Answer
from fedward.limits import KIB, LEAST_BROKER_PAYLOAD, MAX_MESSAGE_BYTES

MQTT, RIGHTS, ANNOUNCEMENT, SIZES = "mqtt", "rights", "announcement", "sizes"

OPERATOR = "the broker's operator must"


def judge_mqtt(answer: Answer | None, who: str) -> Check:
    """Whether the broker lets this side in; None when nobody asked, for the side itself holds the connection."""
    if answer is None:
        return skipped(
            MQTT,
            "this side runs, and the broker knows its certificate by one client id: /readyz tells of its connection; "
            "stop it for this check",
        )
    if answer.refusal:
        return failed(
            MQTT,
            f"the broker refuses {who}: {answer.refusal}",
            f"{OPERATOR} let {who} in; check broker.username, broker.password_file and broker.tls",
        )
    if not answer.connected:
        return failed(
            MQTT,
            "the port takes the connection, and gives no answer to MQTT 5",
            "correct broker.port: it must be the broker's MQTT port (with TLS or without, as broker.tls says); "
            "a firewall that inspects protocols must allow MQTT",
        )
    return ok(MQTT, f"the broker lets {who} in")


def judge_rights(answer: Answer, who: str, rules: Mapping[str, str]) -> Check:
    """Whether the broker allows what this side needs: `rules` has filters and topics, and the right in words."""
    denied = [rules[topic] for topic in (*answer.denied, *answer.unanswered)]
    if denied:
        hung_up = " (it gave no answer to a publish)" if answer.unanswered else ""
        return failed(
            RIGHTS,
            f"the broker does not let {who} {'; '.join(denied)}{hung_up}",
            f"{OPERATOR} let {who} {'; '.join(denied)}",
        )
    return ok(RIGHTS, f"the broker lets {who} {'; '.join(rules.values())}")


def judge_announcement(answer: Answer, topic: str) -> Check:
    """Whether the coordinator's retained announcement came; some brokers grant a subscription and deliver nothing."""
    if topic in answer.delivered:
        return ok(ANNOUNCEMENT, "the coordinator's announcement is there")
    return warning(
        ANNOUNCEMENT,
        f"nothing came on {topic}",
        f"ask the federation's operator whether the coordinator runs; if it does, {OPERATOR} let this side receive it",
    )


def judge_sizes(answer: Answer) -> Check:
    """Whether the broker takes messages of the size that the protocol needs. It is the broker's word."""
    size = answer.max_payload_bytes
    if size < LEAST_BROKER_PAYLOAD:
        least = LEAST_BROKER_PAYLOAD + 4 * KIB
        return failed(
            SIZES,
            f"the broker takes messages of {size} bytes, the protocol needs {LEAST_BROKER_PAYLOAD}",
            f"{OPERATOR} raise its largest packet to {least} bytes or more (mosquitto: max_packet_size)",
        )
    return ok(SIZES, f"the broker takes messages of {size} bytes" + ("" if size < MAX_MESSAGE_BYTES else " or more"))
