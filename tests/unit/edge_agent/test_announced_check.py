"""What a site can't do whatever its policy says: refused with a reason, and counted."""

from typing import Any

import pytest

from edge_agent.announced import check_announcement
from fedward.errors import PeerError, RejectReason
from tests.support.office import FEDERATION, TASK


def test_an_announcement_that_this_site_can_follow_passes(office: Any) -> None:
    check_announcement(office.announcement(), FEDERATION, {TASK: office.layout})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"federation": "other"}, RejectReason.WRONG_FEDERATION),
        ({"task": "other"}, RejectReason.TASK_NOT_ALLOWED),
        ({"codec": "other"}, RejectReason.UNKNOWN_CODEC),
        ({"layout_digest": bytes(32)}, RejectReason.LAYOUT_MISMATCH),
    ],
)
def test_one_point_that_can_not_be_followed_is_enough_to_refuse(
    office: Any, changes: dict[str, Any], reason: RejectReason
) -> None:
    with pytest.raises(PeerError) as error:
        check_announcement(office.announcement(**changes), FEDERATION, {TASK: office.layout})
    assert error.value.reason is reason
