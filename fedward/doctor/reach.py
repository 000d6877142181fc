"""From the settings of the link to what the probes take: the only place where the doctor reads them."""

from fedward.doctor.facts import Reach, TlsFiles
from fedward.mqtt import MqttSettings
from fedward.settings import TlsSettings


def reach_of(settings: MqttSettings) -> Reach:
    """How the link with these settings reaches the broker."""
    tls = settings.tls
    files = TlsFiles(tls.ca_file) if tls else None
    if isinstance(tls, TlsSettings):
        files = TlsFiles(tls.ca_file, tls.certificate_file, tls.key_file)
    return Reach(settings.host, settings.port, settings.proxy, files)
