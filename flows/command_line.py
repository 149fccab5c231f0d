"""One way to run every flow from a shell: `python -m flows.NAME ARGUMENTS`, people on stderr, one JSON line on stdout.

It holds no logic of a flow. Exit status: 0 passed, 3 none, budget or rejected, 4 undecided, 2 bad input, 1 error,
130 interrupted.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from typing import Any

from leastwise.engines import leftovers
from leastwise.errors import BadInput


def run(flow: Callable[..., Any]) -> None:
    """Run a flow on the command line's arguments and exit with its status."""
    leftovers.watch()
    try:
        result = flow(*sys.argv[1:])
    except BadInput as error:
        print(f"leastwise: {error}", file=sys.stderr)
        _finish({"outcome": "bad_input", "reason": str(error)}, 2)
    except TypeError as error:
        if "argument" not in str(error):
            raise
        print(f"leastwise: {error}; see `python -m flows.NAME` in the README", file=sys.stderr)
        _finish({"outcome": "bad_input", "reason": str(error)}, 2)
    except KeyboardInterrupt:
        why = "interrupted; run the same command again: it goes on from here and buys no answer twice"
        print(f"\nleastwise: {why}", file=sys.stderr)
        _finish({"outcome": "interrupted", "reason": why}, 130)
    fields = dataclasses.asdict(result) if dataclasses.is_dataclass(result) else result
    _finish(fields, getattr(result, "exit_status", 0))


def run_stage(stage_flow: Callable[[str], str]) -> None:
    """Run one stage on its own: `python -m flows.STAGE USE_CASE` opens or resumes the use case's climb and adds it."""
    from tasks import data
    from tasks.climb import StageEnding, measure_reference, open_climb, stage_ending

    def flow(use_case: str) -> StageEnding:
        climb = open_climb(use_case)
        data.validate_judged(climb)
        measure_reference(climb)
        return stage_ending(climb, stage_flow(climb))

    run(flow)


def _finish(fields: object, status: int) -> None:
    print(json.dumps(fields), flush=True)
    raise SystemExit(status)
