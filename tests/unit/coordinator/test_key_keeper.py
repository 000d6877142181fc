"""Who is given the model key, and when another one takes its place."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from coordinator.model_key import KeyKeeper, is_spent
from fedward.chunks import manifest_of
from fedward.errors import PeerError
from fedward.identity.certificates import DAY_S, Certificate, load_certificate
from fedward.identity.model_key import KeyReceiver, ModelKey
from fedward.limits import CHUNK_BYTES
from fedward.messages import Status
from sandbox.identities import DAYS, make_identities

FEDERATION, NOW_S = "ward", 1_790_000_000.0
SITES = ("north", "south")


@pytest.fixture
def members(tmp_path: Path) -> Mapping[str, Certificate]:
    make_identities(tmp_path / "identities", FEDERATION, SITES, NOW_S)
    return {site: load_certificate(tmp_path / "identities" / site / f"{site}.crt") for site in SITES}


@pytest.fixture
def begin(members: Mapping[str, Certificate]) -> Callable[..., KeyKeeper]:
    """A process of the coordinator."""

    def start(sites: Mapping[str, Certificate] = members, listed: tuple[str, ...] = SITES) -> KeyKeeper:
        keeper = KeyKeeper(FEDERATION, listed)
        keeper.look(sites, NOW_S)
        return keeper

    return start


class Process:
    """One process of a site."""

    def __init__(self, site: str, boot_id: bytes = b"boot-one") -> None:
        self.site, self.boot_id = site, boot_id
        self.receiver = KeyReceiver(FEDERATION, site)

    def status(self, *, online: bool = True) -> Status:
        return Status(boot_id=self.boot_id, online=online, receiving_key=self.receiver.public if online else None)

    def arrive(self, keeper: KeyKeeper) -> ModelKey | None:
        """Say that it is here; the key that it is given."""
        keeper.heard(self.site, self.status())
        message = keeper.hand_out(self.site).get(self.site)
        return self.receiver.open(message) if message else None


def test_all_members_are_given_one_key_and_a_new_process_is_given_it_again(begin: Callable[..., KeyKeeper]) -> None:
    keeper = begin()
    keys = [
        Process("north").arrive(keeper),
        Process("south").arrive(keeper),
        Process("north", b"boot-two").arrive(keeper),
    ]
    assert len(set(keys)) == 1
    assert keys[0] is not None
    assert keys[0].key_id == keeper.key_id


def test_who_is_no_member_is_given_nothing(begin: Callable[..., KeyKeeper], members: Mapping[str, Certificate]) -> None:
    assert Process("north").arrive(begin({"south": members["south"]})) is None
    assert Process("north").arrive(begin(listed=("south",))) is None
    assert Process("west").arrive(begin()) is None


def test_a_key_that_a_former_member_has_is_replaced_for_the_others(
    begin: Callable[..., KeyKeeper], members: Mapping[str, Certificate]
) -> None:
    keeper, north, south = begin(), Process("north"), Process("south")
    old = north.arrive(keeper)
    south.arrive(keeper)
    assert keeper.look({"south": members["south"]}, NOW_S)
    given = keeper.hand_out()
    assert given.keys() == {"south"}
    new = south.receiver.open(given["south"])
    assert new != old
    assert new.key_id == keeper.key_id
    assert not keeper.look({"south": members["south"]}, NOW_S)


def test_a_key_that_only_members_have_is_not_replaced(
    begin: Callable[..., KeyKeeper], members: Mapping[str, Certificate]
) -> None:
    keeper = begin()
    Process("south").arrive(keeper)
    assert not keeper.look({"south": members["south"]}, NOW_S)


def test_a_key_that_a_member_has_whose_certificate_ended_is_replaced(
    begin: Callable[..., KeyKeeper], members: Mapping[str, Certificate]
) -> None:
    keeper = begin()
    old = Process("north").arrive(keeper)
    assert not keeper.look(members, NOW_S + DAYS * DAY_S - 1)
    assert keeper.look(members, NOW_S + DAYS * DAY_S + 1)
    assert old is not None
    assert keeper.key_id != old.key_id


def test_no_two_processes_of_a_coordinator_have_the_same_key(begin: Callable[..., KeyKeeper]) -> None:
    """So who left while there was none has no key that is used."""
    keys = [Process("north").arrive(begin()) for _ in range(2)]
    assert None not in keys
    assert len({key.key_id for key in keys if key}) == len({key.secret for key in keys if key}) == 2


def test_a_member_that_came_back_with_another_key_is_another_one(
    begin: Callable[..., KeyKeeper], members: Mapping[str, Certificate], tmp_path: Path
) -> None:
    """The stolen machine has the name of a member, and its process is still there."""
    make_identities(tmp_path / "later", FEDERATION, SITES, NOW_S)
    again = load_certificate(tmp_path / "later" / "north" / "north.crt")
    keeper, stolen = begin(), Process("north")
    stolen.arrive(keeper)
    assert keeper.look({**members, "north": again}, NOW_S)
    assert keeper.hand_out() == {}
    assert Process("north", b"boot-two").arrive(keeper) is not None


def test_a_process_that_left_is_given_nothing(begin: Callable[..., KeyKeeper]) -> None:
    keeper, north = begin(), Process("north")
    north.arrive(keeper)
    keeper.heard("north", Process("north", b"boot-two").status(online=False))
    assert keeper.hand_out().keys() == {"north"}
    keeper.heard("north", north.status(online=False))
    assert keeper.hand_out() == {}


def test_an_agent_that_can_receive_no_key_is_given_none(begin: Callable[..., KeyKeeper]) -> None:
    keeper = begin()
    keeper.heard("north", Status(boot_id=b"boot-one", online=True))
    assert keeper.hand_out() == {}


def test_one_member_with_a_key_that_is_none_keeps_nothing_from_the_others(begin: Callable[..., KeyKeeper]) -> None:
    keeper = begin()
    with pytest.raises(PeerError, match="malformed"):
        keeper.heard("north", Status(boot_id=b"boot-one", online=True, receiving_key=bytes(32)))
    assert Process("south").arrive(keeper) is not None
    assert keeper.hand_out().keys() == {"south"}


def test_a_damaged_chunk_is_not_sealed(begin: Callable[..., KeyKeeper]) -> None:
    """Two chunks under one key and nonce would give both away."""
    content = bytes(CHUNK_BYTES) + b"end"
    keeper, manifest = begin(), manifest_of(content)
    assert keeper.close(manifest, 1, b"end") is not None
    assert keeper.close(manifest, 1, b"enD") is None
    assert keeper.close(manifest, 0, b"end") is None


def test_a_key_is_spent_when_a_holder_is_not_among_the_members() -> None:
    members = {"north": "1", "south": "2"}
    assert not is_spent({}, members)
    assert not is_spent({"north": "1"}, members)
    assert is_spent({"north": "2"}, members)
    assert is_spent({"west": "1"}, members)
