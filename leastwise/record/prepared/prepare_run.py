"""A preparation as one run in the use case's experiment: its page, its manifest and the use case it drafted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from leastwise.record.client import experiment_id
from leastwise.record.run import KIND, NOTE, OUTCOME, PAID, REASON, SPENT, USE_CASE, RecordedRun
from leastwise.run_id import RunId

if TYPE_CHECKING:
    from mlflow import MlflowClient


def log_prepared(
    client: MlflowClient, use_case: str, reason: str, page: str, figures: Mapping[str, float], files: Mapping[str, str]
) -> RunId:
    """Write it down with these texts as files; gives back its run."""
    run = RecordedRun(client, client.create_run(experiment_id(client, use_case), run_name=f"prepare · {reason}"[:200]))
    tags = {KIND: "prepare", USE_CASE: use_case, OUTCOME: "prepared", REASON: reason, NOTE: page}
    run.write({SPENT: 0.0, PAID: 0.0, **figures}, tags)
    for name, text in files.items():
        run.log_text(text, name)
    run.close()
    return run.id
