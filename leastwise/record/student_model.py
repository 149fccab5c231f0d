"""A distilled student as an MLflow model from code: text in, label and confidence out, declining where it is unsure.

MLflow runs this file when it loads the model; nothing is pickled. It does not train (`leastwise.training.distillation`
does) and does not start a server: `mlflow models serve --env-manager local -m DIRECTORY` does.
"""

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import mlflow.pyfunc
import pandas as pd
from mlflow.models import ModelSignature, set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types.schema import ColSpec, Schema, TensorSpec

from leastwise.models.machine import THREADS
from leastwise.models.student import Student

_LIBRARY = Path(__file__).resolve().parents[1]
_PACKAGES = (
    "mlflow",
    "torch",
    "onnx",
    "onnxruntime",
    "transformers",
    "safetensors",
    "numpy",
    "scipy",
    "pandas",
    "pydantic",
)


class StudentModel(PythonModel):
    """Serves one student directory; `threads` comes from the model's config."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the weights once, so that the first request does not pay for it."""
        threads = int((context.model_config or {}).get("threads", THREADS))
        self._student = Student(Path(context.artifacts["student"]), threads)
        self._student.answer(["warm up"])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, object] | None = None
    ) -> pd.DataFrame:
        """Columns label, confidence and energy, a row for each row of column `text`."""
        answers = self._student.answer(model_input["text"].tolist())
        return pd.DataFrame([asdict(answer) for answer in answers], columns=["label", "confidence", "energy"])


def save_pyfunc(student_dir: Path, out: Path, *, threads: int = THREADS) -> Path:
    """Write the MLflow model directory `out` (empty, or not there) that answers as `Student(student_dir)` does."""
    outputs: list[ColSpec | TensorSpec] = [
        ColSpec("string", "label"),
        ColSpec("double", "confidence"),
        ColSpec("double", "energy"),
    ]
    mlflow.pyfunc.save_model(
        path=str(out),
        python_model=str(Path(__file__).resolve()),
        artifacts={"student": str(student_dir)},
        code_paths=[str(_LIBRARY)],
        model_config={"threads": threads},
        signature=ModelSignature(inputs=Schema([ColSpec("string", "text")]), outputs=Schema(outputs)),
        pip_requirements=[f"{name}=={version(name).split('+')[0]}" for name in _PACKAGES],
    )
    return out


set_model(StudentModel())
