"""Alpha is split over every candidate a climb may judge, before the first look: none is forgotten, none made up."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leastwise.evidence.alpha_account import share_of_alpha
from leastwise.ladder.alphas import alphas_of, candidates_on_gate_set, first_alphas
from leastwise.use_case import LADDER, Stage, UseCase
from tests.unit.use_cases import use_case

BOUND = {"bound": 0.8, "margin": 0.1}
KINDS: dict[str, dict[str, Any]] = {
    "classification": {"instruction": "Name it.", "labels": ["a", "b"], "decline_label": "none"},
    "extraction": {
        "kind": "extraction",
        "instruction": "Extract.",
        "json_schema": {"type": "object", "properties": {"a": {}}},
    },
    "free_text": {"kind": "free_text", "instruction": "Answer.", "decline_label": "unknown"},
}


def asking(
    models: int = 1,
    kind: str = "classification",
    last_stage: Stage = "self_host",
    reference: str = "report",
    cost: bool = False,
    declining: bool = False,
    cascades: bool = True,
    guards: bool = True,
    searched: bool = False,
) -> UseCase:
    """A use case as these traits make it; a record cannot decline, so it is never asked to."""
    requirements: dict[str, Any] = {"quality": BOUND}
    if cost:
        requirements["usd_per_1k_requests"] = {"bound": 1.0, "margin": 0.1}
    if declining and kind != "extraction":
        requirements["ood_decline"] = BOUND
    asked = use_case().model_dump(mode="json", exclude_none=True)
    asked["data"]["out_of_scope"] = "out_of_scope.csv"
    asked["models"]["candidates"] = [{"uri": f"openai:{number}"} for number in range(models)]
    return UseCase.model_validate(
        asked
        | {
            "task": KINDS[kind],
            "requirements": requirements,
            "last_stage": last_stage,
            "reference": reference,
            "cascades": cascades,
            "guard": {"offered": guards},
            "search": {"rows": 50 if searched else 0},
        }
    )


USE_CASES = st.builds(
    asking,
    models=st.integers(1, 4),
    kind=st.sampled_from(sorted(KINDS)),
    last_stage=st.sampled_from(LADDER),
    reference=st.sampled_from(["report", "stop"]),
    cost=st.booleans(),
    declining=st.booleans(),
    cascades=st.booleans(),
    guards=st.booleans(),
    searched=st.booleans(),
)


def candidates(wanted: UseCase) -> list[tuple[str, ...]]:
    """Every candidate that may be judged, by name: what each stage of docs/design.md, section 2, tries."""
    bounds = wanted.requirements.bounds
    names: list[tuple[str, ...]] = [("reference",)] if wanted.reference == "stop" else []
    for stage in LADDER[: LADDER.index(wanted.last_stage) + 1]:
        if stage in ("prompt", "rag"):
            ways = ("plain",) if wanted.task.kind == "free_text" else ("plain", "constrained")
            ways = ("searched",) if wanted.search.is_on else ways
            names += [(stage, model.uri, way) for model in wanted.models.candidates for way in ways]
        else:
            names.append((stage,))
        pairs = stage == "distill" or (stage == "prompt" and len(wanted.models.candidates) > 1)
        if pairs and wanted.cascades and "usd_per_1k_requests" in bounds:
            names.append((stage, "cascade"))
        if stage in ("rag", "fine_tune", "pretrain", "distill") and wanted.guard.offered and "ood_decline" in bounds:
            names.append((stage, "guarded"))
    return names


@given(USE_CASES)
def test_k_counts_what_the_use_case_may_try(wanted: UseCase) -> None:
    assert candidates_on_gate_set(wanted) == len(set(candidates(wanted))) == len(candidates(wanted))


@given(USE_CASES, st.floats(1e-6, 0.2))
def test_all_that_may_be_judged_together_pass_wrongly_with_at_most_the_share_that_was_drawn(
    wanted: UseCase, share: float
) -> None:
    alphas = alphas_of(wanted, share)
    assert alphas.to_pass * len(candidates(wanted)) == pytest.approx(share)
    assert alphas.to_fail * len(wanted.requirements.bounds) == pytest.approx(wanted.alpha)


@given(USE_CASES, st.integers(1, 50))
def test_any_number_of_questions_of_one_gate_set_pass_wrongly_with_at_most_alpha(
    wanted: UseCase, questions: int
) -> None:
    shares = (share_of_alpha(wanted.alpha, number) for number in range(1, questions + 1))
    wrongly = math.fsum(alphas_of(wanted, share).to_pass * candidates_on_gate_set(wanted) for share in shares)
    assert wrongly <= wanted.alpha * (1 + 1e-12)


def test_before_any_share_is_drawn_that_of_the_first_question_is_assumed() -> None:
    assert first_alphas(use_case()) == alphas_of(use_case(), share_of_alpha(use_case().alpha, 1))


def test_a_cascade_needs_a_cost_to_lower_and_two_models_and_a_guard_something_to_decline() -> None:
    plain = candidates_on_gate_set(asking(models=2))
    assert candidates_on_gate_set(asking(models=2, cost=True)) == plain + 2
    assert candidates_on_gate_set(asking(models=2, declining=True)) == plain + 4
    assert candidates_on_gate_set(asking(models=2, cost=True, cascades=False)) == plain
    assert candidates_on_gate_set(asking(models=2, declining=True, guards=False)) == plain
