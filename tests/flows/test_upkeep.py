"""The upkeep flows as a user runs them, on a small use case: a base that knows nothing, a real SQLite MLflow, a toy
provider.
"""

import json
import os
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pytest
import yaml

from flows.promote import promote
from flows.rebaseline import rebaseline
from flows.retrain import retrain
from flows.rollback import rollback
from leastwise.errors import BadInput
from leastwise.evidence.measurement import Measurement
from leastwise.ladder.candidate import Candidate
from leastwise.ladder.ending import UpkeepEnding
from leastwise.ladder.gate import Evaluation, judge
from leastwise.record import alpha_account
from leastwise.record.client import connect
from leastwise.record.climb_run import ClimbRun, open_climb
from leastwise.record.registry import Registry
from leastwise.record.stage_run import StageRun
from leastwise.rows.use_case_file import load
from leastwise.stores.ledger_file import LedgerFile
from leastwise.use_case import UseCase
from tasks.fine_tune import fine_tune_adapter, tuned_candidate
from tasks.session.workspace import open_workspace

LABELS = ("fruit", "metal")
WORDS = {
    "fruit": ["apple", "pear", "plum", "cherry", "grape", "melon"],
    "metal": ["iron", "copper", "zinc", "silver", "nickel", "cobalt"],
}
NAME = "fruit-or-metal"


class Provider(BaseHTTPRequestHandler):
    """An OpenAI-compatible endpoint: the model `good` knows fruit from metal, any other says something else."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = str(asked["messages"][-1]["content"])
        label = next((name for name, words in WORDS.items() if any(word in text for word in words)), "?")
        answer = label if asked["model"] == "good" else "I cannot say"
        usage = {"prompt_tokens": 20, "completion_tokens": 2, "total_tokens": 22}
        message = {"role": "assistant", "content": answer}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        reply = {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": asked["model"],
            "choices": [choice],
            "usage": usage,
        }
        body = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def provider():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def home(tmp_path_factory, tiny_gguf, empty_tracking):
    folder = tmp_path_factory.mktemp("upkeep")
    shutil.copytree(tiny_gguf, folder / "gguf", copy_function=os.link)
    shutil.copy(empty_tracking, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEASTWISE_HOME", str(folder))
        patch.setenv("OPENAI_API_KEY", "none")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield folder


def rows(split: str, n: int) -> pd.DataFrame:
    made = [(f"{split}-{i}", LABELS[i % 2]) for i in range(n)]
    texts = [f"{split} {i}: a piece of {WORDS[label][i // 2 % 6]}" for i, (_, label) in enumerate(made)]
    return pd.DataFrame({"id": [i for i, _ in made], "text": texts, "label": [label for _, label in made]})


@pytest.fixture(scope="module")
def case(home, provider, tiny):
    """Writes the use case's file with the given model in it and gives back its path."""
    for split, n in {"train": 1000, "dev": 16, "gate": 100, "test": 20}.items():
        rows(split, n).to_parquet(home / f"{split}.parquet")

    def write(model: str = "bad", **training: float) -> str:
        price = {"input": 1.0, "output": 2.0, "illustrative": True}
        raw = {
            "name": NAME,
            "task": {"instruction": "Fruit or metal?", "labels": list(LABELS)},
            "data": {split: f"{split}.parquet" for split in ("train", "dev", "gate", "test")},
            "requirements": {"quality": {"bound": 0.9, "margin": 0.3}},
            "traffic": {"requests_per_month": 1000},
            "models": {
                "candidates": [{"uri": f"openai:{model}", "base_url": provider, "price": price}],
                "base": {"uri": tiny.as_uri(), "venue": "managed", "price": price},
            },
            "training": {"max_examples": 48, "upper_blocks_share": 0.1} | training,
            "last_stage": "fine_tune",
        }
        path = home / "case.yaml"
        path.write_text(yaml.safe_dump(raw))
        return str(path)

    return write


def measured_stage(case_path: str, candidate: Candidate, lower: float, climb: str | None = None) -> str:
    """A finished climb with one stage whose quality was logged with this lower end; gives back the stage's run."""
    client, use_case = connect(), load(case_path)
    opened = ClimbRun.read(client, climb) if climb else open_climb(client, use_case, candidate.key).run
    run = opened.open_stage(candidate.stage, candidate.key)
    log_quality(run, use_case, candidate, lower)
    opened.close()
    opened.write(tags={"leastwise.outcome": candidate.stage})
    return str(run.id)


def log_quality(run: StageRun, use_case: UseCase, candidate: Candidate, lower: float) -> None:
    wanted = use_case.requirements.quality
    quality = Measurement(
        name="quality",
        estimate=lower + 0.02,
        lower=lower,
        upper=lower + 0.04,
        n=100,
        bound=wanted.bound,
        margin=wanted.margin,
        alpha_pass=0.01,
        alpha_fail=0.05,
    )
    measured = Evaluation(
        stage=candidate.stage, candidate=candidate.key, gate_hash="g", measurements={"quality": quality}
    )
    run.log_candidate(candidate, use_case)
    run.log_evaluation(measured)
    run.log_verdict(candidate.stage, judge(measured, use_case.gate_requirements), {}, "")
    run.close()


def synthetic(number: int) -> Candidate:
    return Candidate(stage="fine_tune", model=f"openai:tuned-{number}", venue="managed")


def champion():
    return Registry(connect(), NAME).champion()


def test_promote_takes_what_passed_and_rollback_brings_the_predecessor_back(case):
    runs = [measured_stage(case(), synthetic(number), lower=0.8) for number in (1, 2)]
    first = promote(case(), runs[0])
    assert (first.outcome, first.exit_status) == ("promoted", 0)
    climb = connect().get_run(runs[1]).data.tags["mlflow.parentRunId"]
    assert promote(case(), climb).outcome == "promoted"  # a climb stands for its winner
    assert champion().candidate == synthetic(2)
    assert promote(case(), runs[1]).outcome == "unchanged"
    assert rollback(case()).outcome == "rolled_back"
    assert champion().candidate == synthetic(1)
    with pytest.raises(BadInput, match="no predecessor"):
        rollback(case())


def test_promote_refuses_what_failed_and_what_is_not_a_measurement(case):
    before = champion()
    failed = measured_stage(case(), synthetic(3), lower=0.1)
    with pytest.raises(BadInput, match="is FAIL"):
        promote(case(), failed)
    with pytest.raises(BadInput, match="there is no run"):
        promote(case(), "0" * 32)
    assert champion() == before


def test_rebaseline_stays_with_the_models_there_were_and_steps_down_with_a_better_one(case):
    promote(case(), measured_stage(case(), synthetic(4), lower=0.8))
    before = champion()
    stay = rebaseline(case("bad"))
    assert (stay.outcome, stay.exit_status) == ("stay", 0), stay.reason
    assert stay.calls_paid > 0 and stay.usd_spent > 0
    down = rebaseline(case("good"))
    assert (down.outcome, down.exit_status) == ("step_down", 0), down.reason
    assert "prompt now suffices" in down.reason
    assert champion() == before  # a recommendation changes nothing
    accounts = connect().get_experiment_by_name(alpha_account.EXPERIMENT)
    drawn = connect().search_runs([accounts.experiment_id])
    assert len({run.data.metrics["alpha"] for run in drawn}) == len(drawn) >= 2  # each question its own, smaller share


def test_asking_again_is_answered_from_the_record(case):
    again = rebaseline(case("good"))
    assert (again.outcome, again.calls_paid, again.usd_spent) == ("step_down", 0, 0.0)


def test_retrain_says_so_where_the_champion_was_not_trained(case):
    ending = retrain(case())
    assert isinstance(ending, UpkeepEnding) and ending.outcome == "not_trained"


def test_retrain_trains_on_old_and_new_and_does_not_promote_what_fails_the_gate_itself(case, home):
    promote(case(), trained_stage(case()))
    before = champion()
    rows("new", 40).to_parquet(home / "new.parquet")
    ending = retrain(case(usd_per_label=0.25), str(home / "new.parquet"))
    # Three steps teach nothing: both answer wrongly everywhere, so the challenger is surely not worse.
    assert ending.outcome == "kept" and "the gate says FAIL" in ending.reason, ending.reason
    challenger = Registry(connect(), NAME).challenger().candidate
    assert challenger.weights.revision != before.candidate.weights.revision
    assert challenger.parent == before.candidate.key
    with LedgerFile(home / "ledger.db") as ledger:
        assert ledger.spent_for(ending.mlflow_run_id)["data"] == 10.0
    assert len(pd.read_parquet(ClimbRun.read(connect(), ending.mlflow_run_id).use_case().data.train)) == 1040
    assert champion() == before
    with pytest.raises(BadInput, match="is FAIL, and only what passed"):
        promote(case(), ending.mlflow_run_id)


def test_labels_that_would_pass_the_months_budget_are_not_bought_and_nothing_is_trained(case, home):
    before = champion()
    rows("dear", 10).to_parquet(home / "dear.parquet")
    ending = retrain(case(usd_per_label=50.0), str(home / "dear.parquet"))
    assert ending.outcome == "budget" and "budget_usd" in ending.reason
    assert champion() == before


def test_retrain_without_anything_new_trains_and_moves_nothing(case):
    before = champion()
    assert retrain(case()).outcome == "unchanged"
    assert champion() == before


def trained_stage(case_path: str) -> str:
    """A climb's fine_tune stage with a really trained adapter, its verdict synthetic."""
    climb = open_climb(connect(), load(case_path), "trained").run
    weights = fine_tune_adapter.fn(climb.id)
    candidate = tuned_candidate(open_workspace(climb.id), "fine_tune", weights)
    return measured_stage(case_path, candidate, 0.8, climb.id)
