"""The way to the broker, judged hop by hop: names, proxy, TCP, TLS, certificates. Pure."""

from fedward.doctor.check import Check, failed, ok, skipped, warning
from fedward.doctor.dates import day, moment
from fedward.doctor.facts import Contact, Handshake, Lookup, OwnFiles, ProxyAnswer, Reach, Trouble
from fedward.identity.description import CertificateFacts

SETTINGS, NAME, PROXY, TCP, OWN, TLS = "settings", "name", "proxy", "tcp", "certificate", "tls"

ENDS_SOON = 0.1
"""Share of its life in which a certificate should have been renewed."""

# What OpenSSL says of a certificate (X509_V_ERR_...).
NOT_YET_VALID, EXPIRED = 9, 10
OTHER_HOST = {62, 64}
OTHER_ISSUER = {2, 7, 18, 19, 20, 21}


def judge_settings(reach: Reach, problem: str) -> Check:
    """Whether the settings of the connection can be used; `problem` is why not."""
    if problem:
        return failed(
            SETTINGS, problem, "correct the setting, or let the user of this program read the file that it names"
        )
    proxy = f", through the proxy {_place(reach.proxy.host, reach.proxy.port)}" if reach.proxy else ""
    tls = "TLS" if reach.tls else "no TLS"
    return ok(SETTINGS, f"broker {_place(reach.host, reach.port)}, {tls}{proxy}")


def judge_name(reach: Reach, lookup: Lookup) -> Check:
    """Whether the first hop has an address: the proxy looks up the broker's name where there is one."""
    host, _ = reach.first_hop
    setting = "broker.proxy (or https_proxy)" if reach.proxy else "broker.host"
    if lookup.trouble is Trouble.NO_ANSWER:
        return failed(
            NAME,
            f"{host}: no name server answered in time",
            "let this machine ask a name server: outgoing UDP and TCP port 53 to those in /etc/resolv.conf",
        )
    if lookup.trouble:
        return failed(
            NAME,
            f"{host}: no name server knows an address",
            f"correct {setting}, or add the name to the DNS that this machine asks; "
            "where only a proxy knows names from outside, set broker.proxy",
        )
    return ok(NAME, f"{host} is {', '.join(lookup.addresses)}" if lookup.addresses != (host,) else f"{host}")


def judge_proxy(reach: Reach, answer: ProxyAnswer | None) -> Check:
    """Whether the proxy opens a tunnel; skipped where none is configured."""
    broker = _place(reach.host, reach.port)
    if reach.proxy is None or answer is None:
        return skipped(PROXY, "none is configured")
    proxy = _place(reach.proxy.host, reach.proxy.port)
    if answer.contact.trouble:
        return failed(
            PROXY,
            f"{proxy}: {answer.contact.trouble}",
            f"correct broker.proxy (or https_proxy), or let this machine connect to {proxy}",
        )
    match answer.status:
        case 200:
            return ok(PROXY, f"{proxy} opens a tunnel to {broker}")
        case None:
            return failed(
                PROXY,
                f"{proxy}: {answer.trouble} to CONNECT",
                "correct the host and port of broker.proxy (or https_proxy): an HTTP proxy that allows CONNECT",
            )
        case 407:
            return failed(PROXY, f"{proxy} answers 407: it wants to know who asks", _sign_in(reach))
        case 403 | 405:
            return failed(
                PROXY,
                f"{proxy} answers {answer.status}: it forbids CONNECT to {broker}",
                f"allow CONNECT to {broker} on the proxy, for this machine or its user",
            )
        case _:
            return failed(
                PROXY,
                f"{proxy} answers {answer.status} to CONNECT to {broker}",
                f"let the proxy look up {reach.host} and connect to port {reach.port} there",
            )


def _sign_in(reach: Reach) -> str:
    if reach.proxy and reach.proxy.username is not None:
        return "correct user name and password of the proxy; it must accept basic authentication (not NTLM or Kerberos)"
    return "put user name and password of a basic-authentication account for the proxy into the proxy's settings"


def judge_tcp(reach: Reach, contact: Contact | None) -> Check:
    """Whether the broker's port takes a connection; through a proxy it has opened one itself."""
    place = _place(reach.host, reach.port)
    if contact is None:
        return ok(TCP, f"the proxy is connected to {place}")
    if contact.trouble is Trouble.REFUSED:
        return failed(
            TCP,
            f"{contact.address} port {contact.port}: {contact.trouble}",
            "correct broker.port, or start the broker there; "
            f"a firewall that answers with a reset must allow outgoing TCP to {place}",
        )
    if contact.trouble:
        return failed(
            TCP,
            f"{contact.address} port {contact.port}: {contact.trouble}",
            f"firewall: allow outgoing TCP from this machine to {place} (and the answers), or set broker.proxy",
        )
    return ok(TCP, f"{contact.address} port {contact.port} takes connections, after {contact.seconds * 1000:.0f} ms")


def judge_own(reach: Reach, files: OwnFiles | None, now_s: float) -> Check:
    """This side's own TLS files and the dates of its certificate."""
    if reach.tls is None or files is None:
        return skipped(OWN, "broker.tls is not set")
    if files.problems:
        found = "; ".join(f"broker.tls.{setting} {problem}" for setting, problem in files.problems)
        return failed(
            OWN, found, "correct the paths; the key must be readable by the user of this program alone (0600)"
        )
    if files.certificate is None:
        return ok(OWN, "none is configured: the broker must let this side in by user name and password")
    certificate = files.certificate
    dates = f"{certificate.subject}, issued by {certificate.issuer}, until {day(certificate.not_after_s)}"
    if now_s > certificate.not_after_s:
        return failed(OWN, f"{dates}: it has ended", "renew this side's certificate (or correct this machine's clock)")
    if now_s < certificate.not_before_s:
        return failed(
            OWN, f"{dates}: it begins at {moment(certificate.not_before_s)}", "correct this machine's clock (NTP)"
        )
    if _ends_soon(certificate, now_s):
        return warning(OWN, f"{dates}: it ends soon", "find out why it was not renewed, and renew it")
    return ok(OWN, dates)


def judge_tls(reach: Reach, own: OwnFiles | None, shaken: Handshake | None, now_s: float, *, loopback: bool) -> Check:
    """Whether the broker proves to be the federation's, with nobody in between who reads along.

    Also told before this side has a certificate, which is another check's failure.
    """
    if own is None or shaken is None:
        if loopback:
            return skipped(TLS, "broker.tls is not set, and the broker is on this machine")
        return warning(TLS, "broker.tls is not set: all that travels can be read and changed", "set broker.tls")
    if shaken.verify_code:
        return _judge_unverified(reach, shaken, now_s)
    if shaken.trouble:
        return _judge_silent(reach, shaken.trouble)
    if shaken.alert and own.can_show:
        return failed(
            TLS,
            f"the broker refuses this side's certificate or TLS version ({shaken.alert})",
            "ask the federation's operator whether this side's certificate is revoked; "
            "broker.tls.certificate_file must be one that the federation issued",
        )
    if shaken.presented is None:
        return failed(
            TLS,
            f"the other side ends the handshake ({shaken.alert or 'without a certificate that can be read'})",
            "correct this side's certificate first; if that does not end it, ask the broker's operator",
        )
    found = (
        f"{shaken.version}, certificate issued by {shaken.presented.issuer}, until {day(shaken.presented.not_after_s)}"
    )
    if not own.can_verify:
        return warning(TLS, f"{found}; whether it is the broker's can't be told", "correct broker.tls.ca_file first")
    if _ends_soon(shaken.presented, now_s):
        return warning(TLS, f"{found}: it ends soon", "ask the broker's operator to renew its certificate")
    return ok(TLS, found)


def _judge_silent(reach: Reach, trouble: Trouble) -> Check:
    """A port that takes connections and does not speak TLS."""
    place = _place(reach.host, reach.port)
    if trouble is Trouble.NO_ANSWER:
        return failed(
            TLS,
            f"{place} takes the connection and never answers",
            f"firewall: let TLS to {place} pass, without waiting for another protocol; or the port is not the TLS port",
        )
    return failed(
        TLS,
        f"{place}: {trouble}",
        "correct broker.port: it must be the broker's TLS port; a firewall that closes TLS to it must let it pass",
    )


def _judge_unverified(reach: Reach, shaken: Handshake, now_s: float) -> Check:
    """A certificate that does not hold, and why. Its dates say more than OpenSSL's first complaint."""
    place, presented = _place(reach.host, reach.port), shaken.presented
    issuer = presented.issuer if presented else "somebody who did not say so again"
    if shaken.verify_code in OTHER_ISSUER:
        return failed(
            TLS,
            f"the certificate was issued by {issuer}: something between here and the broker opens TLS",
            f"ask for an exception of {place} from TLS inspection "
            "(if this is the federation's own authority, broker.tls.ca_file is an old or a wrong one)",
        )
    if shaken.verify_code == NOT_YET_VALID:
        begins = f" begins at {moment(presented.not_before_s)}" if presented else " has not begun"
        return failed(
            TLS,
            f"the broker's certificate{begins}, and by this machine's clock it is {moment(now_s)}",
            "correct this machine's clock (NTP)",
        )
    if shaken.verify_code == EXPIRED:
        ended = f" ended at {moment(presented.not_after_s)}" if presented else " has ended"
        return failed(
            TLS,
            f"the broker's certificate{ended}, and by this machine's clock it is {moment(now_s)}",
            "ask the broker's operator to renew its certificate; if the clock is ahead, correct it (NTP)",
        )
    if shaken.verify_code in OTHER_HOST:
        hosts = ", ".join(presented.hosts) if presented and presented.hosts else "nobody"
        return failed(
            TLS,
            f"the broker's certificate is for {hosts}, and not for {reach.host}",
            "set broker.host to a name of the certificate, or ask the broker's operator for one with this name",
        )
    return failed(
        TLS,
        f"the certificate, issued by {issuer}, does not hold: {shaken.verify_message}",
        "show this line to the broker's operator",
    )


def begins_later(shaken: Handshake | None, own: CertificateFacts | None, now_s: float) -> float | None:
    """Begin of a certificate that is not valid yet by this clock: the clock is behind, or the certificate is wrong."""
    begins = [facts.not_before_s for facts in (shaken and shaken.presented, own) if facts]
    return max((begin for begin in begins if begin > now_s), default=None)


def _ends_soon(certificate: CertificateFacts, now_s: float) -> bool:
    life_s = certificate.not_after_s - certificate.not_before_s
    return now_s > certificate.not_after_s - ENDS_SOON * life_s


def _place(host: str, port: int) -> str:
    return f"{host} port {port}"
