"""How good a version is on the site's held-out records: measured once, sent again when somebody may lack it."""

from edge_agent.compute import Compute
from edge_agent.config import SiteConfig
from edge_agent.jobs import Evaluated, EvaluateJob
from edge_agent.models import Held
from edge_agent.voice import Pack
from fedward import topics
from fedward.messages import Announcement, Evaluation
from fedward.pack import pack
from fedward.ports import Link
from fedward.topics import Up


class Evaluator:
    """Measures each held version once; a measurement that failed is not repeated.

    What is sent says which model was measured: a coordinator whose version of that number is another one refuses it.
    """

    def __init__(self, link: Link, config: SiteConfig, compute: Compute, pack: Pack = pack) -> None:
        self._link = link
        self._pack = pack
        self._topic = topics.up(config.federation, config.site, Up.EVALUATION)
        self._compute = compute
        self._evaluation: Evaluation | None = None
        self._last: tuple[int, bytes] | None = None  # version and digest: a number alone names no model for ever

    def begin(self, announcement: Announcement, held: Held) -> None:
        """Measure the held version."""
        job = EvaluateJob(announcement.task, announcement.federation, held.version, held.vector_P, held.digest)
        self._compute.begin(job)

    def measured(self, held: Held) -> bool:
        """Whether the last model that was measured, or could not be, is this very one."""
        return self._last == (held.version, held.digest)

    def new_epoch(self) -> None:
        """The numbers of versions stand for other models now."""
        self._last, self._evaluation = None, None

    def take(self, event: Evaluated) -> None:
        self._end(event.job, event.evaluation)
        self.send()

    def failed(self, job: EvaluateJob) -> None:
        self._end(job, None)

    def send(self) -> None:
        """Send the latest one, if there is one: it has no receipt, and the link or the coordinator may be new."""
        if self._evaluation:
            self._link.publish(self._topic, self._pack(self._evaluation))

    def _end(self, job: EvaluateJob, evaluation: Evaluation | None) -> None:
        self._last, self._evaluation = (job.version, job.model_digest), evaluation
