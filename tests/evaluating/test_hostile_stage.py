"""Whatever habits an endpoint has: the right verdict, or an ending that names the remedy; never a second purchase.

One real server has the habits, one climb has a model for each. Nothing here may be taken for a fault of the model's.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leastwise.answering.workspace import Workspace
from leastwise.errors import BadInput, CannotBeAsked
from leastwise.evaluating.judge_scorer import open_scorer
from leastwise.evaluating.stage import measure_candidate
from leastwise.ladder import judge
from leastwise.ladder.candidate import CachePolicy, Candidate, Cascade, Prompt
from leastwise.metrics.answer import Answer
from leastwise.models.catalogue import Catalogue
from leastwise.training.teacher_labels import hard_labels
from leastwise.use_case import UseCase
from tests.servers.hostile_server import HostileServer, hostile_server
from tests.workspaces import case_file, opened, state_in

PRICE = {"input": 1.0, "cached": 0.1, "output": 4.0, "illustrative": True}
LABELS = ("alpha", "beta")
ANSWERS = (  # what is right comes back in the end, however it must be asked for
    *("good", "reasoning_within", "null_details", "eos_finish", "null_finish", "no_system", "alternating", "old_cap"),
    *("own_temperature", "no_cache_key", "no_logprobs", "no_strict", "no_seed_no_nothing", "wordless"),
    *("think", "half_think", "thinking_field", "parts"),
    *("streamed", "secret_gzip", "in_an_array", "in_data", "odd_parts", "moved_within"),
)
ONCE_AT_FAULT = ["error_200", "html_200", "early_425", "cut_short", "past_429"]
REMEDIES = {  # what can only be put right by a person, and the words that say how
    "named": "served_name",
    "unknown_model": "served_name",
    "bad_key": "key_variable",
    "locked": "key_variable",
    "unpaid": "Insufficient Balance",
    "forbidden": "not supported",
    "misleading": "habits",
    "redirected": "set base_url",
    "login_page": "check that base_url",
    "string_error": "key_variable",
    "starved": "set reasoning",
    "insatiable": "set reasoning",
    "endless_think": "set reasoning",
}
HABITS = [*ANSWERS, *ONCE_AT_FAULT, *REMEDIES, "no_schema"]


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with hostile_server() as running:
        yield running


@pytest.fixture(scope="module")
def work(server: HostileServer, tmp_path_factory: pytest.TempPathFactory, empty_tracking: Path) -> Iterator[Workspace]:
    """A climb whose use case has a model of each habit."""
    folder = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEASTWISE_HOME", state_in(folder / "home", empty_tracking))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("OPENAI_API_KEY", "sk-never-to-be-sent-anywhere")
        for name, count in (("gate", 50), ("dev", 30)):
            rows = [f"{name} row {n} key={LABELS[n % 2]} ." for n in range(count)]
            table = pd.DataFrame({"id": [f"{name}{n}" for n in range(count)], "text": rows})
            table.assign(label=[LABELS[n % 2] for n in range(count)]).to_csv(folder / f"{name}.csv", index=False)
        models = [{"uri": f"openai:{habit}", "base_url": server.base_url(habit), "price": PRICE} for habit in HABITS]
        case: dict[str, Any] = {
            "name": "hostile",
            "task": {"instruction": "Say the key.", "labels": list(LABELS)},
            "data": {"gate": "gate.csv", "dev": "dev.csv"},
            "requirements": {"quality": {"bound": 0.7, "margin": 0.3}, "adherence": {"bound": 0.7, "margin": 0.3}},
            "traffic": {"requests_per_month": 10_000, "concurrency": 4},
            "models": {"candidates": models},
            "last_stage": "prompt",
            "allow_no_test": True,
        }
        yield opened(case_file(folder, case))


def candidate(habit: str, constrained: bool = False, **how: Any) -> Candidate:
    prompt = Prompt(system="Say the key, and nothing else.", constrained=constrained)
    return Candidate(stage="prompt", model=f"openai:{habit}", venue="api", prompt=prompt, **how)


def ending(work: Workspace, who: Candidate) -> tuple[str, str]:
    """The verdict and its reason; a model that cannot be asked is no verdict on it."""
    try:
        measured = measure_candidate(work, who)
    except (BadInput, CannotBeAsked) as error:
        return "ERROR", str(error)
    verdict = judge(measured.evaluation, work.use_case.gate_requirements)
    return verdict.outcome, f"{verdict.reason} {measured.evaluation.error or ''}"


def bought_twice(server: HostileServer, habit: str) -> int:
    """How many requests came again exactly as they had been."""
    bodies = Counter(json.dumps(asked.body, sort_keys=True) for asked in server.asked[habit])
    return sum(count - 1 for count in bodies.values())


@pytest.mark.parametrize("constrained", [False, True], ids=["free", "constrained"])
@pytest.mark.parametrize("habit", [*ANSWERS, *ONCE_AT_FAULT])
def test_a_fit_model_passes_however_it_must_be_asked(
    server: HostileServer, work: Workspace, habit: str, constrained: bool
):
    server.forget()
    who = candidate(habit, constrained and habit != "no_seed_no_nothing", cache=CachePolicy(provider=True))
    assert ending(work, who)[0] == "PASS"
    assert bought_twice(server, habit) <= (habit in ONCE_AT_FAULT)
    calls = server.calls(habit)
    assert ending(work, who)[0] == "PASS" and server.calls(habit) == calls


@pytest.mark.parametrize("habit", REMEDIES)
def test_what_a_person_must_put_right_is_no_verdict_and_names_the_remedy(
    server: HostileServer, work: Workspace, habit: str
):
    server.forget()
    outcome, reason = ending(work, candidate(habit))
    assert outcome == "ERROR" and REMEDIES[habit] in reason
    assert "sk-" not in reason and "Traceback" not in reason


def test_a_model_without_json_schema_is_judged_unconstrained_and_says_why_it_cannot_be_held(work: Workspace):
    assert ending(work, candidate("no_schema"))[0] == "PASS"
    outcome, reason = ending(work, candidate("no_schema", constrained=True))
    assert outcome == "ERROR" and "habits.json_schema" in reason


@pytest.mark.parametrize("habit", ["no_logprobs", "no_system", "wordless", "half_think", "streamed"])
def test_behind_a_cascade_its_habits_are_found_out_as_well(server: HostileServer, work: Workspace, habit: str):
    server.forget()
    cascade = Cascade(first=candidate(habit), below=0.5)
    assert ending(work, candidate("good", cascade=cascade))[0] == "PASS"
    assert bought_twice(server, habit) == 0


@pytest.mark.parametrize("habit", ["no_system", "old_cap", "think", "no_seed_no_nothing", "in_data"])
def test_a_teacher_labels_rightly_whatever_its_habits(server: HostileServer, work: Workspace, habit: str):
    server.forget()
    texts = pd.DataFrame(
        {"id": [f"u{n}" for n in range(20)], "text": [f"u {n} key={LABELS[n % 2]} ." for n in range(20)]}
    )
    labelled = hard_labels(work, candidate(habit, cache=CachePolicy(provider=True)), texts)
    assert list(labelled["label"]) == [LABELS[n % 2] for n in range(20)] and bought_twice(server, habit) == 0


# -- judges -----------------------------------------------------------------------------------------------------------


def judging(work: Workspace, server: HostileServer, habit: str, **how: Any) -> Workspace:
    """The same climb with free text graded by a judge of this habit."""
    fields = work.use_case.model_dump(mode="json") | {
        "task": {"kind": "free_text", "instruction": "Answer.", "metric": "exact_match"},
        "judge": {
            "models": [{"uri": f"openai:{habit}", "base_url": server.base_url(habit), "price": PRICE} | how],
            "criteria": "It is right.",
            "levels": ["wrong", "right"],
        },
    }
    case = UseCase.model_validate(fields)
    question = replace(work.question, use_case=case)
    return replace(work, question=question, catalogue=Catalogue(case, work.catalogue.book, work.home))


def grades(work: Workspace, count: int = 12) -> list[float | None]:
    rows = pd.DataFrame({"id": [f"j{n}" for n in range(count)], "text": [f"j {n} key={n % 2} ." for n in range(count)]})
    said = [Answer("an answer", 1.0, 0.0) for _ in range(count)]
    with open_scorer(work, "prompt") as scorer:
        scores = scorer.score(rows.assign(label='["x"]'), said)
    return [None if score is None else score.grade for score in scores]


@pytest.mark.parametrize(
    "habit",
    [
        *("good", "no_system", "old_cap", "own_temperature", "no_cache_key", "no_schema", "no_strict", "wordless"),
        *("streamed", "secret_gzip"),
    ],
)
def test_a_judge_grades_whatever_its_habits(server: HostileServer, work: Workspace, habit: str):
    server.forget()
    assert grades(judging(work, server, habit)) == [float(n % 2) for n in range(12)]
    assert bought_twice(server, habit) == 0


@pytest.mark.parametrize("habit", ["half_think", "think", "thinking_field", "odd_parts"])
def test_what_a_judge_thinks_is_no_grade(server: HostileServer, work: Workspace, habit: str):
    assert grades(judging(work, server, habit)) == [float(n % 2) for n in range(12)]


def test_a_judge_whose_cap_goes_into_thinking_is_bad_input_after_one_call_and_grades_with_a_budget(
    server: HostileServer, work: Workspace
):
    server.forget()
    with pytest.raises(BadInput, match=r"judge\.models: .*finish_reason length.*set reasoning"):
        grades(judging(work, server, "starved"))
    assert server.calls("starved") == 1
    assert grades(judging(work, server, "starved", reasoning="low")) == [float(n % 2) for n in range(12)]
