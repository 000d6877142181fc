"""From the settings of the link to what the probes take: the only place where the doctor reads them."""

from fedward.doctor.facts import Reach
from fedward.mqtt import MqttSettings


def reach_of(settings: MqttSettings) -> Reach:
    """How the link with these settings reaches the broker."""
    return Reach(settings.host, settings.port)
