"""From the held version to an update in the outbox: begin, train and encode on the compute thread, save.

What a process before this one left unfinished is gone on with first. A training that was begun in vain too often is
left alone until there is another version, work, configuration or release, or an hour has passed.
"""

import errno
import json
import logging
from dataclasses import asdict, replace
from typing import Any

from edge_agent.attempts import TRY_AGAIN_S, AttemptsFile, training_name
from edge_agent.choice import choose_codec, upload_bytes, upload_limit_s
from edge_agent.compute import Compute
from edge_agent.config import SiteConfig
from edge_agent.jobs import Encoded, TrainJob
from edge_agent.models import Held
from edge_agent.outbox import Outbox
from edge_agent.permission import Permission
from edge_agent.policy import allowed_codecs
from edge_agent.progress import SavedProgress
from edge_agent.states import can_still_count
from edge_agent.training.failures import FailureKind
from fedward import __version__
from fedward.chunks import manifest_of_chunks
from fedward.disk import has_room
from fedward.identity.names import update_id_of
from fedward.messages import Announcement, Offer

LOG = logging.getLogger(__name__)


class Trainer:
    """Makes one update at a time. What matters is on disk: attempts, the checkpoint, and then the outbox."""

    def __init__(
        self, config: SiteConfig, compute: Compute, outbox: Outbox, progress: SavedProgress, permission: Permission
    ) -> None:
        self._config = config
        self._compute = compute
        self._permission = permission
        self._outbox = outbox
        self._progress = progress
        self._attempts = AttemptsFile(config.state_folder / "attempts.json")
        self._unfinished = compute.unfinished(permission.policy.compute_share, permission.policy.min_examples)
        self._unsaved: Encoded | None = None
        self.failed_at: int | None = None
        """The version at which training failed, or that is left alone."""
        self._failed_since_s: float | None = None
        self._train_loss: float | None = None
        self._codec: str | None = None
        self.was_cut_off = self._attempts.now.running
        """Whether the process before this one died while it trained."""
        if self.was_cut_off:
            LOG.warning("training_was_cut_off", extra={"attempts": self._attempts.now.begun})

    @property
    def training(self) -> bool:
        return isinstance(self._compute.job, TrainJob)

    @property
    def unsaved(self) -> bool:
        """Whether a finished update waits for room on the disk."""
        return self._unsaved is not None

    def page(self) -> dict[str, Any]:
        """The figures of the training in progress, and of those before. Any thread may ask."""
        last_step = self._compute.last_step if self.training else None
        return {
            "step": last_step.step if last_step else 0,
            "num_steps": last_step.num_steps if last_step else 0,
            "step_s": self._compute.step_s,
            "train_loss": self._train_loss,
            "codec": self._codec,
            "attempts": self._attempts.now.begun,
        }

    def resume(self, announcement: Announcement) -> None:
        """Once: go on with what the process before this one or the policy left unfinished, or drop it.

        Whatever is newest by now: it keeps its codec, and so its bytes, as long as that is allowed.
        """
        job, self._unfinished = self._unfinished, None
        if job is None:
            return
        if job.update_id != self._update_id(job.version) or not still_counts(job, announcement):
            self._compute.forget_unfinished()  # it is in the outbox, has been counted, or never will be
            LOG.info("unfinished_dropped", extra={"version": job.version})
            return
        policy = self._permission.policy
        job = replace(job, sealing_key=announcement.sealing_key)
        if job.codec not in allowed_codecs(announcement, policy):
            job = replace(job, codec=self._choose_codec(announcement))
        self._begin(replace(job, share=policy.compute_share, min_examples=policy.min_examples), "resuming")

    def begin(self, announcement: Announcement, held: Held) -> None:
        """Train from the held version, on from where this very update was left alone, if it was."""
        job = self._compute.taken_up(self._job(announcement, held))
        self._begin(job, "resuming" if job.num_done else "training")

    def failed(self, job: TrainJob, kind: FailureKind) -> None:
        """Training raised: this process leaves it alone for a while. Steps that led to no number are worth nothing."""
        self._leave_alone(job.version)
        self._attempts.change(self._attempts.now.failed())
        if kind is FailureKind.NOT_FINITE:
            self._compute.forget_unfinished()

    def paused(self) -> None:
        """The policy ended a training within a step: it goes on from there as soon as that is allowed."""
        self._attempts.forget()
        self._unfinished = self._compute.unfinished(
            self._permission.policy.compute_share, self._permission.policy.min_examples
        )
        LOG.info("training_paused")

    def try_again(self) -> None:
        """What failed may end otherwise now: the version's number stands for another model, or the work is another."""
        self.failed_at = self._failed_since_s = None

    def step(self, now_s: float) -> None:
        """Look at policy and time: what is not allowed any more ends, what failed is tried every TRY_AGAIN_S."""
        job = self._compute.job
        if isinstance(job, TrainJob) and not self._allowed(job):
            self._compute.pause()
        if self.failed_at is None:
            return
        if self._failed_since_s is None:
            self._failed_since_s = now_s
        elif now_s >= self._failed_since_s + TRY_AGAIN_S:
            self._attempts.change(self._attempts.now.once_more())
            self.try_again()

    def save_when_there_is_room(self) -> bool:
        """Save what found the disk full, as soon as that can be done; whether it was."""
        waiting = self._unsaved
        return bool(waiting and has_room(self._config.state_folder, len(waiting.payload)) and self.save(waiting))

    def save(self, done: Encoded) -> bool:
        """Save, and only then send. False when the disk is full: it is kept in memory until there is room."""
        self._attempts.forget()  # first: training has ended, whatever becomes of the disk
        self._train_loss = done.trained.train_loss
        offer = self._offer(done)
        try:
            self._outbox.save(offer, done.chunks())
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            LOG.error("disk_full", extra={"needed_bytes": len(done.payload)})
            self._unsaved = done  # hours of work may be in it
            return False
        self._unsaved = None
        facts = {
            "update": offer.update_id.hex(),
            "base_version": offer.base_version,
            "size_bytes": offer.manifest.size_bytes,
        }
        LOG.info("saved", extra=facts)
        self._progress.change(self._progress.now.after(offer))
        self._compute.forget_unfinished()  # last: a crash before leaves one that is known by its sequence
        return True

    def leave(self) -> None:
        """The agent is asked to leave: what it was doing is no attempt in vain."""
        if self.training:
            self._attempts.forget()

    def _allowed(self, job: TrainJob) -> bool:
        """Does the policy, which may have changed, still allow this training as it was begun?"""
        policy = self._permission.policy
        return (
            self._permission.permitted
            and self._permission.hours_open
            and (job.share, job.min_examples) == (policy.compute_share, policy.min_examples)
            and (policy.codecs is None or job.codec in policy.codecs)
        )

    def _begin(self, job: TrainJob, event: str) -> None:
        """Count the attempt, and only then train; or leave alone what has ended the process too often."""
        name, attempts = self._name(job), self._attempts.now
        if attempts.in_vain(name, job.num_done):
            self._leave_alone(job.version)
            advice = "see the runbook: A site is `failed`"
            LOG.error("left_alone", extra={"version": job.version, "attempts": attempts.begun, "advice": advice})
            return
        self._attempts.change(attempts.begin(name, job.num_done))
        self._codec = job.codec
        self._compute.begin(job)
        LOG.info(event, extra={"version": job.version, "codec": job.codec})

    def _leave_alone(self, version: int) -> None:
        self.failed_at, self._failed_since_s = version, None

    def _job(self, announcement: Announcement, held: Held) -> TrainJob:
        return TrainJob(
            task=announcement.task,
            version=held.version,
            vector_P=held.vector_P,
            base_digest=held.digest,
            work=announcement.work,
            codec=self._choose_codec(announcement),
            update_id=self._update_id(held.version),
            share=self._permission.policy.compute_share,
            min_examples=self._permission.policy.min_examples,
            sealing_key=announcement.sealing_key,
        )

    def _choose_codec(self, announcement: Announcement) -> str:
        """From what is on disk and only changes with a finished update: an attempt after a crash has the same codec."""
        layout, progress = self._compute.layouts[announcement.task], self._progress.now
        sizes = upload_bytes(allowed_codecs(announcement, self._permission.policy), layout)
        limit_s = upload_limit_s(self._permission.policy.upload_s, progress.work_s)
        return choose_codec(sizes, announcement.codec, progress.uplink_bytes_s, limit_s)

    def _offer(self, done: Encoded) -> Offer:
        return Offer(
            federation=self._config.federation,
            update_id=done.job.update_id,
            sequence=self._progress.now.sequence,
            base_version=done.job.version,
            codec=done.job.codec,
            layout_digest=self._compute.layouts[done.job.task].digest,
            num_examples=done.trained.num_examples,
            num_steps=done.trained.num_steps,
            work_s=done.trained.work_s,
            manifest=manifest_of_chunks(done.chunks()),
            base_digest=done.job.base_digest,
            seal=done.seal.public if done.seal else None,
        )

    def _update_id(self, version: int) -> bytes:
        """Of the site's next update, from this version."""
        return update_id_of(self._config.federation, self._config.site, version, self._progress.now.sequence)

    def _name(self, job: TrainJob) -> str:
        work = json.dumps(asdict(job.work))
        model = f"{job.version} {job.base_digest.hex()}"
        conditions = self._config.model_dump_json() + self._permission.policy.model_dump_json()
        release = f"{__version__} {self._compute.installed[job.task].release}"
        return training_name(model, job.task, work, job.codec, conditions, release)


def still_counts(job: TrainJob, announcement: Announcement) -> bool:
    """Is an unfinished update one that this announcement's federation can still use?"""
    if job.task != announcement.task:
        return False
    if job.version == announcement.version and job.base_digest != announcement.model_digest:
        return False  # another federation's version of the same number
    return can_still_count(job.version, announcement.version, announcement.max_staleness, announcement.state)
