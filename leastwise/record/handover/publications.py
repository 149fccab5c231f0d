"""The experiment of what was made: a run for each thing, closed when all of its files are there.

Files go through the tracking server, so that a worker needs no key of where they lie. It keeps nothing on this machine.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from leastwise.errors import BadInput
from leastwise.record.client import experiment_id, files_location, find_experiment, shown_uri
from leastwise.record.run import FINISHED, KIND, RUNNING, is_status, is_tag
from leastwise.stores import storage
from leastwise.stores.made import objects
from leastwise.stores.made.naming import BUNDLES, TABLES, Made

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "leastwise-made"
MADE, SHA256, BYTES, PLACE = "leastwise.made", "leastwise.sha256", "leastwise.bytes", "leastwise.place"
FILES = "files"
BROKEN_OFF_S = 86_400.0  # after which a publication that is not finished has no living maker
SAFE = frozenset(
    {".safetensors", ".gguf", ".onnx", ".npz", ".npy", ".parquet", ".json", ".txt", ".model", ".jinja", ".md"}
)
# Its files run no code where they are loaded; what else a training leaves is not handed on.


@dataclass(frozen=True)
class Publication:
    """One thing as it is published: its name, its size, and the run that holds its files."""

    made: Made
    size_bytes: int
    run_id: str
    place: str = ""  # the s3:// prefix of its files, where they are not those of the run

    @classmethod
    def of(cls, run: Run) -> Publication:
        """The publication of a run."""
        tags = run.data.tags
        kind, _, key = tags[MADE].rpartition("/")
        return cls(Made(kind, key, tags[SHA256]), int(tags.get(BYTES, 0)), str(run.info.run_id), tags.get(PLACE, ""))


@dataclass(frozen=True)
class Publications:
    """Everything that was published at one tracking server."""

    client: MlflowClient

    @property
    def location(self) -> str:
        """Where the files go, or would go, as the server says."""
        return files_location(self.client, EXPERIMENT)

    def of_key(self, kind: str, key: str) -> Publication | None:
        """What was published first under a key: who made it again later goes by that."""
        return self._first(is_tag(MADE, f"{kind}/{key}"))

    def of(self, made: Made) -> Publication | None:
        """This very thing, as it was published first."""
        return self._first(f"{is_tag(MADE, f'{made.kind}/{made.key}')} and {is_tag(SHA256, made.sha256)}")

    def _first(self, query: str) -> Publication | None:
        where = find_experiment(self.client, EXPERIMENT)
        if where is None:
            return None
        finished, first = f"{query} and {is_status(FINISHED)}", ["attributes.end_time ASC"]
        runs = self.client.search_runs([where], finished, max_results=1, order_by=first)
        return Publication.of(runs[0]) if runs else None

    def publish(self, made: Made, place: Path, prefix: str = "") -> Publication:
        """Put all of its files there, or below an s3:// `prefix`; who reads finds it only when it is whole. BadInput
        for a file that runs code.
        """
        files = [place] if place.is_file() else sorted(each for each in place.rglob("*") if each.is_file())
        looked_at = files if made.kind != BUNDLES else []
        unsafe = next((each for each in looked_at if each.suffix not in SAFE), None)
        if unsafe:
            raise BadInput(f"{unsafe}: is no file of weights, figures or text that is handed on; remove it")
        size = sum(each.stat().st_size for each in files)
        tags = {KIND: "made", MADE: f"{made.kind}/{made.key}", SHA256: made.sha256, BYTES: str(size)}
        if prefix:
            tags[PLACE] = f"{prefix.rstrip('/')}/{made.kind}/{made.key}-{made.sha256[:12]}"
        name = f"{made.kind} · {made.key} · {size / 1e6:,.1f} MB"
        run = self.client.create_run(experiment_id(self.client, EXPERIMENT), tags=tags, run_name=name)
        if prefix:
            objects.put(place, tags[PLACE])
        elif place.is_dir():
            self.client.log_artifacts(run.info.run_id, str(place), FILES)
        else:
            self.client.log_artifact(run.info.run_id, str(place), FILES)
        self.client.set_terminated(run.info.run_id, FINISHED)
        self._delete_broken_off(made, run.info.experiment_id)
        return Publication.of(run)

    def _delete_broken_off(self, made: Made, experiment: str) -> None:
        """Publications of the same bytes that were begun long ago and never finished: what a kill left. A younger one
        may have a living maker, whose files nobody else writes into.
        """
        same = f"{is_tag(MADE, f'{made.kind}/{made.key}')} and {is_tag(SHA256, made.sha256)}"
        long_ago = f"attributes.start_time < {int((time.time() - BROKEN_OFF_S) * 1000)}"
        for run in self.client.search_runs([experiment], f"{same} and {is_status(RUNNING)} and {long_ago}"):
            self.client.delete_run(run.info.run_id)

    def download(self, publication: Publication, folder: Path) -> Path:
        """Its files in an empty folder of this machine; gives back the folder, or the file, that was published."""
        if publication.place:
            return storage.fetch(publication.place, folder)
        files = Path(self.client.download_artifacts(publication.run_id, FILES, str(folder)))
        made = publication.made
        return files / made.key if made.kind in TABLES else files

    @property
    def in_words(self) -> str:
        """Where things are published, for a message."""
        return f"the MLflow experiment {EXPERIMENT} in {shown_uri()}"


def is_within(location: str, home: Path) -> bool:
    """Whether files at this location of a tracking server lie in a state directory: its own machine's alone."""
    parts = urlsplit(location)
    if parts.scheme not in ("", "file"):
        return False
    return Path(unquote(parts.path)).absolute().is_relative_to(home)
