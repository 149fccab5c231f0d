"""A long table answered by what was promoted: every row once, whatever ends the run in between."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from aiohttp import web
from prefect.states import Failed

from flows.bulk import bulk
from leastwise.answering.answerer import Outage
from leastwise.errors import BadInput
from leastwise.ladder.ending import UpkeepEnding
from leastwise.record.client import connect
from leastwise.record.registry import Registry
from leastwise.serving.bulk.settings import BulkSettings
from leastwise.serving.registering import register
from leastwise.stores.caps import BudgetExceeded
from leastwise.stores.tables import table_files
from tests.servers.s3_server import s3_server
from tests.servers.web_server import served
from tests.serving.odd_or_even import RIGHT, Model, judged

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory, empty_tracking: Path) -> Iterator[tuple[Model, str]]:
    """The provider behind a champion, and the path of its use case."""
    folder, model = tmp_path_factory.mktemp("bulk"), Model()
    (folder / "state").mkdir()
    shutil.copy(empty_tracking, folder / "state" / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch, served(web.post("/v1/chat/completions", model.answer)) as address:
        patch.setenv("LEASTWISE_HOME", str(folder / "state"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("OPENAI_API_KEY", "none")
        work, run = judged(folder, f"{address}/v1", RIGHT)
        Registry(run.client, "registered").promote(register(work, run), "passed")
        yield model, str(next(folder.glob("*.yaml")))


@pytest.fixture
def model(promoted: tuple[Model, str], prefect_api: str, monkeypatch: pytest.MonkeyPatch) -> Model:
    """The provider, asked nothing yet, of flows that share one server."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    made = promoted[0]
    made.texts.clear()
    made.breaks.clear()
    made.slow_s = 0.0
    return made


def table(folder: Path, first: int, last: int, name: str = "rows.parquet", **more: Any) -> str:
    """Rows to answer, of numbers nobody else's table has."""
    rows = pd.DataFrame({"id": [f"r{n}" for n in range(first, last)], "text": numbers(first, last)} | more)
    rows.to_parquet(folder / name)
    return str(folder / name)


def numbers(first: int, last: int) -> list[str]:
    return [f"number {n}" for n in range(first, last)]


def run(promoted: tuple[Model, str], source: str, target: Path | str, changes: str = "") -> UpkeepEnding:
    return bulk(promoted[1], source, str(target), changes, BulkSettings(shard_rows=10))


def test_every_row_is_answered_once_and_a_second_run_asks_and_pays_nothing(
    promoted: tuple[Model, str], model: Model, tmp_path: Path
) -> None:
    expected = ["odd" if n % 2 else "even" for n in range(1000, 1033)] + [None, "odd"]  # the last is wrong
    source = table(tmp_path, 1000, 1035, label=expected)
    ending = run(promoted, source, tmp_path / "out")
    assert (ending.outcome, ending.calls_paid, ending.exit_status) == ("answered", 35, 0)
    assert set(model.texts.values()) == {1} and ending.usd_spent == pytest.approx(35 * 24e-6)
    got = table_files.read_table(str(tmp_path / "out"))
    assert (
        got["id"].tolist() == [f"r{n}" for n in range(1000, 1035)]
        and len(list((tmp_path / "out").glob("*.parquet"))) == 4
    )
    assert got["predicted_label"].tolist() == ["odd" if n % 2 else "even" for n in range(1000, 1035)]
    assert got["score"].iloc[:33].eq(1).all() and math.isnan(got["score"].iloc[33]) and got["score"].iloc[34] == 0
    figures = connect().get_run(ending.mlflow_run_id).data.metrics
    assert figures["quality"] == pytest.approx(33 / 34) and figures["rows"] == 35 and figures["rows_per_s"] > 0

    again = run(promoted, source, tmp_path / "out")
    assert (again.outcome, again.calls_paid, again.usd_spent, model.asked) == ("answered", 0, 0, 35)
    shutil.rmtree(tmp_path / "out")
    elsewhere = run(promoted, source, tmp_path / "elsewhere")
    assert (elsewhere.calls_paid, model.asked) == (0, 35), "what was answered is in the store, whatever the target"


def test_a_kill_in_the_middle_asks_again_only_what_was_in_flight(
    promoted: tuple[Model, str], model: Model, tmp_path: Path
) -> None:
    model.slow_s = 0.05
    source, target = table(tmp_path, 2000, 2060), tmp_path / "out"
    command = [sys.executable, "-m", "flows.bulk", promoted[1], source, str(target), "shard_rows=10"]
    process = subprocess.Popen(command, cwd=ROOT, env=dict(os.environ), stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(list(target.glob("*.parquet"))) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    written = {path.name for path in target.glob("*.parquet")}
    assert 2 <= len(written) < 6 and not list(target.glob("*tmp*"))
    ending = run(promoted, source, target)
    assert ending.outcome == "answered" and len(table_files.read_table(str(target))) == 60
    assert set(model.texts) == set(numbers(2000, 2060))
    assert model.asked <= 60 + 8, "at most what was in flight at the kill is asked twice"


def test_a_cap_ends_it_and_a_higher_one_goes_on(promoted: tuple[Model, str], model: Model, tmp_path: Path) -> None:
    source = table(tmp_path, 3000, 3040)
    capped = run(promoted, source, tmp_path / "out", "budget_usd=0.0007")
    assert (capped.outcome, capped.exit_status) == ("budget", 3) and 0 < capped.usd_spent <= 0.0007
    before = model.asked
    assert before < 40
    ending = run(promoted, source, tmp_path / "out", "budget_usd=1")
    assert ending.outcome == "answered" and model.asked == 40
    assert ending.usd_spent == pytest.approx(40 * 24e-6), "the same run went on"


def test_rows_a_second_are_those_of_the_engine_and_no_shard_counts_its_wait_for_another(
    promoted: tuple[Model, str], model: Model, tmp_path: Path
) -> None:
    model.slow_s = 0.1
    ending = run(promoted, table(tmp_path, 8000, 8012), tmp_path / "out", "shard_rows=3, in_flight=1")
    taken_s = 12 / connect().get_run(ending.mlflow_run_id).data.metrics["rows_per_s"]
    assert 12 * model.slow_s <= taken_s < 2.2, "three waiting beside each other would be 2.7 s"


@pytest.mark.parametrize(
    ("error", "again"),
    [(Outage("lost"), True), (BudgetExceeded("budget_usd", 1, 1, 0, 1), False), (BadInput("the disk is full"), False)],
)
def test_only_lost_answers_are_worth_another_try(error: Exception, again: bool) -> None:
    from tasks.serving.bulk import answer_shard

    state = Failed(data=error)
    assert answer_shard.retry_condition_fn(answer_shard, None, state) == again and answer_shard.retries == 2


def test_a_shard_with_a_lost_answer_is_not_written_and_the_next_run_asks_for_what_is_missing(
    promoted: tuple[Model, str], model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.serving import bulk as work

    monkeypatch.setattr(work, "answer_shard", work.answer_shard.with_options(retries=0))
    source, model.breaks = table(tmp_path, 4000, 4030), {4015}
    failed = run(promoted, source, tmp_path / "out")
    assert (failed.outcome, failed.exit_status) == ("error", 1) and "1 of 10 answers were lost" in failed.reason
    assert sorted(path.name for path in (tmp_path / "out").glob("*.parquet")) == [
        "part-000000.parquet",
        "part-000002.parquet",
    ]
    model.breaks = set()
    model.texts.clear()
    assert run(promoted, source, tmp_path / "out").outcome == "answered"
    assert set(model.texts) == {"number 4015"}


def test_a_text_no_model_can_read_is_told_in_its_row_and_keeps_no_other_from_its_answer(
    promoted: tuple[Model, str], model: Model, tmp_path: Path
) -> None:
    texts = [*numbers(5000, 5004), "word " * 200_000 + "5004", *numbers(5005, 5008)]
    pd.DataFrame({"text": texts}).to_csv(tmp_path / "rows.csv", index=False)
    ending = run(promoted, str(tmp_path / "rows.csv"), tmp_path / "out")
    assert (ending.outcome, model.asked) == ("answered", 7)
    got = table_files.read_table(str(tmp_path / "out"))
    assert got["id"].tolist() == [f"row {n}" for n in range(1, 9)], "rows count from 1 where the table has no ids"
    assert got["answer"].isna().tolist() == [False] * 4 + [True] + [False] * 3
    assert "context" in got["error"].iloc[4] and got["error"].notna().sum() == 1
    assert connect().get_run(ending.mlflow_run_id).data.metrics["rows.unreadable"] == 1


def test_runs_that_share_a_table_answer_it_together_on_s3(
    promoted: tuple[Model, str], model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server(tmp_path / "s3") as s3:
        for name, value in s3.environment().items():
            monkeypatch.setenv(name, value)
        source, target = f"s3://{s3.bucket}/in/rows.parquet", f"s3://{s3.bucket}/out"
        table_files.write_table(pd.DataFrame({"text": numbers(6000, 6035)}), source)
        first = run(promoted, source, target, "share=1/2")
        assert first.outcome == "answered" and model.asked == 20 and "2 of 4 shards are other runs'" in first.reason
        second = run(promoted, source, target, "share=2/2")
        assert model.asked == 35 and "not there yet" not in second.reason
        assert len(table_files.read_table(target)) == 35


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"text": ["number 1", None]}, r"row 2.*text"),
        ({"text": ["number 1", "number 2"], "label": ["odd", "evn"]}, r"evn"),
        ({"words": ["number 1"]}, r"text"),
    ],
)
def test_a_row_that_cannot_be_asked_is_named_before_any_is(
    promoted: tuple[Model, str], model: Model, tmp_path: Path, rows: dict[str, list[str | None]], said: str
) -> None:
    pd.DataFrame(rows).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(BadInput, match=said):
        run(promoted, str(tmp_path / "rows.parquet"), tmp_path / "out")
    assert model.asked == 0


def test_a_target_of_something_else_is_refused_and_left_as_it_is(
    promoted: tuple[Model, str], model: Model, tmp_path: Path
) -> None:
    source = table(tmp_path, 7000, 7002)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"holds 1 files that are of no bulk run .*empty folder"):
        run(promoted, source, tmp_path / "mine")
    run(promoted, source, tmp_path / "out")
    for changed, changes in ((source, "shard_rows=1"), (table(tmp_path, 7002, 7004, "b.parquet"), "")):
        with pytest.raises(BadInput, match=r"holds the answers of another run"):
            run(promoted, changed, tmp_path / "out", changes)
    with pytest.raises(BadInput, match=r"has no version 9"):
        run(promoted, source, tmp_path / "new", "version=9")
    with pytest.raises(BadInput, match=r"changes: share: .*1/4"):
        run(promoted, source, tmp_path / "new", "share=5/4")
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["notes.txt"]
    plan = json.loads((tmp_path / "out" / ".plan.json").read_text())
    assert [shard["rows"] for shard in plan["shards"]] == [2]
