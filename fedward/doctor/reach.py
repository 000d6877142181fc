"""From the settings to what the probes take: the only place where the doctor reads `broker`."""

from fedward.doctor.facts import Reach
from fedward.settings import BrokerSettings


def reach_of(broker: BrokerSettings) -> Reach:
    """How this side reaches the broker."""
    return Reach(broker.host, broker.port)
