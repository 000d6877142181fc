"""The federation's own clock, which a wrong or moving wall clock cannot touch."""

from dataclasses import dataclass

from fedward.ports import Clock


@dataclass(frozen=True)
class Moment:
    """Now, twice: `wall_s` for people, and `own_s` for every rule about time."""

    wall_s: float
    own_s: float


class FederationClock:
    """Counts the seconds that the coordinator has run, over restarts: it goes on from the last recorded arrival.

    It stands still while no coordinator runs. So an outage of the coordinator does not make every site look slow.
    """

    def __init__(self, clock: Clock, recorded_s: float) -> None:
        self._clock = clock
        self._offset_s = recorded_s - clock.monotonic_s()

    def now(self) -> Moment:
        return Moment(self._clock.now_s(), self._clock.monotonic_s() + self._offset_s)
