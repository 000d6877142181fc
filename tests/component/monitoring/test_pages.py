"""The commands on the alerts' pages are commands of ours."""

import argparse
import re

import pytest

from coordinator.cli import add_command as add_coordinator
from edge_agent.appliance.cli import add_command as add_appliance
from edge_agent.cli import add_command as add_agent
from tests.support.rules import PAGES

COMMAND = re.compile(r"fedward (coordinator|agent|appliance) ([a-z-]+)((?: [^`.;,]*)?)")


def help_of(program: str, verb: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What `--help` of a command says. Fails where there is no such command."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    for add in (add_coordinator, add_agent, add_appliance):
        add(commands)
    with pytest.raises(SystemExit) as end:
        parser.parse_args([program, verb, "--help"])
    assert end.value.code == 0, f"fedward {program} {verb}"
    return capsys.readouterr().out


def test_every_command_on_a_page_exists_with_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    named = set()
    for page in PAGES.glob("*.md"):
        for program, verb, rest in COMMAND.findall(" ".join(page.read_text().split())):
            named.add((program, verb))
            known = help_of(program, verb, capsys)
            unknown = [option for option in re.findall(r"--[a-z-]+", rest) if option not in known]
            assert not unknown, f"{page.name}: {program} {verb}"
    assert len(named) > 10
