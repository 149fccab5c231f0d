"""Starts the processes that train together: one a GPU, or a few on a CPU; on several machines the first of them.

torch's elastic launcher starts them and each runs `leastwise.training.training_worker` with the same request file. It
knows nothing of training. On another machine that sees the same files the command of `join` is what makes it take part.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from pydantic import BaseModel

from leastwise.errors import BadInput
from leastwise.progress import TrainingProgress
from leastwise.use_case.training import Launch

log = logging.getLogger(__name__)

HELD = "LEASTWISE_TRAINING_HELD"  # set where the processes' input ends with whoever started them, however that comes
_REQUEST = ".request.json"
_POLL_S = 0.5
_STOP_S = 10.0


def request_file(out: Path) -> Path:
    """Where the request of the training into `out` lies while it runs."""
    return out.with_name(f"{out.name}{_REQUEST}")


def out_of(request: Path) -> Path:
    """What the training asked for in this file makes."""
    return request.with_name(request.name.removesuffix(_REQUEST))


def progress_file(out: Path) -> Path:
    """Where the first process writes a line of JSON a progress."""
    return out.with_name(f"{out.name}.progress")


def launched(request: BaseModel, launch: Launch, out: Path, progress: Callable[[TrainingProgress], None]) -> None:
    """Runs the request by `launch.processes` processes here, and waits for those of the other machines.

    Raises BadInput where there are fewer GPUs, RuntimeError with the end of the log where a process fails. Whatever
    ends it early, kill -9 too, ends the processes here; those of other machines then end by themselves.
    """
    _check(launch)
    out.parent.mkdir(parents=True, exist_ok=True)
    request_at, progress_at, log_at = request_file(out), progress_file(out), out.with_name(f"{out.name}.log")
    progress_at.write_text("", encoding="utf-8")
    request_at.write_text(request.model_dump_json(), encoding="utf-8")
    if launch.nodes > 1:
        log.info(
            f"waiting at {launch.meet_at} for machines 1 to {launch.nodes - 1}; on machine K run, where the same files "
            f"are seen: python -m leastwise.training.training_worker {request_at} --join K"
        )
    with log_at.open("w", encoding="utf-8") as written:
        started = subprocess.Popen(
            command(launch, 0, request_at),
            env={**environment(launch), HELD: "1"},
            stdin=subprocess.PIPE,
            stdout=written,
            stderr=subprocess.STDOUT,
        )
        try:
            _follow(started, progress_at, progress)
        finally:
            _end(started)
    if started.returncode or not out.exists():
        raise RuntimeError(
            f"training by {launch.together} processes failed; the end of {log_at}:\n"
            f"{log_at.read_text(encoding='utf-8')[-2000:]}"
        )
    for path in (request_at, progress_at, log_at):
        path.unlink(missing_ok=True)


def join(request: Path, launch: Launch, node: int) -> int:
    """Takes part as machine `node` (from 1); gives the exit status of its processes."""
    _check(launch)
    return subprocess.run(command(launch, node, request), env=environment(launch)).returncode


def command(launch: Launch, node: int, request: Path) -> list[str]:
    """The command that starts the processes of one machine."""
    meeting = ["--standalone"]
    if launch.nodes > 1:
        host, _, port = launch.meet_at.rpartition(":")
        meeting = [
            "--nnodes",
            str(launch.nodes),
            "--node-rank",
            str(node),
            "--master-addr",
            host,
            "--master-port",
            port,
        ]
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        *meeting,
        "--nproc-per-node",
        str(launch.processes),
        "-m",
        "leastwise.training.training_worker",
        str(request),
    ]


def environment(launch: Launch) -> dict[str, str]:
    """The processes find the same modules as this one; those of one machine speak over the loopback alone."""
    alone = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"} if launch.nodes == 1 else {}
    # The search path of this process has leastwise on it, from a checkout or installed, wherever they start.
    path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
    modules = {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    return {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), **modules, **alone}


def _check(launch: Launch) -> None:
    import torch

    if launch.shard and not torch.cuda.is_available():
        raise BadInput(
            "training.launch.shard: accelerate shards a model over GPUs only, and there is none; leave it empty"
        )
    if torch.cuda.is_available() and torch.cuda.device_count() < launch.processes:
        raise BadInput(
            f"training.launch.processes: {launch.processes} for {torch.cuda.device_count()} GPUs; "
            "set it to at most that"
        )


def _follow(started: subprocess.Popen[bytes], file: Path, progress: Callable[[TrainingProgress], None]) -> None:
    rest = ""
    with file.open(encoding="utf-8") as lines:
        while True:
            ended = started.poll() is not None
            *whole, rest = (rest + lines.read()).split("\n")
            for line in whole:
                progress(TrainingProgress(**json.loads(line)))
            if ended:
                return
            time.sleep(_POLL_S)


def _end(started: subprocess.Popen[bytes]) -> None:
    """End the launcher and what it started, if they still run."""
    try:
        alive = [psutil.Process(started.pid), *psutil.Process(started.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        alive = []
    for process in alive:
        if process.is_running():
            process.terminate()
    for process in psutil.wait_procs(alive, _STOP_S)[1]:
        process.kill()
    started.wait()
