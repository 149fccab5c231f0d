"""Measuring a candidate: what counts as one example, in which order, and what a lost or a closed set does to it.

A toy answers from a column of its rows; the rows, the looks and the sequential tests are the real ones.
"""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from leastwise.evaluating.evaluation import OnLook, evaluate
from leastwise.evaluating.looks import Inputs
from leastwise.evaluating.scorer import ExactScorer
from leastwise.ladder.alphas import Alphas
from leastwise.ladder.candidate import Candidate
from leastwise.ladder.gate import judge
from leastwise.ladder.measured import Measured
from leastwise.metrics.answer import Answer
from leastwise.rows import gate_rows
from leastwise.rows.question import JudgedRows
from leastwise.rows.tables import UNIT
from leastwise.use_case import UseCase
from tests.evaluating.toy_answerer import Toy
from tests.toys import MODEL, SEED, table, use_case

ALPHA = Alphas(0.05, 0.05)
CANDIDATE = Candidate(stage="prompt", model=MODEL, venue="api")


def measured(
    wanted: UseCase,
    rows: pd.DataFrame,
    toy: Toy | None = None,
    alpha: Alphas = ALPHA,
    seed: str = SEED,
    on_look: OnLook | None = None,
    **own: Any,
) -> Measured:
    inputs = Inputs(JudgedRows(gate_rows.seeded(rows, seed), seed), **own)
    return evaluate(wanted, CANDIDATE, toy or Toy(), inputs, alpha, ExactScorer(wanted.task), on_look)


QUALITY = use_case({"quality": (0.85, 0.15)})
NARROW = {"quality": (0.78, 0.08)}
BY_UNIT = use_case({"quality": (0.85, 0.15)}, unit_by="conversation")
EVERYTHING = {
    "quality": (0.8, 0.1),
    "adherence": (0.98, 0.05),
    "p95_latency_ms": (2000.0, 100.0),
    "usd_per_1k_requests": (2.0, 1.0),
    "ood_decline": (0.8, 0.1),
    "shift_quality": (0.7, 0.1),
}


# -- order and looks ---------------------------------------------------------------------------------------------------


def test_progress_says_about_how_many_rows_are_to_go_and_none_once_all_is_decided():
    rng, seen = np.random.default_rng(1), []
    rows = table((rng.random(900) < 0.62).astype(int), per_unit=1)
    measured(use_case({"quality": (0.7, 0.1)}), rows, on_look=seen.append)
    assert len(seen) >= 3 and seen[-1].to_go == 0
    assert all(p.to_go is None or 0 < p.to_go <= 900 - p.rows for p in seen[:-1])
    assert any(p.to_go for p in seen[:-1])


# -- units -------------------------------------------------------------------------------------------------------------


def passes_at_the_floor(wanted: UseCase, per_unit: int, runs: int) -> float:
    """Share of runs that pass although the true quality is the floor; all rows of a unit are right or wrong
    together.
    """
    rng, passed = np.random.default_rng(3), 0
    requirements = wanted.gate_requirements
    for run in range(runs):
        rows = table((rng.random(30) < 0.7).astype(int), per_unit)
        if wanted.data.unit_by is None:
            rows = rows.drop(columns=UNIT)
        passed += judge(measured(wanted, rows, seed=f"{run:016x}").evaluation, requirements).outcome == "PASS"
    return passed / runs


def test_correlated_rows_pass_too_often_by_the_row_and_not_by_the_unit():
    by_row = passes_at_the_floor(use_case(NARROW), 10, runs=100)
    by_unit = passes_at_the_floor(use_case(NARROW, unit_by="conversation"), 10, runs=300)
    assert by_unit <= ALPHA.to_pass
    assert by_row > 3 * ALPHA.to_pass


def test_a_unit_counts_once_however_many_rows_it_has():
    rows = table([1, 1, 0, 0], per_unit=2)
    extra = table([0] * 6, named="x").assign(**{UNIT: "u3"})
    got = measured(BY_UNIT, pd.concat([rows, extra])).evaluation.measurements["quality"]
    assert (got.estimate, got.n, got.rows) == (0.5, 4, 14)


@pytest.mark.parametrize("shuffle", range(3))
def test_the_intervals_do_not_depend_on_the_order_of_the_rows_in_the_table(shuffle: int):
    rng = np.random.default_rng(0)
    rows = table([1] * 45, per_unit=5).assign(usd=rng.random(225) / 500)
    rows["right"] = (rng.random(225) < 0.75).astype(int)
    wanted = use_case(EVERYTHING, unit_by="conversation")
    shuffled = rows.sample(frac=1, random_state=shuffle)
    first, second = (measured(wanted, each).evaluation.measurements for each in (rows, shuffled))
    assert first == second
    assert {"quality", "adherence", "p95_latency_ms", "usd_per_1k_requests"} <= first.keys()


def test_latency_takes_one_row_of_each_unit_and_not_always_its_first():
    rows = table([1] * 50, per_unit=4)
    toy = Toy()
    got = measured(use_case({"p95_latency_ms": (100.0, 1.0)}, unit_by="conversation"), rows, toy)
    asked = rows.set_index("id").loc[toy.timed_ids]
    assert asked[UNIT].is_unique and got.evaluation.measurements["p95_latency_ms"].n == len(asked) >= 25
    assert len({int(i[1:]) // 50 for i in toy.timed_ids}) == 4  # rows 0..49 are the units' first rows


def test_cost_is_the_mean_over_units():
    rows = table([1] * 30, per_unit=2)
    rows["usd"] = np.where(np.arange(60) < 30, 0.001, 0.003)
    got = measured(use_case({"usd_per_1k_requests": (2.0, 1.0)}, unit_by="conversation"), rows)
    cost = got.evaluation.measurements["usd_per_1k_requests"]
    assert (cost.n, cost.estimate) == (30, pytest.approx(2.0))


# -- lost rows ---------------------------------------------------------------------------------------------------------


def test_a_unit_that_lost_a_row_is_lost_against_pass_and_against_fail():
    rows = table([1] * 24, per_unit=10)
    whole = measured(BY_UNIT, rows).evaluation.measurements["quality"]
    got = measured(BY_UNIT, rows, Toy(lost=frozenset({"r5"}))).evaluation.measurements["quality"]
    assert (got.n, got.rows, got.lost, got.estimate) == (23, 239, 1, 1.0)
    assert got.lower < whole.lower
    none_right = rows.assign(right=0)
    low = use_case({"quality": (0.3, 0.25)}, unit_by="conversation")
    best = measured(low, none_right.head(5 * 24), Toy(lost=frozenset({"r5"}))).evaluation.measurements["quality"]
    assert best.upper > measured(low, none_right.head(5 * 24)).evaluation.measurements["quality"].upper


def test_one_in_a_hundred_lost_is_counted_in_rows_not_in_units():
    rows = table([1] * 20, per_unit=10)
    wanted = BY_UNIT.gate_requirements
    few = measured(BY_UNIT, rows, Toy(lost=frozenset({"r5"}))).evaluation
    assert judge(few, wanted).outcome == "PASS"  # one row of 200, though one unit of 20
    many = measured(BY_UNIT, rows, Toy(lost=frozenset({"r5", "r6", "r7"}))).evaluation
    assert "3 of 200 requests were lost" in str(many.error)
    assert judge(many, wanted).outcome == "ERROR"


def test_a_lost_request_counts_against_latency_and_cost_too():
    bounds = {"p95_latency_ms": (1000.0, 10.0), "usd_per_1k_requests": (2.0, 1.0), "quality": (0.95, 0.04)}
    rows = table([1] * 150)
    early = str(gate_rows.seeded(rows, SEED)["id"].iloc[3])
    whole = measured(use_case(bounds), rows).evaluation.measurements
    got = measured(use_case(bounds), rows, Toy(lost=frozenset({early}))).evaluation.measurements
    assert got["usd_per_1k_requests"].upper > whole["usd_per_1k_requests"].upper
    assert got["p95_latency_ms"].n < 150 and got["quality"].lost == 1


P95 = {"p95_latency_ms": (1000.0, 10.0)}


def verdict_of(requirements: dict[str, tuple[float, float]], rows: pd.DataFrame, toy: Toy) -> Any:
    wanted = use_case(requirements)
    return judge(measured(wanted, rows, toy).evaluation, wanted.gate_requirements)


def test_a_third_of_the_timed_requests_lost_is_an_error_and_no_fast_candidate():
    rows = table([1] * 500).assign(ms=120.0)
    every_third = frozenset(f"r{n}" for n in range(0, 500, 3))
    verdict = verdict_of(P95, rows, Toy(lost_when_timed=every_third))
    assert verdict.outcome == "ERROR" and "requests that were timed were lost" in verdict.reason
    assert verdict_of(P95, rows, Toy()).outcome == "PASS"


def test_a_request_lost_while_timed_counts_against_pass_and_is_in_the_record():
    rows = table([1] * 150).assign(ms=120.0)
    early = str(gate_rows.seeded(rows, SEED)["id"].iloc[3])
    whole = measured(use_case(P95), rows).evaluation.measurements["p95_latency_ms"]
    got = measured(use_case(P95), rows, Toy(lost_when_timed=frozenset({early})))
    p95 = got.evaluation.measurements["p95_latency_ms"]
    assert p95.n > whole.n and p95.lost == 1, "a lost request costs more examples"
    lost = next(row for row in got.rows if row["id"] == early)
    assert lost["timed"] and lost["latency_ms"] is None and lost["score"] == 1


def test_every_row_asked_for_has_a_latency_or_is_lost():
    class Short(Toy):
        def timed(self, rows: pd.DataFrame, answers: Any) -> Any:
            return super().timed(rows, answers)[:-1]

    with pytest.raises(ValueError, match="shorter"):
        measured(use_case(P95), table([1] * 100), Short())


# -- cost --------------------------------------------------------------------------------------------------------------

COST = {"usd_per_1k_requests": (2.0, 1.0)}


def test_a_cost_above_the_worst_case_is_an_error_with_the_reason_and_no_trace():
    rows = table([1] * 300)
    rows.loc[rows["id"] == gate_rows.seeded(rows, SEED)["id"].iloc[3], "usd"] = 0.02
    verdict = verdict_of(COST, rows, Toy())
    assert verdict.outcome == "ERROR"
    assert "1 of " in verdict.reason and "the server ignores the cap" in verdict.reason


def test_a_cost_above_the_worst_case_that_is_surely_too_dear_is_a_failure():
    verdict = verdict_of(COST, table([1] * 300).assign(usd=0.05), Toy())
    assert verdict.outcome == "FAIL" and "usd_per_1k_requests 50" in verdict.reason


def test_a_cost_above_the_worst_case_does_not_hide_that_quality_failed():
    rows = table([0] * 300)
    rows.loc[:, "usd"] = np.where(np.arange(300) % 10 == 0, 0.011, 0.0001)
    assert verdict_of(COST | {"quality": (0.8, 0.1)}, rows, Toy()).outcome == "FAIL"


def test_answers_without_usage_never_pass_a_cost_requirement():
    rows = table([1] * 300).assign(usd=0.0)
    verdict = verdict_of(COST, rows, Toy(unmetered=frozenset(rows["id"])))
    assert verdict.outcome == "ERROR" and "came without usage" in verdict.reason
    assert verdict_of({"quality": (0.8, 0.1)}, rows, Toy(unmetered=frozenset(rows["id"]))).outcome == "PASS"


def test_a_retried_request_is_paid_twice_in_the_gate_as_in_the_bill():
    rows = table([1] * 300)
    wanted = use_case(COST)
    retried = wanted.model_copy(update={"traffic": wanted.traffic.model_copy(update={"retry_share": 0.5})})
    once, twice = (measured(each, rows).evaluation.measurements["usd_per_1k_requests"] for each in (wanted, retried))
    assert (once.estimate, twice.estimate) == (pytest.approx(1.0), pytest.approx(1.5))


# -- what the wrong answers have in common -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "finish", "words"),
    [
        ("", "length", "answers were cut off by the cap of 12 tokens"),
        ("The user wants me to decide whether", "length", "answers were cut off by the cap of 12 tokens"),
        ("", "content_filter", "answers were refused by the provider's content filter"),
        ('```json\n{"label": "yes"}\n```', "stop", "answers hold the answer in something else"),
        ('{"label": "yes"}', "stop", "answers hold the answer in something else"),
        ('<tool_call>{"name": "answer"}</tool_call>', "stop", "answers hold the answer in something else"),
    ],
)
def test_a_failure_that_is_mostly_one_of_form_says_so_in_its_reason(text: str, finish: str, words: str):
    class Formed(Toy):
        def _one(self, row: Any) -> Answer:
            return Answer(text, 10.0, 0.001, finish_reason=finish) if row.right == 0 else super()._one(row)

    got = measured(QUALITY, table([0] * 90 + [1] * 10), Formed())
    verdict = judge(got.evaluation, QUALITY.gate_requirements)
    assert verdict.outcome == "FAIL" and words in verdict.reason
    assert sum(value for name, value in got.totals.items() if name.startswith("answers.")) >= 20


def test_a_failure_of_answers_that_are_merely_wrong_says_nothing_of_form():
    got = measured(QUALITY, table([0] * 100))
    assert not got.evaluation.finding and not [name for name in got.totals if name.startswith("answers.")]


# -- scale -------------------------------------------------------------------------------------------------------------


def test_a_long_evaluation_notes_its_intervals_ever_more_rarely_and_its_last_one_always():
    rng = np.random.default_rng(2)
    rows = table((rng.random(6000) < 0.75).astype(int))
    got = measured(use_case({"quality": (0.75, 0.0)}, population="this_set"), rows, alpha=Alphas(1e-9, 1e-9))
    noted = [each.n for each in got.intervals]
    last = got.evaluation.measurements["quality"]
    assert noted[:4] == [25, 50, 75, 100] and len(noted) < 60
    assert (got.intervals[-1].n, got.intervals[-1].lower, got.intervals[-1].upper) == (last.n, last.lower, last.upper)


# -- closed sets -------------------------------------------------------------------------------------------------------

CLOSED = {"quality": (0.7, 0.0), "ood_decline": (0.7, 0.0), "shift_quality": (0.7, 0.0)}


@pytest.mark.parametrize("per_unit", [1, 3])
@pytest.mark.parametrize(("good", "outcome"), [(28, "PASS"), (27, "FAIL")])
def test_each_closed_set_is_decided_for_certain_at_its_own_size(good: int, outcome: str, per_unit: int):
    wanted = use_case(CLOSED, population="this_set", unit_by="conversation" if per_unit > 1 else None)
    fine = table([1] * 75 + [0] * 25, per_unit)
    own = table([1] * good + [0] * (40 - good), per_unit, "s")
    outside = own.assign(right=np.where(own["right"] == 1, -1, 0))
    for name, tables in (
        ("ood_decline", {"out_of_scope": outside, "shifted": own.assign(right=1)}),
        ("shift_quality", {"out_of_scope": outside.assign(right=-1), "shifted": own}),
    ):
        got = measured(wanted, fine, alpha=Alphas(1e-6, 1e-6), **tables).evaluation
        verdict = judge(got, wanted.gate_requirements)
        assert {v.name: v.outcome for v in verdict.requirements}[name] == outcome
        assert got.measurements[name].n <= 40


def test_a_closed_set_is_decided_before_it_is_exhausted_where_it_is_clear():
    toy = Toy()
    wanted = use_case({"ood_decline": (0.5, 0.0)}, population="this_set")
    got = measured(wanted, table([1] * 4), toy, out_of_scope=table([-1] * 400, named="o"))
    assert judge(got.evaluation, wanted.gate_requirements).outcome == "PASS"
    assert sum(map(len, toy.looks)) < 200


def test_out_of_scope_and_shifted_rows_come_in_seeded_order():
    toy = Toy()
    wanted = use_case({"ood_decline": (0.5, 0.1)})
    measured(wanted, table([1] * 4), toy, out_of_scope=table([-1] * 40, named="o"))
    assert toy.looks[0] != [f"o{i}" for i in range(25)]


def test_a_requirement_of_a_share_may_have_no_margin_on_a_closed_set_but_cost_and_latency_may_not():
    with pytest.raises(ValueError, match=r"p95_latency_ms\.margin: 0 can never be decided"):
        use_case({"p95_latency_ms": (100.0, 0.0)}, population="this_set")


def test_a_candidate_whose_every_row_is_lost_has_no_estimate():
    got = measured(QUALITY, table([1] * 10), Toy(lost=frozenset(f"r{i}" for i in range(10)))).evaluation
    assert got.error and not got.measurements
    assert not any(math.isnan(m.estimate) for m in got.measurements.values())


def test_the_table_of_examples_has_both_scores_and_the_tokens_of_every_row_and_none_of_what_was_lost():
    toy = Toy(lost=frozenset({"r0"}))
    rows = {row["id"]: row for row in measured(QUALITY, table(np.array([1, 1, 0, -1])), toy).rows}
    assert [rows[name]["adherence"] for name in ("r1", "r2", "r3")] == [1.0, 1.0, 1.0]
    assert "adherence" not in rows["r0"] and rows["r0"]["score"] is None
    assert {"input_tokens", "cached_tokens", "output_tokens"} <= rows["r1"].keys()
