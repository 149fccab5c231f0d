"""The check anyone with a GPU can run: each part is guarded, its goals are said, and it needs little beside torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu_check
from benchmarks.gpu_check import PARTS, SHARES, SIZES, budget_s, goals_of, guarded, with_mfu

ROOT = Path(__file__).parents[2]
WITHOUT = """
import sys
from importlib.machinery import PathFinder

gone, found = set(sys.argv[1:]), PathFinder.find_spec

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in gone else found(name, path, target)

sys.meta_path[:] = [Bare if each is PathFinder else each for each in sys.meta_path]
import leastwise.models.causal_model, leastwise.models.encoder, leastwise.models.student
import leastwise.training.causal_student, leastwise.training.distillation, leastwise.training.training
"""


def test_what_trains_imports_without_what_only_a_climb_needs():
    gone = ["prefect", "mlflow", "trl", "datasets", "genai_prices", "boto3", "lancedb", "pydantic_ai", "yaml", "pandas"]
    gone += ["scipy", "sklearn", "sentence_transformers", "onnxruntime", "onnx", "great_expectations", "sqlalchemy"]
    done = subprocess.run([sys.executable, "-c", WITHOUT, *gone], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_part_that_fails_is_told_and_the_others_run(monkeypatch, tmp_path):
    def breaks(size, folder):
        raise RuntimeError("CUDA error: device-side assert")

    monkeypatch.setattr(gpu_check, "base", breaks)
    monkeypatch.setattr(gpu_check, "merge", lambda size, folder: {"seconds": 1.0})
    told = gpu_check.check(SIZES["tiny"], ["base", "merge"], tmp_path, 1.0, apart=False)
    assert "RuntimeError: CUDA error" in told["parts"]["base"]["failed"] and told["parts"]["merge"]["seconds"] == 1.0
    json.dumps(told)


def test_what_there_is_no_time_for_is_told_and_not_begun(tmp_path):
    told = gpu_check.check(SIZES["8b"], ["base"], tmp_path, 0.1, apart=True)
    assert "not begun" in told["parts"]["base"]["failed"]


def test_a_slow_part_ends_at_its_own_budget_and_what_one_leaves_the_later_may_use():
    parts = ["card", "lora", "merge"]
    whole = sum(SHARES[each] for each in parts)
    assert budget_s(parts[1:], 480.0, 8.0, parts) == pytest.approx(480 * SHARES["card"] / whole)
    left = 480.0 - 1.0  # the first took a second of its own
    assert budget_s(parts[2:], left, 8.0, parts) == pytest.approx(479 - 480 * SHARES["merge"] / whole)
    spent = budget_s(parts[2:], left, 8.0, parts)
    assert budget_s([], left - spent, 8.0, parts) == pytest.approx(480 * SHARES["merge"] / whole), "is untouched"
    assert sum(SHARES.values()) == 480, "seconds of the eight minutes that it takes at most"


def test_a_part_over_its_budget_is_killed_and_the_next_one_runs(monkeypatch, tmp_path):
    asked: list[tuple[str, float]] = []

    def child(name, folder, size, seconds):
        asked.append((name, seconds))
        return {"failed": f"not done after {seconds:.0f} s"} if name == "base" else {"wall_s": 1.0}

    monkeypatch.setattr(gpu_check, "in_a_child", child)
    told = gpu_check.check(SIZES["8b"], ["card", "base", "merge"], tmp_path, 8.0, apart=True)
    assert [name for name, _ in asked] == ["card", "base", "merge"] and "failed" in told["parts"]["base"]
    assert all(seconds > gpu_check.LEAST_S for _, seconds in asked)


def test_goals_are_beside_what_was_measured_and_none_measured_is_a_miss():
    found = goals_of({"lora": {"mfu": 0.41, "peak_gb": 40.5, "reload_difference": 0.0}})
    assert {name: goal["met"] for name, goal in found.items()} == {
        "lora.mfu": True,
        "lora.peak_gb": False,
        "qlora.peak_gb": False,
        "lora.reload_difference": True,
        "qlora.reload_difference": False,
    }
    assert guarded(lambda: {"a": 1})["a"] == 1


def test_mfu_is_of_the_operations_that_frozen_weights_take():
    """Of an 8B: 7.0e9 weights in blocks, 4 operations each, and some percent of attention and head."""
    size = SIZES["8b"]
    assert size.block_weights == pytest.approx(6.98e9, rel=1e-3)
    assert 1.0 < size.operations_a_token / (4 * size.block_weights) < 1.05
    figures = {"card": {"matrix_tflops": 800.0}, "lora": {"tokens_per_s": 11_000.0}, "qlora": {"failed": "no"}}
    with_mfu(figures, size)
    assert figures["lora"]["mfu"] == pytest.approx(0.40, abs=0.01) and "mfu" not in figures["qlora"]


@pytest.mark.soak
def test_on_a_cpu_every_part_runs_at_a_small_size(tmp_path):
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu_check.py", "--size", "tiny", "--folder", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    told = json.loads(done.stdout.splitlines()[-1])
    failed = {name for name, figures in told["parts"].items() if "failed" in figures}
    assert set(told["parts"]) == set(PARTS) and failed <= {"qlora"}, "which needs bitsandbytes"
    lora = told["parts"]["lora"]
    assert lora["killed"] and lora["resumed_from_step"] == 5 and lora["reload_difference"] == 0.0
    assert not list(tmp_path.iterdir()), "nothing is left"
