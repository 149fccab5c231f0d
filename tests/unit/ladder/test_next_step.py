"""The ladder as a truth table: climb only on failure, skip aloud, never climb without evidence, never spend unasked."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from leastwise.ladder import Record, Situation, best, next_step, ruled_out
from leastwise.use_case import LADDER, Stage
from tests.unit.ladder.climbs import ROWS, broken, record, skipped, use_case

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


def test_what_most_wrong_answers_have_in_common_is_said_before_a_dearer_stage_runs() -> None:
    said = "22 of 25 answers were cut off by the cap of 12 tokens: raise traffic.output_tokens"
    failed = record("prompt", fail="quality")
    assert failed.evaluation is not None
    found = failed.model_copy(update={"evaluation": failed.evaluation.model_copy(update={"finding": said})})
    step = next_step(use_case(), [found], ROWS)
    assert (step.action, step.stage) == ("run", "rag") and f"but first: in prompt, {said}" in step.reason
    assert "but first" not in next_step(use_case(), [failed], ROWS).reason


# -- rule 2: skip aloud ------------------------------------------------------------------------------------------------


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
    assert step.question == ("undecided" if action == "ask" else step.question)


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


# -- rules 5 and 7: what may change without asking another question ---------------------------------------------------


def test_an_ending_that_rests_on_an_estimate_is_never_called_sure() -> None:
    by_estimate = record("prompt", undecided="quality", resolution="pass")
    step = next_step(use_case(), [by_estimate], ROWS)
    assert (step.outcome, step.sure, step.accepted) == ("prompt", False, False)
    assert step.reason.startswith("passed by the plain estimate, not surely: quality")
    granted = next_step(use_case(), [by_estimate.model_copy(update={"by_person": True})], ROWS)
    assert (granted.outcome, granted.sure, granted.accepted) == ("prompt", False, True)
    reference = record("reference", undecided="quality", resolution="pass")
    assert not next_step(use_case(reference="stop"), [reference], ROWS).sure
    assert next_step(use_case(), [record("prompt")], ROWS).sure


def test_a_skip_that_rested_on_approvals_is_considered_anew() -> None:
    history = [record("prompt", fail="quality"), *skipped("rag", "cache")]
    never = use_case(approvals={"fine_tune": "never"})
    step = next_step(never, history, ROWS)
    assert (step.action, step.stage) == ("skip", "fine_tune")
    history.append(Record(stage="fine_tune", skipped=step.reason))
    assert next_step(never, history, ROWS).stage == "pretrain"  # nothing has changed
    step = next_step(use_case(), history, ROWS)
    assert (step.action, step.stage) == ("run", "fine_tune")
    unstable = use_case(task={"stable": False})
    step = next_step(unstable, history, ROWS)  # leave is there, something else is not: that is said
    assert (step.action, step.stage) == ("skip", "fine_tune") and "not stable" in step.reason
