"""The expected cost of a stage moves with what it is made of, says its arithmetic, and is never above the worst."""

from typing import Any

import pytest

from leastwise.evidence.examples_needed import ExpectedLength
from leastwise.money.expected_cost import Facts, Hardware, Sizes, examples_of, expected_costs, request_usage
from leastwise.money.machine_cost import EXAMPLES_PER_S, training_tokens
from leastwise.money.worst_cost import worst_costs
from leastwise.use_case import LADDER
from leastwise.use_case.price import Price
from tests.unit.use_cases import CHEAP, LISTED, PLENTY, QUALITY, asked, use_case

ROWS = PLENTY | {"out_of_scope": 0, "shifted": 0, "graded": 0}
MACHINE = Hardware(flops_per_s=1e12, usd_per_hour=2.0)


def facts(**changes: Any) -> Facts:
    fields: dict[str, Any] = {
        "prices": {"openai:big": LISTED},
        "rows": ROWS,
        "hardware": MACHINE,
        "base_parameters": 1e8,
        "alpha_pass": 0.005,
        "alpha_fail": 0.0125,
        "sizes": Sizes(text=100, answer=10, example=110, document=500),
    }
    return Facts(**fields | changes)


def test_a_candidate_expected_to_pass_is_tried_once_and_one_expected_to_fail_in_every_way() -> None:
    good = expected_costs(use_case(), facts(quality={"rag": 0.95}))["rag"]
    bad = expected_costs(use_case(), facts(quality={"rag": 0.3}))["rag"]
    assert (len(good.steps), len(bad.steps)) == (1, 2)
    assert bad.calls == 50 and examples_of(use_case(), "rag", facts(quality={"rag": 0.3})) == ExpectedLength(
        25, passes=False
    )


def test_a_stage_that_can_never_run_costs_nothing_and_says_so() -> None:
    found = expected_costs(use_case(requirements=QUALITY), facts(ruled_out=frozenset({"cache"})))["cache"]
    assert (found.usd, found.steps) == (0.0, ("can never run",))


def test_training_is_operations_over_speed_times_the_hour() -> None:
    wanted = use_case(training={"max_examples": 1000, "upper_blocks_share": 1.0})
    tokens = training_tokens(wanted, facts().sizes, ROWS)
    expected = 4 * 1e8 * tokens / 1e12 / 3600 * 2.0  # LoRA: two of six operations forward, two of them back
    assert expected_costs(wanted, facts())["fine_tune"].usd == pytest.approx(expected)
    full = wanted.model_copy(update={"training": wanted.training.model_copy(update={"method": "full"})})
    assert expected_costs(full, facts())["fine_tune"].usd == pytest.approx(expected * 1.5)
    fast = facts(hardware=MACHINE.model_copy(update={"flops_per_s": 4e12}))
    assert expected_costs(wanted, fast)["fine_tune"].usd == pytest.approx(expected / 4)


def test_what_packed_text_costs_grows_with_its_steps_its_method_and_the_machines_that_train_together() -> None:
    def both(**training: object) -> tuple[float, float]:
        wanted = use_case(
            task={"domain_is_public": False}, training={"usd_per_hour": 2.0, "pretrain_steps": 1000} | training
        )
        expected = expected_costs(wanted, facts())
        return expected["pretrain"].usd - expected["fine_tune"].usd, worst_costs(
            wanted, {"openai:big": LISTED}, None, asked(ROWS)
        )["pretrain"]

    expected, worst = both()
    assert both(pretrain_steps=2000) == pytest.approx((2 * expected, worst + 16_000 / EXAMPLES_PER_S / 3600 * 2))
    assert both(pretrain_method="full", upper_blocks_share=1.0)[0] == pytest.approx(
        both(upper_blocks_share=1.0)[0] * 1.5
    )
    assert both(launch={"nodes": 2, "meet_at": "first:29500"})[1] == pytest.approx(2 * worst)


def test_a_prompt_has_its_examples_and_a_trained_candidate_only_its_instruction() -> None:
    sizes = facts().sizes
    prompt, rag, tuned = (
        request_usage(use_case(), stage, sizes).input_tokens for stage in ("prompt", "rag", "fine_tune")
    )
    assert tuned < 0.5 * prompt < rag
    longer = request_usage(use_case(), "rag", sizes.model_copy(update={"text": 4100.0})).input_tokens
    assert longer == rag + 1000


def test_a_judge_doubles_the_calls_and_is_paid() -> None:
    plain, judged = (expected_costs(use_case(), facts(judge_price=price))["prompt"] for price in (None, CHEAP))
    assert judged.calls == 2 * plain.calls and judged.usd > plain.usd


def test_what_a_cache_answers_and_what_a_trained_teacher_labels_is_not_bought() -> None:
    asked, half = (expected_costs(use_case(), facts(repeat_share=share))["cache"] for share in (0.0, 0.5))
    assert half.calls == pytest.approx(asked.calls / 2, abs=1) and half.usd == pytest.approx(asked.usd / 2, rel=0.05)
    bought, trained = (
        expected_costs(use_case(), facts(teacher_is_asked=is_asked))["distill"] for is_asked in (True, False)
    )
    assert bought.calls > 0 and trained.calls == 0 and trained.usd < bought.usd


@pytest.mark.parametrize("price", [CHEAP, LISTED])
def test_what_is_expected_is_never_above_what_caps_are_held_by(price: Price) -> None:
    wanted = use_case(training={"usd_per_hour": 2.0, "teacher_labels": 500}, hosting={"usd_per_month_per_machine": 700})
    worst = worst_costs(wanted, {"openai:big": price}, CHEAP, asked(ROWS))
    slow = Hardware(flops_per_s=2e11, usd_per_hour=2.0)
    expected = expected_costs(wanted, facts(prices={"openai:big": price}, hardware=slow))
    assert all(expected[stage].usd <= worst[stage] for stage in LADDER)
    assert all(expected[stage].usd > 0 for stage in ("prompt", "rag", "fine_tune", "distill", "self_host"))


def test_a_stage_that_does_not_remedy_what_surely_fails_is_expected_to_try_every_form() -> None:
    wanted = use_case(
        requirements={"quality": {"bound": 0.6, "margin": 0.2}, "p95_latency_ms": {"bound": 9, "margin": 1}}
    )
    passing = expected_costs(wanted, facts(quality={"rag": 0.95}))["rag"]
    barred = expected_costs(wanted, facts(quality={"rag": 0.95}, cannot_pass=frozenset({"rag"})))["rag"]
    assert len(barred.steps) == 2 * len(passing.steps) and barred.usd > 1.5 * passing.usd


def test_a_replay_is_expected_to_buy_each_of_its_texts_once() -> None:
    wanted = use_case(caching={"replay_requests": 400})
    replay = expected_costs(wanted, facts(rows=ROWS | {"traffic": 10_000}, repeat_share=0.25))["cache"]
    assert replay.calls == 300


def test_a_model_that_may_reflect_is_priced_into_the_search_and_never_beyond_what_that_may_cost() -> None:
    without = use_case(search={"usd": 50.0, "rows": 100})
    named = use_case(search={"usd": 50.0, "rows": 100, "reflect": "openai:big"})
    capped = use_case(search={"usd": 0.001, "rows": 100, "reflect": "openai:big"})
    rows = facts(rows=ROWS | {"dev": 400})
    plain, more, least = (expected_costs(each, rows)["prompt"] for each in (without, named, capped))
    assert more.usd > plain.usd and more.calls > plain.calls
    assert "instructions by openai:big" in more.steps[-1] and "instructions" not in plain.steps[-1]
    unsearched = expected_costs(use_case(search={"rows": 0}), rows)["prompt"]
    assert least.usd < more.usd and least.usd <= unsearched.usd + 0.001
    free = facts(rows=ROWS | {"dev": 400}, prices={"openai:big": CHEAP})
    assert expected_costs(named, free)["prompt"].usd < more.usd


def test_a_search_of_a_model_that_thinks_is_expected_to_try_more_and_each_to_cost_its_thoughts() -> None:
    searches = {"search": {"rows": 100, "usd": 1000}}
    plain, thinking = (
        expected_costs(use_case(models={"candidates": [{"uri": "openai:big"} | more]}, **searches), facts())["prompt"]
        for more in ({}, {"reasoning": "medium"})
    )
    assert thinking.calls == plain.calls + 150
    assert thinking.usd - plain.usd >= 650 * 1024 * LISTED.output / 1e6
