"""The ladder as a truth table: climb only on failure, skip aloud, never climb without evidence, never spend unasked."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from leastwise.evidence.measurement import Measurement
from leastwise.ladder import REMEDIES, Record, Situation, best, could_run, next_step, resolve, ruled_out, teacher
from leastwise.ladder.gate import Evaluation, judge
from leastwise.use_case import LADDER, Stage, UseCase
from leastwise.use_case.requirements import Requirement

BOUNDS: dict[str, tuple[float, float]] = {
    "quality": (0.8, 0.1),
    "adherence": (0.95, 0.05),
    "p95_latency_ms": (800, 200),
    "usd_per_1k_requests": (1.0, 0.2),
}
PASSING = {
    "quality": (0.85, 0.99),
    "adherence": (0.95, 1),
    "p95_latency_ms": (10, 90),
    "usd_per_1k_requests": (0.1, 0.2),
}
FAILING = {"quality": (0.1, 0.2), "adherence": (0.1, 0.2), "p95_latency_ms": (2e3, 3e3), "usd_per_1k_requests": (5, 6)}
OPEN = {"quality": (0.6, 0.9), "adherence": (0.5, 1), "p95_latency_ms": (10, 2e3), "usd_per_1k_requests": (0.1, 6)}
ROWS = Situation(train_rows=5000, document_rows=500, unlabelled_rows=5000, repeat_share=0.5)
PACKAGE = {"uri": "package://small", "venue": "managed"}


CAUSAL = {"kind": "causal"}
RECORDS = {"kind": "extraction", "instruction": "Extract.", "json_schema": {"type": "object", "properties": {"a": {}}}}


def use_case(**changes: Any) -> UseCase:
    """Everything every stage needs, leave for all of them, every bound asked for."""
    tables = ("train", "dev", "gate", "test", "documents", "unlabelled", "traffic")
    fields: dict[str, Any] = {
        "name": "triage",
        "task": {"instruction": "Name it.", "labels": ["a", "b"], "domain_is_public": False},
        "data": {name: f"{name}.csv" for name in tables},
        "requirements": {name: {"bound": b, "margin": m} for name, (b, m) in BOUNDS.items()},
        "traffic": {"requests_per_month": 1000},
        "models": {
            "candidates": [PACKAGE | {"venue": "api"}],
            "base": PACKAGE,
            "embedder": PACKAGE["uri"],
            "student": PACKAGE["uri"],
        },
        "approvals": dict.fromkeys(LADDER, "granted"),
    }
    for name, value in changes.items():
        merge = isinstance(fields.get(name), dict) and name != "requirements" and "kind" not in value
        fields[name] = fields[name] | value if merge else value
    return UseCase.model_validate(fields)


def evaluation(
    fail: str = "", undecided: str = "", estimate: float | None = None, lower: float | None = None
) -> Evaluation:
    """An evaluation that passes but for the named requirements (words)."""
    measurements = {}
    for name, (bound, margin) in BOUNDS.items():
        low, high = (FAILING if name in fail.split() else OPEN if name in undecided.split() else PASSING)[name]
        measurements[name] = Measurement(
            name=name,
            estimate=(low + high) / 2 if estimate is None else estimate,
            upper=high,
            lower=lower if lower is not None and name == "quality" else low,
            n=100,
            bound=bound,
            margin=margin,
            alpha_pass=0.01,
            alpha_fail=0.01,
        )
    return Evaluation(stage="prompt", candidate="c", gate_hash="g", measurements=measurements)


WANTED = [Requirement(name=name, bound=b, margin=m) for name, (b, m) in BOUNDS.items()]


def record(stage: Any, fail: str = "", undecided: str = "", resolution: Any = None, **more: Any) -> Record:
    got = evaluation(fail, undecided, lower=more.pop("lower", None))
    return Record(stage=stage, evaluation=got, verdict=judge(got, WANTED), resolution=resolution, **more)


def broken(stage: Any) -> Record:
    got = evaluation().model_copy(update={"error": "the provider is down"})
    return Record(stage=stage, evaluation=got, verdict=judge(got, WANTED))


def skipped(*stages: Any) -> list[Record]:
    return [Record(stage=stage, skipped="for a reason") for stage in stages]


# -- rule 1: climb only on failure -------------------------------------------------------------------------------------


def test_the_climb_starts_at_its_foot() -> None:
    step = next_step(use_case(), [], ROWS)
    assert (step.action, step.stage) == ("run", "prompt")


@pytest.mark.parametrize("stage", LADDER)
def test_the_first_pass_ends_the_climb(stage: Stage) -> None:
    below = [record(each, fail="quality") for each in LADDER[: LADDER.index(stage)]]
    step = next_step(use_case(), [*below, record(stage)], ROWS)
    assert (step.action, step.outcome, step.stage) == ("end", stage, stage)


def test_a_failure_climbs_one_stage() -> None:
    assert next_step(use_case(), [record("prompt", fail="quality")], ROWS).stage == "rag"


def test_a_stage_run_on_its_own_above_neither_hides_a_pass_below_nor_saves_the_way_up() -> None:
    above = record("fine_tune", fail="quality")
    assert next_step(use_case(), [record("prompt"), above], ROWS).outcome == "prompt"
    step = next_step(use_case(), [record("fine_tune")], ROWS)
    assert (step.action, step.stage) == ("run", "prompt")
    passed_above = [
        record("fine_tune"),
        record("prompt", fail="quality"),
        record("rag", fail="quality"),
        *skipped("cache"),
    ]
    assert next_step(use_case(), passed_above, ROWS).outcome == "fine_tune"


def test_of_two_records_of_a_stage_the_later_counts() -> None:
    assert next_step(use_case(), [broken("prompt"), record("prompt")], ROWS).outcome == "prompt"


# -- rule 2: skip aloud ------------------------------------------------------------------------------------------------

NO_TRAINING = Situation(train_rows=999, unlabelled_rows=0, repeat_share=0)


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


def test_a_skip_is_never_evidence() -> None:
    assert next_step(use_case(), skipped("prompt"), ROWS).stage == "rag"
    step = next_step(use_case(), skipped(*LADDER), ROWS)
    assert (step.outcome, best(skipped(*LADDER))) == ("none", None)
    assert "no stage could be run" in step.reason


def test_a_requirement_still_open_when_another_failed_counts_as_possibly_failing() -> None:
    history = [record("prompt", fail="quality", undecided="p95_latency_ms"), *skipped("rag")]
    assert next_step(use_case(), history, ROWS).reason.startswith("no candidate passes")  # cache: not "cannot remedy"


# -- rule 3: the same history gives the same step ----------------------------------------------------------------------

records = st.builds(
    record,
    st.sampled_from(LADDER),
    fail=st.sampled_from(["", "quality", "p95_latency_ms", "quality usd_per_1k_requests"]),
    undecided=st.sampled_from(["", "adherence"]),
    resolution=st.sampled_from([None, "climb", "pass", "stop"]),
    open_weights=st.booleans(),
)
histories = st.lists(st.one_of(records, st.sampled_from(LADDER).map(lambda s: skipped(s)[0])), max_size=7)


@given(histories, st.randoms())
def test_the_next_step_depends_on_what_is_logged_not_on_its_order(history: list[Record], rng: Any) -> None:
    once = list({each.stage: each for each in history}.values())
    shuffled = rng.sample(once, len(once))
    assert next_step(use_case(), once, ROWS) == next_step(use_case(), shuffled, ROWS)


@given(histories, st.sampled_from(["never", "granted"]), st.sampled_from([0, 999, 5000]), st.sampled_from(LADDER))
def test_what_is_ruled_out_beforehand_is_never_run_whatever_is_measured(
    history: list[Record], leave: str, rows: int, last: Stage
) -> None:
    asked = use_case(approvals={"fine_tune": leave}, last_stage=last, models={"student": None})
    situation = Situation(train_rows=rows, document_rows=rows, unlabelled_rows=rows, repeat_share=0.5)
    step = next_step(asked, history, situation)
    assert step.action != "run" or ruled_out(asked, step.stage, situation) is None  # type: ignore[arg-type]


# -- rule 4: no evidence is not failure --------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", LADDER)
def test_an_error_halts_and_never_climbs(stage: Stage) -> None:
    below = [record(each, fail="quality") for each in LADDER[: LADDER.index(stage)]]
    step = next_step(use_case(), [*below, broken(stage)], ROWS)
    assert (step.action, step.outcome, step.reason) == ("end", "error", "the provider is down")


def test_a_record_without_a_verdict_is_an_error() -> None:
    assert next_step(use_case(), [Record(stage="prompt")], ROWS).outcome == "error"


# -- rule 5: UNDECIDED -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "estimate", "resolution"),
    [
        ("estimate", 0.8, "pass"),
        ("estimate", 0.79, "climb"),
        ("climb", 0.9, "climb"),
        ("stop", 0.9, "stop"),
        ("ask", 0.9, "ask"),
    ],
)
def test_undecided_is_resolved_by_policy(policy: str, estimate: float, resolution: str) -> None:
    asked = use_case(on_undecided=policy, requirements={"quality": {"bound": 0.8, "margin": 0.1}})
    got = evaluation(undecided="quality", estimate=estimate)
    verdict = judge(got, asked.gate_requirements)
    assert verdict.outcome == "UNDECIDED"
    assert resolve(verdict, got, asked) == resolution


@pytest.mark.parametrize("fail", ["", "quality"])
def test_a_sure_verdict_is_not_resolved(fail: str) -> None:
    got = evaluation(fail)
    assert resolve(judge(got, WANTED), got, use_case(on_undecided="stop")) is None


@pytest.mark.parametrize(
    ("resolution", "can_ask", "action", "outcome", "stage"),
    [
        ("pass", False, "end", "prompt", "prompt"),
        ("climb", False, "run", None, "rag"),
        ("stop", False, "end", "undecided", "prompt"),
        ("ask", False, "end", "undecided", "prompt"),
        ("ask", True, "ask", None, "prompt"),
        (None, True, "end", "undecided", "prompt"),
    ],
)
def test_the_resolution_as_logged_decides(
    resolution: Any, can_ask: bool, action: str, outcome: Any, stage: str
) -> None:
    history = [record("prompt", undecided="quality", resolution=resolution)]
    step = next_step(use_case(), history, ROWS.model_copy(update={"can_ask": can_ask}))
    assert (step.action, step.outcome, step.stage) == (action, outcome, stage)


# -- rule 6: money -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spent", "month", "estimate", "action"),
    [
        (0, 0, 10, "run"),  # exactly what is left
        (0, 0, 10.01, "end"),
        (4, 4, 6.01, "end"),
        (4, 4, 6, "run"),
        (0, 95, 5.01, "end"),  # the month binds, other flows spent it
        (0, 95, 5, "run"),
        (11, 11, 0, "end"),
    ],
)
def test_a_stage_that_could_exceed_a_budget_does_not_start(
    spent: float, month: float, estimate: float, action: str
) -> None:
    now = ROWS.model_copy(update={"usd_spent": spent, "usd_spent_this_month": month, "estimates": {"prompt": estimate}})
    step = next_step(use_case(budget_usd=10, budget_usd_per_month=100), [], now)
    assert (step.action, step.stage) == (action, "prompt")
    assert (step.outcome == "budget" and "raise" in step.reason) == (action == "end")


@pytest.mark.parametrize("estimate", [float("nan"), float("inf"), -1.0])
def test_an_estimate_that_is_no_amount_is_refused(estimate: float) -> None:
    with pytest.raises(ValidationError):
        Situation(estimates={"rag": estimate})


def test_a_budget_never_stops_a_winner() -> None:
    broke = ROWS.model_copy(update={"usd_spent": 99.0})
    assert next_step(use_case(budget_usd=1), [record("prompt")], broke).outcome == "prompt"


# -- rule 7: approvals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("approval", "can_ask", "answer", "action", "outcome"),
    [
        ("granted", False, None, "run", None),
        ("granted", False, "rejected", "run", None),
        ("ask", True, None, "ask", None),
        ("ask", False, None, "end", "rejected"),
        ("ask", True, "granted", "run", None),
        ("ask", True, "rejected", "end", "rejected"),
        ("never", True, "granted", "skip", None),
    ],
)
def test_leave_is_needed_and_nobody_to_ask_is_a_no(
    approval: str, can_ask: bool, answer: Any, action: str, outcome: Any
) -> None:
    answers = {"fine_tune": answer} if answer else {}
    history = [record("prompt", fail="quality"), *skipped("rag", "cache")]
    now = ROWS.model_copy(update={"can_ask": can_ask, "answers": answers, "estimates": {"fine_tune": 3.0}})
    step = next_step(use_case(approvals={"fine_tune": approval}), history, now)
    assert (step.action, step.stage, step.outcome) == (action, "fine_tune", outcome)
    if action == "ask":
        assert "$3" in step.reason
    if outcome == "rejected":
        assert "approvals: {fine_tune: granted}" in step.reason


def test_a_dear_stage_asks_and_what_is_too_dear_for_the_budget_does_not_even_ask() -> None:
    silent = use_case().model_copy(update={"approvals": {}, "ask_above_usd": 5.0, "budget_usd": 8.0})
    asking = ROWS.model_copy(update={"can_ask": True, "estimates": {"prompt": 6.0}})
    assert next_step(silent, [], asking).action == "ask"
    too_dear = asking.model_copy(update={"estimates": {"prompt": 9.0}})
    assert next_step(silent, [], too_dear).outcome == "budget"


# -- parents and teachers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (record("prompt", fail="quality"), record("rag", fail="adherence usd_per_1k_requests")),
        (record("prompt", fail="usd_per_1k_requests", lower=0.8), record("rag", fail="usd_per_1k_requests", lower=0.7)),
        (record("prompt", fail="quality", usd_per_1k=1.0), record("rag", fail="quality", usd_per_1k=2.0)),
    ],
)
def test_the_parent_fails_least_then_is_surest_of_quality_then_cheapest(one: Record, other: Record) -> None:
    assert best([one, other]) == best([other, one]) == one


def test_a_stage_that_comes_out_worse_does_not_become_the_parent() -> None:
    history = [record("prompt", fail="p95_latency_ms"), record("rag", fail="quality adherence p95_latency_ms")]
    assert best(history) == history[0]


def test_neither_a_skip_nor_the_reference_is_a_parent() -> None:
    kept = record("rag", fail="quality")
    assert best([record("reference"), *skipped("prompt"), kept]) == kept


def test_only_a_sure_pass_of_quality_teaches_and_the_surest_does() -> None:
    unsure = record("prompt", fail="p95_latency_ms", undecided="quality", lower=0.69)
    fair, good = (record(s, fail="p95_latency_ms", lower=q) for s, q in (("rag", 0.75), ("fine_tune", 0.8)))
    assert teacher([unsure]) is None
    assert teacher([unsure, fair, good]) == teacher([good, fair]) == good


def test_a_cache_does_not_teach_for_its_quality_was_measured_on_repeated_traffic() -> None:
    behind, cached = (record(s, fail="p95_latency_ms", lower=q) for s, q in (("rag", 0.75), ("cache", 0.9)))
    assert teacher([behind, cached]) == behind
    assert teacher([cached]) is None


# -- rules 9 and 10: the reference, the last stage, the outcomes -------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "fail", "action", "outcome"),
    [("stop", "", "end", "reference"), ("report", "", "run", None), ("stop", "quality", "run", None)],
)
def test_the_reference_ends_the_climb_only_if_it_passes_and_is_asked_to(
    policy: str, fail: str, action: str, outcome: Any
) -> None:
    step = next_step(use_case(reference=policy), [record("reference", fail=fail)], ROWS)
    assert (step.action, step.outcome) == (action, outcome)


def test_the_climb_ends_with_the_nearest_miss_at_the_last_stage() -> None:
    history = [record("prompt", fail="quality adherence"), record("rag", fail="quality")]
    step = next_step(use_case(last_stage="rag"), history, ROWS)
    assert (step.action, step.outcome) == ("end", "none")
    assert "nearest miss is rag: quality" in step.reason


@given(histories)
def test_every_climb_ends_and_runs_no_stage_twice(history: list[Record]) -> None:
    climbed, ran = [], []
    waiting = {each.stage: each for each in history}
    while (step := next_step(use_case(), climbed, ROWS)).action != "end":
        assert step.stage is not None
        ran.append(step.stage)
        measured = waiting.get(step.stage)
        is_run = step.action == "run" and measured is not None and measured.skipped is None
        climbed.append(measured if is_run and measured else skipped(step.stage)[0])
    assert ran == sorted(set(ran), key=LADDER.index)
    assert step.outcome in {*LADDER, "none", "undecided", "error"}


# -- what could have been run ------------------------------------------------------------------------------------------


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
