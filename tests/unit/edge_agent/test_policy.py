"""What the hospital allows: an announcement passes only if every point of it is allowed."""

from typing import Any

import pytest

from edge_agent.config import SiteConfig
from edge_agent.policy import check_announcement
from fedward.errors import PeerError, RejectReason


def test_an_allowed_announcement_passes(office: Any, config: SiteConfig) -> None:
    check_announcement(office.announcement(), config)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"federation": "other"}, RejectReason.WRONG_FEDERATION),
        ({"task": "other"}, RejectReason.TASK_NOT_ALLOWED),
        ({"codec": "other"}, RejectReason.UNKNOWN_CODEC),
    ],
)
def test_one_point_that_is_not_allowed_is_enough_to_refuse(
    office: Any, config: SiteConfig, changes: dict[str, str], reason: RejectReason
) -> None:
    with pytest.raises(PeerError) as error:
        check_announcement(office.announcement(**changes), config)
    assert error.value.reason is reason
