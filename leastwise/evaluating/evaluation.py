"""Measuring a candidate: gate rows in seeded order, in looks, until the verdict is decided or the rows run out.

It answers nothing itself (see `leastwise.answering`) and it does not judge: the verdict is computed from what was
logged.

**Units.** Where `data.unit_by` names a column, the rows that share its value (a conversation, a customer) are one unit
and count once: quality, adherence, out-of-scope and shifted inputs by the mean of the unit's rows, cost by its mean,
latency by one row drawn by hash (quantiles need independent times). The estimand is then unit-weighted: what a random
row of a random unit scores, costs or takes. A unit that lost any row is lost as a whole, against PASS and against FAIL.

**Population `this_set`.** Each share is judged on its own table as a closed set (gate rows, `out_of_scope`, `shifted`),
counted in units where rows share one. Cost and latency stay claims about future traffic.

**Replayed traffic**, on which `cache` is judged: what a request costs and takes depends on those before it, so all of
it is asked in its own order first, and what came is judged in an order drawn by the seed. Traffic without expected
answers has gate rows beside it, a sample of their own (`leastwise.evaluating.samples`).

A `Measuring` may be left after any look and gone on with later, by whoever then answers as the candidate: what it comes
to is what it would have come to in one go. All of a replay is asked in one go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, TypeVar

from leastwise.evaluating.gate_tests import GateTests, RequestCost
from leastwise.evaluating.looks import DECLINED, AnsweredLook, Exam, Inputs, score_in, why_lost
from leastwise.evaluating.samples.consistency import Repetition, ask_again
from leastwise.evaluating.samples.narrowing import Narrowing
from leastwise.evaluating.samples.progress import rows_to_go
from leastwise.evaluating.samples.replay import Replay
from leastwise.evaluating.samples.sample import ADHERENCE, COST, LATENCY, QUALITY, Sample, samples_of
from leastwise.evaluating.samples.totals import totals_of
from leastwise.evaluating.scorer import Scorer
from leastwise.evidence.measurement import MAX_LOST_SHARE
from leastwise.ladder import Evaluation
from leastwise.ladder.alphas import Alphas
from leastwise.ladder.candidate import Candidate
from leastwise.ladder.measured import EXAM, ExampleRow, Measured
from leastwise.ladder.race.schedule import Standing
from leastwise.metrics.answer import Answer
from leastwise.metrics.shortfall import Shortfall, finding, shortfall_of
from leastwise.progress import EvaluationProgress
from leastwise.rows.gate_rows import looks, seeded, unit_count
from leastwise.use_case import UseCase

if TYPE_CHECKING:
    import pandas as pd

    from leastwise.answering.answerer import Answerer

CALLS_BESIDE = ("judge", "self_consistency", "consistency")  # what else pays for calls while a candidate is measured

OnLook = Callable[[EvaluationProgress], None]
_Found = TypeVar("_Found")
Looking = Generator[None, None, _Found]  # pauses after every look, and comes to something


def evaluate(
    use_case: UseCase,
    candidate: Candidate,
    answerer: Answerer,
    inputs: Inputs,
    alphas: Alphas,
    scorer: Scorer,
    on_look: OnLook | None = None,
) -> Measured:
    """Measure a candidate until its verdict is decided or the rows run out."""
    measuring = Measuring(use_case, candidate, answerer, inputs, alphas, scorer, on_look)
    measuring.go_on(answerer)
    return measuring.measured()


class Measuring:
    """One evaluation while it runs; `is_over` once there is nothing more to look at."""

    def __init__(
        self,
        use_case: UseCase,
        candidate: Candidate,
        answerer: Answerer,
        inputs: Inputs,
        alphas: Alphas,
        scorer: Scorer,
        on_look: OnLook | None = None,
    ) -> None:
        self._use_case, self._candidate, self._answerer = use_case, candidate, answerer
        self._inputs, self._scorer, self._on_look = inputs, scorer, on_look
        tables = {DECLINED: inputs.out_of_scope, "shift_quality": inputs.shifted}
        self._beyond = {name: table for name, table in tables.items() if table is not None}
        if inputs.exam is not None:
            self._beyond[EXAM] = inputs.exam.rows
        self._samples = samples_of(inputs.judged, inputs.beside)
        sizes = {name: unit_count(each.judged.rows) for each in self._samples for name in each.requirements}
        sizes |= {name: unit_count(table) for name, table in self._beyond.items()}
        self._sent = 1 + use_case.traffic.retry_share  # a retried request is paid twice
        cost = RequestCost(self._sent * answerer.usd_worst_case, answerer.fixed_usd_per_request)
        self._tests = GateTests(use_case, alphas, sizes, cost, scorer.grades)
        self._rows: list[ExampleRow] = []
        self._begun = 0  # rows of before the sample that is looked at
        self._lost: list[ExampleRow] = []  # of that sample
        self._unjudged: list[Answer] = []  # of a replay: paid, and not needed for the verdict
        self._untimed = 0
        self._usd_paid = 0.0
        self._timed_ms: list[float] = []
        self._unpriced = 0
        self._shortfalls: Counter[Shortfall] = Counter()
        self._wrong = 0
        self._narrowing = Narrowing(self._tests)
        self._again, self._examples = Repetition(), 0
        self._error: str | None = None
        self._looking, self.is_over = self._look(), False

    def go_on(self, answerer: Answerer, is_enough: Callable[[], bool] = lambda: False) -> None:
        """Look on, asking this answerer, to the end or until after a look it `is_enough`."""
        self._answerer = answerer
        for _ in self._looking:
            if is_enough():
                return
        self.is_over = True

    @property
    def standing(self) -> Standing:
        """How far it is."""
        return Standing(self._tests.shares(), self._examples, self._tests.can_pass)

    def _look(self) -> Looking[None]:
        """Everything, with a pause after every look; a problem of the infrastructure ends it."""
        for sample in self._samples:
            self._error = yield from self._look_at_sample(sample)
            if self._error:
                return
        yield from self._look_beyond()
        rows, paraphrases = self._inputs.judged.rows, self._inputs.paraphrases
        self._again = ask_again(self._use_case, self._answerer, rows, paraphrases)

    def _look_at_sample(self, sample: Sample) -> Looking[str | None]:
        self._begun, self._lost, self._untimed = len(self._rows), [], 0
        self._narrowing.begin()
        judged = sample.judged
        if not judged.is_replayed:
            return (yield from self._look_at(sample, judged.rows, lambda rows: self._asked(sample).answer(rows)))
        replay = Replay.of(judged, self._asked(sample).answer, self._tests.usage_problem, self._show_replay)
        problem = replay.problem or (yield from self._look_at(sample, replay.rows, replay.answers_to))
        self._unjudged = replay.answers[self._looked_at :]
        return problem

    def _asked(self, sample: Sample) -> Answerer:
        """Who answers the rows of a sample now."""
        return self._answerer.without_caches if sample.is_behind_caches else self._answerer

    @property
    def _looked_at(self) -> int:
        """Rows of the sample so far."""
        return len(self._rows) - self._begun

    def _look_at(
        self, sample: Sample, rows: pd.DataFrame, answer: Callable[[pd.DataFrame], list[Answer]]
    ) -> Looking[str | None]:
        for look in looks(rows):
            if not self._tests.is_open(*sample.requirements):
                break
            answered = AnsweredLook.of(self._scorer, look, answer(look), sample.is_scored)
            timed = self._add(sample, answered)
            records = answered.records(sample.name, timed, tells_adherence=sample.judges(ADHERENCE))
            self._lost += [row for row in records if row["score"] is None]
            self._keep(records)
            self._count_shortfalls(sample, answered)
            self._narrowing.note(sample, self._looked_at)
            self._show(sample)
            self._unpriced += answered.unpriced if sample.judges(COST) else 0
            if problem := self._outage(sample):
                return problem
            self._examples += unit_count(look)
            yield
        return None

    def _keep(self, records: Sequence[ExampleRow]) -> None:
        self._rows += records
        self._usd_paid += sum(row["usd_paid"] for row in records)

    def _outage(self, sample: Sample) -> str | None:
        """Why it has to stop: what the infrastructure lost of answers, or of requests sent for their latency alone, or
        answers that do not say what they cost where that is judged.
        """
        of = len(sample.judged.rows)
        most = max(1.0, MAX_LOST_SHARE * of)
        if len(self._lost) > most:
            return why_lost([row["error"] for row in self._lost], self._looked_at)
        if self._untimed > most:
            return f"{self._untimed} of {self._looked_at} requests that were timed were lost to the infrastructure"
        return self._tests.usage_problem(of) if sample.judges(COST) else None

    def _look_beyond(self) -> Looking[None]:
        """Requirements with rows of their own: out-of-scope inputs, shifted inputs, general tasks."""
        if self._tests.has_failed:
            return
        exam = self._inputs.exam
        for name, table in self._beyond.items():
            yield from self._look_at_own(name, seeded(table), exam if name == EXAM else None)

    def measured(self, parked: str = "") -> Measured:
        """What all of it came to until now; `parked`: why it is not gone on with, in words, where it is not over."""
        again = self._again
        unjudged = [each for each in self._unjudged if not each.from_store and each.error is None]
        spent = self._usd_paid + self._scorer.usd_paid + again.usd + sum(each.usd for each in unjudged)
        measurements = self._tests.measurements()
        evaluation = Evaluation(
            stage=self._candidate.stage,
            candidate=self._candidate.key,
            gate_hash=self._inputs.judged.set_hash,
            measurements=measurements,
            usd_spent=spent,
            error=self._error or self._tests.cost_problem(),
            parked=parked,
            finding=finding(self._shortfalls, self._wrong, len(self._rows), self._use_case.traffic.output_tokens),
        )
        totals = (
            totals_of(self._use_case, self._rows, self._timed_ms, self._unpriced)
            | self._scorer.figures()
            | again.figures
            | self._tests.premises()
        )
        totals |= {f"rows.{name}": float(count) for name, count in Counter(row["set"] for row in self._rows).items()}
        totals |= {f"answers.{name}": float(count) for name, count in self._shortfalls.items()}
        if self._unjudged:
            totals["usd.unjudged"] = sum(each.usd for each in self._unjudged)
        totals["calls.paid"] += len(unjudged) + sum(totals.get(f"{name}.calls", 0.0) for name in CALLS_BESIDE)
        return Measured(evaluation, totals, list(self._rows), self._scorer.grades, self._narrowing.until(measurements))

    def _add(self, sample: Sample, answered: AnsweredLook) -> dict[int, float | None]:
        """Add one look to the tests of its sample; gives back the latencies that entered, by position, None where one
        was lost.
        """
        tests, lost = self._tests, answered.lost_units
        shares = (name for name in (QUALITY, ADHERENCE) if sample.judges(name))
        tests.count(shares, answered.scored_rows, answered.lost_rows)
        timed: dict[int, float | None] = {}
        if sample.judges(LATENCY) and tests.is_open(LATENCY):
            timed = self._timed(sample, answered)
            known = [took for took in timed.values() if took is not None]
            tests.count((LATENCY,), len(known), len(timed) - len(known))
            tests.add(LATENCY, known, lost + len(timed) - len(known))
            self._timed_ms += known
            self._untimed += len(timed) - len(known)
        if sample.judges(QUALITY):
            tests.add(QUALITY, answered.means(lambda score, _: score.quality), lost)
        if sample.judges(ADHERENCE):
            tests.add(ADHERENCE, answered.means(lambda score, _: score.adherence), lost)
        if sample.judges(COST):
            metered = answered.metered
            tests.count((COST,), metered.scored_rows, metered.lost_rows - answered.lost_rows)
            usd = metered.means(lambda _, answer: 1000 * self._sent * answer.usd)
            tests.add(COST, usd, metered.lost_units)
        return timed

    def _timed(self, sample: Sample, answered: AnsweredLook) -> dict[int, float | None]:
        drawn = answered.one_a_unit(sample.judged.set_hash)
        if not drawn:
            return {}
        times = self._asked(sample).timed(answered.rows.iloc[drawn], [answered.answers[at] for at in drawn])
        return dict(zip(drawn, times, strict=True))

    def _count_shortfalls(self, sample: Sample, answered: AnsweredLook) -> None:
        for answer, score in zip(answered.answers, answered.scores, strict=True):
            if score is None or score_in(sample.name, score) > 0:
                continue
            self._wrong += 1
            if shortfall := shortfall_of(self._use_case.task, answer, score):
                self._shortfalls[shortfall] += 1

    def _look_at_own(self, name: str, rows: pd.DataFrame, exam: Exam | None) -> Looking[None]:
        is_labelled = name != DECLINED
        for look in looks(rows):
            if not self._tests.is_open(name):
                break
            answers = exam.answer(look) if exam else self._asked(self._samples[-1]).answer(look)
            answered = AnsweredLook.of(exam or self._scorer, look, answers, is_labelled=is_labelled)
            self._tests.count((name,), answered.scored_rows, answered.lost_rows)
            values = answered.means(lambda score, _: score.quality if is_labelled else score.declined)
            self._tests.add(name, values, answered.lost_units)
            self._keep(answered.records(name))
            self._examples += unit_count(look)
            yield

    def _show(self, sample: Sample) -> None:
        if self._on_look is None:
            return
        estimates = {name: m.estimate for name, m in self._narrowing.last.items()}
        usd, of = self._usd_paid + self._scorer.usd_paid, len(sample.judged.rows)
        to_go = rows_to_go(self._tests, self._narrowing.last, sample, self._looked_at)
        self._on_look(EvaluationProgress(self._candidate.stage, self._looked_at, of, usd, estimates, to_go))

    def _show_replay(self, answers: Sequence[Answer]) -> None:
        if self._on_look:
            usd, of = sum(each.usd for each in answers if not each.from_store), len(self._inputs.judged.rows)
            self._on_look(EvaluationProgress(f"{self._candidate.stage}, replayed", len(answers), of, usd, {}))
