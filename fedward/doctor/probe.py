"""Looking at the way to the broker, one hop after another: names, a proxy's tunnel, TCP, TLS.

Every function returns facts within its limit, whatever the network does; only looking up a name can't be bounded
here. Nothing is sent but what a client of the broker sends anyway.
"""

import base64
import re
import socket
import ssl
import time
from email.utils import parsedate_to_datetime

from fedward.doctor.facts import Contact, Handshake, Lookup, OwnFiles, ProxyAnswer, Reach, TlsFiles, Trouble
from fedward.errors import ConfigError
from fedward.identity.description import describe_certificate
from fedward.identity.keys import check_private

MAX_ANSWER_BYTES = 16 * 1024
"""Of a proxy: headers, and the begin of a page that nobody reads."""

STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})\b")

LAST_WORD_S = 1.0
"""A broker that refuses this side's certificate says so after the handshake (TLS 1.3); else it is silent so long."""


class NoWayError(Exception):
    """The broker's port was not reached."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.value)
        self.trouble = trouble


def look_up(host: str) -> Lookup:
    """The addresses of a name, in the order in which they are tried. Takes as long as the name servers do."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # UnicodeError: a label of a name that no name server could be asked for
        return Lookup(host, trouble=Trouble.UNKNOWN_NAME)
    return Lookup(host, tuple(dict.fromkeys(str(address[0]) for *_, address in found)))


def connect(lookup: Lookup, port: int, limit_s: float) -> tuple[Contact, socket.socket | None]:
    """The first address that takes a connection, with the connection; all of them together within the limit."""
    started_s = time.monotonic()
    contact = Contact("", port, Trouble.UNKNOWN_NAME)
    for number, address in enumerate(lookup.addresses):
        share_s = (limit_s - (time.monotonic() - started_s)) / (len(lookup.addresses) - number)
        try:
            connection = socket.create_connection((address, port), max(share_s, 0.001))
        except OSError as error:
            contact = Contact(address, port, trouble_of(error), time.monotonic() - started_s)
        else:
            return Contact(address, port, None, time.monotonic() - started_s), connection
    return contact, None


def ask_proxy(reach: Reach, lookup: Lookup, limit_s: float) -> tuple[ProxyAnswer, socket.socket | None]:
    """CONNECT to the broker through the proxy; with the connection when the proxy opened a tunnel."""
    ends_s = time.monotonic() + limit_s
    contact, connection = connect(lookup, reach.first_hop[1], limit_s)
    if connection is None:
        return ProxyAnswer(contact, trouble=contact.trouble), None
    try:
        connection.sendall(_connect_request(reach))
        head = _read_head(connection, ends_s)
    except OSError as error:
        connection.close()
        return ProxyAnswer(contact, trouble=trouble_of(error)), None
    status = STATUS_LINE.match(head)
    if status is None:
        connection.close()
        return ProxyAnswer(contact, trouble=Trouble.NOT_UNDERSTOOD if head else Trouble.CLOSED), None
    answer = ProxyAnswer(contact, int(status[1]), date_s=_date_of(head))
    if answer.status != 200:
        connection.close()
        return answer, None
    return answer, connection


def shake_hands(reach: Reach, lookup: Lookup, own: OwnFiles, limit_s: float) -> Handshake:
    """A TLS handshake as a client of the broker makes it, with those of this side's files that can be used.

    A certificate that does not hold is asked for once more, unverified, only to name who presents it.
    """
    ends_s = time.monotonic() + limit_s
    try:
        return _handshake(reach, lookup, _context(own.usable, verify=own.can_verify), ends_s)
    except ssl.SSLCertVerificationError as error:
        code, message = error.verify_code, error.verify_message
    unverified = _handshake(reach, lookup, _context(own.usable, verify=False), ends_s)
    return Handshake(unverified.version, unverified.presented, code, message)


def read_own_files(tls: TlsFiles) -> OwnFiles:
    """This side's TLS files: readable, private where they must be, of each other."""
    problems: list[tuple[str, str]] = []
    contents: dict[str, bytes] = {}
    for setting in ("ca_file", "certificate_file", "key_file"):
        path = vars(tls)[setting]
        try:
            if path is not None:
                contents[setting] = path.read_bytes()
        except OSError as error:
            problems.append((setting, f"can't be read: {error.strerror}"))
    try:
        if "key_file" in contents and tls.key_file:
            check_private(tls.key_file)
    except ConfigError as error:
        problems.append(("key_file", str(error)))
    certificate = describe_certificate(contents.get("certificate_file", b""))
    certificates = [setting for setting in ("ca_file", "certificate_file") if setting in contents]
    empty = [setting for setting in certificates if describe_certificate(contents[setting]) is None]
    problems += [(setting, "holds no certificate") for setting in empty]
    if not problems:
        try:
            _context(tls, verify=True)
        except (ssl.SSLError, OSError):
            problems.append(("key_file", "is no private key, has a password, or is not the one of certificate_file"))
    return OwnFiles(tls, tuple(problems), certificate)


def trouble_of(error: OSError) -> Trouble:
    """In which way an operation on a socket failed."""
    match error:
        case TimeoutError():
            return Trouble.NO_ANSWER
        case ConnectionRefusedError():
            return Trouble.REFUSED
        case ConnectionError() | ssl.SSLEOFError():
            return Trouble.CLOSED
        case ssl.SSLError():
            return Trouble.NOT_UNDERSTOOD
    return Trouble.UNREACHABLE


def _connect_request(reach: Reach) -> bytes:
    host = f"[{reach.host}]" if ":" in reach.host else reach.host
    lines = [f"CONNECT {host}:{reach.port} HTTP/1.1", f"Host: {host}:{reach.port}"]
    if reach.proxy and reach.proxy.username is not None:
        secret = f"{reach.proxy.username}:{reach.proxy.password or ''}".encode()
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(secret).decode()}")
    return "\r\n".join([*lines, "", ""]).encode()


def _read_head(connection: socket.socket, ends_s: float) -> bytes:
    """Up to the empty line; byte by byte at the end, for what follows is the broker's. Raises OSError."""
    head = b""
    while not head.endswith(b"\r\n\r\n") and len(head) < MAX_ANSWER_BYTES:
        connection.settimeout(max(ends_s - time.monotonic(), 0.001))
        byte = connection.recv(1)
        if not byte:
            break
        head += byte
    return head


def _date_of(head: bytes) -> float | None:
    date = re.search(rb"\r\ndate:([^\r]*)\r\n", head, re.IGNORECASE)
    try:
        return parsedate_to_datetime(date[1].decode().strip()).timestamp() if date else None
    except ValueError:
        return None


def _context(tls: TlsFiles, *, verify: bool) -> ssl.SSLContext:
    """Raises ssl.SSLError or OSError for files that can't be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif tls.ca_file is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(tls.ca_file)
    if tls.certificate_file is not None:
        # A password would be asked for on the terminal, and nobody may be there.
        context.load_cert_chain(tls.certificate_file, tls.key_file, password=lambda: "")
    return context


def _open_way(reach: Reach, lookup: Lookup, ends_s: float) -> socket.socket:
    """A connection to the broker's port, through the proxy where there is one. Raises NoWayError."""
    limit_s = ends_s - time.monotonic()
    if reach.proxy:
        answer, connection = ask_proxy(reach, lookup, limit_s)
        trouble = answer.trouble
    else:
        contact, connection = connect(lookup, reach.port, limit_s)
        trouble = contact.trouble
    if connection is None:
        raise NoWayError(trouble or Trouble.UNREACHABLE)
    return connection


def _handshake(reach: Reach, lookup: Lookup, context: ssl.SSLContext, ends_s: float) -> Handshake:
    """Raises ssl.SSLCertVerificationError for a certificate that does not hold; all else is in the facts."""
    try:
        with _open_way(reach, lookup, ends_s) as connection:
            connection.settimeout(max(ends_s - time.monotonic(), 0.001))
            with context.wrap_socket(connection, server_hostname=reach.host) as secured:
                presented = describe_certificate(secured.getpeercert(binary_form=True) or b"")
                alert = _last_word(secured) if context.verify_mode is ssl.CERT_REQUIRED else ""
                return Handshake(secured.version() or "", presented, alert=alert)
    except NoWayError as error:
        return Handshake(trouble=error.trouble)
    except ssl.SSLCertVerificationError:
        raise
    except ssl.SSLError as error:
        alert = error.reason or ""
        return Handshake(
            alert=alert if "ALERT" in alert else "", trouble=None if "ALERT" in alert else trouble_of(error)
        )
    except OSError as error:
        return Handshake(trouble=trouble_of(error))


def _last_word(secured: ssl.SSLSocket) -> str:
    """The alert that a broker sends once it has looked at this side's certificate; empty when there is none."""
    secured.settimeout(LAST_WORD_S)
    try:
        secured.recv(1)
    except ssl.SSLError as error:
        return error.reason or "closed"
    except OSError:
        return ""  # silence, as of a broker that waits for the first packet; or an end without a reason
    return ""
