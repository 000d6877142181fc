"""What may be shown to those who help: canaries in all places where a secret or a record could be."""

import json

import pytest

from edge_agent.appliance.machine import judge_paths
from edge_agent.appliance.redact import REMOVED, kept_check, kept_line, kept_settings, private_texts, scrubbed
from fedward.doctor.check import Check, failed, ok

CANARY = "canary-7f3a"

TRACEBACK = f'''Traceback (most recent call last):
  File "/opt/fedward/app/edge_agent/train.py", line 12, in begin
    raise ValueError("{CANARY}")
  File "/opt/tasks/{CANARY}.py", line 3, in {CANARY.replace("-", "_")}
ValueError: patient {CANARY} is not a number
'''


@pytest.mark.parametrize(
    "settings",
    [
        {"broker": {"username": CANARY, "password_file": f"/run/secrets/{CANARY}"}},
        {"tasks": {"x": {"train": f"/data/{CANARY}.csv", "label": CANARY}}},
        {"proxy": f"http://{CANARY}@proxy:3128"},
        {"data": {"/data": f"/srv/{CANARY}"}},
        {"image_signature": CANARY, "folder": CANARY, "anything_new": [CANARY, {"x": CANARY}]},
    ],
    ids=str,
)
def test_settings_keep_no_path_user_or_option(settings: dict[str, object]) -> None:
    assert CANARY not in json.dumps(kept_settings(settings))


SITE = {
    "site": "north",
    "broker": {"host": "b.example.org", "username": f"{CANARY}-user", "port": 443},
    "tasks": {"x": {"train": f"/home/{CANARY}/hiv.csv", "device": f"{CANARY} cohort", "folds": [f"/srv/{CANARY}"]}},
}


@pytest.mark.parametrize(
    "check",
    [
        judge_paths([f"site.yaml, tasks.x.train: /home/{CANARY}/hiv.csv is not in the container"]),
        failed("tasks", f"task x: no {CANARY}", "correct `tasks`"),
        failed("agent", f"the agent's doctor ended with 2: {CANARY}", "correct what it says"),
        failed("mqtt", f"the broker refuses {CANARY}", f"the broker's operator must let {CANARY}-user in"),
        failed("a new one", CANARY, f"look at /srv/{CANARY}"),
        ok("disk", f"/srv/{CANARY}: 3 GiB free"),
    ],
    ids=lambda check: check.name,
)
def test_a_line_of_the_doctor_quotes_no_file_or_setting_of_the_hospital(check: Check) -> None:
    kept = kept_check(check, private_texts(SITE))
    assert CANARY not in json.dumps(vars(kept))
    assert (kept.name, kept.verdict) == (check.name, check.verdict)


def test_a_line_of_the_doctor_keeps_what_was_measured_and_the_remedy() -> None:
    check = failed("memory", "512 MiB, no container limit", "run this side on a machine with more memory")
    assert kept_check(check, private_texts(SITE)) == check
    paths = judge_paths(["something"])
    assert kept_check(paths, private_texts(SITE)).remedy == paths.remedy


def test_settings_keep_what_helps() -> None:
    settings = {"site": "north", "broker": {"host": "b.example.org", "port": 443, "plain": False}, "threads": None}
    assert kept_settings(settings) == settings
    assert kept_settings({"tasks": {"x": {"train": "/data/a.csv"}}}) == {"tasks": {"x": ["train"]}}


@pytest.mark.parametrize(
    "line",
    [
        f"record {CANARY}",
        json.dumps({"event": f"record {CANARY}"}),
        json.dumps({"event": "started", "path": CANARY, "advice": CANARY}),
        json.dumps({"event": "started", "reason": f"no {CANARY}"}),
        json.dumps({"event": "started", "logger": CANARY, "at": CANARY, "level": f"x {CANARY}"}),
        json.dumps({f"x {CANARY}": 1}),
        json.dumps({"event": "failed", "traceback": TRACEBACK}),
        json.dumps([CANARY]),
        json.dumps({"event": {"x": CANARY}}),
        *TRACEBACK.splitlines(),
    ],
)
def test_a_log_line_keeps_no_text_that_is_not_listed(line: str) -> None:
    assert CANARY not in kept_line(line)
    assert CANARY.replace("-", "_") not in kept_line(line)


def test_a_log_line_keeps_what_helps() -> None:
    fields = {
        "at": "2026-11-30T03:00:00.123Z",
        "level": "info",
        "logger": "edge_agent.agent",
        "event": "receipt",
        "update": "ab12",
        "outcome": "accepted",
        "num_steps": 12,
    }
    assert json.loads(kept_line(json.dumps(fields))) == fields
    failed = json.loads(kept_line(json.dumps({"event": "failed", "traceback": TRACEBACK})))
    assert failed["traceback"] == ["edge_agent/train.py:12 begin", "ValueError"]
    assert kept_line("record 4711") == "(a line of 11 letters that is not the agent's)"


@pytest.mark.parametrize(
    "text",
    [
        f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{CANARY} and it is cut",
        f"fedward1-{CANARY}",
        f"http://user:{CANARY}@proxy:3128",
        f"it says {CANARY}.",
    ],
)
def test_in_the_end_secrets_are_taken_out_of_all_texts(text: str) -> None:
    assert CANARY not in scrubbed(text, [CANARY] if "says" in text else [])
    assert REMOVED in scrubbed(text, [CANARY])
