"""A candidate as an MLflow model from code: its files in MLflow, with what MLflow needs to load them.

What answers is `leastwise.serving.candidate_model`, whose file MLflow runs. A measured candidate is kept with what says
how it answers and names its heavy files by digest; the files themselves are added when it is registered, and last the
`contents.json` that says so.
"""

from __future__ import annotations

import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from leastwise import __version__
from leastwise.content import content_key
from leastwise.ladder.candidate import Candidate
from leastwise.record.client import tracking_uri
from leastwise.use_case import UseCase

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import PyFuncModel

LOADER = Path(__file__).parents[2] / "serving" / "candidate_model.py"
BUNDLE = "artifacts/bundle"  # where MLflow puts the artifact of that name
PACKAGES = ("mlflow", "pandas", "pydantic", "numpy")


def save_candidate(candidate: Candidate, use_case: UseCase, out: Path, measured: Path | None = None) -> None:
    """Write the MLflow model directory `out` (empty, or not there) of a candidate that was `measured` with this bundle;
    without one it says only what the candidate is, and answers once it is registered.
    """
    if measured:
        save_bundle(measured, out)
        return
    with tempfile.TemporaryDirectory() as scratch:
        bundle = Path(scratch, "bundle")
        bundle.mkdir()
        (bundle / "candidate.json").write_text(candidate.model_dump_json(indent=1))
        (bundle / "use_case.json").write_text(use_case.model_dump_json(indent=1))
        save_bundle(bundle, out)


def save_bundle(bundle: Path, out: Path) -> None:
    """Write the MLflow model directory `out` (empty, or not there) that answers from this bundle."""
    import mlflow.pyfunc

    mlflow.pyfunc.save_model(
        path=str(out),
        python_model=str(LOADER),
        artifacts={"bundle": str(bundle)},
        signature=_signature(),
        pip_requirements=[f"leastwise[serve]=={__version__}", *map(_pinned, PACKAGES)],
    )
    about = out / "MLmodel"
    # MLflow writes down where the files came from and never reads it: a path of this machine, which leaves no process.
    about.write_text(about.read_text().replace(str(bundle), BUNDLE))


def log_whole(client: MlflowClient, model_id: str, model: Path) -> None:
    """Put a whole model directory into a logged model, over what is there: what says that it is whole goes last."""
    last = model / BUNDLE / "contents.json"
    with tempfile.TemporaryDirectory() as scratch:
        aside = Path(scratch, last.name)
        shutil.move(last, aside)
        client.log_model_artifacts(model_id, str(model))
        client.log_model_artifacts(model_id, scratch, BUNDLE)


def contents_of(client: MlflowClient, model_id: str) -> bytes | None:
    """What the bundle of a logged model says of its files; None where it has none yet."""
    import mlflow

    name = f"{BUNDLE}/contents.json"
    if name not in [each.path for each in client.list_logged_model_artifacts(model_id, BUNDLE)]:
        return None
    mlflow.set_tracking_uri(tracking_uri())
    where = str(client.get_logged_model(model_id).artifact_location).rstrip("/")
    with tempfile.TemporaryDirectory() as scratch:
        return Path(mlflow.artifacts.download_artifacts(f"{where}/{name}", dst_path=scratch)).read_bytes()


def load(uri: str) -> PyFuncModel:
    """A model as MLflow loads it for whoever serves it."""
    import mlflow.pyfunc

    model: PyFuncModel = mlflow.pyfunc.load_model(uri)
    return model


def model_key(name: str, version: str) -> str:
    """What tells a version's files from any other's: another registry has another model under that number."""
    from mlflow import MlflowClient

    found = MlflowClient(tracking_uri()).get_model_version(name, version)
    return content_key(str(found.version), str(found.run_id), str(found.model_id), str(found.source))


def fetch_model(uri: str, folder: Path) -> None:
    """Copy a registered model (`models:/NAME/VERSION`) into a folder."""
    import mlflow

    mlflow.set_tracking_uri(tracking_uri())
    mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder))


def _signature() -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, Array, ColSpec, Object, Property, Schema, TensorSpec

    turn = Object([Property("role", "string", required=False), Property("content", "string")])
    asked: list[ColSpec | TensorSpec] = [
        ColSpec("string", "text", required=False),
        ColSpec(Array(turn), "messages", required=False),
        ColSpec(AnyType(), "input", required=False),  # type: ignore[no-untyped-call]  # its __init__ has no types
    ]
    said: list[ColSpec | TensorSpec] = [
        ColSpec("string", "answer"),
        ColSpec("string", "label", required=False),
        ColSpec("double", "confidence", required=False),
        ColSpec("double", "usd"),
        ColSpec("string", "version"),
    ]
    return ModelSignature(inputs=Schema(asked), outputs=Schema(said))


def _pinned(package: str) -> str:
    return f"{package}=={version(package)}"
