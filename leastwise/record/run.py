"""One run in MLflow, whatever its kind: its tags, figures and files under their names, written and read back.

It knows no stage and no verdict (see `leastwise.record.stage_run`, `climb_run`, `upkeep_run`). The names are listed in
docs/mlflow.md; this room is the only place that speaks to MLflow.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from leastwise.errors import BadInput
from leastwise.rows.question import DataSet
from leastwise.run_id import RunId
from leastwise.stores import storage
from leastwise.stores.made.naming import STATE, name_of_table

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

KIND, STAGE, KEY = "leastwise.kind", "leastwise.stage", "leastwise.key"
CLIMB_KEY, USE_CASE = "leastwise.climb_key", "leastwise.use_case"
VERDICT, REASON, OUTCOME = "leastwise.verdict", "leastwise.reason", "leastwise.outcome"
RESOLUTION, SURE, OVERRIDE = "leastwise.resolution", "leastwise.sure", "leastwise.override"
VENUE, OPEN_WEIGHTS, JUDGE = "leastwise.venue", "leastwise.open_weights", "leastwise.judge"
MAY_TEACH = "leastwise.may_teach"
ENGINE, ANSWERED_BY = "leastwise.engine", "leastwise.answered_by"
CANDIDATE, MODEL_ID, REUSED_FROM = "leastwise.candidate", "leastwise.model_id", "leastwise.reused_from"
GATE_HASH, QUESTION, MEASURED, ERROR = (
    "leastwise.gate_hash",
    "leastwise.question",
    "leastwise.measured",
    "leastwise.error",
)
ENDPOINT, DEPLOYED, LOAD = "leastwise.endpoint", "leastwise.deployed", "leastwise.load"  # where, how it went, in words
PARKED = "leastwise.parked"  # why a try was left while undecided, in words
TRAINED_AT = "leastwise.trained_at"  # the host that trained, its job and base
FINDING, TRACES = "leastwise.finding", "leastwise.traces"  # how many traces a run has, once it has them all
CONFIRMED, RETRIEVAL, RETRIEVAL_FAULT = "leastwise.confirmed", "leastwise.retrieval", "leastwise.retrieval.fault"
RETRIEVAL_MODE, CHAMPION_VERSION, WINDOW = "leastwise.retrieval.mode", "leastwise.champion", "leastwise.window"
NOTE, PARENT, RUN_NAME = "mlflow.note.content", "mlflow.parentRunId", "mlflow.runName"
NOT_LINKED = (PARENT, RUN_NAME, TRACES, ENDPOINT, DEPLOYED, "mlflow.user", "mlflow.source.name", "mlflow.source.type")
SPENT, PAID, REUSED_CALLS = "usd.spent", "calls.paid", "calls.cached"
MOST_TAG_CHARACTERS = 5000  # above 8,000 MLflow cuts a tag silently
RUNNING = "RUNNING"
Status = Literal["FINISHED", "FAILED"]
FINISHED: Status = "FINISHED"
FAILED: Status = "FAILED"


@dataclass(frozen=True)
class RecordedRun:
    """One run; what was written since it was read is seen by reading it again (`again`)."""

    client: MlflowClient
    run: Run

    @classmethod
    def read(cls, client: MlflowClient, run_id: str) -> Self:
        """The run of that id as it is now; raises MlflowException where there is none."""
        return cls(client, client.get_run(run_id))

    def again(self) -> Self:
        """This run as it is now."""
        return self.read(self.client, self.id)

    @property
    def id(self) -> RunId:
        """Its id."""
        return RunId(str(self.run.info.run_id))

    @property
    def name(self) -> str:
        """What the runs table shows."""
        return str(self.run.info.run_name)

    @property
    def experiment_id(self) -> str:
        """The experiment it belongs to."""
        return str(self.run.info.experiment_id)

    @property
    def is_finished(self) -> bool:
        """Whether it was closed as whole."""
        return bool(self.run.info.status == FINISHED)

    @property
    def kind(self) -> str:
        """ladder, stage, try, reference, retrain, drift, rebaseline, gate, promotion, advice, prepare or alpha; empty
        for another's.
        """
        return self.tag(KIND)

    @property
    def parent_id(self) -> RunId | None:
        """The run it hangs under."""
        parent = self.tag(PARENT)
        return RunId(parent) if parent else None

    @property
    def figures(self) -> Mapping[str, float]:
        """Its metrics."""
        return self.run.data.metrics

    def tag(self, name: str) -> str:
        """A tag, empty where it is not set."""
        return str(self.run.data.tags.get(name, ""))

    def tags(self, prefix: str) -> dict[str, str]:
        """The tags whose names begin so."""
        return {name: value for name, value in self.run.data.tags.items() if name.startswith(prefix)}

    def children(self) -> list[Run]:
        """The runs that hang under it, oldest first."""
        query = is_tag(PARENT, self.id)
        return list(self.client.search_runs([self.experiment_id], query, order_by=["attributes.start_time ASC"]))

    def write(
        self,
        figures: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        model_id: str | None = None,
    ) -> None:
        """Figures and tags in one request; long tags are cut."""
        from mlflow.entities import Metric, RunTag

        now = int(time.time() * 1000)
        metrics = [
            Metric(name, float(value), now, 0, model_id=model_id, run_id=self.id)
            for name, value in (figures or {}).items()
        ]
        texts = [RunTag(name, _storable(value)[:MOST_TAG_CHARACTERS]) for name, value in (tags or {}).items()]
        self.client.log_batch(self.id, metrics=metrics, tags=texts)

    def log_text(self, text: str, name: str) -> None:
        """A text as a file of the run."""
        self.client.log_text(self.id, text, name)

    def log_file(self, path: Path, folder: str) -> None:
        """A file, or all files of a directory, into a folder of the run's artifacts."""
        if path.is_dir():
            self.client.log_artifacts(self.id, str(path), folder)
        else:
            self.client.log_artifact(self.id, str(path), folder)

    def log_data(self, data: Iterable[DataSet]) -> None:
        """The tables the run was given, as its inputs."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                Dataset(
                    name=each.name,
                    digest=each.sha256[:36],
                    source_type="s3" if each.uri.startswith("s3://") else "local",
                    source=json.dumps({"uri": name_of_table(each.uri, storage.home())}),
                    profile=json.dumps({"num_rows": each.rows}),
                ),
                tags=[InputTag("mlflow.data.context", each.name)],
            )
            for each in data
        ]
        self.client.log_inputs(self.id, datasets=inputs)

    def read_json(self, name: str) -> object:
        """A file of the run, parsed."""
        with tempfile.TemporaryDirectory() as scratch:
            file = self._files.download_artifacts(name, scratch)  # type: ignore[no-untyped-call]  # MLflow's has no types
            return json.loads(Path(file).read_text())

    def has_file(self, name: str) -> bool:
        """Whether a file lies among its artifacts."""
        return any(each.path == name for each in self._files.list_artifacts())

    @property
    def _files(self) -> ArtifactRepository:
        """Where the run says its files lie; MLflow's client would look up the run and its models for each of them."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return get_artifact_repository(self.run.info.artifact_uri, tracking_uri=self.client.tracking_uri)

    def artifacts_url(self, tracking_uri: str) -> str:
        """The page of its files in MLflow's UI."""
        return f"{tracking_uri}/#/experiments/{self.experiment_id}/runs/{self.id}/artifacts"

    def close(self, status: Status = FINISHED) -> None:
        """End the run; one that FAILED can be taken up again."""
        self.client.set_terminated(self.id, status)


def _storable(text: str) -> str:
    """A text any database takes: no NUL (Postgres refuses it), no half characters (no encoding has them); and any
    machine may read: what lies in the state directory of this one (the log that an error names) is told as such.
    """
    place = re.compile(rf"(?<![\w.-]){re.escape(str(storage.home()))}(?![\w.-])")
    return place.sub(lambda _: STATE, text).replace("\x00", " ").encode(errors="replace").decode()


def is_tag(name: str, value: str) -> str:
    """A condition of a search: the tag has this value."""
    return f"tags.`{name}` = '{value}'"


def is_status(status: str) -> str:
    """A condition of a search: the run has this status."""
    return f"attributes.status = '{status}'"


def read_run(client: MlflowClient, run_id: str) -> RecordedRun:
    """A run somebody named; BadInput where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return RecordedRun.read(client, run_id)
    except MlflowException:
        raise BadInput(f"mlflow_run_id: there is no run {run_id}; take the mlflow_run_id a flow printed") from None


@dataclass(frozen=True)
class Figure:
    """An estimate and the examples behind it."""

    estimate: float
    n: int


@dataclass(frozen=True)
class Calls:
    """Calls that were paid for, and answers that were there already."""

    paid: int
    reused: int
