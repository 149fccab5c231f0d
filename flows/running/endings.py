"""What is raised in a command becomes its ending: the fields of its one line, its exit status, what people are told.

Only what nobody foresaw leaves a trace, in a file, with secrets blotted out.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from leastwise.errors import BadInput
from leastwise.redaction import hide_all, redacted
from leastwise.stores import storage
from leastwise.stores.caps import BudgetExceeded

GOES_ON = "run the same command again: it goes on from here and buys no answer twice"
MOST_REASON_CHARACTERS = 400
DISK_IS_FULL = f"the disk is full; free some space, or move the state with LEASTWISE_HOME, and {GOES_ON}"
# What people can put right although it is no input: the exception's own words, in part, and what to do.
REMEDIES = {
    "No space left on device": DISK_IS_FULL,
    "database or disk is full": DISK_IS_FULL,
    "Disk quota exceeded": DISK_IS_FULL,
    "database disk image is malformed": "a state file is damaged; bring it back from a backup, or move it away",
    "attempt to write a readonly database": "the state cannot be written; grant access, or move it with LEASTWISE_HOME",
    "connect to ephemeral Prefect API server": "Prefect's own server did not start in time (its words are above): the "
    f"disk may be full or the machine too busy; {GOES_ON}",
    "Failed to reach API at": f"the Prefect server went away; start it again (`make up`), and {GOES_ON}",
    "with url: /api/2.0/mlflow": f"the MLflow server went away; start it again (`make up`), and {GOES_ON}",
    "the shared state at": f"the database of LEASTWISE_STATE was away for too long; bring it back, and {GOES_ON}",
    "out of memory": "memory ran out; take a smaller model or a machine with more",
}


class Terminated(BaseException):
    """SIGTERM reached the command."""


def end_on_sigterm() -> None:
    """From here on SIGTERM is raised as `Terminated`, so that it ends the command with its line; a second one ends it
    at once.
    """
    signal.signal(signal.SIGTERM, _terminate)


def _terminate(_signal: int, _frame: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Terminated


@dataclass(frozen=True)
class Ended:
    """How a command ended that raised: its line, its status, and what is said to people."""

    fields: dict[str, object]
    status: int
    said: str


def ended_by(error: BaseException, name: str) -> Ended:
    """The ending of the command `name` that raised this; a trace is written where nobody foresaw it."""
    cause = _innermost(error)
    if isinstance(cause, BadInput):
        return _plain("bad_input", _shown(str(cause)), 2)
    if isinstance(cause, BudgetExceeded):
        return _plain("budget", _shown(str(cause)), 3)
    if isinstance(cause, KeyboardInterrupt | Terminated):
        how, status = ("interrupted", 130) if isinstance(cause, KeyboardInterrupt) else ("terminated", 143)
        return _plain("interrupted", f"{how}; {GOES_ON}", status)
    reason, trace = _sentence(cause), _written(error, name)
    where = f"the whole trace is in {trace}" if trace else "and its trace could not be written"
    return Ended({"outcome": "error", "reason": reason, "trace": trace}, 1, f"{reason}\n  {where}")


def tell(error: BaseException, name: str) -> NoReturn:
    """Say how the command ended, to people and as its one line, and end it."""
    ended = ended_by(error, name)
    print(f"\nleastwise: {ended.said}", file=sys.stderr)
    finish(ended.fields, ended.status)


def finish(fields: dict[str, object], status: int) -> NoReturn:
    """Print the one line and end the process with the status."""
    try:
        print(json.dumps(fields), flush=True)
    except OSError:  # nobody reads it, or the disk behind it is full
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tries again as it ends
        status = status or 1
    raise SystemExit(status)


def _plain(outcome: str, reason: str, status: int) -> Ended:
    return Ended({"outcome": outcome, "reason": reason}, status, reason)


def _innermost(error: BaseException) -> BaseException:
    """What a group of one holds, and what Prefect wrapped."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _sentence(error: BaseException) -> str:
    said = " ".join(str(error).split())
    what = f"{type(error).__name__}: {said}" if said else type(error).__name__
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = DISK_IS_FULL if is_full else next((REMEDIES[part] for part in REMEDIES if part in said), "")
    short = _shown(what)
    if len(short) > MOST_REASON_CHARACTERS:
        short = f"{short[:MOST_REASON_CHARACTERS]} …"
    return f"{remedy} ({short})" if remedy else f"unexpected: {short}"


def _written(error: BaseException, name: str) -> str | None:
    """Where the trace was written: under the state directory, else where temporary files go; None where nowhere."""
    trace = _shown("".join(traceback.format_exception(error)))
    file = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    for folder in (storage.home() / "errors", Path(tempfile.gettempdir()) / "leastwise-errors"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(trace, encoding="utf-8", errors="backslashreplace")
        except OSError:
            continue
        return str(folder / file)
    return None


def _shown(text: str) -> str:
    hide_all(os.environ)
    return redacted(text)
