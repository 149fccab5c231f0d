"""Traffic replayed through a cache: asked in its order, judged in one drawn at random, so that no interval takes the
beginning, where nothing is cached yet, for the whole.

The model is a toy; the cache, the looks and the sequential tests are the real ones.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pandas as pd

from leastwise.answering.answerer import PlainAnswerer
from leastwise.answering.exact_cache import ExactCache
from leastwise.evaluating.evaluation import evaluate
from leastwise.evaluating.looks import Inputs
from leastwise.evaluating.scorer import ExactScorer
from leastwise.evidence import CostTest
from leastwise.ladder.alphas import Alphas
from leastwise.ladder.candidate import CachePolicy, Candidate
from leastwise.ladder.measured import Measured
from leastwise.metrics.answer import Answer
from leastwise.rows.question import JudgedRows
from leastwise.rows.tables import UNIT
from leastwise.use_case import UseCase
from leastwise.use_case.price import Price
from tests.toys import MODEL, SEED, use_case

ALPHA = Alphas(0.05, 0.05)
COST = "usd_per_1k_requests"
CACHED = Candidate(stage="cache", model=MODEL, venue="api", cache=CachePolicy(exact=True))
WANTED = use_case({"quality": (0.9, 0.2), COST: (0.03, 0.02)})


@dataclass
class Model(PlainAnswerer):
    """Answers rightly for $67 a million; what is in `lost` never comes, what is in `unmetered` has no usage."""

    usd_worst_case: float = 200e-6
    fixed_usd_per_request: float = 0.0
    price: Price = field(default_factory=lambda: Price(input=1.0, output=4.0))
    lost: frozenset[str] = frozenset()
    unmetered: frozenset[str] = frozenset()
    asked: list[str] = field(default_factory=list)

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        self.asked += list(rows["text"])
        return [self._one(text) for text in rows["text"]]

    def _one(self, text: str) -> Answer:
        if text in self.lost:
            return Answer(None, None, 0.0, error="connection reset")
        return Answer("yes", 500.0, 67e-6, 55, 0, 3, usage_known=text not in self.unmetered)

    def timed(self, rows: pd.DataFrame, answers: list[Answer]) -> list[float | None]:
        return [answer.latency_ms for answer in answers]


def traffic(texts: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"id": [f"t{at}" for at in range(len(texts))], "text": texts, "label": "yes"})


def replayed(rows: pd.DataFrame, model: Model, wanted: UseCase = WANTED, seed: str = SEED) -> Measured:
    with ExitStack() as stack:
        cache = ExactCache(model, CACHED, 1.0, stack)
        inputs = Inputs(JudgedRows(rows, seed, is_replayed=True))
        return evaluate(wanted, CACHED, cache, inputs, ALPHA, ExactScorer(wanted.task))


def mean_cost(rows: pd.DataFrame) -> float:
    """Dollars a thousand over a whole replay that forgets nothing: each text is bought once."""
    return 1000 * 67e-6 * rows["text"].nunique() / len(rows)


def test_the_cost_of_replayed_traffic_lies_in_its_own_interval() -> None:
    rows = traffic([f"text {at}" for at in range(10)] * 40)  # first nothing is cached, then everything
    cost = replayed(rows, Model()).evaluation.measurements[COST]
    assert cost.lower <= mean_cost(rows) <= cost.upper and cost.lower <= cost.estimate <= cost.upper
    assert cost.upper <= 0.05, "a cache that answers 97% of the traffic is cheap, and that is seen"


def test_hits_are_as_quick_as_they_are_in_the_whole_of_the_replay() -> None:
    wanted = use_case({"quality": (0.9, 0.2), "p95_latency_ms": (100.0, 20.0)})
    latency = replayed(traffic([f"text {at}" for at in range(8)] * 50), Model(), wanted).evaluation.measurements
    assert latency["p95_latency_ms"].upper <= 120.0, "2% of the requests miss, and they all come first"


def covered(orders: int, alpha: float, seed: int) -> tuple[float, float]:
    """Shares of replays whose cost interval held the mean of the replay at every look, as it came and as drawn."""
    rng, held = np.random.default_rng(seed), np.zeros(2)
    for _ in range(orders):
        requests = rng.zipf(1.3, 300) % 400
        first = ~pd.Series(requests).duplicated().to_numpy()
        usd = np.where(first, rng.uniform(0.2, 0.8, requests.size), 0.0)  # falls as the cache fills
        for at, values in enumerate((usd, rng.permutation(usd))):
            test = CostTest(0.3, 0.1, 1.0, alpha_pass=alpha, alpha_fail=alpha)
            test.add(values)  # every single request is a look, and the ends of the interval never widen
            held[at] += test.lower <= usd.mean() <= test.upper
    return float(held[0] / orders), float(held[1] / orders)


def test_the_interval_of_a_replay_holds_its_mean_as_often_as_alpha_says() -> None:
    as_it_came, drawn = covered(orders=400, alpha=0.05, seed=11)
    assert drawn >= 1 - 2 * 0.05, "two sides of alpha each"
    assert as_it_came < 0.5, "in the order of a replay the beginning is taken for the whole"


def test_traffic_is_asked_in_its_own_order_each_text_once_and_the_whole_of_it() -> None:
    rows = traffic([f"text {at % 60}" for at in range(200)])
    model = Model()
    result = replayed(rows, model, use_case({"quality": (0.5, 0.4)}))
    assert model.asked == [f"text {at}" for at in range(60)]
    judged = [row["id"] for row in result.rows]
    assert len(judged) < 200 and judged != sorted(judged, key=lambda name: int(name[1:])), "decided early, and drawn"
    usd = sum(row["usd"] for row in result.rows) + result.totals["usd.unjudged"]
    assert usd == result.evaluation.usd_spent and abs(usd - 60 * 67e-6) < 1e-12, "what was paid is all counted"
    assert result.totals["calls.paid"] == 60


def test_a_replay_that_an_outage_breaks_stops_asking_and_has_no_verdict() -> None:
    rows = traffic([f"text {at}" for at in range(500)])
    model = Model(lost=frozenset(f"text {at}" for at in range(500)))
    result = replayed(rows, model)
    assert "25 of 25 requests were lost to the infrastructure (connection reset)" in str(result.evaluation.error)
    assert len(model.asked) == 25 and not result.evaluation.measurements


def test_a_replay_that_does_not_say_what_it_costs_is_not_bought_to_its_end() -> None:
    rows = traffic([f"text {at}" for at in range(500)])
    model = Model(unmetered=frozenset(rows["text"]))
    result = replayed(rows, model)
    assert "25 of 25 answers came without usage" in str(result.evaluation.error) and len(model.asked) == 25
    assert result.evaluation.usd_spent > 0 and result.totals["calls.paid"] == 25


def test_rows_that_share_a_unit_stay_together_in_the_drawn_order() -> None:
    rows = traffic([f"text {at % 30}" for at in range(120)]).assign(**{UNIT: [f"u{at % 40}" for at in range(120)]})
    wanted = use_case({"quality": (0.9, 0.2)}, unit_by="conversation")
    units = [str(row["unit"]) for row in replayed(rows, Model(), wanted).rows]
    assert len(set(units)) == sum(a != b for a, b in pairwise(units)) + 1
