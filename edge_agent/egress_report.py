"""The egress log for people: what left, by kind and day and line by line, and whether anything of it was changed."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge_agent.egress_lines import Chain, Head, Total, What, messages_left, totals
from edge_agent.egress_log import lines_in, read_head
from fedward.errors import ConfigError, IntegrityError
from fedward.process import utc_text

ORDERLY = ("new", "in order")


@dataclass
class Verified:
    """A log in which every line is as it was written."""

    num_lines: int = 0
    head: Head = field(default_factory=Head)
    num_killed: int = 0
    """Processes that did not end in order."""
    num_power_cuts: int = 0
    """Of these, with a restart of the machine: of the last second before it lines may be missing."""
    torn_bytes: int = 0
    """Of a last line that was being written when the process died, or is being written now."""

    def note(self, fields: dict[str, Any]) -> None:
        """Take a line in."""
        if fields["what"] == What.START and fields["ended"] not in ORDERLY:
            self.num_killed += 1
            self.num_power_cuts += fields["ended"] != "killed"


def verify(folder: Path, expected: str | None = None) -> Verified:
    """Look at every line. Raises IntegrityError for the first that is changed, missing, moved or put in.

    `expected` is the digest of a line that was written down elsewhere: it must be there.
    """
    saved = read_head(folder)  # before the lines: the agent may write meanwhile
    chain, found = Chain(saved[0] if saved else Head()), Verified()
    is_there = False
    for line in lines_in(folder):
        if found.torn_bytes:
            raise IntegrityError("egress log: a line has lost its end, and others follow it")
        if not line.endswith(b"\n"):
            found.torn_bytes = len(line)
            continue
        found.note(chain.follow(line[:-1]))
        is_there = is_there or (chain.head or Head()).digest == expected
    chain.check_end()
    chain.check_begin()
    if saved is None and chain.num_lines:
        raise IntegrityError(f"{folder}: head.json is missing, so nobody can say what was cut off at the end")
    if expected and not is_there:
        raise IntegrityError(f"egress log: no line has the digest {expected}: the log is another one, or was cut since")
    found.num_lines, found.head = chain.num_lines, chain.head or Head()
    return found


def messages_since(folder: Path, since: str = "") -> Iterator[dict[str, Any]]:
    """The lines of what left, from this time on. What can't be read is passed over: `verify` names it."""
    for fields in messages_left(_readable(folder)):
        if fields["at"] >= since:
            yield dict(fields)


def time_of(text: str) -> str:
    """A date or a time, of UTC where it does not say, as the log writes it. Raises ConfigError for anything else."""
    try:
        given = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"--since {text}: expected a date or time such as 2026-11-24 or 2026-11-24T17:00:00Z"
        ) from error
    return utc_text((given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp())


def report(folder: Path, since: str) -> Iterator[str]:
    """Each message, and what they come to by day and kind."""
    kept: list[dict[str, Any]] = []
    for fields in messages_since(folder, since):
        kept.append(fields)
        version = f"version {fields['version']}" if "version" in fields else ""
        kind = f"{fields['what']} {fields['kind']}"
        yield f"{fields['at']}  {kind:22} {version:14} {fields['size']:>9} bytes  sha256 {fields['sha256']}"
    yield ""
    yield f"{'day (UTC)':10}  {'kind':12} {'messages':>9} {'bytes':>14}"
    for total in totals(kept):
        yield f"{total.day:10}  {total.kind:12} {total.count:>9} {total.size:>14}"


def document(folder: Path, since: str) -> dict[str, Any]:
    """The same for scripts."""
    kept = list(messages_since(folder, since))
    sums: list[Total] = totals(kept)
    return {"totals": [asdict(total) for total in sums], "messages": kept}


def verdict(found: Verified) -> Iterator[str]:
    """What `verify` found, for people."""
    if not found.num_lines:
        yield "there is no log: nothing was ever sent, or somebody removed it; a head that was noted tells (--head)"
        return
    yield f"verified: {found.num_lines} lines, each as it was written, none missing"
    yield f"head: line {found.head.n}, {found.head.digest}"
    if found.num_killed:
        yield f"the agent was killed {found.num_killed} times: no line is lost by that"
    if found.num_power_cuts:
        yield f"in {found.num_power_cuts} of these the power may have been cut: lines of the last second may be missing"
    if found.torn_bytes:
        yield f"the last line is not whole ({found.torn_bytes} bytes): written just now, or torn by a power cut"


def _readable(folder: Path) -> Iterator[dict[str, Any]]:
    for line in lines_in(folder):
        try:
            yield Chain().follow(line.rstrip(b"\n"))
        except IntegrityError:
            pass
