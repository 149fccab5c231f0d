"""Rule 2: a stage that cannot remedy what fails, or lacks what it needs, is skipped with the reason."""

from typing import Any

import pytest

from leastwise.ladder import REMEDIES, Situation, could_run, next_step, ruled_out
from leastwise.ladder.history import teacher
from leastwise.use_case import LADDER, Stage
from tests.unit.ladder.climbs import BOUNDS, CAUSAL, NO_TRAINING, RECORDS, ROWS, record, skipped, use_case

BASE = {"uri": "fireworks:accounts/fireworks/models/m", "venue": "managed", "price": {"input": 1.0, "output": 1.0}}
AT_HOST = {"managed": {"base": BASE, "account": "a"}}


@pytest.mark.parametrize(
    ("changes", "situation", "below", "stage", "words"),
    [
        ({"models": {"embedder": None}}, ROWS, "quality", "rag", "models.embedder"),
        ({"data": {"train": None, "documents": None}}, ROWS, "quality", "rag", "to retrieve"),
        ({}, ROWS, "p95_latency_ms", "rag", "cannot remedy"),
        ({}, ROWS, "quality", "cache", "cannot remedy"),
        ({}, ROWS, "quality p95_latency_ms", "cache", "nothing worth caching"),
        ({"data": {"traffic": None}}, ROWS, "p95_latency_ms", "cache", "data.traffic"),
        ({}, NO_TRAINING, "p95_latency_ms", "cache", "repeats nothing"),
        ({"models": {"base": None}}, ROWS, "quality", "fine_tune", "models.base"),
        ({"data": {"train": None}}, ROWS, "quality", "fine_tune", "data.train"),
        ({"models": {"base": None}, "training": AT_HOST}, NO_TRAINING, "quality", "fine_tune", "at least 1,000"),
        ({"models": {"base": None}, "training": AT_HOST}, ROWS, "quality", "pretrain", "models.base"),
        ({"task": {"stable": False}}, ROWS, "quality", "fine_tune", "not stable"),
        ({}, NO_TRAINING, "quality", "fine_tune", "at least 1,000"),
        ({"task": {"domain_is_public": True}}, ROWS, "quality", "pretrain", "Level 4"),
        ({"data": {"documents": None}}, ROWS, "quality", "pretrain", "no corpus"),
        ({}, ROWS, "adherence", "pretrain", "cannot remedy"),
        ({}, ROWS, "quality p95_latency_ms", "distill", "no teacher"),
        ({}, ROWS, "quality", "distill", "cannot remedy"),
        ({"models": {"student": None}}, ROWS, "p95_latency_ms", "distill", "models.student"),
        (
            {"training": {"student": CAUSAL}, "models": {"base": None}},
            ROWS,
            "p95_latency_ms",
            "distill",
            "causal student",
        ),
        ({"task": RECORDS}, ROWS, "p95_latency_ms", "distill", "training.student"),
        ({}, NO_TRAINING, "p95_latency_ms", "distill", "data.unlabelled"),
        ({"hosting": {"capacity": False}}, ROWS, "p95_latency_ms", "self_host", "no machines"),
        ({}, ROWS, "p95_latency_ms", "self_host", "not open"),
        ({"approvals": {"fine_tune": "never"}}, ROWS, "quality", "fine_tune", "is never"),
    ],
)
def test_a_stage_that_cannot_help_or_lacks_something_is_skipped_with_the_reason(
    changes: dict[str, Any], situation: Situation, below: str, stage: Stage, words: str
) -> None:
    asked = use_case(**changes)
    history = [record("prompt", fail=below), *skipped(*LADDER[1 : LADDER.index(stage)])]
    step = next_step(asked, history, situation)
    assert (step.action, step.stage) == ("skip", stage)
    assert words in step.reason


def test_records_are_distilled_into_a_causal_student_without_an_encoder() -> None:
    asked = use_case(task=RECORDS, training={"student": CAUSAL}, models={"student": None})
    history = [record("prompt", fail="p95_latency_ms"), *skipped(*LADDER[1 : LADDER.index("distill")])]
    step = next_step(asked, history, ROWS)
    assert (step.action, step.stage) == ("run", "distill")


@pytest.mark.parametrize(
    ("below", "stage"),
    [
        ("quality", "rag"),
        ("p95_latency_ms", "cache"),
        ("quality", "fine_tune"),
        ("quality", "pretrain"),
        ("p95_latency_ms", "distill"),
        ("usd_per_1k_requests", "self_host"),
    ],
)
def test_a_stage_that_can_help_and_lacks_nothing_runs(below: str, stage: Stage) -> None:
    history = [record("prompt", fail=below, open_weights=True), *skipped(*LADDER[1 : LADDER.index(stage)])]
    step = next_step(use_case(), history, ROWS)
    assert (step.action, step.stage) == ("run", stage)


def test_residency_skips_self_host_and_a_base_elsewhere() -> None:
    wanted = {"quality": {"bound": 0.8, "margin": 0.1}, "p95_latency_ms": {"bound": 800, "margin": 200}}
    kept = use_case(requirements=wanted | {"residency": {"venues": ["api"]}})
    failed = record("prompt", fail="quality p95_latency_ms", open_weights=True)
    tuned = next_step(kept, [failed, *skipped("rag", "cache")], ROWS)
    hosted = next_step(kept, [failed, *skipped(*LADDER[1:6])], ROWS)
    assert [(step.action, step.stage) for step in (tuned, hosted)] == [("skip", "fine_tune"), ("skip", "self_host")]


@pytest.mark.parametrize(
    ("changes", "situation", "stage", "possible"),
    [
        ({}, ROWS, "fine_tune", True),
        ({}, NO_TRAINING, "fine_tune", False),
        ({}, ROWS, "distill", True),
        ({"approvals": {"rag": "never"}}, ROWS, "rag", False),
        ({"last_stage": "cache"}, ROWS, "fine_tune", False),
        ({"requirements": {"quality": {"bound": 0.8, "margin": 0.1}}}, ROWS, "distill", False),
        ({"task": {"domain_is_public": True}}, ROWS, "pretrain", False),
    ],
)
def test_only_applicable_stages_count_as_avoided(
    changes: dict[str, Any], situation: Situation, stage: Stage, possible: bool
) -> None:
    assert could_run(use_case(**changes), stage, [record("prompt")], situation) is possible


def test_lost_general_ability_is_remedied_by_no_training_and_never_asked_of_a_student() -> None:
    bounds = {name: {"bound": b, "margin": m} for name, (b, m) in BOUNDS.items()}
    wanted = use_case(
        requirements=bounds | {"general_ability": {"bound": 0.6, "margin": 0.2}}, data={"general": "general.csv"}
    )
    assert [stage for stage in LADDER if "general_ability" in REMEDIES[stage]] == ["prompt"]
    assert "no general ability" in (ruled_out(wanted, "distill", ROWS) or "")
    assert not wanted.offers_cascades and use_case().offers_cascades


def test_a_model_whose_terms_forbid_it_never_teaches_and_distill_is_skipped_aloud() -> None:
    barred = record("prompt", fail="p95_latency_ms").model_copy(update={"may_teach": False})
    step = next_step(use_case(), [barred, *skipped(*LADDER[1 : LADDER.index("distill")])], ROWS)
    assert (step.action, step.stage) == ("skip", "distill") and "prompt may not teach" in step.reason
    tuned = record("fine_tune", fail="p95_latency_ms")
    below = [barred, *skipped("rag", "cache"), tuned, *skipped("pretrain")]
    assert next_step(use_case(), below, ROWS).action == "run"
    assert teacher([barred, tuned]) == tuned and teacher([barred]) is None


def test_distill_is_ruled_out_where_no_model_of_a_use_case_may_ever_teach() -> None:
    hosted = [{"uri": "openai:a", "training_on_output": False}, {"uri": "openai:b", "training_on_output": False}]
    assert "may not teach" in (ruled_out(use_case(models={"candidates": hosted, "base": None}), "distill") or "")
    assert ruled_out(use_case(models={"candidates": hosted}), "distill") is None, "what is trained may teach"


def test_a_host_that_trains_needs_no_base_here() -> None:
    assert ruled_out(use_case(models={"base": None}), "fine_tune", ROWS)
    assert ruled_out(use_case(models={"base": None}, training=AT_HOST), "fine_tune", ROWS) is None
