"""What people have on a real MLflow server becomes a use case: an evaluation dataset, an experiment's traces."""

import random
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from mlflow.entities import AssessmentSource

from leastwise.errors import BadInput
from leastwise.ladder.ending import PrepareEnding
from leastwise.record.client import connect, experiment_id
from leastwise.rows.preparing.settings import Wanted
from leastwise.rows.sources.plain import Columns
from leastwise.rows.use_case_file import load
from tasks.preparing.prepare import prepare_use_case
from tests.servers.mlflow_server import mlflow_server

WORDS = [a + b + c for a in "bdfgklmnprst" for b in "aeiou" for c in "nrst"]
ROWS, TRACED = 320, 6


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as address:
        yield address


@pytest.fixture(autouse=True)
def on_server(server: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)


def rows() -> list[tuple[str, str]]:
    rng = random.Random(0)
    return [(" ".join([*rng.choices(WORDS, k=8), f"team{n % 2}word"]), f"team {n % 2}") for n in range(ROWS)]


def prepared(folder: Path, *sources: str) -> PrepareEnding:
    return prepare_use_case.fn(list(sources), "mine", Columns(), Wanted(margin=0.2), str(folder / "mine.yaml"))


def test_an_evaluation_dataset_on_a_server_becomes_a_use_case_with_its_page_beside_it(
    tmp_path: Path, home: Path, server: str
) -> None:
    from mlflow.genai import datasets

    client = connect()
    made = datasets.create_dataset("golden", experiment_id=[experiment_id(client, "assistant")])
    made.merge_records(
        [{"inputs": {"question": text}, "expectations": {"expected_response": label}} for text, label in rows()]
    )
    ending = prepared(tmp_path, "mlflow-dataset:golden")
    case = load(ending.use_case)
    assert sum(ending.rows.values()) == ROWS and case.task.kind == "classification"
    assert case.task.labels == ("team 0", "team 1")
    gate = pd.read_parquet(home / "data" / "mine" / "gate.parquet")
    assert set(zip(gate["text"], gate["label"], strict=True)) <= set(rows())
    assert client.get_run(ending.mlflow_run_id).data.metrics["rows.gate"] == ending.rows["gate"]
    with pytest.raises(BadInput, match="no data set of that name"):
        prepared(tmp_path, "mlflow-dataset:silver")


def test_traces_on_a_server_are_rows_and_only_what_a_person_expected_is_an_answer(tmp_path: Path) -> None:
    import mlflow

    client = connect()
    where, person = experiment_id(client, "traced"), AssessmentSource("HUMAN", "ann")
    for n in range(TRACED):
        span = mlflow.start_span_no_context("ask", inputs={"question": f"question {n}"}, experiment_id=where)
        span.end(outputs="what a model said")
        mlflow.flush_trace_async_logging()
        if n:
            mlflow.log_expectation(
                trace_id=span.trace_id, name="expected_response", value=f"label{n % 2}", source=person
            )
    table = tmp_path / "more.csv"
    pd.DataFrame(rows(), columns=["text", "label"]).to_csv(table, index=False)
    with pytest.raises(BadInput, match=r"'label0' \(add 2\), 'label1' \(add 1\)"):
        prepared(tmp_path, "mlflow-experiment:traced", str(table))
    with pytest.raises(BadInput, match="2 things"):
        prepared(tmp_path, "mlflow-experiment:nobody", str(tmp_path / "absent.csv"))
    assert not (tmp_path / "mine.yaml").exists()
