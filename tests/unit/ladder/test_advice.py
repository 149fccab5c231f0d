"""Advice before spending: what is ruled out and why, a guess at the stop, and what the gate will need."""

import time
from typing import Any

import pytest

from leastwise.ladder.advice import Advice, advise
from leastwise.ladder.premises import Premises
from leastwise.ladder.prospects import doubts_about, likely_usd_per_1k, payback_of
from leastwise.money.expected_cost import ExpectedCost
from leastwise.money.price_book import UnknownPrice
from leastwise.money.worst_cost import worst_costs
from leastwise.use_case import LADDER, Stage
from leastwise.use_case.price import Price
from tests.unit.use_cases import ALL, CHEAP, LISTED, PLENTY, QUALITY, asked, use_case


def advice(rows: dict[str, int] | None = None, price: Price = LISTED, **changes: Any) -> Advice:
    wanted = use_case(**changes)
    premises = Premises(
        rows=PLENTY | (rows or {}),
        prices={"openai:big": price},
        worst=worst_costs(wanted, {"openai:big": price}, CHEAP, asked(PLENTY | (rows or {}))),
        base_price=CHEAP,
        repeat_share=0.5,
        alpha_pass=0.005,
        alpha_fail=0.0125,
    )
    return advise(wanted, premises)


@pytest.mark.parametrize(
    ("changes", "rows", "out", "words"),
    [
        ({}, {}, "pretrain", "domain is public"),
        ({"task": {"stable": False}}, {}, "fine_tune", "not stable"),
        ({}, {"train": 400}, "fine_tune", "400 training examples"),
        ({}, {"train": 0, "documents": 0}, "rag", "anything to retrieve"),
        ({"requirements": QUALITY}, {}, "cache", "none of these is asked for"),
        ({"requirements": QUALITY}, {}, "distill", "none of these is asked for"),
        ({"requirements": QUALITY}, {}, "self_host", "none of these is asked for"),
        ({"data": {"traffic": None}}, {}, "cache", "data.traffic"),
        ({"data": {"unlabelled": None}}, {}, "distill", "data.unlabelled"),
        ({"models": {"base": None}}, {}, "fine_tune", "models.base"),
        ({"models": {"student": None}}, {}, "distill", "models.student"),
        ({"models": {"base": None, "student": None}}, {}, "self_host", "not open"),
        ({"last_stage": "rag"}, {}, "fine_tune", "last_stage is rag"),
        ({"approvals": {"self_host": "never"}}, {}, "self_host", "is never"),
        ({"hosting": {"capacity": False}}, {}, "self_host", "no machines"),
        ({"requirements": ALL | {"residency": {"venues": ["api"]}}}, {}, "self_host", "residency"),
        ({"requirements": ALL | {"residency": {"venues": ["api"]}}}, {}, "fine_tune", "residency"),
    ],
)
def test_a_stage_is_ruled_out_with_the_reason(
    changes: dict[str, Any], rows: dict[str, int], out: str, words: str
) -> None:
    given = advice(rows, **changes)
    stage = next(each for each in given.stages if each.stage == out)
    assert stage.status == "ruled_out"
    assert words in stage.reason


def test_nothing_is_ruled_out_that_evidence_could_still_call_for() -> None:
    given = advice(task={"domain_is_public": False})
    assert given.named("possible") == LADDER
    assert all(each.estimate_usd >= 0 and "can help with" in each.reason for each in given.stages)


def test_every_stage_is_listed_once_whatever_its_status() -> None:
    assert tuple(each.stage for each in advice({"train": 3}).stages) == LADDER


TIGHT_LATENCY = ALL | {"p95_latency_ms": {"bound": 60, "margin": 20}}
TIGHT_COST = ALL | {"usd_per_1k_requests": {"bound": 0.001, "margin": 0.0002}}


@pytest.mark.parametrize(
    ("changes", "rows", "stop"),
    [
        ({}, {"train": 0, "documents": 0}, "prompt"),
        ({}, {}, "rag"),  # own data to show
        ({"requirements": TIGHT_LATENCY}, {}, "distill"),  # no hosted LLM answers in 80 ms
        ({"requirements": TIGHT_LATENCY}, {"unlabelled": 0}, "self_host"),
        ({"requirements": TIGHT_LATENCY, "last_stage": "rag"}, {}, None),
        ({"requirements": TIGHT_COST, "hosting": {"managed_minimum_usd_per_month": 500}}, {}, "self_host"),
        ({"requirements": TIGHT_COST}, {}, "distill"),
        ({"requirements": ALL | {"usd_per_1k_requests": {"bound": 0.5, "margin": 0.1}}}, {}, "cache"),
    ],
)
def test_the_expected_stop_follows_data_cost_and_latency(
    changes: dict[str, Any], rows: dict[str, int], stop: Any
) -> None:
    assert advice(rows, **changes).expected_stop == stop


def test_what_is_too_dear_says_both_figures() -> None:
    prompt = advice(requirements=TIGHT_COST).stages[0]
    assert prompt.status == "possible"  # arithmetic doubts it, only the gate may say so
    assert "hardly meets usd_per_1k_requests: about $1.37 against $0.001" in prompt.reason


def finding(given: Advice, name: str) -> str:
    return next(each.advice for each in given.considerations if each.name == name)


@pytest.mark.parametrize(
    ("changes", "row", "words"),
    [
        ({"traffic": {"requests_per_month": 99_999}}, "volume", "rarely pay"),
        ({"traffic": {"requests_per_month": 100_000}}, "volume", "can pay"),
        ({}, "proprietary data", "retrieve it before training"),
        ({}, "consistency", "constrained output first"),
        ({"requirements": QUALITY}, "consistency", "nothing follows"),
        ({"traffic": {"requests_per_month": 2_000_000}}, "volume on a validated task", "distill it"),
        (
            {"traffic": {"requests_per_month": 2_000_000}, "task": {"stable": False}},
            "volume on a validated task",
            "no case",
        ),
        ({"requirements": ALL | {"residency": {"venues": ["api"]}}}, "data that cannot leave", "only these venues"),
        ({"task": {"domain_is_public": False}}, "unique domain", "pretrain may help"),
        ({}, "unique domain", "adds little"),
        ({"task": {"stable": False}}, "tasks that change", "never train"),
        ({"requirements": TIGHT_LATENCY}, "latency", "hardly answers that fast"),
        ({}, "latency", "in time"),
    ],
)
def test_the_matrix_explains_each_of_its_rows(changes: dict[str, Any], row: str, words: str) -> None:
    assert words in finding(advice(**changes), row)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"requirements": QUALITY, "last_stage": "rag"}, "changed line"),
        ({"requirements": QUALITY}, "Before paying for fine_tune"),
        ({}, "waiting helps less"),
    ],
)
def test_it_asks_whether_the_next_model_makes_this_unnecessary(changes: dict[str, Any], words: str) -> None:
    assert words in advice(**changes).wait


@pytest.mark.parametrize(
    ("changes", "rows", "words"),
    [
        ({}, {"train": 999}, "under 1,000"),
        ({}, {"train": 4_999}, "5,000 or more are advised"),
        ({"budget_usd": 0.1}, {}, "budget_usd $0.1 is below"),
        ({"budget_usd": 60}, {}, "does not cover"),
        ({}, {}, "openai:big may not teach"),
    ],
)
def test_it_warns(changes: dict[str, Any], rows: dict[str, int], words: str) -> None:
    assert any(words in text for text in advice(rows, **changes).warnings)


def test_illustrative_prices_say_so_and_enough_of_everything_warns_of_nothing() -> None:
    teaches = {"candidates": [{"uri": "openai:big", "training_on_output": True}]}
    assert advice(price=CHEAP, models=teaches).warnings == (
        "prices marked illustrative: every figure in dollars is an example, nobody charges it",
    )
    assert advice(models=teaches, budget_usd=1000).warnings == ()


def test_a_gate_set_too_small_for_its_margin_is_missing_data() -> None:
    assert not [text for text in advice().missing if text.startswith("quality")]
    short = next(text for text in advice({"gate": 100}).missing if text.startswith("quality"))
    assert "100 are there; add" in short
    assert [need.requirement for need in advice().gate] == ["quality", "adherence", "p95_latency_ms"]


def test_training_from_scratch_is_costed_with_its_arithmetic() -> None:
    given = advice()
    assert given.from_scratch_usd == pytest.approx(6 * 8e9 * 160e9 / (989e12 * 0.4) / 3600 * 3.0)
    assert "6 × 8e+09 parameters × 1.6e+11 tokens" in given.from_scratch[0]


def test_a_candidate_without_a_price_is_an_error_not_free() -> None:
    premises = Premises(rows=PLENTY, prices={}, alpha_pass=0.01, alpha_fail=0.01)
    with pytest.raises(UnknownPrice, match="openai:big"):
        advise(use_case(), premises)


def test_the_advice_takes_less_than_a_tenth_of_a_second() -> None:
    advice()
    started = time.process_time()
    advice()
    assert time.process_time() - started < 0.1


def paid_back(
    possible: tuple[Stage, ...] = LADDER, price: float = 2.5, expected_usd: float = 100.0
) -> dict[Stage, float]:
    wanted = use_case(training={"surrounding": {"curation": 1, "evaluation": 0, "retraining": 0, "people": 0}})
    premises = Premises(
        rows=PLENTY,
        prices={"openai:big": Price(input=price, output=4 * price)},
        base_price=CHEAP,
        expected={stage: ExpectedCost(usd=expected_usd) for stage in LADDER},
        alpha_pass=0.005,
        alpha_fail=0.0125,
    )
    return payback_of(wanted, premises, possible)


def test_a_stage_is_paid_back_by_what_it_saves_a_month_against_the_cheapest_prompt() -> None:
    months = paid_back()
    output = use_case().traffic.output_tokens
    prompt, tuned = (500 * 2.5 + output * 10) / 1e6, (200 * 0.1 + output * 0.4) / 1e6
    sent = 1 + use_case().traffic.retry_share
    assert months["fine_tune"] == pytest.approx(2 * 100.0 / (500_000 * sent * (prompt - tuned)))
    assert set(months) <= {"fine_tune", "pretrain", "distill", "self_host"}
    assert paid_back(("prompt",)) == {}
    assert paid_back(expected_usd=50.0)["fine_tune"] == pytest.approx(months["fine_tune"] / 2)


def test_what_saves_nothing_or_costs_nothing_has_no_months_of_payback() -> None:
    assert "fine_tune" not in paid_back(price=0.001)
    assert paid_back(expected_usd=0.0) == {}


def test_what_a_model_thinks_counts_in_the_cost_and_the_time_that_are_expected_of_it() -> None:
    limits = QUALITY | {
        "p95_latency_ms": {"bound": 2000, "margin": 500},
        "usd_per_1k_requests": {"bound": 5, "margin": 1},
    }
    plain, thinking = (
        use_case(
            requirements=limits, models={"candidates": [{"uri": "openai:big", "price": LISTED.model_dump()} | more]}
        )
        for more in ({}, {"reasoning": "medium"})
    )
    premises = Premises(rows=PLENTY, prices={"openai:big": LISTED}, alpha_pass=0.01, alpha_fail=0.01)
    usd = [likely_usd_per_1k(each, "prompt", premises) or 0.0 for each in (plain, thinking)]
    assert usd[1] - usd[0] >= 1000 * 1024 * LISTED.output / 1e6
    assert not doubts_about(plain, "prompt", premises).get("p95_latency_ms")
    assert "thinks for about 1024 tokens" in doubts_about(thinking, "prompt", premises)["p95_latency_ms"]
    assert "p95_latency_ms" not in doubts_about(thinking, "fine_tune", premises)
