"""What the hospital allows: an announcement passes only if every point of it is allowed."""

from typing import Any

import pytest

from edge_agent.config import PolicySettings, SiteConfig
from edge_agent.policy import allowed_codecs, check_announcement
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


@pytest.mark.parametrize(
    ("codecs", "policy", "left"),
    [
        (None, None, ("eden4",)),  # of an older coordinator
        (("q8", "eden4", "eden2"), None, ("eden4", "q8", "eden2")),
        (("q8", "eden2"), ["eden2", "eden1"], ("eden2",)),
        (("of-tomorrow", "eden2"), None, ("eden4", "eden2")),
        (("uqz", "eden2"), None, ("eden4", "eden2")),  # the first of them only carries models
        (("q8",), ["eden1"], ()),
    ],
)
def test_updates_leave_in_codecs_that_the_federation_takes_and_the_policy_allows(
    office: Any, codecs: tuple[str, ...] | None, policy: list[str] | None, left: tuple[str, ...]
) -> None:
    announcement = office.announcement(codec="eden4", codecs=codecs)
    assert allowed_codecs(announcement, PolicySettings(codecs=policy)) == left


def test_an_announcement_without_a_codec_that_the_policy_allows_is_refused(office: Any, config: SiteConfig) -> None:
    narrow = config.model_copy(update={"policy": PolicySettings(codecs=["eden1"])})
    check_announcement(office.announcement(codecs=("eden1",)), narrow)
    with pytest.raises(PeerError) as error:
        check_announcement(office.announcement(codecs=("eden2",)), narrow)
    assert error.value.reason is RejectReason.UNKNOWN_CODEC
