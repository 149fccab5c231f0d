"""A retraining: the union of old and new examples, and what the paired comparison makes of the challenger."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from leastwise.errors import BadInput
from leastwise.evaluating.comparison import PairedComparison
from leastwise.ladder.candidate import Candidate
from leastwise.ladder.ending import UpkeepEnding
from leastwise.record.client import connect
from leastwise.record.registry import Registry
from leastwise.record.stage_run import StageRun
from leastwise.record.upkeep_run import open_upkeep
from leastwise.rows.use_case_file import load
from leastwise.use_case import UseCase
from tasks.retrain import _settle, with_examples
from tasks.session.workspace import open_workspace
from tests.evaluating.test_comparison import Toy, compared
from use_cases.build_alert_triage import build

SAVED = Path(__file__).parents[2] / "use_cases"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("retraining")
    build(folder / "data" / "alert-triage")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEASTWISE_HOME", str(folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield folder


def challenged(name: str, measured: PairedComparison) -> tuple[UpkeepEnding, str]:
    """What `_settle` makes of a comparison: its ending, and which model is champion then."""
    client = connect()
    use_case, registry = load("alert-triage").model_copy(update={"name": name}), Registry(client, name)
    for model in ("old", "new"):
        run = StageRun.read(client, open_upkeep(client, use_case, "retrain", model).id)
        run.log_candidate(Candidate(stage="fine_tune", model=f"file:///{model}", venue="managed"))
        if model == "old":
            registry.promote(registry.register(run.again()), "first")
    ending = _settle(open_workspace(run.id), "1", measured, 0.1, measured.figures)
    champion = registry.champion()
    assert champion is not None
    return ending, champion.candidate.model


def test_a_challenger_is_registered_and_promoted_if_surely_not_worse(home):
    ending, champion = challenged("promoted", compared(Toy(), Toy()))
    assert (ending.outcome, champion) == ("promoted", "file:///new")
    assert Registry(connect(), "promoted").challenger() is None


@pytest.mark.parametrize("challenger", [Toy(wrong=range(100)), Toy(wrong=range(0, 400, 9))])
def test_a_challenger_that_is_worse_or_not_surely_as_good_is_registered_and_the_champion_kept(home, challenger):
    name = f"kept-{challenger.wrong.stop}-{challenger.wrong.step}"
    ending, champion = challenged(name, compared(Toy(), challenger))
    assert (ending.outcome, champion) == ("kept", "file:///old")
    assert Registry(connect(), name).challenger().candidate.model == "file:///new"


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
