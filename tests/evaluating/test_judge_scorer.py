"""A judge gates only as far as people's grades vouch for it, is paid like any model, and its silence is never a 0.

Writer and judge are one small server over HTTP whose errors are planned; store, ledger, gate and MLflow are the real
ones.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from aiohttp import web

from leastwise.answering.answerers import open_answerer
from leastwise.errors import BadInput
from leastwise.evaluating.racing import Resumable
from leastwise.evaluating.stage import evaluate_stage, measure_candidate
from leastwise.record.stage_run import StageRun
from leastwise.use_case import UseCase
from tasks.audit import audit_verdicts
from tasks.prompt import prompt_candidates
from tests.servers.web_server import chat_completion, served
from tests.workspaces import case_file, opened

PRICE = {"input": 1.0, "cached": 0.1, "output": 4.0, "illustrative": True}
WRONG = "I do not know"


class Minds:
    """A writer that is right on `right` of ten questions, and a judge with errors of its own on the answers."""

    def __init__(self) -> None:
        self.right = 6
        self.kind = 8  # of ten wrong answers, how many it takes for right
        self.strict = 0  # of ten right answers, how many it takes for wrong
        self.mute = 0  # of a hundred answers, how many get words instead of a grade
        self.thinks = 0  # tokens the judge needs before a grade; under a lower cap it says nothing
        self.calls: Counter[str] = Counter()
        self.seen: list[dict[str, Any]] = []

    async def answer(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.calls[asked["model"]] += 1
        self.seen.append(asked)
        said = asked["messages"][-1]["content"]
        if asked["model"] == "critic" and asked["max_completion_tokens"] < self.thinks:
            return chat_completion("critic", "", 100, asked["max_completion_tokens"], finish_reason="length")
        text = self.graded(json.loads(said)) if asked["model"] == "critic" else self.written(number_in(said))
        return chat_completion(asked["model"], text, 100, 10)

    def written(self, number: int) -> str:
        return f"It is {number}" if mixed(number) % 10 < self.right else WRONG

    def graded(self, shown: dict[str, str]) -> str:
        number = number_in(shown["input"])
        if mixed(number + 7) % 100 < self.mute:
            return json.dumps({"label": "Hard to say"})
        is_right = shown["answer"] == f"It is {number}"
        taken_for_right = mixed(number + 3) % 10 >= self.strict if is_right else mixed(number + 3) % 10 < self.kind
        return json.dumps({"label": "1" if taken_for_right else "0"})


def number_in(text: str) -> int:
    found = re.search(r"question (\d+)", text)
    assert found
    return int(found[1])


def mixed(number: int) -> int:
    return int.from_bytes(hashlib.sha256(str(number).encode()).digest()[:4])


@pytest.fixture
def minds(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Minds, str]]:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    mind = Minds()
    with served(web.post("/v1/chat/completions", mind.answer)) as address:
        yield mind, f"{address}/v1"


def case(folder: Path, base_url: str, graded: int = 500, **changes: Any) -> str:
    """A use case of questions in free text with 600 gate rows, and answers of both kinds that people graded truly."""
    texts = {n: f"question {n}" for n in range(3000)}
    gate = pd.DataFrame({"id": [f"g{n}" for n in range(600)], "text": [texts[n] for n in range(600)]})
    gate.to_parquet(folder / "gate.parquet")
    numbers = range(1000, 1000 + graded)
    is_right = [mixed(n + 11) % 10 < 6 for n in numbers]
    pd.DataFrame(
        {
            "id": [f"h{n}" for n in numbers],
            "text": [texts[n] for n in numbers],
            "answer": [f"It is {n}" if right else WRONG for n, right in zip(numbers, is_right, strict=True)],
            "grade": [float(right) for right in is_right],
        }
    ).to_parquet(folder / "graded.parquet")
    fields: dict[str, Any] = {
        "name": "judged",
        "task": {"kind": "free_text", "instruction": "Answer the question.", "metric": "judge"},
        "data": {"gate": "gate.parquet", "graded": "graded.parquet"},
        "requirements": {"quality": {"bound": 0.8, "margin": 0.1}},
        "traffic": {"requests_per_month": 1000},
        "models": {"candidates": [{"uri": "openai:writer", "price": PRICE, "base_url": base_url}]},
        "judge": {
            "models": [
                {"uri": "openai:clone", "price": PRICE, "base_url": base_url},
                {"uri": "openai:critic", "price": PRICE, "base_url": base_url, "family": "other"},
            ],
            "criteria": "The number of the question is named.",
            "levels": ["wrong", "right"],
        },
        "allow_no_test": True,
    }
    return case_file(folder, fields | changes)


def prompt_stage(path: str) -> StageRun:
    work = opened(path)
    return evaluate_stage(work, "prompt", prompt_candidates(work)).run


def test_a_judge_too_kind_does_not_pass_a_candidate_people_would_fail(home: Path, tmp_path: Path, minds: Any):
    _, base_url = minds
    run = prompt_stage(case(tmp_path, base_url))
    figures = run.figures
    assert figures["judge.mean"] > 0.75  # taken at its word it would pass the floor of 0.70
    assert run.verdict == "FAIL" and run.tag("leastwise.judge") == "openai:critic (gates)"
    assert abs(figures["quality"] - 0.6) < 0.15 and figures["quality.upper"] < 0.8
    assert figures["judge.human_grades"] == 500 and figures["judge.error.upper"] < -0.1
    assert 0.6 < figures["judge.agreement"] < 0.8 and 0.1 < figures["judge.kappa"] < 0.4


def test_a_judge_too_strict_does_not_fail_a_candidate_people_would_pass(home: Path, tmp_path: Path, minds: Any):
    mind, base_url = minds
    mind.right, mind.kind, mind.strict = 10, 0, 2
    requirements = {"quality": {"bound": 0.9, "margin": 0.15}}
    run = prompt_stage(case(tmp_path, base_url, graded=900, requirements=requirements))
    assert run.figures["judge.mean"] < 0.85
    assert run.tag("leastwise.verdict") == "PASS", run.tag("leastwise.reason")


def test_the_judge_is_of_another_family_is_paid_once_and_is_in_ledger_and_totals(
    home: Path, tmp_path: Path, minds: Any
):
    mind, base_url = minds
    path = case(tmp_path, base_url)
    run = prompt_stage(path)
    figures = run.figures
    assert mind.calls["clone"] == 0
    answered = mind.calls["writer"]
    assert mind.calls["critic"] == figures["judge.calls"] == answered + 500
    assert figures["calls.paid"] == answered + mind.calls["critic"]
    usd_a_call = (100 * PRICE["input"] + 10 * PRICE["output"]) / 1e6
    assert figures["usd.spent"] == pytest.approx(sum(mind.calls.values()) * usd_a_call, rel=1e-6)
    assert figures["judge.usd"] == pytest.approx(mind.calls["critic"] * usd_a_call, rel=1e-6)
    before = mind.calls.copy()
    again = prompt_stage(path)
    assert mind.calls == before
    assert again.figures["quality.lower"] == figures["quality.lower"]


def test_a_graded_try_that_is_left_and_gone_on_with_is_measured_as_in_one_go_and_its_judge_is_asked_once(
    home: Path, tmp_path: Path, minds: Any
):
    mind, base_url = minds
    work = opened(case(tmp_path, base_url))
    (candidate,) = prompt_candidates(work)
    trying = Resumable(work, candidate, partial(open_answerer, work, candidate))
    left = 0
    while not trying.is_over:
        left += 1
        measured = trying.go_on(lambda: True)
    assert left > 1 and mind.calls["critic"] == mind.calls["writer"] + 500
    calls = mind.calls.copy()
    whole = measure_candidate(work, candidate)
    assert mind.calls == calls
    assert measured.evaluation.measurements == whole.evaluation.measurements and measured.grades == whole.grades
    assert measured.totals["judge.calls"] == mind.calls["critic"] and whole.totals["judge.calls"] == 0
    assert measured.intervals == whole.intervals


def test_the_verdict_is_derived_again_from_the_logged_grades(home: Path, tmp_path: Path, minds: Any):
    _, base_url = minds
    run = prompt_stage(case(tmp_path, base_url))
    assert audit_verdicts.fn("judged").outcome == "agrees"
    grades: Any = run.read_json("judge_grades.json")
    run.client.log_dict(run.id, grades | {"human": [1.0] * len(grades["human"])}, "judge_grades.json")
    assert audit_verdicts.fn("judged").outcome == "differs"


def test_replies_that_are_no_grade_are_lost_never_a_zero(home: Path, tmp_path: Path, minds: Any):
    mind, base_url = minds
    mind.right, mind.mute = 10, 10
    run = prompt_stage(case(tmp_path, base_url))
    assert run.verdict == "ERROR" and "the judge gave no grade to" in run.reason
    assert not run.is_finished, "it can be taken up again"


def test_a_judge_that_never_grades_is_found_out_by_a_few_answers_that_people_graded(
    home: Path, tmp_path: Path, minds: Any
):
    mind, base_url = minds
    mind.mute = 100
    run = prompt_stage(case(tmp_path, base_url))
    assert run.verdict == "ERROR" and "no grade to 10 of 10 answers in data.graded" in run.reason
    assert "Hard to say" in run.reason and "choose another judge" in run.reason
    assert mind.calls["critic"] == 10


def test_a_judge_that_is_cut_off_by_its_cap_is_bad_input_after_a_few_calls_and_is_asked_anew_with_another_cap(
    home: Path, tmp_path: Path, minds: Any
):
    mind, base_url = minds
    mind.thinks = 2000
    critic = {"uri": "openai:critic", "price": PRICE, "base_url": base_url, "family": "other", "reasoning": 500}
    judge = {"models": [critic], "criteria": "The number of the question is named.", "levels": ["wrong", "right"]}
    with pytest.raises(BadInput, match=r"10 of 10 replies.*finish_reason length.*reasoning.*judge\.output_tokens"):
        prompt_stage(case(tmp_path, base_url, judge=judge, budget_usd=1000, budget_usd_per_month=1000))
    assert mind.calls["critic"] == 10
    for changed in (judge | {"output_tokens": 4000}, judge | {"models": [critic | {"reasoning": "medium"}]}):
        path = case(tmp_path, base_url, judge=changed, budget_usd=1000, budget_usd_per_month=1000)
        assert prompt_stage(path).figures["judge.lost"] == 0


def test_too_few_human_grades_are_refused_before_anything_is_asked(home: Path, tmp_path: Path, minds: Any):
    mind, base_url = minds
    with pytest.raises(BadInput, match=r"data\.graded: 99 graded answers.*1 more"):
        prompt_stage(case(tmp_path, base_url, graded=99))
    assert not mind.calls


def test_beside_an_exact_metric_a_judge_only_reports_however_few_the_human_grades(
    home: Path, tmp_path: Path, minds: Any
):
    mind, base_url = minds
    mind.kind = 10
    path = case(
        tmp_path, base_url, graded=20, task={"kind": "free_text", "instruction": "Answer.", "metric": "exact_match"}
    )
    gate = pd.read_parquet(tmp_path / "gate.parquet")
    gate.assign(label=["It is " + text.split()[1] for text in gate["text"]]).to_parquet(tmp_path / "gate.parquet")
    run = prompt_stage(path)
    assert run.tag("leastwise.verdict") == "FAIL"
    assert run.figures["judge.mean"] == 1.0 and run.figures["judge.human_grades"] == 20
    assert abs(run.figures["quality"] - 0.6) < 0.15


def test_an_answer_cannot_speak_to_the_judge_as_its_user(home: Path, tmp_path: Path, minds: Any):
    mind, base_url = minds
    prompt_stage(case(tmp_path, base_url))
    asked = next(each for each in mind.seen if each["model"] == "critic")
    roles = [message["role"] for message in asked["messages"]]
    assert roles == ["system", "user"] and set(json.loads(asked["messages"][1]["content"])) == {"input", "answer"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"judge": None}, "needs judge"),
        ({"task": {"instruction": "Label.", "labels": ["a", "b"]}}, "judge: grades free text"),
        (
            {"requirements": {"quality": {"bound": 0.8, "margin": 0.1}, "residency": {"venues": ["self_host"]}}},
            "residency",
        ),
    ],
)
def test_a_judge_that_cannot_judge_is_refused(tmp_path: Path, changes: dict[str, Any], words: str):
    fields = yaml.safe_load(Path(case(tmp_path, "http://127.0.0.1:1/v1", **changes)).read_text())
    if words == "residency":
        fields["models"]["candidates"][0]["venue"] = "self_host"
    with pytest.raises(ValueError, match=words):
        UseCase.model_validate(fields)


def test_the_examples_in_the_documentation_are_use_cases(tmp_path: Path):
    base = yaml.safe_load(Path(case(tmp_path, "http://127.0.0.1:1/v1")).read_text())
    blocks = re.findall(r"```yaml\n(.*?)```", (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(), re.DOTALL)
    kinds = [UseCase.model_validate(base | {"judge": None} | yaml.safe_load(block)).task.kind for block in blocks]
    assert kinds == ["extraction", "free_text", "free_text"]
