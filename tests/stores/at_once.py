"""Machines at once: processes with a state directory each, on one Postgres and one tracking store, that begin together.

They are forked from a process in which everything is imported, so that ten of them cost what one does.
"""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import mlflow.store.model_registry.sqlalchemy_store
import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 - what a client of a database needs, imported before it forks
import pandas as pd
import pytest

from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate
from leastwise.record.alpha_account import AlphaAccount
from leastwise.record.client import connect, experiment_id
from leastwise.record.climb_run import open_climb
from leastwise.record.registry import Registry
from leastwise.record.stage_run import StageRun
from leastwise.rows.question import Question
from leastwise.rows.tables import Tables
from leastwise.use_case import UseCase
from tests.toys import use_case

ROOT = Path(__file__).parents[2]
WITHIN_S = 90.0
Work = Callable[..., Any]


def promote(name: str, versions: Sequence[str], who: str) -> list[str]:
    """Make each the champion, as someone who looks who is champion before and after."""
    registry, seen = Registry(connect(), name), list[str]()
    for version in versions:
        registry.champion()
        registry.promote(version, who)
        champion = registry.champion()
        seen.append(champion.version if champion else "")
    return seen


def draw(gate: str, questions: Sequence[str]) -> list[float]:
    """Draw alpha for each of these questions on one gate set."""
    asked = use_case({"quality": (0.8, 0.1)}, gate=gate, out_of_scope=None, shifted=None)
    account = AlphaAccount(connect())
    return [account.draw(Question(asked, Tables(asked)), each, 0.05) for each in questions]


def climb(gate: str) -> str:
    """Open a climb and stay in it; gives back its run, or why not."""
    asked = use_case({"quality": (0.8, 0.1)}, gate=gate, out_of_scope=None, shifted=None)
    try:
        return str(open_climb(connect(), asked, "key").run.id)
    except BadInput as refused:
        return str(refused)


def registered(name: str, model: str, case: UseCase) -> str:
    """A registered version of a candidate that nobody measured."""
    client = connect()
    run = StageRun(client, client.create_run(experiment_id(client, name), tags={"leastwise.kind": "stage"}))
    run.log_candidate(Candidate(stage="prompt", model=f"openai:{model}", venue="api"), case)
    return Registry(client, name).register(run.again())


def gate_rows(file: Path) -> str:
    """A gate set of its own."""
    rows = [{"id": f"r{n}", "text": f"{file} {n}", "label": "yes"} for n in range(40)]
    pd.DataFrame(rows).to_csv(file, index=False)
    return str(file)


class Machines:
    """Processes that were started and wait for each other; all end with the block."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder, self._environment = folder, environment
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.stores.at_once"])
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", f"{ROOT}:{os.environ.get('PYTHONPATH', '')}")  # it is told of no other path
            forkserver.ensure_running()

    def at_once(self, *works: tuple[Work, tuple[Any, ...]]) -> list[Any]:
        """What each gives back, begun at the same moment on a machine of its own; all live until the last is done."""
        lines = [self._start(number, *work) for number, work in enumerate(works)]
        for line, _ in lines:
            assert line.poll(WITHIN_S) and line.recv() == "ready"
        for line, _ in lines:
            line.send("go")
        said = []
        for line, _ in lines:
            assert line.poll(WITHIN_S), "it does not end"
            said.append(line.recv())
        for line, process in lines:
            line.send("end")
            process.join(WITHIN_S)
        for each in said:
            if isinstance(each, BaseException):
                raise each
        return said

    def _start(self, number: int, work: Work, arguments: tuple[Any, ...]) -> tuple[Connection, Any]:
        ours, theirs = self._context.Pipe()
        environment = self._environment | {"LEASTWISE_HOME": str(self._folder / f"machine-{number}")}
        process = self._context.Process(target=_machine, args=(theirs, environment, work, arguments), daemon=True)
        process.start()
        return ours, process


def _machine(line: Connection, environment: dict[str, str], work: Work, arguments: tuple[Any, ...]) -> None:
    from leastwise.stores import storage
    from leastwise.stores.shared.state import shared_state

    os.environ.update(environment)
    shared_state(storage.home())
    line.send("ready")
    line.recv()
    try:
        line.send(work(*arguments))
    except Exception as error:
        line.send(RuntimeError(f"{type(error).__name__}: {error}"))
    line.recv()
