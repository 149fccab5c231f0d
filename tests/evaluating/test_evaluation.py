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
