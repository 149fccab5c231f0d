"""MLflow: which climbs, stages and alpha accounts there are, and how their runs hang together.

What one run holds is in `leastwise.record.run_record`, the registry in `leastwise.record.registry`. The schema is listed in docs/mlflow.md.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from leastwise.errors import BadInput
from leastwise.ladder import Record
from leastwise.ladder.gate import Evaluation, judge
from leastwise.record.run_record import NOTE, log_evaluation, read_evaluation, read_json
from leastwise.stores import storage
from leastwise.use_case import UseCase
from leastwise.use_case.requirements import Requirement

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


ALPHA_EXPERIMENT = "leastwise-alpha-accounts"


@dataclass(frozen=True)
class Climb:
    """An open parent run."""

    run_id: str
    experiment_id: str
    resumed: bool


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or a database under the state directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{storage.home() / 'mlflow.db'}"


def connect() -> MlflowClient:
    """A client of the tracking server; BadInput where it cannot be reached."""
    uri = tracking_uri()
    parsed = urllib.parse.urlparse(uri)
    if parsed.scheme in ("http", "https"):
        _check_reachable(uri, parsed)
    elif parsed.scheme == "sqlite":
        storage.check_writable(Path(uri.removeprefix("sqlite:///")).parent)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    mlflow.set_tracking_uri(uri)
    return mlflow.MlflowClient(uri)


def _check_reachable(uri: str, parsed: urllib.parse.ParseResult) -> None:
    port = parsed.port or (443 if parsed.scheme == "https" else 80)
    try:
        socket.create_connection((parsed.hostname or "", port), timeout=5).close()
    except OSError as error:
        raise BadInput(
            f"MLFLOW_TRACKING_URI: the MLflow server {uri} cannot be reached ({error}); start it with `make up`, or unset "
            "the variable to use a local database"
        ) from None


def experiment(client: MlflowClient, name: str) -> str:
    """Id of the experiment, made where it does not exist."""
    found = client.get_experiment_by_name(name)
    if found:
        return str(found.experiment_id)
    location = None
    if tracking_uri().startswith("sqlite"):
        location = (storage.home() / "mlartifacts" / name).as_uri()
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except Exception:
        made_meanwhile = client.get_experiment_by_name(name)
        if made_meanwhile is None:
            raise
        return str(made_meanwhile.experiment_id)


def open_climb(client: MlflowClient, use_case: UseCase, key: str) -> Climb:
    """Resume the unfinished or halted climb with this key, or open a new parent run."""
    where = experiment(client, use_case.name)
    query = f"tags.`leastwise.climb_key` = '{key}' and attributes.status != 'FINISHED'"
    found = client.search_runs([where], query, max_results=1)
    run = found[0] if found else _new_climb(client, use_case, key, where)
    if found:
        client.update_run(run.info.run_id, status="RUNNING")
    client.log_dict(run.info.run_id, use_case.model_dump(mode="json"), "use_case.json")
    return Climb(run.info.run_id, where, resumed=bool(found))


def _new_climb(client: MlflowClient, use_case: UseCase, key: str, where: str) -> Run:
    tags = {"leastwise.kind": "ladder", "leastwise.climb_key": key, "leastwise.use_case": use_case.name}
    return client.create_run(where, tags=tags, run_name=f"ladder · {use_case.name}")


def climb_of(client: MlflowClient, climb_id: str) -> Climb:
    """An open climb by its run id."""
    return Climb(climb_id, str(client.get_run(climb_id).info.experiment_id), resumed=True)


def load_use_case(client: MlflowClient, climb_id: str) -> UseCase:
    """The use case of a climb as it was when it started, overrides included."""
    return UseCase.model_validate(read_json(client, climb_id, "use_case.json"))


def stage_run(client: MlflowClient, climb: Climb, stage: str, key: str, parent: str | None = None) -> Run:
    """The run of a stage or try under this climb: the unfinished one of the same key, or a new one."""
    query = (
        f"tags.`mlflow.parentRunId` = '{parent or climb.run_id}' and tags.`leastwise.key` = '{key}' "
        "and attributes.status = 'RUNNING'"
    )
    unfinished = client.search_runs([climb.experiment_id], query, max_results=1)
    if unfinished:
        return unfinished[0]
    tags = {
        "leastwise.kind": "try" if parent else "stage",
        "leastwise.stage": stage,
        "leastwise.key": key,
        "mlflow.parentRunId": parent or climb.run_id,
    }
    return client.create_run(climb.experiment_id, tags=tags, run_name=f"{stage} · running")


def finished(client: MlflowClient, experiment_id: str, key: str, kind: str = "stage") -> Run | None:
    """A finished, error-free run of a stage (or of the judged reference) with this key, from whichever climb."""
    query = f"tags.`leastwise.key` = '{key}' and tags.`leastwise.kind` = '{kind}' and attributes.status = 'FINISHED'"
    found = client.search_runs([experiment_id], query, max_results=5, order_by=["attributes.start_time DESC"])
    return next((r for r in found if r.data.tags.get("leastwise.verdict") in ("PASS", "FAIL", "UNDECIDED")), None)


def log_skip(client: MlflowClient, climb: Climb, stage: str, number: int, reason: str) -> str:
    """Log a skipped stage with its reason; the same skip in the same climb is logged once."""
    query = f"tags.`mlflow.parentRunId` = '{climb.run_id}' and tags.`leastwise.stage` = '{stage}'"
    for run in client.search_runs([climb.experiment_id], query):
        if run.data.tags.get("leastwise.verdict") == "SKIPPED":
            return str(run.info.run_id)
    tags = {
        "leastwise.kind": "stage",
        "leastwise.stage": stage,
        "leastwise.verdict": "SKIPPED",
        "leastwise.reason": reason,
        "mlflow.parentRunId": climb.run_id,
        NOTE: f"**Skipped**: {reason}",
    }
    run = client.create_run(climb.experiment_id, tags=tags, run_name=f"{number} {stage} · SKIPPED {reason[:120]}")
    client.set_terminated(run.info.run_id, "FINISHED")
    return str(run.info.run_id)


def link_reused(client: MlflowClient, climb: Climb, done: Run) -> str:
    """A stage run under this climb that carries a finished one's record and links to it."""
    from mlflow.entities import Metric, RunTag

    linked = client.create_run(climb.experiment_id, run_name=f"{done.info.run_name} · reused")
    run_id = str(linked.info.run_id)
    dropped = ("mlflow.parentRunId", "mlflow.runName", "mlflow.user", "mlflow.source.name", "mlflow.source.type")
    tags = {k: v for k, v in done.data.tags.items() if k not in dropped}
    tags |= {"mlflow.parentRunId": climb.run_id, "leastwise.reused_from": str(done.info.run_id)}
    metrics = done.data.metrics | {"usd.spent": 0.0, "calls.paid": 0.0}
    now = int(time.time() * 1000)
    client.log_batch(
        run_id, [Metric(k, v, now, 0) for k, v in metrics.items()], tags=[RunTag(k, v) for k, v in tags.items()]
    )
    client.log_text(
        run_id, json.dumps(read_json(client, done.info.run_id, "candidate.json"), indent=2), "candidate.json"
    )
    client.set_terminated(run_id, "FINISHED")
    return run_id


def stage_runs(client: MlflowClient, climb: Climb) -> list[Run]:
    """The finished stage runs of a climb, oldest first."""
    query = f"tags.`mlflow.parentRunId` = '{climb.run_id}' and tags.`leastwise.kind` = 'stage'"
    runs = client.search_runs([climb.experiment_id], query, order_by=["attributes.start_time ASC"])
    return [run for run in runs if run.info.status == "FINISHED"]


def latest_run(client: MlflowClient, climb: Climb, stage: str) -> Run:
    """The last run of a stage under a climb, finished or not."""
    query = (
        f"tags.`mlflow.parentRunId` = '{climb.run_id}' and tags.`leastwise.kind` = 'stage' "
        f"and tags.`leastwise.stage` = '{stage}'"
    )
    runs = client.search_runs([climb.experiment_id], query, max_results=1, order_by=["attributes.start_time DESC"])
    if not runs:
        raise RuntimeError(f"climb {climb.run_id} has no run of the stage {stage}")
    return runs[0]


def reference_runs(client: MlflowClient, climb: Climb) -> list[Run]:
    """Row 0 of this climb, once it is logged."""
    query = f"tags.`mlflow.parentRunId` = '{climb.run_id}' and tags.`leastwise.kind` = 'reference'"
    return [run for run in client.search_runs([climb.experiment_id], query) if run.info.status == "FINISHED"]


def read_history(
    client: MlflowClient, climb: Climb, requirements: Iterable[Requirement], last_run_id: str | None = None
) -> list[Record]:
    """The history of a climb, every verdict judged anew from what was logged.

    `last_run_id` adds a stage that has just ended in ERROR: its run is not FINISHED, so that a resumed climb tries again.
    """
    wanted = tuple(requirements)
    runs = reference_runs(client, climb) + stage_runs(client, climb)
    if last_run_id and last_run_id not in {run.info.run_id for run in runs}:
        runs.append(client.get_run(last_run_id))
    return [_record(run, wanted) for run in runs]


def _record(run: Run, wanted: tuple[Requirement, ...]) -> Record:
    tags = run.data.tags
    if tags.get("leastwise.verdict") == "SKIPPED":
        return Record(stage=tags["leastwise.stage"], skipped=tags.get("leastwise.reason", "skipped"))  # type: ignore[arg-type]
    evaluation = read_evaluation(run)
    return Record(
        stage=tags["leastwise.stage"],  # type: ignore[arg-type]
        evaluation=evaluation,
        verdict=judge(evaluation, wanted),
        resolution=tags.get("leastwise.resolution") or None,  # type: ignore[arg-type]
        open_weights=tags.get("leastwise.open_weights") == "yes",
        usd_per_1k=run.data.metrics.get("usd_per_1k_requests", float("inf")),
    )


def draw_alpha(client: MlflowClient, gate_hash: str, question: str, alpha: float) -> float:
    """This question's share of the gate set's alpha account, the same one whenever it is asked again.

    The j-th different question asked of one gate set gets 6/(pi j)^2 of alpha; these sum to alpha, so however often
    bounds are changed, models retrained or levels re-asked on the same rows, false PASS stays <= alpha in all.
    """
    where = experiment(client, ALPHA_EXPERIMENT)
    drawn = client.search_runs([where], f"tags.`leastwise.gate_hash` = '{gate_hash}'", max_results=5000)
    for run in drawn:
        if run.data.tags.get("leastwise.question") == question:
            return float(run.data.metrics["alpha"])
    number = len(drawn) + 1
    share = alpha * 6 / (3.141592653589793 * number) ** 2
    tags = {"leastwise.gate_hash": gate_hash, "leastwise.question": question, "leastwise.kind": "alpha"}
    run = client.create_run(where, tags=tags, run_name=f"draw {number} · gate set {gate_hash[:8]}")
    client.log_metric(run.info.run_id, "alpha", share)
    client.set_terminated(run.info.run_id, "FINISHED")
    return share


def totals(client: MlflowClient, climb: Climb) -> dict[str, float]:
    """Calls paid for and reused over every stage and try of a climb; a stage's own figures include its tries'."""
    runs = list(client.search_runs([climb.experiment_id], f"tags.`mlflow.parentRunId` = '{climb.run_id}'"))
    names = ("calls.paid", "calls.cached")
    return {name: sum(run.data.metrics.get(name, 0.0) for run in runs) for name in names}


def log_reference(
    client: MlflowClient, climb: Climb, evaluation: Evaluation, note: str, quality: Mapping[str, float]
) -> None:
    """Row 0 as a stage run of its own, with no verdict: it is reported, not judged. `quality` by name of the reference."""
    tags = {
        "leastwise.kind": "reference",
        "leastwise.stage": "reference",
        "mlflow.parentRunId": climb.run_id,
        "leastwise.venue": "none",
        NOTE: note,
    }
    measured = evaluation.measurements.get("quality")
    shown = f"quality {measured.estimate:.2f}" if measured else evaluation.candidate
    run = client.create_run(climb.experiment_id, tags=tags, run_name=f"0 reference · {evaluation.candidate} {shown}")
    named = {f"reference.{re.sub('[^a-z]+', '_', name)}": value for name, value in quality.items()}
    log_evaluation(client, run.info.run_id, evaluation, named)
    client.set_terminated(run.info.run_id, "FINISHED")
