"""Drift on the real data with real embeddings, and the paired comparison that decides who is champion."""

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import yaml

from leastwise.errors import BadInput
from leastwise.evaluating.evaluation import looks
from leastwise.evaluating.scorer import ExactScorer
from leastwise.evidence import PairedTest
from leastwise.ladder.candidate import Candidate
from leastwise.metrics.answer import Answer
from leastwise.record import registry, run_record, tracking, upkeep
from leastwise.rows.use_case_file import load
from leastwise.use_case.task import Classification
from tasks.retrain import PairedComparison, compare, settle, with_examples
from tasks.watch import independent, watch
from use_cases.build_alert_triage import build

SAVED = Path(__file__).parents[2] / "use_cases"
TASK = Classification(instruction="Which?", labels=("yes", "no"))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watching")
    build(folder / "data" / "alert-triage")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEASTWISE_HOME", str(folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield folder


@pytest.fixture(scope="module")
def use_case(home) -> str:
    """The shipped use case's file."""
    return str(SAVED / "alert-triage.yaml")


def table(home: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(home / "data" / "alert-triage" / f"{name}.parquet")


def watched(use_case: str, rows: pd.DataFrame, path: Path) -> upkeep.Upkeep:
    rows.to_parquet(path)
    return watch.fn(use_case, str(path))


def test_a_window_of_the_same_distribution_stays_quiet(use_case, home):
    """Rows of the test split: other actors and malware than those of the reference, the same kind of sentences."""
    ending = watched(use_case, table(home, "test")[["text", "source_ref"]], home / "quiet.parquet")
    assert (ending.outcome, ending.exit_status) == ("quiet", 0), ending.reason
    run = tracking.connect().get_run(ending.mlflow_run_id)
    assert run.data.tags["leastwise.kind"] == "drift" and run.info.status == "FINISHED"
    assert run.data.metrics["drift.p_mmd"] > run.data.metrics["drift.alpha"] / 2
    assert "quiet" in run.info.run_name


def test_a_window_with_the_held_out_tactic_mixed_in_alarms(use_case, home):
    held_out = table(home, "out_of_scope").query("kind == 'held_out'").head(80)
    mixed = pd.concat([table(home, "test"), held_out])[["text", "source_ref"]]
    ending = watched(use_case, mixed, home / "mixed.parquet")
    assert (ending.outcome, ending.exit_status) == ("drift", 3), ending.reason


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (pd.DataFrame({"words": ["a"] * 30}), "no column 'text'"),
        (pd.DataFrame({"text": ["a", None] * 15}), "missing"),
        (pd.DataFrame({"text": ["the same"] * 30}), "1 distinct texts.*at least 10"),
    ],
)
def test_a_window_that_cannot_be_compared_is_bad_input(use_case, home, tmp_path, rows, said):
    before = len(tracking.connect().search_experiments())
    with pytest.raises(BadInput, match=said):
        watched(use_case, rows, tmp_path / "window.parquet")
    assert len(tracking.connect().search_experiments()) == before  # nothing half-written


def test_a_source_is_counted_once_and_rows_without_a_source_all_count():
    rows = pd.DataFrame({"text": ["a", "b", "b", "c", "d"], "source": ["x", "x", "y", None, None]})
    assert sorted(independent(rows, None, 0)["text"]) == ["a", "b", "c", "d"]
    taken = independent(rows, "source", 0)
    assert {"c", "d"} < set(taken["text"]) and sum(taken["source"] == "x") == 1
    assert len(independent(rows, None, 0, most=2)) == 2


@dataclass
class Toy:
    """Answers right, wrong, or not at all, by row number."""

    wrong: range = range(0)
    lost: range = range(0)
    usd_worst_case: float = 0.0
    fixed_usd_per_request: float = 0.0

    def answer(self, rows):
        return [Answer(self.one(int(i), want), 1.0, 0.0) for i, want in zip(rows["id"], rows["label"], strict=True)]

    def one(self, number: int, want: str) -> str | None:
        if number in self.lost:
            return None
        return want if number not in self.wrong else "neither"

    def timed(self, rows, answers):
        return []


def gate_rows(n: int = 400) -> pd.DataFrame:
    return pd.DataFrame({"id": range(n), "text": [f"text {i}" for i in range(n)], "label": ["yes", "no"] * (n // 2)})


def compared(champion: Toy, challenger: Toy, n: int = 400) -> PairedComparison:
    return compare(ExactScorer(TASK), looks(gate_rows(n)), champion, challenger, PairedTest(0.1, 0.05, 0.05))


def test_a_challenger_that_answers_alike_is_surely_not_worse_before_the_rows_run_out():
    measured = compared(Toy(wrong=range(40)), Toy(wrong=range(40)))
    assert measured.outcome == "pass" and measured.n < 400 and measured.lower > -0.1
    assert measured.champion_quality == measured.challenger_quality == pytest.approx(1 - 40 / measured.n)


def test_a_challenger_that_errs_more_fails_and_one_seen_too_little_is_undecided():
    assert compared(Toy(), Toy(wrong=range(100))).outcome == "fail"
    assert compared(Toy(), Toy(), n=20).outcome == "undecided"


def test_rows_lost_for_either_are_no_evidence_of_being_as_good():
    measured = compared(Toy(lost=range(200)), Toy(), n=200)
    assert measured.outcome != "pass" and (measured.n, measured.lost) == (0, 200)
    assert math.isnan(measured.difference)


def challenged(name: str, measured: PairedComparison) -> tuple[upkeep.Upkeep, str]:
    """What `settle` makes of a comparison: its ending, and which model is champion then."""
    client = tracking.connect()
    use_case = load(str(SAVED / "alert-triage.yaml")).model_copy(update={"name": name})
    for model in ("old", "new"):
        run_id = upkeep.open_run(client, use_case, "retrain", model)
        candidate = Candidate(stage="fine_tune", model=f"file:///{model}", venue="managed")
        run_record.log_candidate(client, client.get_run(run_id), candidate)
        if model == "old":
            registry.promote(client, name, registry.register(client, name, run_id), "first")
    ending = settle(client, name, run_id, "1", measured, 0.1, measured.figures)
    return ending, registry.champion(client, name).candidate.model


def test_a_challenger_is_registered_and_promoted_if_surely_not_worse(home):
    ending, champion = challenged("promoted", compared(Toy(), Toy()))
    assert (ending.outcome, champion) == ("promoted", "file:///new")
    assert registry.challenger(tracking.connect(), "promoted") is None


@pytest.mark.parametrize("challenger", [Toy(wrong=range(100)), Toy(wrong=range(0, 400, 9))])
def test_a_challenger_that_is_worse_or_not_surely_as_good_is_registered_and_the_champion_kept(home, challenger):
    name = f"kept-{challenger.wrong.stop}-{challenger.wrong.step}"
    ending, champion = challenged(name, compared(Toy(), challenger))
    assert (ending.outcome, champion) == ("kept", "file:///old")
    assert registry.challenger(tracking.connect(), name).candidate.model == "file:///new"


def examples(path: Path, *rows: tuple[str, str, str]) -> str:
    pd.DataFrame(rows, columns=["id", "text", "label"]).to_parquet(path)
    return str(path)


@pytest.fixture
def small(tmp_path) -> tables.UseCase:
    """The shipped use case over two training rows."""
    raw = yaml.safe_load((SAVED / "alert-triage.yaml").read_text())
    raw["data"] = {k: f"{k}.parquet" for k in ("train", "gate", "test")}
    examples(tmp_path / "train.parquet", ("1", "one", "impact"), ("2", "two", "impact"))
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(raw))
    return load(str(tmp_path / "case.yaml"))


def test_new_examples_join_the_old_and_a_label_given_again_replaces_the_old_one(home, small, tmp_path):
    new = examples(tmp_path / "new.parquet", ("2", "two", "discovery"), ("3", "three", "impact"))
    train = pd.read_parquet(with_examples(small, None, new).data.train)
    assert dict(zip(train["id"], train["label"], strict=True)) == {"1": "impact", "2": "discovery", "3": "impact"}


def test_what_the_champion_was_trained_on_is_not_forgotten_by_the_next_retraining(home, small, tmp_path):
    first = with_examples(small, None, examples(tmp_path / "a.parquet", ("3", "three", "impact")))
    later = examples(tmp_path / "b.parquet", ("4", "four", "impact"))
    union = pd.read_parquet(with_examples(small, first.data.train, later).data.train)
    assert sorted(union["id"]) == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (("2", "another text", "impact"), "id '2' is taken"),
        (("5", "five", "phishing"), "label"),
        (("6", " ", "impact"), "empty"),
    ],
)
def test_new_examples_that_do_not_fit_are_bad_input(home, small, tmp_path, row, said):
    with pytest.raises(BadInput, match=said):
        with_examples(small, None, examples(tmp_path / "new.parquet", row))
