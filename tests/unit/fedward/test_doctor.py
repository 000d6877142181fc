"""The doctor's judgement, fact by fact; real networks are in tests/component/doctor."""

import json
import threading
from pathlib import Path

import pytest

from fedward.disk import RESERVE_BYTES
from fedward.doctor import broker, machine, way
from fedward.doctor.check import Check, Course, Verdict, as_json, as_text, exit_code, failed, ok, warning
from fedward.doctor.deadline import Deadline
from fedward.doctor.facts import (
    Answer,
    ClockFacts,
    Contact,
    Folder,
    Handshake,
    Limits,
    Lookup,
    Memory,
    OwnFiles,
    Proxy,
    ProxyAnswer,
    Reach,
    TlsFiles,
    Trouble,
)
from fedward.doctor.measure import (
    clock_is_synchronised,
    cpu_limits,
    measure_folder,
    measure_limits,
    measure_memory,
    memory_limits,
)
from fedward.doctor.reach import reach_of
from fedward.identity.description import CertificateFacts, describe_certificate
from fedward.limits import LEAST_BROKER_PAYLOAD
from fedward.mqtt import MqttSettings

REACH = Reach("broker.example.org", 8883, tls=TlsFiles())
BEHIND_PROXY = Reach("broker.example.org", 8883, Proxy(host="proxy", port=3128))
NOW_S = 1_800_000_000.0
DAY_S, GB = 86_400.0, 10**9
ROOM = 10 * GB
OWN = OwnFiles(TlsFiles())
CERTIFICATE = CertificateFacts("CN=broker", "CN=ward", NOW_S - 50 * DAY_S, NOW_S + 50 * DAY_S)


# the report


def test_only_a_failure_makes_the_exit_code_1() -> None:
    assert exit_code([ok("a", "x"), warning("b", "x", "y"), Check("c", Verdict.SKIPPED, "x")]) == 0
    assert exit_code([ok("a", "x"), failed("b", "x", "y")]) == 1


def test_every_check_is_a_line_with_its_remedy_below() -> None:
    text = as_text([ok("name", "found"), failed("tcp", "refused", "allow it")])
    assert text.splitlines() == [
        "ok       name  found",
        "failed   tcp   refused",
        "               -> allow it",
        "1 ok, 1 failed",
    ]


def test_a_name_that_came_over_the_network_can_not_steer_the_terminal() -> None:
    assert "\x1b" not in as_text([failed("tls", "issued by \x1b[2J\r\nok", "x\x07")])


def test_the_json_has_every_field_of_every_check() -> None:
    checks = [failed("tcp", "refused", "allow it"), ok("disk", "1 GB")]
    assert json.loads(as_json(checks)) == [
        {"name": "tcp", "verdict": "failed", "found": "refused", "remedy": "allow it"},
        {"name": "disk", "verdict": "ok", "found": "1 GB", "remedy": ""},
    ]


def test_what_builds_on_a_failure_is_skipped_and_says_on_which() -> None:
    course = Course()
    course.take("a", lambda: failed("a", "x", "y"))
    course.take("b", lambda: pytest.fail("judged although a failed"), "a")
    course.take("c", lambda: Check("c", Verdict.SKIPPED, "because none is configured"))
    course.take("d", lambda: ok("d", "x"), "c")
    course.take("e", lambda: pytest.fail("judged although a failed"), "d", "b")
    verdicts = [(check.verdict, check.found) for check in course.checks[1:]]
    assert verdicts == [
        (Verdict.SKIPPED, "because a failed"),
        (Verdict.SKIPPED, "because none is configured"),
        (Verdict.OK, "x"),
        (Verdict.SKIPPED, "because a failed"),
    ]


def test_work_that_takes_too_long_is_left_behind(request: pytest.FixtureRequest) -> None:
    deadline = Deadline(0.05)
    event = threading.Event()
    request.addfinalizer(event.set)
    assert deadline.within(60.0, event.wait, None) is None
    assert deadline.left_s(60.0) == 0.0


def test_the_limit_of_one_probe_is_its_own_or_what_is_left_of_the_run() -> None:
    assert Deadline(60.0).left_s(5.0) == 5.0
    assert Deadline(60.0).left_s(100.0) <= 60.0
    assert Deadline().within(5.0, lambda: "done", "late") == "done"


# the way


def test_the_settings_say_how_the_broker_is_reached() -> None:
    settings = MqttSettings(host="broker.example.org", port=8883, client_id="a", session_expiry_s=60)
    assert reach_of(settings) == Reach("broker.example.org", 8883)


def test_a_name_is_looked_up_of_the_proxy_where_there_is_one() -> None:
    assert BEHIND_PROXY.first_hop == ("proxy", 3128)
    check = way.judge_name(BEHIND_PROXY, Lookup("proxy", trouble=Trouble.UNKNOWN_NAME))
    assert "broker.proxy" in check.remedy


def test_a_name_server_that_is_silent_is_another_matter_than_an_unknown_name() -> None:
    silent = way.judge_name(REACH, Lookup(REACH.host, trouble=Trouble.NO_ANSWER))
    unknown = way.judge_name(REACH, Lookup(REACH.host, trouble=Trouble.UNKNOWN_NAME))
    assert "port 53" in silent.remedy
    assert "broker.host" in unknown.remedy


def test_a_proxy_that_was_given_a_user_is_told_that_it_is_the_wrong_one() -> None:
    answer = ProxyAnswer(Contact("10.0.0.1", 3128), 407)
    named = Reach("broker", 8883, Proxy("proxy", 3128, "user", "secret"))
    assert "correct user name" in way.judge_proxy(named, answer).remedy
    assert "put user name" in way.judge_proxy(BEHIND_PROXY, answer).remedy


def test_without_tls_is_worth_a_warning_unless_the_broker_is_on_this_machine() -> None:
    bare = Reach("broker", 1883)
    assert way.judge_tls(bare, None, None, NOW_S, loopback=False).verdict is Verdict.WARNING
    assert way.judge_tls(bare, None, None, NOW_S, loopback=True).verdict is Verdict.SKIPPED


@pytest.mark.parametrize("code", sorted(way.OTHER_ISSUER))
def test_a_certificate_of_somebody_else_names_the_issuer_and_the_exception_to_ask_for(code: int) -> None:
    presented = CertificateFacts("CN=broker", "CN=Zscaler Root CA,O=Zscaler", 0.0, NOW_S + DAY_S)
    check = way.judge_tls(REACH, OWN, Handshake("TLSv1.3", presented, code, "no"), NOW_S, loopback=False)
    assert check.verdict is Verdict.FAILED
    assert "issued by CN=Zscaler Root CA,O=Zscaler" in check.found
    assert "exception of broker.example.org port 8883" in check.remedy


def test_any_other_complaint_about_a_certificate_is_passed_on() -> None:
    check = way.judge_tls(REACH, OWN, Handshake("", CERTIFICATE, 79, "invalid CA certificate"), NOW_S, loopback=False)
    assert check.verdict is Verdict.FAILED
    assert "invalid CA certificate" in check.found


@pytest.mark.parametrize(("left_days", "verdict"), [(50, Verdict.OK), (3, Verdict.WARNING), (-1, Verdict.FAILED)])
def test_this_sides_certificate_is_judged_by_its_dates(left_days: float, verdict: Verdict) -> None:
    ends_s = NOW_S + left_days * DAY_S
    own = CertificateFacts("CN=st-anna", "CN=ward", NOW_S - 50 * DAY_S, ends_s)
    assert way.judge_own(REACH, OwnFiles(TlsFiles(), certificate=own), NOW_S).verdict is verdict


def test_a_certificate_that_begins_later_tells_of_the_clock() -> None:
    later = CertificateFacts("CN=st-anna", "CN=ward", NOW_S + 5.0, NOW_S + DAY_S)
    assert way.judge_own(REACH, OwnFiles(TlsFiles(), certificate=later), NOW_S).verdict is Verdict.FAILED
    assert way.begins_later(Handshake(presented=CERTIFICATE), later, NOW_S) == NOW_S + 5.0
    assert way.begins_later(None, CERTIFICATE, NOW_S) is None


def test_the_broker_is_judged_before_this_side_has_a_certificate() -> None:
    nothing_yet = OwnFiles(TlsFiles(), (("certificate_file", "can't be read"), ("key_file", "can't be read")))
    shaken = Handshake("TLSv1.3", CERTIFICATE, alert="TLSV13_ALERT_CERTIFICATE_REQUIRED")
    assert way.judge_tls(REACH, nothing_yet, shaken, NOW_S, loopback=False).verdict is Verdict.OK
    assert way.judge_tls(REACH, OWN, shaken, NOW_S, loopback=False).verdict is Verdict.FAILED


def test_without_an_authority_nobody_can_tell_whose_certificate_it_is() -> None:
    blind = OwnFiles(TlsFiles(), (("ca_file", "can't be read"),))
    check = way.judge_tls(REACH, blind, Handshake("TLSv1.3", CERTIFICATE), NOW_S, loopback=False)
    assert check.verdict is Verdict.WARNING
    assert "issued by CN=ward" in check.found


def test_settings_that_can_not_be_used_say_why() -> None:
    assert way.judge_settings(Reach("", 0), "broker.password_file: can't read it").verdict is Verdict.FAILED
    assert "through the proxy proxy port 3128" in way.judge_settings(BEHIND_PROXY, "").found


def test_a_description_of_no_certificate_is_none() -> None:
    assert describe_certificate(b"") is None
    assert describe_certificate(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n") is None


# the broker


def test_a_side_that_holds_its_connection_is_not_disturbed() -> None:
    check = broker.judge_mqtt(None, "site a")
    assert check.verdict is Verdict.SKIPPED
    assert "stop it" in check.found


def test_a_publish_without_an_answer_is_a_missing_right() -> None:
    rules = {"t": "publish to t/#", "f": "subscribe to f"}
    check = broker.judge_rights(Answer(connected=True, unanswered=("t",)), "site a", rules)
    assert check.remedy == "the broker's operator must let site a publish to t/#"


@pytest.mark.parametrize(
    ("size", "verdict"), [(LEAST_BROKER_PAYLOAD - 1, Verdict.FAILED), (LEAST_BROKER_PAYLOAD, Verdict.OK)]
)
def test_a_message_size_is_enough_from_the_least_one_on(size: int, verdict: Verdict) -> None:
    assert broker.judge_sizes(Answer(connected=True, max_payload_bytes=size)).verdict is verdict


# the machine


def folder(free_bytes: int, used_bytes: int = 0, *, writable: bool = True) -> Folder:
    return Folder(Path("/state"), Path("/state"), writable, free_bytes, used_bytes)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (None, Verdict.FAILED),
        (folder(ROOM, writable=False), Verdict.FAILED),
        (folder(RESERVE_BYTES + GB - 1), Verdict.FAILED),
        (folder(RESERVE_BYTES + GB), Verdict.WARNING),
        (folder(RESERVE_BYTES + GB, used_bytes=4 * GB), Verdict.OK),
        (folder(RESERVE_BYTES + 5 * GB), Verdict.OK),
    ],
)
def test_a_disk_is_judged_by_the_next_step_and_by_all_that_it_will_hold(found: Folder | None, verdict: Verdict) -> None:
    check = machine.judge_disk(found, least_bytes=GB, whole_bytes=5 * GB)
    assert check.verdict is verdict
    assert bool(check.remedy) == (verdict is not Verdict.OK)


def test_memory_that_a_container_withholds_is_the_containers_limit_to_raise() -> None:
    check = machine.judge_memory(Memory(16 * GB, 12 * GB, limit_bytes=GB), 2 * GB, running=False)
    assert check.verdict is Verdict.FAILED
    assert "--memory" in check.remedy
    small = machine.judge_memory(Memory(GB, GB), 2 * GB, running=False)
    assert "machine with more memory" in small.remedy


def test_memory_that_this_side_itself_has_taken_is_no_warning() -> None:
    memory = Memory(16 * GB, GB)
    assert machine.judge_memory(memory, 2 * GB, running=False).verdict is Verdict.WARNING
    assert machine.judge_memory(memory, 2 * GB, running=True).verdict is Verdict.OK


def test_each_narrow_limit_has_its_remedy() -> None:
    check = machine.judge_limits(Limits(cpus=0.5, num_cores=8, open_files=256, shared_memory_bytes=None))
    assert check.verdict is Verdict.WARNING
    assert "--cpus" in check.remedy
    assert "ulimit" in check.remedy
    assert machine.judge_limits(Limits(None, 8, None, 64_000_000)).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        (ClockFacts(NOW_S, synchronised=True), Verdict.OK),
        (ClockFacts(NOW_S, synchronised=False), Verdict.WARNING),
        (ClockFacts(NOW_S), Verdict.SKIPPED),
        (ClockFacts(NOW_S, None, proxy_date_s=NOW_S - 5), Verdict.OK),
        (ClockFacts(NOW_S, True, proxy_date_s=NOW_S - 120), Verdict.WARNING),
        (ClockFacts(NOW_S, True, proxy_date_s=NOW_S + 7200), Verdict.FAILED),
        (ClockFacts(NOW_S, True, not_before_s=NOW_S + 1), Verdict.FAILED),
    ],
)
def test_a_clock_is_judged_by_those_who_told_the_time(facts: ClockFacts, verdict: Verdict) -> None:
    assert machine.judge_clock(facts).verdict is verdict


def test_limits_of_a_container_are_read_from_its_group_and_all_above(tmp_path: Path) -> None:
    own, group = tmp_path / "cgroup", tmp_path / "groups" / "pod" / "agent"
    group.mkdir(parents=True)
    own.write_text("1:name=systemd:/\n0::/pod/agent\n")
    (group / "memory.max").write_text("max\n")
    (group.parent / "memory.max").write_text("1000\n")
    (tmp_path / "memory.max").write_text("1\n")  # not of the groups
    (group / "cpu.max").write_text("50000 100000\n")
    (group.parent / "cpu.max").write_text("max 100000\n")
    assert memory_limits(tmp_path / "groups", own) == ["max", "1000"]
    assert cpu_limits(tmp_path / "groups", own) == [0.5]


def test_limits_of_a_container_are_read_where_each_controller_has_its_own_groups(tmp_path: Path) -> None:
    own, groups = tmp_path / "cgroup", tmp_path / "groups"
    own.write_text("5:cpu,cpuacct:/docker/agent\n4:memory:/docker/agent\n0::/docker/agent\n")
    for controller in ("cpu", "memory"):
        (groups / controller).mkdir(parents=True)  # in a container its own group is mounted here
    (groups / "memory" / "memory.limit_in_bytes").write_text("1073741824\n")
    (groups / "cpu" / "cpu.cfs_quota_us").write_text("150000\n")
    (groups / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert memory_limits(groups, own) == ["1073741824"]
    assert cpu_limits(groups, own) == [1.5]
    (groups / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert cpu_limits(groups, own) == []


def test_this_machine_can_be_measured(tmp_path: Path) -> None:
    memory, limits = measure_memory(), measure_limits()
    assert 0 < memory.available_bytes <= memory.total_bytes
    assert limits.num_cores >= 1
    assert clock_is_synchronised() in {True, False, None}


def test_a_folder_that_is_not_there_yet_is_judged_by_the_one_above_and_not_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    found = measure_folder(tmp_path / "not" / "there")
    assert (found.nearest, found.writable, found.used_bytes) == (tmp_path, True, 0)
    assert measure_folder(tmp_path).used_bytes == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
