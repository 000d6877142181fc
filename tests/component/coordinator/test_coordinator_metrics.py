"""What Prometheus reads from the coordinator, and the other pages."""

import json
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from coordinator.metrics import COUNTERS, GAUGES, SITE_COUNTERS, SITE_GAUGES, SITE_PHASES, exposition
from coordinator.replayed import noting
from fedward.errors import IntegrityError, RejectReason
from fedward.http import STUCK_AFTER_S, pages_of
from fedward.messages import Evaluation, Phase, Ratio, Status, Telemetry
from fedward.testing import ManualClock
from fedward.topics import CARRIED, Up
from monitoring.catalogue import coordinator_page
from tests.support.coordinator_bench import Bench
from tests.support.site import Site
from tests.support.updates import FEDERATION, SITES, offer_of, payload_of
from tests.support.updates import SMALL as LAYOUT

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

ONLY_STATE = {"federation", "model_key_id", "sites"}
"""Of the page, what is no metric."""
ONLY_STATE_OF_A_SITE = {"online", "num_steps", "base_version", "evaluated_version"}


def samples(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


@pytest.fixture
def busy(start: Callable[..., Bench], north: Site, south: Site) -> Bench:
    """A coordinator after one version of two updates, a refusal, telemetry and a measurement of the first site."""
    bench = start()
    bench.settle()
    for seed, site in enumerate((north, south)):
        payload = payload_of(LAYOUT, seed)
        site.offer(offer_of(payload, seed, site.name, payload=payload))
    north.offer(offer_of(b"x", 9, base_version=7))
    north.say(
        Up.TELEMETRY,
        Telemetry(
            boot_id=b"boot-one", phase=Phase.TRAINING, version=1, step=7, num_steps=10, num_updates=1, num_refused=1,
            num_fetched=2, bytes_sent=1000, bytes_received=2000, step_s=0.5, train_loss=0.25, uplink_bytes_s=5e4,
            sent_at_s=bench.clock.now_s() - 90, device="cuda", num_gpus=1,
        ),
    )  # fmt: skip
    metrics = {"auc": Ratio(numerator=8.0, denominator=10.0)}
    north.say(Up.EVALUATION, Evaluation(federation=FEDERATION, version=0, num_examples=10, metrics=metrics))
    bench.settle()
    return bench


def test_every_field_of_the_page_is_exported_or_known_to_be_no_metric(busy: Bench) -> None:
    page = busy.service.page()
    exported = {
        *GAUGES, *COUNTERS, "software", "state", "refused", "num_came", "bytes_came", "message_s", "version_s",
        "broker", "broker_access", "certificates", "metrics", "worst_metrics",
    }  # fmt: skip
    assert set(page) == exported | ONLY_STATE
    of_a_site = {"phase", "codec", "software", "device", "metrics", *SITE_GAUGES, *SITE_COUNTERS}
    assert set(page["sites"]["north"]) == (of_a_site | ONLY_STATE_OF_A_SITE) - {"certificate_expires_s"}


def test_the_text_says_what_the_page_says(busy: Bench) -> None:
    page = busy.service.page()
    found = samples(exposition(page))
    assert value(found, "fed_model_version") == page["version"] == 1
    assert value(found, "fed_model_version_timestamp_seconds") == page["version_created_at_s"]
    assert value(found, "fed_buffer_updates") == 0
    assert value(found, "fed_buffer_size") == 2
    assert value(found, "fed_floor_version") == 0
    assert value(found, "fed_row_changed") == 0
    blobs = busy.config.state_folder / "blobs"
    assert value(found, "fed_blobs_bytes") == sum(path.stat().st_size for path in blobs.iterdir()) > 0
    assert value(found, "fed_ledger_bytes") >= (busy.config.state_folder / "ledger.sqlite").stat().st_size > 0
    assert value(found, "fed_broker_connected") == 1
    assert value(found, "fed_sent_bytes_total") == busy.link.bytes_sent
    assert value(found, "fed_received_bytes_total") == busy.link.bytes_received
    assert value(found, "fed_chunks_received_total") == page["chunks_received"]
    assert value(found, "fed_chunks_redundant_total") == page["chunks_redundant"]
    assert value(found, "fed_broker_access", state="unused") == 1
    assert value(found, "fed_broker_access", state="provisioned") == 0
    assert value(found, "fed_messages_refused_total", reason="unknown_base") == 1
    assert value(found, "fed_evaluation_ratio", metric="auc") == 0.8


def test_what_waits_in_the_inbox_is_told(busy: Bench, north: Site) -> None:
    before = busy.link.bytes_received
    north.say(Up.STATUS, Status(boot_id=b"boot-one", online=True))
    found = samples(exposition(busy.service.page()))
    assert value(found, "fed_inbox_messages") == 1
    assert value(found, "fed_inbox_bytes") == busy.link.bytes_received - before > 0
    busy.settle()
    assert value(samples(exposition(busy.service.page())), "fed_inbox_messages") == 0


OF_THE_SITE_ITSELF = [field for field in [*SITE_GAUGES, *SITE_COUNTERS] if field != "certificate_expires_s"]


@pytest.mark.parametrize("field", OF_THE_SITE_ITSELF)
def test_each_figure_of_a_site_carries_its_name(busy: Bench, field: str) -> None:
    page = busy.service.page()["sites"]["north"]
    name = SITE_GAUGES[field][0] if field in SITE_GAUGES else f"{SITE_COUNTERS[field][0]}_total"
    assert page[field] is not None, "the fixture has a value for every figure"
    assert value(samples(exposition(busy.service.page())), name, site="north") == pytest.approx(float(page[field]))


def test_the_clock_release_and_device_of_a_site_are_told(busy: Bench, north: Site) -> None:
    north.say(Up.STATUS, Status(boot_id=b"boot-one", online=True, software="fedward 0.1.0"))
    busy.settle()
    found = samples(exposition(busy.service.page()))
    assert value(found, "fed_site_clock_skew_seconds", site="north") == pytest.approx(-90)
    assert value(found, "fed_site_info", site="north", software="fedward 0.1.0", device="cuda") == 1


def test_no_label_holds_what_a_site_makes_up(busy: Bench, north: Site) -> None:
    north.say(Up.STATUS, Status(boot_id=b"boot-one", online=True, software='fedward 1"} 1\nfed_x 1'))
    north.say(Up.TELEMETRY, Telemetry(boot_id=b"boot-one", phase=Phase.IDLE, device="patient-7"))
    busy.settle()
    found = samples(exposition(busy.service.page()))
    assert value(found, "fed_site_info", site="north", software="other", device="other") == 1


def test_the_worst_site_is_told_and_of_a_loss_the_highest(busy: Bench, north: Site, south: Site) -> None:
    for site, auc, loss in ((north, 0.9, 0.2), (south, 0.7, 0.6)):
        metrics = {"auc": Ratio(numerator=auc, denominator=1.0), "loss": Ratio(numerator=loss, denominator=1.0)}
        site.say(Up.EVALUATION, Evaluation(federation=FEDERATION, version=1, num_examples=10, metrics=metrics))
    busy.settle()
    found = samples(exposition(busy.service.page()))
    assert value(found, "fed_evaluation_worst_ratio", metric="auc") == pytest.approx(0.7)
    assert value(found, "fed_evaluation_worst_ratio", metric="loss") == pytest.approx(0.6)
    assert value(found, "fed_site_evaluation_ratio", site="south", metric="auc") == pytest.approx(0.7)


def test_what_came_of_a_site_is_counted_by_what_it_carries(busy: Bench, north: Site) -> None:
    before = samples(exposition(busy.service.page()))
    north.say(Up.STATUS, Status(boot_id=b"boot-one", online=True))
    busy.settle()
    after = samples(exposition(busy.service.page()))
    more = {
        kind: value(after, "fed_site_egress_bytes_total", site="north", kind=kind)
        - value(before, "fed_site_egress_bytes_total", site="north", kind=kind)
        for kind in CARRIED
    }
    assert more["other"] > 0
    assert [kind for kind in CARRIED if more[kind]] == ["other"]
    assert value(before, "fed_site_egress_bytes_total", site="north", kind="update") > 0
    assert value(after, "fed_egress_messages_total", kind="other") == (
        value(before, "fed_egress_messages_total", kind="other") + 1
    )


def test_the_time_of_messages_and_versions_is_counted(busy: Bench) -> None:
    found = samples(exposition(busy.service.page()))
    assert value(found, "fed_message_seconds_count", kind="offer") == 3
    assert value(found, "fed_message_seconds_bucket", kind="offer", le="+Inf") == 3
    assert value(found, "fed_version_seconds_count") == 1
    assert value(found, "fed_version_step_norm") == pytest.approx(busy.versions.step_norm)


def test_500_sites_have_at_most_20000_series() -> None:
    page = coordinator_page([f"hospital-{number}" for number in range(500)])
    page |= {"refused": dict.fromkeys((reason.value for reason in RejectReason), 0)}
    lines = [line for line in exposition(page).splitlines() if not line.startswith("#")]
    assert 15_000 < len(lines) <= 20_000


def test_the_last_replay_is_told(busy: Bench) -> None:
    assert ("fed_replay_matches", frozenset()) not in samples(exposition(busy.service.page()))
    with noting(busy.config.state_folder, busy.clock, whole=True):
        pass
    found = samples(exposition(busy.service.page()))
    assert value(found, "fed_replay_matches") == 1
    assert value(found, "fed_replay_timestamp_seconds") == busy.clock.now_s()
    with pytest.raises(IntegrityError), noting(busy.config.state_folder, busy.clock, whole=False):
        raise IntegrityError("version 3")
    assert value(samples(exposition(busy.service.page())), "fed_replay_matches") == 0
    with noting(busy.config.state_folder, busy.clock, whole=False):
        pass
    assert value(samples(exposition(busy.service.page())), "fed_replay_matches") == 0, "a part says nothing of the rest"


def test_what_a_site_never_said_is_missing_and_not_zero(busy: Bench) -> None:
    found = samples(exposition(busy.service.page()))
    assert ("fed_site_train_loss", frozenset({("site", "south")})) not in found


def test_a_site_is_in_exactly_one_phase(busy: Bench, south: Site) -> None:
    south.say(Up.STATUS, Status(boot_id=b"boot-one", online=False))
    busy.settle()
    found = samples(exposition(busy.service.page()))
    phases = {
        site: [phase for phase in SITE_PHASES if value(found, "fed_site_phase", site=site, phase=phase)]
        for site in SITES
    }
    assert phases == {"north": ["training"], "south": ["offline"]}


def test_every_reason_of_a_refusal_starts_at_zero(start: Callable[..., Bench]) -> None:
    found = samples(exposition(start().service.page()))
    for reason in RejectReason:
        assert value(found, "fed_messages_refused_total", reason=reason.value) == 0


def test_help_texts_are_there(busy: Bench) -> None:
    families = list(text_string_to_metric_families(exposition(busy.service.page())))
    assert len(families) >= 10 + len(SITE_GAUGES) + len(SITE_COUNTERS)
    assert all(family.documentation.endswith(".") for family in families)


def test_the_loop_is_healthy_until_it_stands_still(start: Callable[..., Bench], clock: ManualClock) -> None:
    bench = start()
    served = pages_of(bench.service, exposition, clock)
    clock.advance(STUCK_AFTER_S - 1)
    assert served["/healthz"]().status == 200
    clock.advance(1)
    assert served["/healthz"]().status == 503
    bench.settle()
    assert served["/healthz"]().status == 200


def test_a_coordinator_is_ready_while_the_broker_is_there(start: Callable[..., Bench], clock: ManualClock) -> None:
    bench = start()
    served = pages_of(bench.service, exposition, clock)
    assert served["/readyz"]().status == 503
    bench.settle()
    assert served["/readyz"]().status == 200
    bench.link.went_down()
    bench.settle()
    assert served["/readyz"]().status == 503


def test_the_state_page_is_json_and_the_metrics_page_is_prometheus_text(busy: Bench, clock: ManualClock) -> None:
    served = pages_of(busy.service, exposition, clock)
    assert json.loads(served["/v1/state"]().body)["sites"]["north"]["phase"] == "training"
    assert value(samples(served["/metrics"]().body), "fed_model_version") == 1
