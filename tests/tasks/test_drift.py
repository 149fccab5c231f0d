"""Drift on the real data with real embeddings."""

from pathlib import Path

import pandas as pd
import pytest

from leastwise.errors import BadInput
from leastwise.ladder.ending import UpkeepEnding
from leastwise.record.client import connect
from tasks.drift import independent, watch_drift
from tests.rows.test_request_log import logged, requests
from tests.workspaces import home_with_triage

SAVED = Path(__file__).parents[2] / "use_cases"


@pytest.fixture(scope="module")
def home(tmp_path_factory, triage_data, empty_tracking):
    folder = tmp_path_factory.mktemp("watching")
    with home_with_triage(folder, triage_data, empty_tracking) as home:
        yield home


@pytest.fixture(scope="module")
def use_case(home) -> str:
    """The shipped use case's file."""
    return str(SAVED / "alert-triage.yaml")


def table(home: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(home / "data" / "alert-triage" / f"{name}.parquet")


def watched(use_case: str, rows: pd.DataFrame, path: Path) -> UpkeepEnding:
    rows.to_parquet(path)
    return watch_drift.fn(use_case, str(path))


def test_a_window_of_the_same_distribution_stays_quiet(use_case, home):
    """Rows of the test split: other actors and malware than those of the reference, the same kind of sentences."""
    ending = watched(use_case, table(home, "test")[["text", "source_ref"]], home / "quiet.parquet")
    assert (ending.outcome, ending.exit_status) == ("quiet", 0), ending.reason
    run = connect().get_run(ending.mlflow_run_id)
    assert run.data.tags["leastwise.kind"] == "drift" and run.info.status == "FINISHED"
    assert run.data.metrics["drift.p_mmd"] > run.data.metrics["drift.alpha"] / 2
    assert "quiet" in run.info.run_name


def test_a_window_with_the_held_out_tactic_mixed_in_alarms(use_case, home):
    held_out = table(home, "out_of_scope").query("kind == 'held_out'").head(80)
    mixed = pd.concat([table(home, "test"), held_out])[["text", "source_ref"]]
    ending = watched(use_case, mixed, home / "mixed.parquet")
    assert (ending.outcome, ending.exit_status) == ("drift", 3), ending.reason


def test_the_log_of_an_endpoint_is_the_window_that_its_requests_are(use_case, home):
    rows = table(home, "test")[["text", "source_ref"]]
    plain = watched(use_case, rows, home / "plain.parquet")
    half = len(rows) // 2
    parts = {"a": rows.head(half), "b": rows.tail(len(rows) - half)}  # the second says nothing of confidence
    logs = {name: requests(len(each)).assign(**each.reset_index(drop=True)) for name, each in parts.items()}
    log = logged(home / "served", a=logs["a"], b=logs["b"].drop(columns="confidence"), c=requests(9, alias="shadow"))
    ending = watch_drift.fn(use_case, str(log))
    seen, same = (connect().get_run(each.mlflow_run_id).data.metrics for each in (ending, plain))
    assert ending.outcome == "quiet" and seen == same, "no text of the shadow, none of the champion's answers"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (pd.DataFrame({"words": ["a"] * 30}), "no column 'text'"),
        (pd.DataFrame({"text": ["a", None] * 15}), "missing"),
        (pd.DataFrame({"text": ["the same"] * 30}), "1 distinct texts.*at least 10"),
    ],
)
def test_a_window_that_cannot_be_compared_is_bad_input(use_case, home, tmp_path, rows, said):
    before = len(connect().search_experiments())
    with pytest.raises(BadInput, match=said):
        watched(use_case, rows, tmp_path / "window.parquet")
    assert len(connect().search_experiments()) == before  # nothing half-written


def test_a_source_is_counted_once_and_rows_without_a_source_all_count():
    rows = pd.DataFrame({"text": ["a", "b", "b", "c", "d"], "source": ["x", "x", "y", None, None]})
    assert sorted(independent(rows, None)["text"]) == ["a", "b", "c", "d"]
    taken = independent(rows, "source")
    assert {"c", "d"} < set(taken["text"]) and sum(taken["source"] == "x") == 1
    assert len(independent(rows, None, most=2)) == 2
