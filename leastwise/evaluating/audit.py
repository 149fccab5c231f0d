"""Deriving verdicts again from MLflow alone: does what was logged still give the verdict that was logged?

For every judged run the logged interval of every requirement is judged again by the use case's requirements as they
were logged; the table of examples is checked row by row; its rows are put through the sequential tests again, which
must give the very intervals, counts and estimates that were logged: quality and adherence from the answers scored
again, latency and cost from the rows, inputs to decline and shifted ones too, closed sets (`this_set`) as such. And no
candidate may have spent more alpha than its question drew. Taken as logged: a judge's grades and general tasks' scores,
for nobody can give them again without a model.

It asks no model, spends nothing and writes nothing. Records of before a figure was kept are not held to it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leastwise.evaluating.gate_tests import COST, FIXED, GRADED, WORST_CASE, GateTests, RequestCost, SequentialTest
from leastwise.evaluating.looks import DECLINED, score_in
from leastwise.evaluating.samples.sample import GATE, LATENCY, WITHOUT_EXPECTED
from leastwise.evidence import Measurement
from leastwise.evidence.betting import FloatArray
from leastwise.ladder import Verdict, judge, next_step
from leastwise.ladder.alphas import Alphas
from leastwise.ladder.measured import EXAM, TRAFFIC
from leastwise.metrics import Score
from leastwise.metrics.grades import Grades
from leastwise.metrics.task_metric import metric_of
from leastwise.record.alpha_account import AlphaAccount
from leastwise.record.climb_run import ClimbRun
from leastwise.record.judged_runs import question_above
from leastwise.record.run import CONFIRMED, OUTCOME, SURE
from leastwise.record.stage_run import EXAMPLES, EXAMPLES_HASH, StageRun
from leastwise.rows import gate_rows
from leastwise.rows.gate_rows import unit_count, unit_scores, whole_units
from leastwise.rows.tables import UNIT
from leastwise.use_case import LADDER, UseCase
from leastwise.use_case.requirements import SHARES

if TYPE_CHECKING:
    import pandas as pd

ROUNDING = 1e-9  # of sums that may have been added up in another order
MOST_ROWS_NAMED = 5
DERIVED_OUTCOMES = frozenset({*LADDER, "reference", "none", "undecided"})  # those that the stages alone decide
CONFIRMED_BY = ("quality", "adherence")
OWN_SETS = frozenset({DECLINED, "shift_quality", EXAM})  # requirements whose rows are not the gate's


def differences(run: StageRun, use_case: UseCase) -> list[str]:
    """In words, what differs between a judged run as it was logged and as it is derived again; empty where nothing
    does.

    `use_case` is that of the climb or upkeep run above, as it was logged when that started.
    """
    evaluation = run.evaluation()
    verdict = judge(evaluation, use_case.gate_requirements)
    problems = []
    if run.verdict != verdict.outcome:
        problems = [f"logged {run.verdict}, the interval gives {verdict.outcome} ({verdict.reason})"]
    problems += _requirement_differences(run, verdict)
    problems += _alpha_differences(run, use_case, list(evaluation.measurements.values()))
    if not evaluation.measurements:
        return problems
    if not run.origin.has_file(EXAMPLES):
        gone = [f"examples: {EXAMPLES} was logged and is gone"] if run.origin.tag(EXAMPLES_HASH) else []
        return problems + gone
    table = _Table.of(run, use_case)
    problems += table.differences()
    for name, logged in evaluation.measurements.items():
        problems += table.measured_again(name, logged)
    return problems


def ending_differences(climb: ClimbRun, use_case: UseCase) -> list[str]:
    """In words, where a climb ended otherwise than its stages say by the rules of the ladder; empty where it did not,
    or where what was known besides (money, leave, an outage) ended it.
    """
    logged, confirmed = climb.tag(OUTCOME), climb.tag(CONFIRMED)
    if logged not in DERIVED_OUTCOMES:
        return []
    step, problems = next_step(use_case, climb.history(use_case.gate_requirements)), list[str]()
    if step.outcome != logged:
        problems.append(f"outcome: logged {logged}, its stages give {step.outcome or step.action} ({step.reason})")
    elif climb.tag(SURE) not in ("", "yes" if step.sure else "no"):
        problems.append(f"sure: logged {climb.tag(SURE)}, its stages give {'yes' if step.sure else 'no'}")
    limits = {each.name: each.limit for each in use_case.gate_requirements}
    tested = {name: climb.figures[f"test.{name}"] for name in CONFIRMED_BY if f"test.{name}" in climb.figures}
    met = all(estimate >= limits[name] for name, estimate in tested.items() if name in limits)
    if confirmed in ("yes", "no") and confirmed != ("yes" if met and tested else "no"):
        problems.append(f"confirmed: logged {confirmed}, the test figures give {'yes' if met and tested else 'no'}")
    return problems


def _requirement_differences(run: StageRun, verdict: Verdict) -> list[str]:
    logged = {each.name: run.tag(f"{each.name}.verdict") for each in verdict.requirements}
    return [
        f"{each.name}: logged {logged[each.name]}, the interval gives {each.outcome}"
        for each in verdict.requirements
        if logged[each.name] not in ("", each.outcome)
    ]


def _alpha_differences(run: StageRun, use_case: UseCase, measured: list[Measurement]) -> Iterator[str]:
    """Where a test spent more alpha than its question drew, or than another test of the same candidate."""
    question = question_above(run)
    drawn = AlphaAccount(run.client).shares(question) if question else []
    if question and not drawn:
        yield "alpha: the account knows no draw of this question"
    to_fail = use_case.alpha / len(use_case.requirements.bounds)
    for each in measured:
        if drawn and each.alpha_pass > max(drawn) * (1 + ROUNDING):
            yield f"{each.name}: alpha_pass {each.alpha_pass:.4g} is more than the {max(drawn):.4g} its question drew"
        if each.alpha_pass != measured[0].alpha_pass:
            yield f"{each.name}: alpha_pass {each.alpha_pass:.4g} is not that of {measured[0].name}"
        if abs(each.alpha_fail - to_fail) > ROUNDING * to_fail:
            yield f"{each.name}: alpha_fail {each.alpha_fail:.4g} is not {to_fail:.4g}"


@dataclass(frozen=True)
class _Table:
    """The logged examples of a run, and what was logged beside them."""

    run: StageRun
    use_case: UseCase
    rows: pd.DataFrame
    grades: Grades | None

    @classmethod
    def of(cls, run: StageRun, use_case: UseCase) -> _Table:
        rows = run.every_example()
        if use_case.data.unit_by and "unit" in rows:
            rows = rows.rename(columns={"unit": UNIT})
        return cls(run, use_case, rows, run.grades())

    def of_set(self, name: str) -> pd.DataFrame:
        """The rows of one set; those of a set that knows no unit are units of their own."""
        rows = self.rows[self.rows["set"] == name].reset_index(drop=True)
        return rows.drop(columns=UNIT) if UNIT in rows and rows[UNIT].isna().all() else rows

    def differences(self) -> Iterator[str]:
        """What is wrong with the rows themselves."""
        if not self.run.has_examples_as_logged:
            yield f"examples: {EXAMPLES} is not the table that was logged"
        for name, rows in self.rows.groupby("set"):
            logged = self.run.figures.get(f"rows.{name}")
            if logged is not None and logged != len(rows):
                yield f"examples: {len(rows)} rows of {name}, {logged:.0f} were logged"
            twice = [str(row_id) for row_id, times in Counter(rows["id"].astype(str)).items() if times > 1]
            if twice and name != EXAM:
                yield f"examples: {_some(twice)} of {name} more than once"
        both = self.rows["error"].notna() & self.rows["score"].notna()
        if both.any():
            yield f"examples: {_some(self.rows['id'][both].tolist())} lost, and scored all the same"
        yield from self._scored_otherwise()
        yield from self._other_sums()

    def _scored_otherwise(self) -> Iterator[str]:
        given = self.rows[self.rows["score"].notna() & (self.rows["set"] != EXAM)]
        if self.use_case.is_graded:
            given = given[given["set"] == DECLINED]
        again = [_value(self._score(row), row["set"]) for row in given.to_dict("records")]
        wrong = [
            row_id for row_id, score, now in zip(given["id"], given["score"], again, strict=True) if float(score) != now
        ]
        if wrong:
            yield f"examples: {_some(wrong)} scored otherwise than the answer is"

    def _other_sums(self) -> Iterator[str]:
        requests = self.of_set(TRAFFIC) if self._has_traffic else self.rows[self.rows["set"] != EXAM]
        logged, again = self.run.figures.get("usd.per_request"), float(requests["usd"].sum()) / max(len(requests), 1)
        if WORST_CASE not in self.run.figures and "rows.gate" not in self.run.figures:
            return  # of before figures were written to their last digit
        if logged is not None and abs(logged - again) > ROUNDING * max(logged, again):
            yield f"usd.per_request: logged {logged:.6g}, the rows give {again:.6g}"

    def _score(self, row: Mapping[Hashable, object]) -> Score:
        want = None if row["set"] in (DECLINED, TRAFFIC) else row["expected"]
        return metric_of(self.use_case.task)(str(row["answer"]), want if want is None else str(want))

    def measured_again(self, name: str, logged: Measurement) -> Iterator[str]:
        """Where the rows, tested again in their order, do not give what was logged of a requirement."""
        if not self._can_be_tested(name, logged):
            return
        test, rows = self._test(name, logged), self.of_set(self._set_of(name))
        for look in gate_rows.looks(rows):
            if name == LATENCY and test.outcome != "undecided":
                break
            values, lost = self._entered(name, look)
            if values.size:
                test.add(values)
            if lost:
                test.add_lost(lost)
        again = (test.n, *map(_as_stored, (test.estimate, test.lower, test.upper)))
        if again != (logged.n, *map(_as_stored, (logged.estimate, logged.lower, logged.upper))):
            yield (
                f"{name}: logged {logged.estimate:.6g} [{logged.lower:.6g}, {logged.upper:.6g}] n={logged.n}, the "
                f"answers give {test.estimate:.6g} [{test.lower:.6g}, {test.upper:.6g}] n={test.n}"
            )
        lost_rows = int(rows["score"].isna().sum())
        if name in SHARES and lost_rows != logged.lost:
            yield f"{name}: {logged.lost} lost rows were logged, {lost_rows} are in the table"

    @property
    def _has_traffic(self) -> bool:
        """Whether traffic without expected answers was a sample of its own."""
        return bool(self.rows["set"].eq(TRAFFIC).any())

    def _set_of(self, name: str) -> str:
        """The set whose rows a requirement is judged on."""
        if name in OWN_SETS:
            return name
        return TRAFFIC if self._has_traffic and name in WITHOUT_EXPECTED else GATE

    def _can_be_tested(self, name: str, logged: Measurement) -> bool:
        is_closed = self.use_case.data.population == "this_set" and name in SHARES
        if is_closed and f"{name}.size" not in self.run.figures:
            return False
        if UNIT not in self.rows and self.use_case.data.unit_by:
            return False
        if name == LATENCY:
            return "timed" in self.rows
        return name != COST or WORST_CASE in self.run.figures

    def _test(self, name: str, logged: Measurement) -> SequentialTest:
        figures, alphas = self.run.figures, Alphas(logged.alpha_pass, logged.alpha_fail)
        size = int(figures.get(f"{name}.size", logged.n))
        cost = RequestCost(figures.get(WORST_CASE, 0.0), figures.get(FIXED, 0.0))
        grades = self.grades if name in GRADED else None
        return GateTests(self.use_case, alphas, {name: size}, cost, grades).by_name[name]

    def _entered(self, name: str, look: pd.DataFrame) -> tuple[FloatArray, int]:
        """The values of a look as they entered a test, and how many examples were lost on the way."""
        lost = look["score"].isna()
        if name == LATENCY:
            timed = look[look["timed"].eq(True)]
            known = timed["latency_ms"].dropna()
            units = unit_count(look) - unit_count(look.iloc[whole_units(look, lost.tolist())])
            return known.to_numpy(dtype=float), units + len(timed) - len(known)
        if name == COST and "unmetered" in look:
            lost = lost | look["unmetered"].eq(True)
        whole = look.iloc[whole_units(look, lost.tolist())]
        return unit_scores(whole, self._values(name, whole)), unit_count(look) - unit_count(whole)

    def _values(self, name: str, rows: pd.DataFrame) -> list[float]:
        if name == COST:
            sent = 1 + self.use_case.traffic.retry_share
            return [1000 * sent * float(usd) for usd in rows["usd"]]
        if name == EXAM or (self.grades and name in GRADED):
            return [float(score) for score in rows["score"]]
        return [_value(self._score(row), name) for row in rows.to_dict("records")]


def _value(score: Score, name: str) -> float:
    """What a score counts for under a requirement, or in a set of rows."""
    return score.adherence if name == "adherence" else score_in(name, score)


def _some(ids: list[object] | list[str]) -> str:
    named = ", ".join(map(str, ids[:MOST_ROWS_NAMED]))
    more = f" and {len(ids) - MOST_ROWS_NAMED} more" if len(ids) > MOST_ROWS_NAMED else ""
    return f"row {named}{more} {'are' if len(ids) > 1 else 'is'}"


def _as_stored(figure: float) -> float:
    """A figure as a database of MLflow gives it back: infinity is its largest number there."""
    return min(max(figure, -sys.float_info.max), sys.float_info.max)
