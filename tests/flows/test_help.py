"""`--help` of every flow: answered at once from its source, with nothing imported, started or made."""

import importlib
import inspect
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
FLOWS = sorted(file.stem for file in (REPOSITORY / "flows").glob("*.py") if file.stem != "__init__")
MOST_S = 5.0  # measured: 0.04 s
# Loaded by Python itself before the command, it ends the process at the first step towards what help may not do.
FORBIDDING = """
import sys
HEAVY = {"prefect", "mlflow", "pydantic", "numpy", "pandas", "torch"}
STARTING = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "socket.bind", "socket.connect"}

def forbid(event, arguments):
    if event in STARTING:
        raise RuntimeError(f"help may not do this: {event}")
    if event == "import" and arguments[0].partition(".")[0] in HEAVY:
        raise RuntimeError(f"help may not import this: {arguments[0]}")

sys.addaudithook(forbid)
"""


@pytest.fixture
def forbidding(tmp_path: Path) -> dict[str, str]:
    """An environment in which nothing heavy may be imported and nothing started; its state directory is not there."""
    folder = tmp_path / "forbidding"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(FORBIDDING)
    own = {"PYTHONPATH": str(folder), "LEASTWISE_HOME": str(tmp_path / "state")}
    return {name: value for name, value in os.environ.items() if name != "PREFECT_HOME"} | own


def python(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60)


def arguments_of(name: str) -> list[inspect.Parameter]:
    """What the flow takes from a shell; a stage on its own takes the use case whose climb it opens."""
    flow = getattr(importlib.import_module(f"flows.{name}"), name)
    taken = list(inspect.signature(flow.fn).parameters.values())
    alone = inspect.Parameter("use_case", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [alone] if [each.name for each in taken] == ["climb"] else taken


@pytest.mark.parametrize("name", FLOWS)
def test_help_of_a_flow_is_answered_at_once_from_its_source_and_names_every_argument(
    name: str, forbidding: dict[str, str]
) -> None:
    started = time.perf_counter()
    done = python(forbidding, "-m", f"flows.{name}", "--help")
    seconds = time.perf_counter() - started
    assert (done.returncode, done.stderr) == (0, "")
    assert seconds < MOST_S
    assert not Path(forbidding["LEASTWISE_HOME"]).exists()
    usage, what, *_ = done.stdout.split("\n\n")
    assert usage.startswith(f"usage: python -m flows.{name} ") and len(what) > 40
    for argument in arguments_of(name):
        assert f"\n    {argument.name}: " in done.stdout
        if argument.default is inspect.Parameter.empty:
            assert argument.name.upper() in usage.split()
        elif isinstance(argument.default, str):
            assert f"[{argument.name.upper()}]" in usage.split()


@pytest.mark.parametrize("name", FLOWS)
def test_without_an_argument_a_flow_prints_its_usage_at_once_and_does_nothing(
    name: str, forbidding: dict[str, str]
) -> None:
    done = python(forbidding, "-m", f"flows.{name}")
    assert done.returncode == 2 and json.loads(done.stdout)["outcome"] == "bad_input"
    assert done.stderr == python(forbidding, "-m", f"flows.{name}", "--help").stdout
    assert not Path(forbidding["LEASTWISE_HOME"]).exists()


def test_help_is_answered_whatever_stands_before_it_and_by_its_short_name(forbidding: dict[str, str]) -> None:
    wanted = python(forbidding, "-m", "flows.retrain", "--help").stdout
    assert python(forbidding, "-m", "flows.retrain", "-h").stdout == wanted
    assert python(forbidding, "-m", "flows.retrain", "alert-triage", "--help").stdout == wanted


def test_what_forbids_the_imports_does_forbid_them(forbidding: dict[str, str]) -> None:
    """Without help asked for, the same environment ends at the first import that help must do without."""
    done = python(forbidding, "-m", "flows.advise", "alert-triage")
    assert done.returncode == 1 and "help may not import this" in done.stderr
    started = python(forbidding, "-c", "import subprocess, sys; subprocess.run([sys.executable, '-V'])")
    assert started.returncode == 1 and "help may not do this" in started.stderr
