"""What the hospital allows, decided here and nowhere else. Pure."""

from edge_agent.config import PolicySettings, SiteConfig
from fedward.codec import CODECS
from fedward.errors import PeerError, RejectReason
from fedward.messages import Announcement


def check_announcement(announcement: Announcement, config: SiteConfig) -> None:
    """Nothing is fetched before this passes.

    Raises PeerError: WRONG_FEDERATION, TASK_NOT_ALLOWED, UNKNOWN_CODEC, MALFORMED.
    """
    if announcement.federation != config.federation:
        raise PeerError(RejectReason.WRONG_FEDERATION, "an announcement of another federation")
    if announcement.task not in config.tasks:
        raise PeerError(
            RejectReason.TASK_NOT_ALLOWED,
            f"the federation asks for task {announcement.task}; allowed here: {', '.join(config.tasks)}",
        )
    if config.identity and announcement.sealing_key is None:
        raise PeerError(RejectReason.MALFORMED, "no key to seal updates with, and this site sends none unsealed")
    if announcement.codec not in CODECS:
        raise PeerError(RejectReason.UNKNOWN_CODEC, f"codec {announcement.codec}; known here: {', '.join(CODECS)}")
    if not allowed_codecs(announcement, config.policy):
        given = ", ".join(offered_codecs(announcement))
        here = ", ".join(config.policy.codecs or CODECS)
        raise PeerError(RejectReason.UNKNOWN_CODEC, f"updates may come in {given}; allowed here: {here}")


def allowed_codecs(announcement: Announcement, policy: PolicySettings) -> tuple[str, ...]:
    """What an update of this site may be written in: what the federation takes, known here, and the policy allows."""
    return tuple(
        name
        for name in offered_codecs(announcement)
        if name in CODECS and CODECS[name].carries_updates and (policy.codecs is None or name in policy.codecs)
    )


def offered_codecs(announcement: Announcement) -> tuple[str, ...]:
    """What the federation takes, each once; only the codec asked for where an older coordinator does not say."""
    return tuple(dict.fromkeys([announcement.codec, *(announcement.codecs or ())]))
