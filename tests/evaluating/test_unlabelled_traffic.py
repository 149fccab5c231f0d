"""Traffic without expected answers: what a request costs and takes and its format are judged on it, quality on gate
rows, which say of a cache what they say of the candidate behind it.

The model is a toy; the cache, the looks and the sequential tests are the real ones.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from leastwise.answering.exact_cache import ExactCache
from leastwise.evaluating.evaluation import evaluate
from leastwise.evaluating.looks import Inputs
from leastwise.evaluating.scorer import ExactScorer
from leastwise.ladder.alphas import Alphas
from leastwise.ladder.gate import judge
from leastwise.ladder.measured import Measured
from leastwise.metrics.answer import Answer
from leastwise.rows.gate_rows import seeded
from leastwise.rows.question import JudgedRows
from leastwise.rows.tables import UNIT
from leastwise.use_case import UseCase
from tests.evaluating.test_replay import CACHED, COST, Model, mean_cost, traffic
from tests.toys import SEED, use_case

ALPHA = Alphas(0.05, 0.05)
WANTED = use_case({"quality": (0.8, 0.1), "adherence": (0.9, 0.1), COST: (0.03, 0.02)})
SLOW_MS = 500.0


class Reader(Model):
    """Answers what a text says: `yes`, `no`, or in no demanded format."""

    def _one(self, text: str) -> Answer:
        answer = super()._one(text)
        said = text.rpartition(": ")[2]
        return replace(answer, text=said) if answer.text is not None and ": " in text else answer


def unlabelled(texts: list[str]) -> pd.DataFrame:
    return traffic(texts).assign(label=None)


def gate(said: list[str]) -> pd.DataFrame:
    texts = [f"gate {at}: {each}" for at, each in enumerate(said)]
    return pd.DataFrame({"id": [f"g{at}" for at in range(len(texts))], "text": texts, "label": "yes"})


def measured(
    rows: pd.DataFrame,
    beside: pd.DataFrame,
    model: Model | None = None,
    wanted: UseCase = WANTED,
    alphas: Alphas = ALPHA,
    opened: Callable[[], Model] | None = None,
    **tables: Any,
) -> Measured:
    with ExitStack() as stack:
        cache = ExactCache(model or Reader(), CACHED, 1.0, stack, opened)
        judged = JudgedRows(rows, SEED, is_replayed=True, is_scored=False)
        inputs = Inputs(judged, beside=JudgedRows(seeded(beside), "0123456789abcdef"), **tables)
        result = evaluate(wanted, CACHED, cache, inputs, alphas, ExactScorer(wanted.task))
        return replace(result, totals=result.totals | cache.figures())


REPEATING = [f"text {at}" for at in range(10)] * 20


def test_cost_and_format_are_judged_on_the_traffic_and_quality_on_gate_rows() -> None:
    rows, model = unlabelled(REPEATING), Reader()
    result = measured(rows, gate(["yes"] * 300), model)
    found = result.evaluation.measurements
    assert judge(result.evaluation, WANTED.gate_requirements).outcome == "PASS"
    sets = pd.Series([row["set"] for row in result.rows]).value_counts()
    assert found["quality"].n == sets["gate"] and found["adherence"].n == found[COST].n == sets["traffic"]
    assert found[COST].lower <= mean_cost(rows) <= found[COST].upper
    assert result.totals["rows.traffic"] == sets["traffic"] and result.totals["rows.gate"] == sets["gate"]


def test_no_answer_to_the_traffic_is_taken_as_right_or_wrong() -> None:
    result = measured(unlabelled([f"{text}: no" for text in REPEATING]), gate(["yes"] * 300))
    assert result.evaluation.measurements["quality"].estimate == 1.0, "a no to a request is no error of the gate's"
    of_traffic = [row for row in result.rows if row["set"] == "traffic"]
    assert {row["expected"] for row in of_traffic} == {None} and {row["score"] for row in of_traffic} == {1.0}
    wrong = measured(unlabelled(REPEATING), gate(["no"] * 300))
    assert judge(wrong.evaluation, WANTED.gate_requirements).named("FAIL") == ("quality",)


def test_answers_out_of_format_fail_on_the_traffic_and_no_gate_row_is_asked() -> None:
    model = Reader()
    result = measured(unlabelled([f"{text}: certainly so" for text in REPEATING]), gate(["yes"] * 300), model)
    assert judge(result.evaluation, WANTED.gate_requirements).named("FAIL") == ("adherence",)
    assert not any(text.startswith("gate") for text in model.asked)


def test_what_gate_rows_cost_and_take_is_no_figure_of_the_traffic() -> None:
    """Gate rows cost a hundred times as much and take a hundred times as long, and are no repetition."""

    class Dear(Reader):
        def _one(self, text: str) -> Answer:
            answer = super()._one(text)
            is_gate = text.startswith("gate")
            return replace(answer, usd=67e-4, latency_ms=50_000.0, input_tokens=5_500) if is_gate else answer

    wanted = use_case({"quality": (0.8, 0.1), COST: (0.03, 0.02), "p95_latency_ms": (600.0, 20.0)})
    rows = unlabelled(REPEATING)
    plain, dear = (measured(rows, gate(["yes"] * 300), model, wanted) for model in (Reader(), Dear()))
    assert plain.evaluation.measurements[COST] == dear.evaluation.measurements[COST]
    assert all(each.evaluation.measurements["p95_latency_ms"].upper <= 620 for each in (plain, dear))
    assert dear.totals["requests_per_s"] > 0.5 * plain.totals["requests_per_s"]
    apart = ("usd.per_request", "tokens.input", "cache.hit_rate", "cache.bill_saving", "usd.saved")
    assert {name: plain.totals[name] for name in apart} == {name: dear.totals[name] for name in apart}
    assert dear.evaluation.usd_spent > 10 * plain.evaluation.usd_spent, "all that was paid is counted"
    assert plain.totals["calls.paid"] == 10 + plain.totals["rows.gate"]


def test_quality_stops_being_asked_once_it_is_decided_and_traffic_is_asked_whole() -> None:
    model = Reader()
    result = measured(unlabelled(REPEATING), gate(["yes"] * 2_000), model)
    assert model.asked[:10] == REPEATING[:10] and result.totals["rows.gate"] < 300
    assert len(model.asked) == 10 + result.totals["rows.gate"]


def test_a_cost_that_fails_leaves_quality_measured_to_its_end() -> None:
    wanted = use_case({"quality": (0.8, 0.1), COST: (0.001, 0.0001)})
    found = measured(unlabelled(REPEATING), gate(["yes"] * 300), wanted=wanted).evaluation
    assert judge(found, wanted.gate_requirements).named("FAIL") == (COST,)
    assert found.measurements["quality"].lower >= 0.7


def test_gate_rows_are_answered_by_the_candidate_without_any_cache() -> None:
    behind, bare = Reader(), Reader()
    measured(unlabelled(REPEATING), gate(["yes"] * 300), behind, opened=lambda: bare)
    assert not any(text.startswith("gate") for text in behind.asked)
    assert bare.asked and all(text.startswith("gate") for text in bare.asked)


@pytest.mark.parametrize("lost", ["text", "gate"])
def test_an_outage_on_either_sample_has_no_verdict(lost: str) -> None:
    rows, beside = unlabelled([f"text {at}" for at in range(300)]), gate(["yes"] * 300)
    gone = frozenset([*rows["text"], *beside["text"]])
    model = Reader(lost=frozenset(text for text in gone if text.startswith(lost)))
    result = measured(rows, beside, model)
    assert "25 of 25 requests were lost to the infrastructure" in str(result.evaluation.error)


def test_what_one_sample_lost_is_no_outage_of_the_other() -> None:
    """Nine of 1,000 requests are within 1% of the traffic; they would be 3% of 300 gate rows."""
    rows = unlabelled([f"text {at}" for at in range(1_000)])
    model = Reader(unmetered=frozenset(f"text {at * 100}" for at in range(9)))
    wanted = use_case({"quality": (0.8, 0.1), COST: (0.07, 0.01)})
    result = measured(rows, gate((["no"] + ["yes"] * 4) * 60), model, wanted)
    assert result.evaluation.error is None


def test_rows_of_one_unit_count_once_on_either_sample() -> None:
    rows = unlabelled(REPEATING).assign(**{UNIT: [f"u{at // 4}" for at in range(200)]})
    beside = gate(["yes"] * 300).assign(**{UNIT: [f"g{at // 3}" for at in range(300)]})
    wanted = use_case({"quality": (0.8, 0.1), COST: (0.03, 0.02)}, unit_by="conversation")
    found = measured(rows, beside, wanted=wanted).evaluation.measurements
    assert 3 * found["quality"].n == found["quality"].rows and found["quality"].n <= 100
    assert found[COST].n <= 50


def test_this_set_is_a_closed_set_of_each_sample() -> None:
    wanted = use_case({"quality": (0.8, 0.0), "adherence": (0.9, 0.0)}, population="this_set")
    result = measured(unlabelled(REPEATING), gate(["yes"] * 90 + ["no"] * 10), wanted=wanted)
    assert (result.totals["quality.size"], result.totals["adherence.size"]) == (100.0, 200.0)
    assert judge(result.evaluation, wanted.gate_requirements).outcome == "PASS"


def test_inputs_to_decline_are_asked_past_the_cache_too() -> None:
    beyond = pd.DataFrame({"id": [f"o{at}" for at in range(200)], "text": [f"gate o{at}: none" for at in range(200)]})
    wanted = use_case({"quality": (0.8, 0.1), "ood_decline": (0.9, 0.1)})
    result = measured(unlabelled(REPEATING), gate(["yes"] * 300), wanted=wanted, out_of_scope=beyond)
    assert result.evaluation.measurements["ood_decline"].estimate == 1.0
    assert result.totals["cache.hit_rate"] == pytest.approx(190 / 200)


# -- error control ----------------------------------------------------------------------------------------------------


def passes(orders: int, quality: float, adherence: float, usd: tuple[float, float], seed: int) -> float:
    """Share of evaluations that pass, of gate rows and traffic drawn anew; `usd`: of a request, a part of the time
    each.
    """
    rng, alphas = np.random.default_rng(seed), Alphas(0.2, 0.05)
    wanted = use_case({"quality": (0.8, 0.1), "adherence": (0.9, 0.1), COST: (0.06, 0.02)})

    class Priced(Reader):
        def _one(self, text: str) -> Answer:
            price = usd[int(rng.random() < 0.5)]
            return replace(super()._one(text), usd=price)

    passed = 0
    for _ in range(orders):
        formats = np.where(rng.random(150) < adherence, "yes", "certainly so")
        rows = unlabelled([f"text {rng.integers(1 << 40)}: {said}" for said in formats])
        right = np.where(rng.random(150) < quality, "yes", "no")
        beside = gate(list(right)).assign(
            text=lambda each: [f"{rng.integers(1 << 40)} {text}" for text in each["text"]]
        )
        result = measured(rows, beside, Priced(), wanted, alphas)
        passed += judge(result.evaluation, wanted.gate_requirements).outcome == "PASS"
    return passed / orders


@pytest.mark.parametrize(
    ("quality", "adherence", "usd"),
    [(0.7, 1.0, (1e-6, 1e-6)), (1.0, 0.8, (1e-6, 1e-6)), (1.0, 1.0, (0.0, 160e-6))],
    ids=["quality", "adherence", "cost"],
)
def test_a_cache_at_the_floor_of_one_requirement_passes_with_at_most_alpha(
    quality: float, adherence: float, usd: tuple[float, float]
) -> None:
    orders, alpha = 40, 0.2
    share = passes(orders, quality, adherence, usd, seed=3)
    assert share <= alpha + 2.5 * (alpha * (1 - alpha) / orders) ** 0.5


def test_a_cache_that_meets_all_of_them_passes() -> None:
    assert passes(10, 0.98, 1.0, (1e-6, 20e-6), seed=4) >= 0.8
