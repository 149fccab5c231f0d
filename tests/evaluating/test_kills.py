"""kill -9 at any moment of logging: what is in MLflow then agrees with the audit, and the next run finishes it.

One process imports everything and forks; each child is killed at one write to MLflow, or in the middle of a file.
"""

import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("LEASTWISE_KILLS", "5")) // 2 + 1  # `make soak` takes 26
ROWS = 60
WRITES = (
    *("create_run", "log_batch", "set_tag", "delete_tag", "log_text", "log_dict", "log_figure", "log_inputs"),
    *("set_terminated", "update_run", "create_logged_model", "log_model_artifacts", "finalize_logged_model"),
)
PRICE = {"input": 0.1, "cached": 0.01, "output": 0.4, "illustrative": True}
CASE = {
    "name": "killed",
    "task": {"instruction": "Yes or no?", "labels": ["yes", "no"]},
    "data": {"gate": "gate.parquet"},
    "requirements": {"quality": {"bound": 0.9, "margin": 0.1}, "adherence": {"bound": 0.8, "margin": 0.1}},
    "traffic": {"requests_per_month": 1000},
    "models": {"candidates": [{"uri": "openai:gpt-4o-mini", "price": PRICE}]},
    "allow_no_test": True,
}


class Killer:
    """Counts the writes to MLflow and kills its process at the one it is told, before, in or after it."""

    def __init__(self, at: int) -> None:
        from mlflow import MlflowClient

        self.at, self.count = at, 0
        for name in WRITES:
            setattr(MlflowClient, name, self._watched(getattr(MlflowClient, name)))

    def _watched(self, write: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(write)
        def watched(client: Any, run_id: Any, *values: Any, **named: Any) -> Any:
            self.count += 1
            if self.count != self.at:
                return write(client, run_id, *values, **named)
            if write.__name__ == "log_text":  # a file is copied to its place: a kill may leave half of it there
                write(client, run_id, values[0][: len(values[0]) // 2], *values[1:])
            elif self.at % 2:
                write(client, run_id, *values, **named)
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError("killed")

        return watched


def climb_twice(folder: Path) -> None:
    """Measure a stage of two tries in one climb, skip another, end it; then reuse it in a second climb."""
    from leastwise.evaluating import stage
    from leastwise.ladder.candidate import Candidate, Prompt
    from leastwise.metrics.answer import Answer
    from tests.evaluating.toy_answerer import Toy
    from tests.workspaces import opened

    class Known(Toy):
        def _one(self, row: Any) -> Answer:
            return Answer(row.label if int(row.id[1:]) % 4 else "Other words", 20.0, 0.0001)

    @contextmanager
    def known(*_: object) -> Iterator[Known]:
        yield Known()

    stage.open_answerer = known  # type: ignore[assignment]
    tries = [
        Candidate(
            stage="prompt", model="openai:gpt-4o-mini", venue="api", prompt=Prompt(system="Answer.", constrained=c)
        )
        for c in (False, True)
    ]
    for _ in range(2):
        work = opened(folder / "case.yaml")
        stage.evaluate_stage(work, "prompt", tries)
        work.run.log_skip("rag", "nothing to retrieve")
        work.run.close()


def check_record(folder: Path, runs_of_each: bool) -> None:
    """What is there agrees with itself; `runs_of_each`: and it is whole."""
    from leastwise.evaluating.audit import differences
    from leastwise.record.client import connect
    from leastwise.record.judged_runs import judged_runs, use_case_above
    from tests.workspaces import opened

    runs = list(judged_runs(connect(), "killed"))
    for run in runs:
        assert differences(run, use_case_above(run)) == [], run.name
        assert len(run.examples()) == run.evaluation().measurements["quality"].n, run.name
    if runs_of_each:
        stages = opened(folder / "case.yaml").run
        assert stages.stage_runs() == []  # a climb of its own: both before it have ended
        finished = Counter((run.kind, bool(run.tag("leastwise.reused_from"))) for run in runs if run.is_finished)
        assert finished["try", False] == 2 and finished["stage", False] == 1 and finished["stage", True] >= 1


def forked(work: Callable[[], None]) -> int:
    """How a child ended that did this."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def kill_here_and_there(folder: Path) -> None:
    """The whole test, in the process that forks."""
    import mlflow
    import mlflow.tracking  # noqa: F401

    import leastwise.evaluating.audit
    import leastwise.evaluating.stage  # noqa: F401
    import tests.workspaces  # noqa: F401

    def run_in(home: Path, killed_at: int, written: Path | None = None) -> int:
        def work() -> None:
            os.environ["LEASTWISE_HOME"] = str(home)
            killer = Killer(killed_at)
            climb_twice(folder)
            if written:
                written.write_text(str(killer.count))

        return forked(work)

    def checked_in(home: Path, runs_of_each: bool) -> int:
        def work() -> None:
            os.environ["LEASTWISE_HOME"] = str(home)
            check_record(folder, runs_of_each)

        return forked(work)

    assert run_in(folder / "whole", 0, folder / "count") == 0
    assert checked_in(folder / "whole", True) == 0
    writes = int((folder / "count").read_text())
    rng = random.Random(20)
    for number, at in enumerate(rng.sample(range(1, writes), min(KILLS, writes - 1))):
        home = folder / f"state {number}"
        shutil.copytree(folder / "start", home)
        assert run_in(home, at) == signal.SIGKILL, at
        assert checked_in(home, False) == 0, f"killed at write {at} of {writes}: the audit differs"
        assert run_in(home, 0) == 0, f"killed at write {at} of {writes}: it does not go on"
        assert checked_in(home, True) == 0, f"killed at write {at} of {writes}: the record is not whole"
    print(json.dumps({"writes": writes, "kills": KILLS}))


def test_kill_9_at_any_moment_of_logging_leaves_a_record_that_the_audit_agrees_with_and_that_can_be_finished(
    tmp_path: Path, home: Path
) -> None:
    from tests.workspaces import case_file, opened

    labels = ["yes" if i % 3 else "no" for i in range(ROWS)]
    rows = {"id": [f"r{i}" for i in range(ROWS)], "text": [f"text {i}" for i in range(ROWS)], "label": labels}
    pd.DataFrame(rows).to_parquet(tmp_path / "gate.parquet")
    work = opened(case_file(tmp_path, CASE))
    assert work.alphas.to_pass > 0  # drawn once, before any kill: an account is not what is tested here
    work.run.close()
    work.budget.ledger.close()
    for name in ("start", "whole"):
        shutil.copytree(home, tmp_path / name, ignore=shutil.ignore_patterns("leases"))
    code = "import sys; from pathlib import Path; from tests.evaluating import test_kills as t; "
    command = [sys.executable, "-c", code + "t.kill_here_and_there(Path(sys.argv[1]))", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["writes"] > 40


pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills are made in forked children")
