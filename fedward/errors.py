"""Whose fault it is, and who acts.

    FedwardError
    +-- ConfigError      the operator's: says every problem at once, the process does not start (exit 2)
    +-- PeerError        the other side sent something that is refused: counted by reason, answered, dropped
    +-- TransientError   the network or a store is away: tried again, with jitter, in one place
    +-- IntegrityError   what is stored is not what was written: nothing goes on with it (exit 4)

Anything else that is raised is a bug of ours: let it crash, the supervisor restarts the process.
"""

from enum import StrEnum


class FedwardError(Exception):
    """Any error that Fedward raises on purpose."""


class ConfigError(FedwardError):
    """The operator's settings can't be used. The message lists every problem and what to do."""


class RejectReason(StrEnum):
    """Why something from the other side was refused: a closed list that is also the metric label."""

    TOO_LARGE = "too_large"  # more bytes than the limit for its kind
    MALFORMED = "malformed"  # not msgpack, a field missing, of a wrong type or out of its bounds
    PROTOCOL_VERSION = "protocol_version"  # a protocol version that this side does not speak
    WRONG_FEDERATION = "wrong_federation"  # signed for another federation
    UNKNOWN_SITE = "unknown_site"  # not on the list of admitted sites
    UNKNOWN_BASE = "unknown_base"  # trained from a version that was never announced
    STALE = "stale"  # trained from a version older than the federation accepts
    REPEATED = "repeated"  # the federation takes one update of a site from a version, and has it
    UNKNOWN_CODEC = "unknown_codec"  # a codec that the announcement does not allow
    LAYOUT_MISMATCH = "layout_mismatch"  # not the shape of this federation's model
    DIGEST_MISMATCH = "digest_mismatch"  # the bytes are not those that were promised
    NOT_FINITE = "not_finite"  # a NaN or an infinity in the update
    NORM_TOO_LARGE = "norm_too_large"  # finite, but so large that a sum of such updates might not be
    OUTLIER = "outlier"  # far longer than the updates of the other sites
    QUARANTINED = "quarantined"  # the site sent outliers: a person decides whether its updates count again
    NOT_OFFERED = "not_offered"  # a chunk of an update that was never offered or already ended
    BUSY = "busy"  # no room now: offer again later
    FINISHED = "finished"  # the federation takes no more updates
    BAD_SIGNATURE = "bad_signature"  # not signed by the one whose topic it came on, or changed since
    REPLAYED = "replayed"  # signed, but its counter was seen already
    CANNOT_OPEN = "cannot_open"  # sealed for somebody or something else, or changed since
    TASK_NOT_ALLOWED = "task_not_allowed"  # the site's own list does not hold the announced task


class PeerError(FedwardError):
    """The other side sent something that is refused; `reason` is for counters and receipts.

    `detail` is for this side's own log: it names sizes, types and bounds, never content.
    """

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


class UnprovenError(PeerError):
    """Refused before it was known who has sent it: nothing may be told to, or ended for, whom it names."""


class TransientError(FedwardError):
    """The network or a store is away for now; the same call may succeed later."""


class IntegrityError(FedwardError):
    """What is stored is not what was written: changed, removed or damaged. The message names the first such thing."""
