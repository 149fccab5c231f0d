"""Training at a host: the rows put there, one job of a name that says what is trained, watched until its model answers.

A job goes by its name, so that whoever is killed finds it again, on any machine, and it is bought once. What ends a run
in good order (Ctrl-C, SIGTERM, a flow that is cancelled, a cap) cancels the job.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from leastwise.answering.workspace import Workspace
from leastwise.endpoints.tuning.fireworks import Fireworks, TuningJob, fireworks
from leastwise.errors import BadInput
from leastwise.record.run import TRAINED_AT
from leastwise.stores.caps import BudgetExceeded
from leastwise.training.hosted.bill import JobBill
from leastwise.training.hosted.examples import Examples, check_fit, examples_of, training_key
from leastwise.training.hosted.trainer import HostedModel, Tuned
from leastwise.use_case import Stage
from leastwise.use_case.price import TrainingPrice
from leastwise.use_case.training import ManagedTraining

log = logging.getLogger(__name__)

MOST_ATTEMPTS = 20  # of one training: each that failed or was cancelled has a name of its own
TELL_S = 60.0  # between two lines about a job of which nothing new is known
ABOUT_THE_INPUT = frozenset({"INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE"})


class TuningFailed(RuntimeError):  # noqa: N818 - says what happened
    """A job that ended without a model, for no reason that lies in the input."""


@dataclass(frozen=True)
class AtHost:
    """A `Trainer` at the host of `training.managed`."""

    managed: ManagedTraining

    def train(self, work: Workspace, stage: Stage) -> Tuned:
        """As `Trainer.train`; the model answers when it is given back."""
        base = self.managed.base
        if not work.use_case.may_be_sent_to(base):  # `ruled_out` says so before the climb: here are the rows themselves
            raise BadInput(f"training.managed: residency lets no row go to {base.request_host}")
        work.catalogue.check_tunable(datetime.now(UTC).date())
        train = work.tables.need("train")
        check_fit(work.use_case, self.managed, train)
        examples = examples_of(work.use_case, train)
        with fireworks(self.managed, examples.rows) as host:
            job = _Training(work, stage, self.managed, host, examples).done()
            host.serve(f"accounts/{self.managed.account}/models/{job.id}")
        uri = f"{self.managed.made}{job.id.removeprefix('lw-')}"
        work.run.write(tags={TRAINED_AT: f"{base.request_host}, job {job.id} on {base.uri}"})
        return Tuned(HostedModel(uri=uri, revision=work.catalogue.asked_revision(work.catalogue.model(uri))))


@dataclass(frozen=True)
class _Attempt:
    """A name, and the job that has it, if there is one."""

    name: str
    job: TuningJob | None


@dataclass(frozen=True)
class _Training:
    """One training at one host."""

    work: Workspace
    stage: Stage
    managed: ManagedTraining
    host: Fireworks
    examples: Examples

    def done(self) -> TuningJob:
        """The job, once its model is there."""
        attempt = self._attempt()
        if attempt.job is None:
            return self._bought(attempt.name)
        log.info(f"{self._at(attempt.name)}: there already ({attempt.job.in_words}); nothing is paid for it again")
        return self._proper(self._minded(attempt.name, None))

    def _attempt(self) -> _Attempt:
        """The newest job of this training that came to something or may still, else a name that nobody has."""
        key = training_key(self.work.use_case, self.managed, self.examples)
        for number in range(1, MOST_ATTEMPTS + 1):
            name = f"lw-{key}-{number}"
            job = self.host.job(name)
            if job is None or job.is_done or not job.is_over:
                return _Attempt(name, job)
        raise BadInput(
            f"training.managed: {MOST_ATTEMPTS} jobs on the same rows came to nothing at {self.host.wire.host}, the "
            f"last {job.in_words if job else ''}; look at lw-{key}-{MOST_ATTEMPTS} there, and change what it says"
        )

    def _bought(self, name: str) -> TuningJob:
        """A job that was paid: reserved at its worst before a row is sent."""
        price, passes = self._price, self.work.use_case.training.epochs
        usd_worst = price.usd(self.examples.most_tokens * passes)
        self.work.costing.announce(self.stage)
        bill = JobBill.opened(self.work.budget.meter(self.stage, "training"), usd_worst)
        rows = f"{len(self.examples.each):,} examples, {passes} pass{'es' if passes > 1 else ''}"
        log.info(f"{self._at(name)}: {rows}; at most {price.in_words(self.examples.most_tokens * passes)}")
        try:
            tokens = self.host.put_rows(name, self.examples.text.encode(), len(self.examples.each))
            bill.cover(price.usd((tokens or 0) * passes))
        except BaseException:  # no job was asked for, so nothing is billed
            bill.release()
            raise
        self._start(name, bill)
        job = self._minded(name, bill)
        counted = price.usd(tokens * passes) if tokens and job.is_done else None
        usd = job.usd if job.usd is not None else counted
        bill.settle(bill.reserved_usd if usd is None else usd)
        return self._proper(job)

    def _start(self, name: str, bill: JobBill) -> None:
        given = {"learningRate": self.managed.learning_rate} if self.managed.learning_rate else {}
        how = {"epochs": self.work.use_case.training.epochs, "loraRank": self.managed.rank, **given}
        base = self.managed.base.uri.removeprefix("fireworks:")
        try:
            self.host.start(name, base, how)
        except BadInput:  # it was refused
            bill.release()
            raise
        except BaseException as why:  # it may have been made all the same
            if not isinstance(why, Exception):
                self._cancel(name)
            bill.settle_at_worst()
            raise

    def _minded(self, name: str, bill: JobBill | None) -> TuningJob:
        """The job when it is over. Whoever is stopped in good order cancels it; where only the time to wait is up, or
        the host is away, it goes on there. What it is billed then is not known: it counts at its worst.
        """
        try:
            return self._watched(name, bill)
        except BaseException as why:
            if isinstance(why, BudgetExceeded) or not isinstance(why, Exception):
                self._cancel(name)
            if bill:
                bill.settle_at_worst()
            raise

    def _watched(self, name: str, bill: JobBill | None) -> TuningJob:
        started, told, told_s = time.monotonic(), "", 0.0
        while True:
            job = self.host.job(name)
            if job is None:
                raise TuningFailed(f"{self._at(name)}: it is gone there; run again to have another made")
            if bill:
                bill.cover(job.usd or 0.0)
            waited_s = time.monotonic() - started
            if job.in_words != told or waited_s - told_s >= TELL_S:
                told, told_s = job.in_words, waited_s
                log.info(f"{self._at(name)}: {told} ({waited_s / 60:.0f} min)")
            if job.is_over:
                return job
            if waited_s > self.managed.wait_hours * 3600:
                raise TimeoutError(
                    f"{self._at(name)}: {told} after {waited_s / 3600:.1f} h; run again to go on waiting"
                )
            time.sleep(self.managed.poll_seconds)

    def _cancel(self, name: str) -> None:
        try:
            self.host.cancel(name)
            log.info(f"{self._at(name)}: cancelled")
        except Exception as error:  # whatever ends this run ends it; people are told
            log.warning(f"{self._at(name)}: could not be cancelled, look there ({error})")

    def _proper(self, job: TuningJob) -> TuningJob:
        """The job where it has the model that was meant; its rows are taken away there in any case."""
        try:
            self.host.take_rows_away(job.id)
        except (BadInput, ConnectionError) as error:
            log.warning(f"{self._at(job.id)}: its rows could not be taken away there, do it by hand ({error})")
        if not job.is_done:
            kind = BadInput if job.code in ABOUT_THE_INPUT else TuningFailed
            raise kind(f"{self._at(job.id)}: {job.in_words}")
        meant = f"accounts/{self.managed.account}/models/{job.id}"
        base = self.managed.base.uri.removeprefix("fireworks:")
        if job.model not in ("", meant) or job.base not in ("", base):
            raise TuningFailed(
                f"{self._at(job.id)}: made {job.model} of {job.base}, not {meant}; nothing of it is asked"
            )
        return job

    @property
    def _price(self) -> TrainingPrice:
        price = self.managed.price
        assert price is not None  # `priced` gave it one, or said that there is none
        return price

    def _at(self, name: str) -> str:
        return f"training at {self.host.wire.host}, job {name}"
