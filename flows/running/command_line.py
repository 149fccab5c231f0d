"""One way to run every flow from a shell: `python -m flows.NAME ARGUMENTS`, people on stderr, one JSON line on stdout.

It holds no logic of a flow. Exit status: 0 passed, 3 none, budget or rejected, 4 undecided or passed by an estimate
alone, 2 bad input, 1 error, 130 interrupted, 143 terminated; whatever is raised (`flows.running.endings`).
"""

from __future__ import annotations

import gc
import inspect
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn, ParamSpec, TypeVar
from urllib.parse import urlsplit

from prefect import Flow
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
    temporary_settings,
)

from flows.running.endings import end_on_sigterm, finish, tell
from leastwise.answering.answerer import UNMEASURABLE
from leastwise.engines import leftovers
from leastwise.errors import BadInput
from leastwise.ladder.ending import Ending, StageEnding
from leastwise.redaction import without_secrets
from leastwise.rows.use_case_file import load
from leastwise.run_id import RunId
from leastwise.stores import storage
from leastwise.stores.caps import BudgetExceeded
from leastwise.stores.sqlite_file import check_whole
from leastwise.use_case import LADDER
from tasks import climb as climbing
from tasks import data
from tasks.session.ahead import get_ready

CLIMBING = frozenset({"customize", *LADDER})

P = ParamSpec("P")
E = TypeVar("E", bound=Ending)


def run(flow: Flow[P, E]) -> NoReturn:
    """Run a flow on the command line's arguments and exit with its status."""
    _run(flow, _of_a_shell(inspect.signature(flow.fn)), flow.name)


def run_stage_alone(stage_flow: Flow[[RunId], RunId]) -> NoReturn:
    """Run one stage on its own: `python -m flows.STAGE USE_CASE` opens or resumes the use case's climb and adds it."""

    def alone(use_case: str) -> StageEnding:
        climb = climbing.open_climb(use_case)
        try:
            data.validate_judged(climb)
            climbing.measure_reference(climb)
            return climbing.stage_ending(climb, stage_flow(climb))
        except BudgetExceeded as limit:
            return climbing.stage_halted(climb, str(limit))
        except UNMEASURABLE as why:
            return climbing.stage_halted(climb, str(why), "error")
        finally:
            climbing.leave_climb(climb)

    _run(alone, inspect.signature(alone), stage_flow.name)


def _of_a_shell(signature: inspect.Signature) -> inspect.Signature:
    """What a shell can give: texts, and a list of them as what is said in order. Anything else only the run form can
    say (see `flows.running.usage`).
    """
    parameters = signature.parameters.values()
    texts = [each for each in parameters if each.default is each.empty or isinstance(each.default, str)]
    return signature.replace(parameters=texts)


def _run(call: Callable[..., Ending], signature: inspect.Signature, name: str) -> NoReturn:
    end_on_sigterm()
    try:
        arguments = _arguments(signature, name)
        _check_state()
        meanwhile: list[Callable[[], None]] = []
        if isinstance(use_case := arguments.get("use_case"), str):  # what no flow takes is refused without Prefect
            load(use_case)
            meanwhile += [partial(get_ready, use_case)] if name in CLIMBING else []
        _collect_again()
        leftovers.watch()
        # Nobody watches a server that ends with the command, and each flow would wait a second for its last heartbeat.
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None} if _start_prefect(meanwhile) else {}):
            ending = call(**arguments)
        fields, status = ending.fields(), ending.exit_status
    except BaseException as error:  # whatever it is, it ends as one line and one status
        tell(error, name)
    finish(fields, status)


def _check_state() -> None:
    """BadInput where the state directory, its disk or Prefect cannot be used: Prefect itself would try for minutes."""
    home, prefect = storage.home(), Path(os.environ["PREFECT_HOME"])
    for folder in (home, prefect):
        storage.check_writable(folder)
        storage.check_room(folder)
        folder.mkdir(parents=True, exist_ok=True)  # Prefect makes no parents
    check_whole(prefect / "prefect.db")
    server = os.environ.get("PREFECT_API_URL", "")
    if server:
        _check_reachable(server)


def _collect_again() -> None:
    """End what `flows/__init__.py` began: what was imported stays for good, and garbage is collected from here on."""
    gc.freeze()
    gc.enable()


def _start_prefect(meanwhile: Sequence[Callable[[], None]] = ()) -> bool:
    """Start Prefect's temporary server, where no other is named, out of reach of Ctrl-C; whether it was. What is to be
    done `meanwhile` is done while it starts.

    A terminal sends that to every process of the command: the server would be gone before a flow that ends in good
    order has said so, and the flow would wait for it for minutes.
    """
    if PREFECT_API_URL.value() or not PREFECT_SERVER_ALLOW_EPHEMERAL_MODE.value():
        return False
    from prefect.server.api.server import SubprocessASGIServer

    raised: list[Exception] = []

    def start() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # what this thread starts inherits it
        try:
            SubprocessASGIServer().start()
        except Exception as error:
            raised.append(error)

    starting = threading.Thread(target=start, daemon=True)  # this thread is still interrupted
    starting.start()
    for each in meanwhile:
        each()
    starting.join()
    if raised:
        raise raised[0]
    return True


def _check_reachable(server: str) -> None:
    parts = urlsplit(server)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=5).close()
    except (OSError, ValueError) as error:
        raise BadInput(
            f"PREFECT_API_URL: the Prefect server {without_secrets(server)} cannot be reached ({error}); start it with "
            "`make up`, or unset the variable to do without one"
        ) from None


def _arguments(signature: inspect.Signature, name: str) -> dict[str, str | list[str]]:
    """The arguments given, in order or by name, once it is sure that the flow takes them; what the flow itself raises
    later is its own. Where the first is a list, it has all that is said in order.
    """
    try:
        in_order, named = _given(sys.argv[1:], list(signature.parameters))
        first = next(iter(signature.parameters.values()), None)
        if first is not None and first.annotation == list[str]:
            several = in_order + ([named.pop(first.name)] if first.name in named else [])
            given: dict[str, str | list[str]] = dict(signature.bind(*filter(None, [several]), **named).arguments)
        else:
            given = dict(signature.bind(*in_order, **named).arguments)
        said = [
            (name, word) for name, value in given.items() for word in ([value] if isinstance(value, str) else value)
        ]
        if empty := [name for name, word in said if not word.strip()]:  # a variable that is not set, say
            raise BadInput(f"{_option(empty[0])}: is empty; give a value, or leave it out")
        return given
    except (TypeError, BadInput) as error:
        raise BadInput(f"{error}; see `python -m flows.{name} --help`") from None


def _given(words: list[str], known: list[str]) -> tuple[list[str], dict[str, str]]:
    """What was said in order, and by name (`--name VALUE`, `--name=VALUE`); everything after `--` is said in order."""
    in_order: list[str] = []
    named: dict[str, str] = {}
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            return in_order + waiting, named
        if not word.startswith("--"):
            in_order.append(word)
            continue
        option, says, value = word[2:].partition("=")
        argument = option.replace("-", "_")
        if argument not in known:
            raise BadInput(f"--{option}: is no argument; it takes {', '.join(map(_option, known))}")
        if argument in named:
            raise BadInput(f"{_option(argument)}: was given twice")
        if not says and (not waiting or waiting[0].startswith("--")):
            raise BadInput(f"{_option(argument)}: its value is missing")
        named[argument] = value if says else waiting.pop(0)
    return in_order, named


def _option(argument: str) -> str:
    return f"--{argument.replace('_', '-')}"
