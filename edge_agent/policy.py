"""What the hospital allows, decided here and nowhere else. Pure."""

from edge_agent.config import SiteConfig
from fedward.codec import CODECS
from fedward.errors import PeerError, RejectReason
from fedward.messages import Announcement


def check_announcement(announcement: Announcement, config: SiteConfig) -> None:
    """Raises PeerError: WRONG_FEDERATION, TASK_NOT_ALLOWED, UNKNOWN_CODEC. Nothing is fetched before this passes."""
    if announcement.federation != config.federation:
        raise PeerError(RejectReason.WRONG_FEDERATION, "an announcement of another federation")
    if announcement.task not in config.tasks:
        raise PeerError(
            RejectReason.TASK_NOT_ALLOWED,
            f"the federation asks for task {announcement.task}; allowed here: {', '.join(config.tasks)}",
        )
    if announcement.codec not in CODECS:
        raise PeerError(RejectReason.UNKNOWN_CODEC, f"codec {announcement.codec}; known here: {', '.join(CODECS)}")
