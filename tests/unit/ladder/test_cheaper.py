"""What would make a verdict cheaper to decide: whatever is said is what the changed use case's own arithmetic gives."""

import math
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from leastwise.evidence.alpha_account import share_of_alpha
from leastwise.evidence.examples_needed import LOOK, examples_for_p95, examples_to_decide, expected_examples
from leastwise.ladder.alphas import candidates_on_gate_set
from leastwise.ladder.cheaper.outlook import outlook_of
from leastwise.ladder.cheaper.proposals import with_change
from leastwise.ladder.cheaper.savings import Saving, savings
from leastwise.ladder.premises import Found, Offer, Premises
from leastwise.money.expected_cost import Facts
from leastwise.money.request_usage import request_usage
from leastwise.use_case import UseCase
from leastwise.use_case.model import Model
from leastwise.use_case.price import Price
from tests.unit.use_cases import ALL, PLENTY, QUALITY, use_case

PRICES = {"openai:big": Price(input=2.5, output=10), "openai:mid": Price(input=1.0, output=4)}
PRICES |= {"openai:small": Price(input=0.4, output=1.6)}
TINY = Offer(model=Model(uri="openai:tiny", host="api.openai.com"), price=Price(input=0.1, output=0.4))


def premises(case: UseCase, rows: dict[str, int] | None = None, **more: Any) -> Premises:
    counts = PLENTY | (rows or {})
    alphas = {"alpha_pass": case.alpha / candidates_on_gate_set(case), "alpha_fail": case.alpha}
    facts = Facts(prices={m.uri: PRICES[m.uri] for m in case.models.candidates}, rows=counts, **alphas)
    given = {"rows": counts, "prices": facts.prices, "facts": facts, "repeat_share": 0.5} | alphas
    return Premises.model_validate(given | more)


def models(*uris: str) -> dict[str, Any]:
    package = {"uri": "package://small", "venue": "managed"}
    return {"candidates": [{"uri": uri} for uri in uris], "base": package, "embedder": "package://small"}


def of(found: tuple[Saving, ...], field: str) -> Saving:
    (saving,) = [each for each in found if field in each.change]
    return saving


def by_hand(case: UseCase, given: Premises, prices: dict[str, Price]) -> tuple[int, int, float]:
    """Examples, calls and dollars, worked out apart from the module under test; without a search, prompt and rag."""
    alpha_pass = share_of_alpha(case.alpha, 1) / candidates_on_gate_set(case)
    alpha_fail = case.alpha / len(case.requirements.bounds)
    needs = [LOOK]
    if case.requirements.p95_latency_ms:
        needs.append(examples_for_p95(alpha_pass))
    for limit in filter(None, [case.requirements.quality, case.requirements.adherence]):
        needs.append(examples_to_decide(limit.bound, limit.margin, alpha_pass, alpha_fail))
    rows = given.rows["gate"]
    examples = rows if case.data.population == "this_set" else max(needs)
    asked = min(-(-examples // LOOK) * LOOK, rows)
    assert given.facts is not None
    calls, usd = 0, 0.0
    for stage in ("prompt", "rag"):
        for model in case.models.candidates:
            for constrained in (False, True):
                usage = request_usage(case, stage, given.facts.sizes, constrained)  # type: ignore[arg-type]  # a stage
                calls, usd = calls + asked, usd + asked * prices[model.uri].usd(replace(usage))
    return examples, calls, usd


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([0.6, 0.7, 0.8, 0.9]),
    st.sampled_from([0.02, 0.05, 0.07, 0.1, 0.15]),
    st.lists(st.sampled_from(sorted(PRICES)), min_size=1, max_size=3, unique=True),
    st.integers(60, 5000),
    st.sampled_from([{}, {"adherence": {"bound": 0.98, "margin": 0.03}}, {"p95_latency_ms": ALL["p95_latency_ms"]}]),
)
def test_what_is_said_to_be_saved_is_what_the_changed_use_case_takes_when_worked_out_by_itself(
    bound: float, margin: float, uris: list[str], gate: int, more: dict[str, Any]
) -> None:
    requirements = {"quality": {"bound": bound, "margin": margin}} | more
    case = use_case(requirements=requirements, models=models(*uris), last_stage="rag", cascades=False)
    given_ = premises(case, {"gate": gate}, offers=(TINY,))
    prices = PRICES | {"openai:tiny": TINY.price}
    found = savings(case, given_)
    for each in found:
        changed = with_change(case, each.change)
        if changed.searches:
            continue
        before, after = by_hand(case, given_, prices), by_hand(changed, given_, prices)
        assert (each.examples_before, each.calls_before) == before[:2]
        assert (each.examples, each.calls) == after[:2]
        assert each.usd_before == pytest.approx(before[2]) and each.usd == pytest.approx(after[2])
        assert each.usd < each.usd_before or each.examples < each.examples_before
        assert each.usd <= each.usd_before + 1e-6
        if each.examples != each.examples_before:
            assert f"about {each.examples:,} gate examples decide instead of {each.examples_before:,}" in each.said
        if math.isclose(each.usd, each.usd_before, abs_tol=1e-6):
            assert "$" not in each.said.split(": about", 1)[-1]
        else:
            said = re.search(r"\$([\d.e-]+) less of \$([\d.e-]+)", each.said)
            assert said and float(said[1]) == pytest.approx(each.usd_less, rel=1e-3)
            assert float(said[2]) == pytest.approx(each.usd_before, rel=1e-3)
    assert list(found) == sorted(found, key=lambda each: -round(each.usd_less, 6))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([0.6, 0.75, 0.9]), st.sampled_from([0.05, 0.08, 0.1]), st.integers(1, 300))
def test_labels_that_contradict_cost_what_a_candidate_measured_so_much_lower_takes(
    bound: float, margin: float, wrong: int
) -> None:
    case = use_case(requirements={"quality": {"bound": bound, "margin": margin}}, last_stage="rag")
    given_ = premises(case, found=Found(gate_units=2000, unanswerable=wrong))
    (saving,) = [each for each in savings(case, given_) if not each.change]
    alphas = share_of_alpha(case.alpha, 1) / candidates_on_gate_set(case), case.alpha
    seen = expected_examples(bound - wrong / 2000, bound, margin, *alphas)
    right = expected_examples(bound, bound, margin, *alphas)
    assert (saving.examples_before, saving.examples) == (seen.examples, right.examples)
    assert f"{wrong:,} of 2,000 gate rows" in saving.said and f"{bound - wrong / 2000:.3f}" in saving.said
    assert (f"about {seen.examples:,} examples instead of {right.examples:,}" in saving.said) == seen.passes
    assert right.passes and (seen.examples >= right.examples or not seen.passes)


def test_a_margin_that_the_rows_cannot_decide_names_the_one_they_can() -> None:
    case = use_case(requirements={"quality": {"bound": 0.8, "margin": 0.02}}, last_stage="rag")
    found = [
        each for each in savings(case, premises(case, {"gate": 400})) if "requirements.quality.margin" in each.change
    ]
    assert [each.change["requirements.quality.margin"] for each in found] == [0.1, 0.05] or len(found) == 2
    there = next(each for each in found if each.examples <= 400)
    assert "the 400 that are there are enough" in there.said
    assert of(savings(case, premises(case, {"gate": 400})), "data.population").examples == 400


def test_models_that_are_named_and_stages_that_cannot_run_share_alpha_and_it_is_said_how_many() -> None:
    case = use_case(models=models("openai:big", "openai:mid", "openai:small"), approvals={"self_host": "never"})
    found = savings(case, premises(case))
    kept = [each.change["models.candidates"] for each in found if "models.candidates" in each.change]
    assert [[model["uri"] for model in each] for each in kept] == [["openai:small"], ["openai:mid", "openai:small"]]
    last = of(found, "last_stage")
    assert last.change == {"last_stage": "distill"} or last.change == {"last_stage": "fine_tune"}
    fewer = candidates_on_gate_set(with_change(case, last.change))
    assert f"({fewer} candidates share alpha instead of {candidates_on_gate_set(case)})" in last.said


def test_a_cheaper_model_is_offered_only_where_it_is_cheaper_and_data_may_go_there() -> None:
    case = use_case(models=models("openai:mid"))
    saving = of(savings(case, premises(case, offers=(TINY,))), "models.candidates")
    assert "openai:tiny in place of openai:mid" in saving.said and saving.usd < saving.usd_before
    dear = TINY.model_copy(update={"price": Price(input=9.0, output=9.0)})
    assert not [each for each in savings(case, premises(case, offers=(dear,))) if "models.candidates" in each.change]
    elsewhere = Offer(model=Model(uri="google:tiny", host="generativelanguage.googleapis.com"), price=TINY.price)
    bound = use_case(
        models={"candidates": [{"uri": "openai:mid", "host": "api.openai.com"}]},
        requirements=QUALITY | {"residency": {"venues": ["api"], "hosts": ["api.openai.com"]}},
        last_stage="prompt",
    )
    assert not [
        each for each in savings(bound, premises(bound, offers=(elsewhere,))) if "models.candidates" in each.change
    ]


def test_a_reference_that_words_surely_reach_ends_it_for_nothing_and_one_they_may_reach_is_not_named() -> None:
    case = use_case()
    before = premises(case)
    assert before.facts
    whole = outlook_of(case, before, before.facts)
    stop = of(savings(case, premises(case, found=Found(gate_units=2000, words_lower=0.81))), "reference")
    assert (stop.calls, stop.usd) == (0, 0.0) and stop.usd_before == pytest.approx(whole.usd)
    for words in (None, 0.79):
        found = savings(case, premises(case, found=Found(gate_units=2000, words_lower=words)))
        assert not [each for each in found if "reference" in each.change]


def test_a_search_that_is_off_is_proposed_where_it_halves_the_candidates_and_costs_less_than_it_saves() -> None:
    case = use_case(last_stage="prompt", requirements={"quality": {"bound": 0.8, "margin": 0.02}})
    saving = of(savings(case, premises(case, {"gate": 5000})), "search.rows")
    assert saving.usd < saving.usd_before and saving.examples < saving.examples_before
    searching = with_change(case, saving.change)
    assert candidates_on_gate_set(searching) * 2 == candidates_on_gate_set(case)


def test_nobody_who_did_not_hand_in_what_the_costs_are_made_of_is_told_of_savings() -> None:
    case = use_case()
    assert savings(case, premises(case).model_copy(update={"facts": None})) == ()


@given(st.sampled_from(["requirements.quality.bound", "search.usd", "last_stage"]))
def test_a_change_sets_only_the_field_it_names(path: str) -> None:
    value: Any = {"requirements.quality.bound": 0.7, "search.usd": 0.3, "last_stage": "rag"}[path]
    case = use_case()
    assume(value is not None)
    before, after = case.model_dump(), with_change(case, {path: value}).model_dump()
    *above, last = path.split(".")
    for name in above:
        before, after = before[name], after[name]
    assert after.pop(last) == value and before.pop(last) != value and after == before
