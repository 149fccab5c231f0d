"""A process that has imported what a command needs, and forks for each run of it.

Tests run the same two commands of the product some forty times, and each would import for seconds. What a run sees is a
process of its own, with its own environment, folder and files; what it does is the command's.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[2]


CONVERSION = (
    "leastwise.engines.gguf.vendored",
    ("torch", "transformers.configuration_utils", "transformers.models.auto.tokenization_auto"),
)
SMOKE = (
    "leastwise.serving.smoke",
    (
        "pandas",
        "mlflow.pyfunc",
        "mlflow.store.tracking.sqlalchemy_store",
        "mlflow.store.model_registry.sqlalchemy_store",
        "leastwise.serving.live_model",
        "pydantic_ai.models.openai",
        "openai.resources.chat",
    ),
)  # what each was seen to spend seconds on; never the environment's `gguf`, for the scripts bring their own


class WarmProcess:
    """Runs `python -m module …` as `subprocess.run` does; another command is left to that."""

    def __init__(self, module: str, imports: Sequence[str]) -> None:
        self._module, self._imports = module, imports
        self._process: subprocess.Popen[str] | None = None
        self._turn = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)

    def run(
        self,
        command: Sequence[str],
        *,
        input: bytes | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdout: int | None = None,
        stderr: IO[bytes] | None = None,
        capture_output: bool = False,
        text: bool = False,
        errors: str | None = None,
        check: bool = False,
        timeout: float | None = None,  # of the test run's own
    ) -> subprocess.CompletedProcess[Any]:
        """What the command ended with, what it said where that is asked for."""
        python, flag, module, *arguments = command
        assert (python, flag, module) == (sys.executable, "-m", self._module) and not check
        with tempfile.TemporaryDirectory() as folder:
            files = {name: Path(folder, name) for name in ("stdin", "stdout", "stderr")}
            files["stdin"].write_bytes(input or b"")
            names = {name: str(file) for name, file in files.items()}
            if stderr is not None:
                names["stderr"] = stderr.name
            asked = {"argv": arguments, "cwd": str(cwd or Path.cwd()), "env": dict(env or os.environ), "files": names}
            status = self._status(asked)
            said = [files[name].read_bytes() for name in ("stdout", "stderr") if files[name].exists()]
        if text:
            return subprocess.CompletedProcess(
                command, status, *(each.decode(errors=errors or "strict") for each in said)
            )
        return subprocess.CompletedProcess(command, status, *said)

    def _status(self, asked: dict[str, object]) -> int:
        with self._turn:
            process = self.started()
            assert process.stdin and process.stdout
            print(json.dumps(asked), file=process.stdin, flush=True)
            return int(process.stdout.readline())

    def started(self) -> subprocess.Popen[str]:
        """The process; started at the first run, or before, by who forks and whose children are to share it."""
        if self._process is None:
            command = [sys.executable, "-m", "tests.servers.warm_process", self._module, *self._imports]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
        return self._process

    def end(self) -> None:
        """End it, where it was started."""
        if self._process is not None:
            self._process.communicate()


def _serve(module: str, imports: Sequence[str]) -> None:
    """Fork for each line, until there is none."""
    for each in imports:
        importlib.import_module(each)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _run(module, json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _run(module: str, asked: Mapping[str, Any]) -> None:
    """In the child: be the command, and never come back."""
    for number, (name, how) in enumerate(
        {"stdin": os.O_RDONLY, "stdout": os.O_WRONLY | os.O_CREAT, "stderr": os.O_WRONLY | os.O_CREAT}.items()
    ):
        os.dup2(os.open(asked["files"][name], how), number)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    sys.argv[1:] = asked["argv"]
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - what was read ahead is the next run's
    status = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if not isinstance(ended.code, int | None):
            print(ended.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2:])
