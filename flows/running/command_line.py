"""One way to run every flow from a shell: `python -m flows.NAME ARGUMENTS`, people on stderr, one JSON line on stdout.

It holds no logic of a flow. Exit status: 0 passed, 3 none, budget or rejected, 4 undecided or passed by an estimate
alone, 2 bad input, 1 error, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, ParamSpec, TypeVar

from prefect import Flow

from leastwise.engines import leftovers
from leastwise.errors import BadInput
from leastwise.ladder.ending import Ending, StageEnding
from leastwise.run_id import RunId
from tasks import climb as climbing
from tasks import data

P = ParamSpec("P")
E = TypeVar("E", bound=Ending)


def run(flow: Flow[P, E]) -> NoReturn:
    """Run a flow on the command line's arguments and exit with its status."""
    _run(flow, _of_a_shell(inspect.signature(flow.fn)), flow.name)


def run_stage_alone(stage_flow: Flow[[RunId], RunId]) -> NoReturn:
    """Run one stage on its own: `python -m flows.STAGE USE_CASE` opens or resumes the use case's climb and adds it."""

    def alone(use_case: str) -> StageEnding:
        climb = climbing.open_climb(use_case)
        data.validate_judged(climb)
        climbing.measure_reference(climb)
        return climbing.stage_ending(climb, stage_flow(climb))

    _run(alone, inspect.signature(alone), stage_flow.name)


def _of_a_shell(signature: inspect.Signature) -> inspect.Signature:
    """What a shell can give: texts. Anything else only the run form can say (see `flows.running.usage`)."""
    parameters = signature.parameters.values()
    texts = [each for each in parameters if each.default is each.empty or isinstance(each.default, str)]
    return signature.replace(parameters=texts)


def _run(call: Callable[..., Ending], signature: inspect.Signature, name: str) -> NoReturn:
    leftovers.watch()
    with contextlib.suppress(OSError):  # what cannot be written is told by the flow's own check
        Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)  # Prefect makes no parents
    try:
        ending = call(*_arguments(signature, name))
    except BadInput as error:
        print(f"leastwise: {error}", file=sys.stderr)
        _finish({"outcome": "bad_input", "reason": str(error)}, 2)
    except KeyboardInterrupt:
        why = "interrupted; run the same command again: it goes on from here and buys no answer twice"
        print(f"\nleastwise: {why}", file=sys.stderr)
        _finish({"outcome": "interrupted", "reason": why}, 130)
    _finish(ending.fields(), ending.exit_status)


def _arguments(signature: inspect.Signature, name: str) -> list[str]:
    """The arguments given, once it is sure that the flow takes them; what the flow itself raises later is its own."""
    arguments = sys.argv[1:]
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise BadInput(f"{error}; see `python -m flows.{name} --help`") from None
    return arguments


def _finish(fields: dict[str, object], status: int) -> NoReturn:
    print(json.dumps(fields), flush=True)
    raise SystemExit(status)
