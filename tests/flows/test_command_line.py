"""How a command ends: what was given wrongly is exit 2 with the remedy; what breaks inside a flow keeps its trace."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SMALL = '''
import flows
from prefect import flow

from flows.running.command_line import run
from leastwise.errors import BadInput
from leastwise.ladder.ending import UpkeepEnding
from leastwise.rows.use_case_file import Overrides


@flow(name="small")
def small(first: str, second: str = "", overrides: Overrides = Overrides()) -> UpkeepEnding:
    """A flow that does as it is told."""
    print("the flow ran")
    if first == "call wrongly":
        helper()
    if first == "add wrongly":
        1 + ""
    if first == "refuse":
        raise BadInput("first: is refused; give another")
    if first == "drift":
        return UpkeepEnding("drift", second, 0.0, 0, "run")
    return UpkeepEnding("quiet", second, 0.0, 0, "run")


def helper(argument):
    pass


run(small)
'''


@pytest.fixture
def small(tmp_path: Path) -> Path:
    file = tmp_path / "small.py"
    file.write_text(SMALL)
    return file


def ended(file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "LEASTWISE_HOME": str(file.parent / "not" / "there")}
    command = [sys.executable, str(file), *arguments]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=180)


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stdout.splitlines() if line != "the flow ran"]


@pytest.mark.parametrize(
    ("given", "said"), [((), "'first'"), (("a", "b", "c"), "too many"), (("a", "b", "c", "d"), "too many")]
)
def test_too_few_or_too_many_arguments_are_bad_input_with_the_remedy_before_the_flow_runs(
    small: Path, given: tuple[str, ...], said: str
) -> None:
    done = ended(small, *given)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    (line,) = done.stdout.splitlines()  # so the flow did not print either
    ending = json.loads(line)
    assert set(ending) == {"outcome", "reason"} and ending["outcome"] == "bad_input"
    assert said in ending["reason"] and "`python -m flows.small --help`" in ending["reason"]
    assert ending["reason"] in done.stderr


@pytest.mark.parametrize(
    ("first", "said"), [("call wrongly", "required positional argument"), ("add wrongly", "unsupported")]
)
def test_a_type_error_inside_a_flow_is_no_bad_input_and_keeps_its_trace(small: Path, first: str, said: str) -> None:
    done = ended(small, first)
    assert done.returncode == 1, done.stderr
    assert lines(done) == []
    assert "Traceback" in done.stderr and f'File "{small}"' in done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("TypeError: ")]  # Prefect may add lines
    assert said in error


def test_bad_input_raised_inside_a_flow_is_exit_2_with_one_line(small: Path) -> None:
    done = ended(small, "refuse")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert [json.loads(line) for line in lines(done)] == [
        {"outcome": "bad_input", "reason": "first: is refused; give another"}
    ]
    assert "leastwise: first: is refused; give another" in done.stderr


def test_an_ending_is_one_line_of_its_fields_and_its_own_exit_status(small: Path) -> None:
    done = ended(small, "drift", "the inputs moved")
    assert done.returncode == 3, done.stderr
    (line,) = lines(done)
    fields = {"outcome": "drift", "reason": "the inputs moved", "usd_spent": 0.0, "calls_paid": 0}
    assert json.loads(line) == fields | {"mlflow_run_id": "run"}


def test_a_shipped_flow_given_one_argument_too_many_is_bad_input(tmp_path: Path) -> None:
    environment = {**os.environ, "LEASTWISE_HOME": str(tmp_path / "state")}
    for given in (["advise", "alert-triage", "rag"], ["prompt", "alert-triage", "more"], ["promote", "alert-triage"]):
        command = [sys.executable, "-m", f"flows.{given[0]}", *given[1:]]
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=180)
        (line,) = done.stdout.splitlines()
        ending = json.loads(line)
        assert (done.returncode, ending["outcome"]) == (2, "bad_input"), done.stderr
        assert f"`python -m flows.{given[0]} --help`" in ending["reason"]
