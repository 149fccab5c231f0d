"""Rows that people have in MLflow: traces of an experiment with what was expected of them, or an evaluation dataset.

Only an expectation is an expected answer; what a model answered, and what somebody thought of it, is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from leastwise.errors import BadInput
from leastwise.record.client import find_experiment

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Trace

EXPERIMENT, DATASET = "mlflow-experiment:", "mlflow-dataset:"
PAGE = 200


def is_in_mlflow(source: str) -> bool:
    """Whether a source names something in MLflow."""
    return source.startswith((EXPERIMENT, DATASET))


def rows_in_mlflow(client: MlflowClient, source: str) -> pd.DataFrame:
    """The rows of a source with columns inputs, expectations and, of traces, metadata (their tags); in the order of
    their content. BadInput where there are none.
    """
    import pandas as pd

    is_experiment = source.startswith(EXPERIMENT)
    rows = list(_traced(client, source.removeprefix(EXPERIMENT))) if is_experiment else list(_recorded(source))
    if not rows:
        raise BadInput(f"{source}: holds no {'trace' if is_experiment else 'record'} with inputs; name another")
    names = ("inputs", "expectations", "metadata")
    return pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=object) for name in names})


def _traced(client: MlflowClient, name: str) -> Iterator[Mapping[str, object]]:
    experiment = find_experiment(client, name)
    if experiment is None:
        raise BadInput(f"{EXPERIMENT}{name}: MLflow has no such experiment; correct the name")
    token: str | None = None
    while token is None or token:
        page = client.search_traces(
            locations=[experiment], max_results=PAGE, page_token=token, order_by=["timestamp_ms ASC"]
        )
        yield from (_row(trace) for trace in page if trace.data.request)
        token = page.token or ""


def _row(trace: Trace) -> Mapping[str, object]:
    """A trace's inputs and the last word on each expectation."""
    said = sorted(
        (each for each in trace.info.assessments if each.expectation is not None),
        key=lambda each: each.last_update_time_ms or 0,
    )
    expected = {each.name: each.expectation.value for each in said if each.expectation is not None}
    return {"inputs": trace.data.request, "expectations": expected or None, "metadata": dict(trace.info.tags)}


def _recorded(source: str) -> Iterator[Mapping[str, object]]:
    from mlflow.genai import datasets

    name = source.removeprefix(DATASET)
    found = [each for each in datasets.search_datasets(filter_string=f"name = '{name}'") if each.name == name]
    if len(found) != 1:
        how_many = f"{len(found)} data sets" if found else "no data set"
        raise BadInput(f"{source}: MLflow has {how_many} of that name; correct the name")
    for record in found[0].to_df().to_dict("records"):
        yield {"inputs": record["inputs"], "expectations": record.get("expectations"), "metadata": record.get("tags")}
