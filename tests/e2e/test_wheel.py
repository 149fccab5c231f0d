"""The wheel: the whole library and nothing else; its pure rooms need the base install only, answering no training."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN_BY_MLFLOW = {"leastwise.record.student_model", "leastwise.serving.candidate_model"}
PURE = ("use_case", "evidence", "money", "metrics", "ladder")
EFFECTS = (
    "prefect",
    "mlflow",
    "torch",
    "transformers",
    "pandas",
    "boto3",
    "great_expectations",
    "lancedb",
    "pydantic_ai",
)
NOT_FOR_SERVING = ("prefect", "trl", "accelerate", "datasets", "matplotlib", "tasks", "flows")

BLOCKED_IMPORTS = """
import importlib, pkgutil, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocked())
sys.path.insert(0, {wheel!r})
for room in {rooms}:
    package = importlib.import_module(f"leastwise.{{room}}")
    assert package.__file__.startswith({wheel!r}), package.__file__
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if module.name not in {models}:  # run by MLflow, not imported
            importlib.import_module(module.name)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def import_rooms(wheel: Path, rooms: tuple[str, ...], blocked: tuple[str, ...], away: Path) -> None:
    """Import every module of these rooms from the wheel, in a process elsewhere where some packages cannot be had."""
    code = BLOCKED_IMPORTS.format(blocked=set(blocked), rooms=rooms, wheel=str(wheel), models=RUN_BY_MLFLOW)
    ended = subprocess.run([sys.executable, "-P", "-c", code], cwd=away, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]


def test_the_wheel_holds_the_library_and_nothing_else(wheel: Path) -> None:
    tops = {path.name for path in wheel.iterdir() if not path.name.endswith(".dist-info")}
    assert tops == {"leastwise"}
    shipped = {str(path.relative_to(wheel)) for path in (wheel / "leastwise").rglob("*.py")}
    assert shipped == {str(path.relative_to(ROOT)) for path in (ROOT / "leastwise").rglob("*.py")}


def test_the_pure_rooms_need_no_effect(wheel: Path, tmp_path: Path) -> None:
    import_rooms(wheel, PURE, EFFECTS, tmp_path)


def test_what_answers_a_request_needs_no_training_no_flows_and_no_figures(wheel: Path, tmp_path: Path) -> None:
    rooms = (*PURE, "stores", "rows", "models", "endpoints", "engines", "record", "answering")
    import_rooms(wheel, rooms, NOT_FOR_SERVING, tmp_path)


def test_a_blocked_package_is_noticed(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="scipy is blocked"):
        import_rooms(wheel, ("evidence",), ("scipy",), tmp_path)
