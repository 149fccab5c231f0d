"""The rows a climb is judged on as data sets of MLflow, to be looked through; each once, whatever reads it.

Gates read the use case's own tables and never these. Of a long table its first rows in seeded order are there.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from leastwise.content import content_key
from leastwise.record.review.traces import LABEL, MOST, ROW
from leastwise.record.run import RecordedRun

if TYPE_CHECKING:
    import pandas as pd

CONTENT, OF_ROWS = "leastwise.content", "leastwise.rows"  # key of its rows, and how many rows the whole table has


def show_table(run: RecordedRun, use_case: str, table: str, rows: pd.DataFrame) -> str:
    """A table (gate, test, out_of_scope), in its seeded order, as a data set of the experiment and an input of the run;
    gives back its name. A set that a kill left short is filled by whoever comes next.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.genai import datasets

    shown = rows.head(MOST)
    labels = shown["label"] if "label" in shown and table != "out_of_scope" else [None] * len(shown)
    records = [_record(*each) for each in zip(shown["id"], shown["text"], labels, strict=True)]
    key = content_key(table, json.dumps(records), str(len(rows)))
    name = f"{use_case} {table} {key[:8]}"
    there = datasets.search_datasets(experiment_ids=[run.experiment_id], filter_string=f"name = '{name}'")
    tags = {CONTENT: key, OF_ROWS: str(len(rows)), "leastwise.shown": str(len(shown))}
    found = there[0] if there else datasets.create_dataset(name, experiment_id=[run.experiment_id], tags=tags)
    if not there or json.loads(found.profile or "{}").get("num_records") != _distinct(records):
        found.merge_records(records)
    shown_input = Dataset(
        name=name,
        digest=key[:36],
        source_type="mlflow_evaluation_dataset",
        source=json.dumps({"dataset_id": found.dataset_id}),
        profile=json.dumps({"num_rows": len(rows), "shown": len(shown)}),
    )
    given = [DatasetInput(shown_input, tags=[InputTag("mlflow.data.context", table)])]
    run.client.log_inputs(run.id, datasets=given)
    return name


def _record(row_id: object, text: object, label: object) -> dict[str, object]:
    expected = {"expectations": {LABEL: str(label)}} if isinstance(label, str) else {}
    return {"inputs": {"text": str(text)}, "tags": {ROW: str(row_id)[:250]}, **expected}


def _distinct(records: list[dict[str, object]]) -> int:
    """How many there will be: rows with the same text are one record there."""
    return len({json.dumps(each["inputs"]) for each in records})
