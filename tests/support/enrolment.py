"""An authority, a coordinator's identity folder and a hospital's key, as the tests of enrolment need them."""

from pathlib import Path
from queue import Queue

from coordinator.config import AuthoritySettings
from coordinator.enrolment.membership import Membership
from fedward import topics
from fedward.identity.certificates import Request, make_request, parse_request
from fedward.identity.keys import make_signing_key
from fedward.identity.token import Token
from fedward.messages import Enrolled, Enrolment
from fedward.pack import pack, unpack
from fedward.ports import Delivery, LinkInbox
from fedward.testing import MemoryBroker, MemoryLink
from fedward.topics import Enrol
from sandbox.identities import make_identities
from tests.support.updates import FEDERATION

HOST = ("127.0.0.1", 1883)


def new_membership(folder: Path, now_s: float) -> Membership:
    """A coordinator's identity folder, `coordinator` in this one, and its authority's, `authority`. No site yet."""
    make_identities(folder, FEDERATION, (), now_s)
    return Membership(folder / "coordinator", FEDERATION, AuthoritySettings(folder=folder / "authority", days=90))


def request_of(folder: Path, name: str) -> Request:
    """A request of a new key, which is kept in the folder."""
    return parse_request(make_request(make_signing_key(folder / f"{name}.key"), name))


def message_of(token: Token, request: Request) -> Enrolment:
    """The request as the token's holder sends it."""
    return Enrolment(request=request.pem, mac=token.keys.request_mac(request.pem))


class Holder:
    """A hospital that holds a token, and does what a test says."""

    def __init__(self, broker: MemoryBroker, token: Token, folder: Path) -> None:
        self.token = token
        self.request = request_of(folder, token.site)
        self._inbox: LinkInbox = Queue()
        self._link = MemoryLink(broker, token.user, self._inbox)
        self._link.subscribe(topics.enrolment(token.federation, token.token_id, Enrol.ANSWER))
        self._link.open()

    def ask(self, message: Enrolment | None = None) -> None:
        """The right request, or another message."""
        topic = topics.enrolment(self.token.federation, self.token.token_id, Enrol.REQUEST)
        self._link.publish(topic, pack(message or message_of(self.token, self.request)))

    def answers(self) -> list[Enrolled]:
        """What the coordinator has answered to this key since the last time; others may share the token."""
        found = []
        while not self._inbox.empty():
            event = self._inbox.get_nowait()
            if isinstance(event, Delivery):
                self._link.acknowledge(event)
                answer = unpack(event.payload, Enrolled)
                if answer.mac == self.token.keys.answer_mac(self.request.fingerprint, answer):
                    found.append(answer)
        return found
