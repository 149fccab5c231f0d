"""How a command ends: one line of JSON and one status, whatever is raised; only what nobody foresaw leaves a trace."""

import errno
import importlib
import inspect
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from flows.running.command_line import _arguments, _of_a_shell
from flows.running.endings import Terminated, ended_by
from flows.steps.stages import BudgetReachedOnPool
from leastwise.errors import BadInput
from leastwise.stores.caps import BudgetExceeded

REPOSITORY = Path(__file__).parents[2]
SMALL = '''
import gc
import signal
import threading

import flows
from prefect import flow
from prefect.settings import get_current_settings

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
    if first == "refuse":
        raise BadInput("first: is refused; give another")
    if first == "interrupt":
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell is started without one
        signal.raise_signal(signal.SIGINT)
    if first == "wait":
        asked = threading.Event()
        signal.signal(signal.SIGINT, lambda *_: asked.set())
        print("waiting", flush=True)
        asked.wait(60)
    if first == "terminate":
        signal.raise_signal(signal.SIGTERM)
    if first == "collect":
        return UpkeepEnding("quiet", f"garbage is collected: {gc.isenabled()}", 0.0, 0, "run")
    if first == "drift":
        beats = get_current_settings().flows.heartbeat_frequency
        return UpkeepEnding("drift", f"{second}; a heartbeat every {beats} s", 0.0, 0, "run")
    return UpkeepEnding("quiet", second, 0.0, 0, "run")


def helper(argument):
    pass


gc.disable()  # as a command is while it imports
run(small)
'''


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect_api: str) -> Path:
    """A flow that does as it is told, under a server that is there already."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    file = tmp_path / "small.py"
    file.write_text(SMALL)
    return file


def ended(file: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    own = {"PYTHONPATH": str(REPOSITORY), "LEASTWISE_HOME": str(file.parent / "not" / "there")}
    environment = {**os.environ, **own, **variables}
    command = [sys.executable, str(file), *arguments]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=180)


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stdout.splitlines() if line != "the flow ran"]


@pytest.mark.parametrize(("given", "said"), [((), "'first'"), (("a", "b", "c"), "too many")])
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


def test_a_list_has_all_that_is_said_in_order_and_the_rest_is_said_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def flow(sources: list[str], name: str, out: str = "") -> None:
        pass

    def given(*words: str) -> dict[str, object]:
        monkeypatch.setattr(sys, "argv", ["prepare.py", *words])
        return dict(_arguments(inspect.signature(flow), "prepare"))

    assert given("a.csv", "b.csv", "--name", "mine") == {"sources": ["a.csv", "b.csv"], "name": "mine"}
    assert given("--sources=a.csv", "--name=mine", "--out=x") == {"sources": ["a.csv"], "name": "mine", "out": "x"}
    for words, said in [
        (("--name=mine",), "'sources'"),
        (("a.csv", "mine"), "'name'"),
        (("a", " ", "--name=b"), "--sources: is empty"),
    ]:
        with pytest.raises(BadInput, match=said):
            given(*words)


def taken(monkeypatch: pytest.MonkeyPatch, *given: str) -> dict[str, str]:
    """What a flow of a use case, a candidate and an optional word is called with."""

    def flow(use_case: str, candidate: str, word: str = "") -> None:
        pass

    monkeypatch.setattr(sys, "argv", ["gate.py", *given])
    return _arguments(inspect.signature(flow), "gate")


@pytest.mark.parametrize(
    "given",
    [
        ("case.yaml", "new.yaml", "why"),
        ("case.yaml", "--candidate", "new.yaml", "--word", "why"),
        ("case.yaml", "--word=why", "--candidate=new.yaml"),
        ("--candidate", "new.yaml", "--use-case", "case.yaml", "--word", "why"),
        ("--candidate=new.yaml", "--use_case=case.yaml", "--word=why"),
        ("--word", "why", "--", "case.yaml", "new.yaml"),
    ],
)
def test_an_argument_is_given_in_order_or_by_its_name(monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...]) -> None:
    assert taken(monkeypatch, *given) == {"use_case": "case.yaml", "candidate": "new.yaml", "word": "why"}


def test_a_value_may_hold_an_equals_sign_or_begin_with_dashes_where_it_is_said_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = taken(monkeypatch, "a", "--candidate=s3://b/c?x=1", "--word=--why")
    assert given == {"use_case": "a", "candidate": "s3://b/c?x=1", "word": "--why"}
    assert taken(monkeypatch, "a", "--", "--b")["candidate"] == "--b"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("a", "--candidat", "b"), "--candidat: is no argument; it takes --use-case, --candidate, --word"),
        (("a", "--candidate"), "--candidate: its value is missing"),
        (("a", "--candidate", "--word", "b"), "--candidate: its value is missing"),
        (("a", "--candidate", "b", "--candidate=c"), "--candidate: was given twice"),
        (("a", "b", "--use-case", "c"), "multiple values for argument 'use_case'"),
        (("a", "--word", "b"), "missing a required argument: 'candidate'"),
        (("a", "b", "--word="), "--word: is empty; give a value, or leave it out"),
        (("a", "b", " "), "--word: is empty"),
        (("a", ""), "--candidate: is empty"),
        (("a", "b", "c", "d"), "too many"),
    ],
)
def test_an_argument_that_is_unknown_without_a_value_or_given_twice_is_bad_input(
    monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], said: str
) -> None:
    with pytest.raises(BadInput) as refused:
        taken(monkeypatch, *given)
    assert said in str(refused.value) and "`python -m flows.gate --help`" in str(refused.value)


def test_what_nobody_foresaw_is_one_line_with_the_path_of_its_trace(small: Path) -> None:
    done = ended(small, "call wrongly")
    (line,) = lines(done)
    ending = json.loads(line)
    assert (done.returncode, ending["outcome"]) == (1, "error"), done.stderr
    assert ending["reason"].startswith("unexpected: TypeError: ")
    assert "required positional argument" in ending["reason"], "not taken for an argument of the command"
    assert "Traceback" not in done.stderr and ending["reason"] in done.stderr and ending["trace"] in done.stderr
    trace = Path(ending["trace"])
    assert trace.is_relative_to(small.parent / "not" / "there")
    assert "Traceback" in trace.read_text() and f'File "{small}"' in trace.read_text()


@pytest.mark.parametrize(("first", "status"), [("interrupt", 130), ("terminate", 143)])
def test_a_signal_is_one_line_and_one_status(small: Path, first: str, status: int) -> None:
    done = ended(small, first)
    (line,) = lines(done)
    ending = json.loads(line)
    assert (done.returncode, ending["outcome"]) == (status, "interrupted"), done.stderr
    assert "run the same command again" in ending["reason"] and "Traceback" not in done.stderr


def test_a_ctrl_c_reaches_the_command_and_not_the_prefect_server_it_started(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "LEASTWISE_HOME": str(small.parent / "state")}
    started = subprocess.Popen(
        [sys.executable, str(small), "wait", "well"],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert started.stdout is not None
    while "waiting" not in (said := started.stdout.readline()):
        assert said, started.communicate()[1]
    os.killpg(started.pid, signal.SIGINT)  # as a terminal does
    rest, complaints = started.communicate(timeout=60)
    assert started.returncode == 0 and json.loads(rest)["outcome"] == "quiet", complaints
    assert complaints == ""


@pytest.mark.parametrize(
    ("raised", "status", "outcome", "said"),
    [
        (BadInput("data.gate: is empty; add rows"), 2, "bad_input", "data.gate: is empty; add rows"),
        (BudgetExceeded("budget_usd", 1.0, 0.9, 0.05, 0.2), 3, "budget", "raise budget_usd above"),
        (BudgetReachedOnPool("budget_usd is reached"), 3, "budget", "budget_usd is reached"),
        (BaseExceptionGroup("tasks", [BadInput("a task of several refuses")]), 2, "bad_input", "a task of several"),
        (KeyboardInterrupt(), 130, "interrupted", "run the same command again"),
        (Terminated(), 143, "interrupted", "terminated; run the same command again"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "error", "the disk is full; free some space"),
        (
            RuntimeError("Timed out while attempting to connect to ephemeral Prefect API server."),
            1,
            "error",
            "the disk may be full or the machine too busy",
        ),
        (sqlite3.OperationalError("database or disk is full"), 1, "error", "the disk is full; free some space"),
        (sqlite3.DatabaseError("database disk image is malformed"), 1, "error", "a state file is damaged"),
        (RuntimeError("Failed to reach API at http://127.0.0.1:1/api"), 1, "error", "the Prefect server went away"),
        (ConnectionError("retries with url: /api/2.0/mlflow/runs"), 1, "error", "the MLflow server"),
        (SystemExit("a library gave up"), 1, "error", "unexpected: SystemExit: a library gave up"),
        (TypeError("unsupported operand"), 1, "error", "unexpected: TypeError: unsupported operand"),
        (MemoryError(), 1, "error", "unexpected: MemoryError"),
        (ValueError("x" * 5000), 1, "error", "unexpected: ValueError: xxx"),
    ],
)
def test_whatever_is_raised_has_an_outcome_a_status_and_a_short_reason(
    home: Path, raised: BaseException, status: int, outcome: str, said: str
) -> None:
    ended = ended_by(raised, "customize")
    assert (ended.status, ended.fields["outcome"]) == (status, outcome)
    reason = str(ended.fields["reason"])
    assert said in reason and reason in ended.said and len(reason) < 1000
    assert ("trace" in ended.fields) == (outcome == "error") == (home / "errors").exists()


def test_neither_what_is_said_nor_the_trace_holds_a_secret(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "0123456789-of-mine")
    try:
        raise RuntimeError("refused: Bearer abcdefghijklmno at http://me:hidden@host with 0123456789-of-mine")
    except RuntimeError as refused:
        ended = ended_by(refused, "advise")
    written = f"{ended.said}{ended.fields}{Path(str(ended.fields['trace'])).read_text()}"
    assert "refused: Bearer *** at http://***@host with ***" in written and "Traceback" in written
    assert not any(secret in written for secret in ("hidden@", "abcdefghijklmno", "0123456789-of-mine"))


def test_a_trace_that_cannot_lie_in_the_state_directory_lies_where_temporary_files_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("LEASTWISE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    trace = Path(str(ended_by(ValueError("anything"), "advise").fields["trace"]))
    assert trace.is_relative_to(tmp_path / "temporary") and "ValueError: anything" in trace.read_text()


def test_a_state_directory_that_cannot_be_made_or_read_is_bad_input_at_once(small: Path) -> None:
    (small.parent / "not").write_text("a file stands where the state directory would be made")
    done = ended(small, "well")
    assert (done.returncode, json.loads(done.stdout)["outcome"]) == (2, "bad_input"), done.stderr
    (small.parent / "not").unlink()
    database = Path(os.environ["PREFECT_HOME"]) / "damaged" / "prefect.db"
    database.parent.mkdir(exist_ok=True)
    database.write_bytes(b"no database" * 1000)
    done = ended(small, "well", PREFECT_HOME=str(database.parent))
    assert done.returncode == 2 and "prefect.db: this state file is damaged" in json.loads(done.stdout)["reason"]


def test_a_prefect_server_nobody_serves_is_bad_input_with_the_remedy_at_once(small: Path) -> None:
    done = ended(small, "well", PREFECT_API_URL="http://me:hidden@127.0.0.1:9/api")
    ending = json.loads(done.stdout)
    assert done.returncode == 2 and "`make up`, or unset the variable" in ending["reason"]
    assert "hidden" not in done.stdout + done.stderr


def test_a_line_that_nobody_can_read_does_not_end_as_well(small: Path) -> None:
    with Path("/dev/full").open("w") as full:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "LEASTWISE_HOME": str(small.parent / "state")}
        command = [sys.executable, str(small), "too", "many", "arguments", "here"]
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_what_goes_wrong_before_a_flow_runs_is_one_line_too(tmp_path: Path) -> None:
    environment = {**os.environ, "LEASTWISE_HOME": str(tmp_path / "state"), "PREFECT_SERVER_API_PORT": "no port"}
    command = [sys.executable, "-m", "flows.advise", "alert-triage"]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=180)
    ending = json.loads(done.stdout)
    assert (done.returncode, ending["outcome"]) == (1, "error") and "Traceback" not in done.stderr
    assert "ValidationError" in ending["reason"] and Path(ending["trace"]).exists()


def test_bad_input_raised_inside_a_flow_is_exit_2_with_one_line(small: Path) -> None:
    done = ended(small, "refuse")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert [json.loads(line) for line in lines(done)] == [
        {"outcome": "bad_input", "reason": "first: is refused; give another"}
    ]
    assert "leastwise: first: is refused; give another" in done.stderr


def test_a_flow_under_a_server_that_stays_says_that_it_is_alive(small: Path) -> None:
    (line,) = lines(ended(small, "drift", "moved"))
    assert json.loads(line)["reason"] == "moved; a heartbeat every 30 s"


def test_garbage_is_collected_again_by_the_time_the_flow_runs(small: Path) -> None:
    (line,) = lines(ended(small, "collect"))
    assert json.loads(line)["reason"] == "garbage is collected: True"


@pytest.mark.parametrize("flow", ["prompt", "rollback"])
def test_a_file_that_is_no_use_case_is_refused_before_any_server_is_started(flow: str, tmp_path: Path) -> None:
    (tmp_path / "case.yaml").write_text("name: none\ncolour: red\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    command = [sys.executable, "-m", f"flows.{flow}", str(tmp_path / "case.yaml")]
    environment = kept | {"LEASTWISE_HOME": str(tmp_path / "state")}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=180)
    assert (done.returncode, json.loads(done.stdout)["outcome"]) == (2, "bad_input"), done.stderr
    assert "colour: unknown field" in done.stderr
    assert list((tmp_path / "state").rglob("*.db")) == [], "Prefect's server would have made its database"


def test_an_ending_is_one_line_of_its_fields_and_its_own_exit_status(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL")  # the command starts a server of its own
    done = ended(small, "drift", "the inputs moved")
    assert done.returncode == 3, done.stderr
    (line,) = lines(done)
    said = "the inputs moved; a heartbeat every None s"  # nobody watches a server that ends with the command
    fields = {"outcome": "drift", "reason": said, "usd_spent": 0.0, "calls_paid": 0}
    assert json.loads(line) == fields | {"mlflow_run_id": "run"}


def test_a_shipped_stage_given_one_argument_too_many_is_bad_input(tmp_path: Path) -> None:
    environment = {**os.environ, "LEASTWISE_HOME": str(tmp_path / "state")}
    command = [sys.executable, "-m", "flows.prompt", "alert-triage", "more"]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=180)
    (line,) = done.stdout.splitlines()
    ending = json.loads(line)
    assert (done.returncode, ending["outcome"]) == (2, "bad_input"), done.stderr
    assert "`python -m flows.prompt --help`" in ending["reason"]


@pytest.mark.parametrize("given", [["advise", "alert-triage", "rag"], ["promote", "alert-triage"]])
def test_a_shipped_flow_given_one_argument_too_many_or_too_few_is_bad_input(
    monkeypatch: pytest.MonkeyPatch, given: list[str]
) -> None:
    name, *arguments = given
    flow = getattr(importlib.import_module(f"flows.{name}"), name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    with pytest.raises(BadInput, match=f"`python -m flows.{name} --help`"):
        _arguments(_of_a_shell(inspect.signature(flow.fn)), name)
