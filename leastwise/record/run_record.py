"""What one MLflow run holds: an evaluation, its verdict, candidate, examples, data; written and read back.

It decides nothing: the verdict is judged from what `read_evaluation` reads back. The schema (tags, metrics, run names)
is listed in docs/mlflow.md. Which runs there are and how they hang together is in `leastwise.record.tracking`.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leastwise.evidence.measurement import Measurement
from leastwise.ladder.candidate import Candidate
from leastwise.ladder.gate import Evaluation, Verdict, judge
from leastwise.use_case.requirements import Requirement

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from leastwise.evaluating.evaluation import Measured
    from leastwise.ladder.ending import Ending


GRADES = "judge_grades.json"  # people's and the judge's grades of the same answers
NOTE = "mlflow.note.content"
_MEASURED = ("lower", "upper", "n", "lost", "bound", "margin", "alpha_pass", "alpha_fail")


@dataclass(frozen=True)
class DataSet:
    """A table of the use case as a run's input; `sha256` is of its file."""

    name: str
    sha256: str
    uri: str
    rows: int


def read_json(client: MlflowClient, run_id: str, name: str) -> Any:
    """An artifact of a run, parsed."""
    with tempfile.TemporaryDirectory() as scratch:
        return json.loads(Path(client.download_artifacts(run_id, name, scratch)).read_text())


def log_evaluation(
    client: MlflowClient, run_id: str, evaluation: Evaluation, more: Mapping[str, float], model_id: str | None = None
) -> None:
    """Write every measurement of an evaluation as metrics, linked to the candidate's logged model."""
    from mlflow.entities import Metric, RunTag

    values: dict[str, float] = {"usd.spent": evaluation.usd_spent, **more}
    tags = {
        "leastwise.ladder.candidate": evaluation.candidate,
        "leastwise.gate_hash": evaluation.gate_hash,
        "leastwise.error": evaluation.error or "",
        "leastwise.measured": ",".join(evaluation.measurements),
    }
    for name, got in evaluation.measurements.items():
        values[name] = got.estimate
        values |= {f"{name}.{field}": float(getattr(got, field)) for field in _MEASURED}
        if got.rows:
            values[f"{name}.rows"] = float(got.rows)
        tags[f"{name}.better"] = Requirement(name=name, bound=got.bound, margin=got.margin).better
    now = int(time.time() * 1000)
    metrics = [Metric(k, v, now, 0, model_id=model_id, run_id=run_id) for k, v in values.items()]
    client.log_batch(run_id, metrics=metrics, tags=[RunTag(k, v[:5000]) for k, v in tags.items()])


def read_evaluation(run: Run) -> Evaluation:
    """An evaluation as it was logged; a measurement with a missing metric is left out, so that judging it is ERROR."""
    metrics, tags = run.data.metrics, run.data.tags
    measurements = {}
    for name in filter(None, tags.get("leastwise.measured", "").split(",")):
        fields = {field: metrics.get(f"{name}.{field}") for field in _MEASURED}
        if name in metrics and all(v is not None for v in fields.values()):
            counts = {k: int(fields.pop(k) or 0) for k in ("n", "lost")} | {"rows": int(metrics.get(f"{name}.rows", 0))}
            measurements[name] = Measurement(name=name, estimate=metrics[name], **counts, **fields)  # type: ignore[arg-type]
    return Evaluation(
        stage=tags.get("leastwise.stage", ""),
        candidate=tags.get("leastwise.ladder.candidate", ""),
        gate_hash=tags.get("leastwise.gate_hash", ""),
        measurements=measurements,
        usd_spent=metrics.get("usd.spent", 0.0),
        error=tags.get("leastwise.error") or None,
    )


def judge_logged(client: MlflowClient, run_id: str, requirements: Iterable[Requirement]) -> tuple[Evaluation, Verdict]:
    """Read an evaluation back and judge it: the record decides (rule 3)."""
    evaluation = read_evaluation(client.get_run(run_id))
    return evaluation, judge(evaluation, tuple(requirements))


def log_verdict(
    client: MlflowClient, run_id: str, run_name: str, verdict: Verdict, tags: Mapping[str, str], note: str
) -> None:
    """Write a verdict as tags, the gate table as description and the verdict into the run's name."""
    from mlflow.entities import RunTag

    written = {
        "leastwise.verdict": verdict.outcome,
        "leastwise.reason": verdict.reason,
        NOTE: note,
        "mlflow.runName": run_name,
        **{f"{each.name}.verdict": each.outcome for each in verdict.requirements},
        **tags,
    }
    client.log_batch(run_id, tags=[RunTag(k, v[:5000]) for k, v in written.items()])


def log_candidate(client: MlflowClient, run: Run, candidate: Candidate) -> str:
    """Log a candidate as an MLflow model of its run and give back the model's id."""
    existing = run.data.tags.get("leastwise.model_id")
    if existing:
        return existing
    model = client.create_logged_model(
        run.info.experiment_id,
        name=f"{candidate.stage}-{candidate.key[:8]}",
        source_run_id=run.info.run_id,
        tags={
            "leastwise.ladder.candidate": candidate.key,
            "leastwise.stage": candidate.stage,
            "leastwise.venue": candidate.venue,
        },
        model_type="leastwise-candidate",
    )
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "candidate.json")
        path.write_text(candidate.model_dump_json(indent=2))
        client.log_model_artifacts(model.model_id, scratch)
    client.finalize_logged_model(model.model_id, "READY")
    client.log_text(run.info.run_id, candidate.model_dump_json(indent=2), "candidate.json")
    client.set_tag(run.info.run_id, "leastwise.model_id", model.model_id)
    return str(model.model_id)


def load_candidate(client: MlflowClient, run_id: str) -> Candidate:
    """The candidate a stage run measured."""
    return Candidate.model_validate(read_json(client, run_id, "candidate.json"))


def log_examples(client: MlflowClient, run_id: str, measured: Measured) -> None:
    """The per-example table and the intervals look by look, as artifacts."""
    import pandas as pd

    columns = [
        "id",
        "input",
        "expected",
        "answer",
        "score",
        "latency_ms",
        "usd",
        "cached_tokens",
        "from_store",
        "set",
        "error",
        "unit",
    ]
    columns[5:5] = [name for name in ("judged", "scope", "kind") if any(name in row for row in measured.rows)]
    client.log_table(run_id, pd.DataFrame(measured.rows, columns=columns), "examples.json")
    if measured.grades:
        client.log_dict(run_id, asdict(measured.grades), GRADES)
    client.log_dict(run_id, measured.narrowing, "intervals.json")


def read_examples(client: MlflowClient, run_id: str) -> pd.DataFrame:
    """The per-example table of a stage run's gate rows; for a reused run, of the one it links to."""
    import pandas as pd

    origin = client.get_run(run_id).data.tags.get("leastwise.reused_from", run_id)
    table = read_json(client, origin, "examples.json")
    frame = pd.DataFrame(table["data"], columns=table["columns"])
    return frame[frame["set"] == "gate"]


def log_data(client: MlflowClient, run_id: str, data: Iterable[DataSet]) -> None:
    """The tables a run was given, as its inputs."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = [
        DatasetInput(
            Dataset(
                name=each.name,
                digest=each.sha256[:36],
                source_type="s3" if each.uri.startswith("s3://") else "local",
                source=json.dumps({"uri": each.uri}),
                profile=json.dumps({"num_rows": each.rows}),
            ),
            tags=[InputTag("mlflow.data.context", each.name)],
        )
        for each in data
    ]
    client.log_inputs(run_id, datasets=inputs)


def log_figures(client: MlflowClient, run_id: str, figures: Mapping[str, float]) -> None:
    """More metrics on a run that was already logged."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    client.log_batch(run_id, [Metric(k, float(v), now, 0) for k, v in figures.items()])


def log_test(client: MlflowClient, climb_id: str, figures: Mapping[str, tuple[float, int]]) -> None:
    """The winner's figures on the test split, on the parent run."""
    for name, (estimate, n) in figures.items():
        client.log_metric(climb_id, f"test.{name}", estimate)
        client.log_metric(climb_id, f"test.{name}.n", n)


def log_ending(client: MlflowClient, climb_id: str, ending: Ending, venue: str, note: str) -> None:
    """Outcome, reason and money on the parent run; a halted climb stays resumable (status FAILED)."""
    from mlflow.entities import Metric, RunTag

    now = int(time.time() * 1000)
    metrics = {
        "usd.spent": ending.usd_spent,
        "usd.avoided": ending.usd_avoided,
        "calls.paid": ending.calls_paid,
        "calls.cached": ending.calls_cached,
    }
    tags = {
        "leastwise.outcome": ending.outcome,
        "leastwise.reason": ending.reason,
        "leastwise.venue": venue,
        "leastwise.confirmed": ending.confirmed,
        NOTE: note,
        "mlflow.runName": f"ladder · {ending.outcome} · ${ending.usd_spent:.4f}",
    }
    client.log_batch(
        climb_id,
        [Metric(k, float(v), now, 0) for k, v in metrics.items()],
        tags=[RunTag(k, v[:5000]) for k, v in tags.items()],
    )
    halted = ending.outcome in ("error", "budget", "rejected")
    client.set_terminated(climb_id, "FAILED" if halted else "FINISHED")
