import argparse
import signal
import sys
from pathlib import Path

import pytest

from fedward.errors import ConfigError
from sandbox.child import Child
from sandbox.cli import add_command, checked
from sandbox.interrupt import Interrupted, signals_held, signals_raised


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    add_command(parser.add_subparsers())
    return parser.parse_args(["demo", *arguments])


def test_the_codec_f32_means_float32_both_ways():
    assert checked(parsed("--codec", "f32"), None)["model_codec"] == "f32"
    assert checked(parsed("--codec", "eden4"), None)["model_codec"] == "uqz"


def test_slow_hospitals_and_the_target_are_read():
    given = checked(parsed("--slow", "va=2.5", "--slow", "cleveland=3", "--target", "auc=0.99"), None)
    assert given["slow"] == {"va": 2.5, "cleveland": 3.0}
    assert given["target"] == ("auc", 0.99)


def test_the_data_folder_is_the_option_before_the_environment():
    assert checked(parsed(), "/env")["data"] == Path("/env")
    assert checked(parsed("--data", "/given"), "/env")["data"] == Path("/given")


def test_every_wrong_option_is_told_at_once():
    arguments = parsed(
        "--sites", "1", "--seconds", "0", "--slow", "va", "--slow", "va=0.5", "--target", "auc=2", "--json", "/no/x/y"
    )
    with pytest.raises(ConfigError) as raised:
        checked(arguments, None)
    for part in ("--sites 1", "--seconds 0", "--slow va:", "--slow va=0.5", "--target auc=2", "--json /no/x/y"):
        assert part in str(raised.value)


@pytest.mark.parametrize("target", ["auc", "auc=high", "colour=1", "auc=-1"])
def test_a_target_that_cannot_be_reached_is_refused(target):
    with pytest.raises(ConfigError, match="--target"):
        checked(parsed("--target", target), None)


def test_a_loss_may_be_larger_than_one():
    assert checked(parsed("--target", "loss=1.5"), None)["target"] == ("loss", 1.5)


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_an_exception_once_and_ignored_while_cleaning_up(number, exit_code):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as raised:
        clean_up_after(number)
    assert raised.value.exit_code == exit_code
    assert signal.getsignal(number) == before


def clean_up_after(number):
    with signals_raised():
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)


def begin_and_note(noted):
    with signals_raised(), signals_held():
        signal.raise_signal(signal.SIGTERM)
        noted.append("a process")


def test_a_signal_waits_until_what_was_begun_is_noted():
    noted = []
    with pytest.raises(Interrupted):
        begin_and_note(noted)
    assert noted == ["a process"]


def test_a_process_that_was_started_while_signals_were_held_takes_them(tmp_path):
    print_held = "import signal; print('held:', sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))"
    with signals_held():
        child = Child([sys.executable, "-c", print_held], tmp_path / "log")
    assert child.wait(30) == 0
    assert (tmp_path / "log").read_text() == "held: []\n"
