"""Starts the processes that train together: one a GPU, or a few on a CPU; on several machines the first of them.

torch's elastic launcher starts them and each runs `leastwise.training.training_worker` with the same request file. It
knows nothing of training. Another machine takes part by that worker's `--join`, with nothing in common but a URI.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from leastwise.errors import BadInput
from leastwise.progress import TrainingProgress
from leastwise.redaction import without_secrets
from leastwise.training.machines.meeting import Meeting, meeting
from leastwise.training.machines.published import Published
from leastwise.training.request import TrainingRequest
from leastwise.use_case.training import Launch

log = logging.getLogger(__name__)

HELD = "LEASTWISE_TRAINING_HELD"  # set where the processes' input ends with whoever started them, however that comes
_REQUEST = ".request.json"
_POLL_S = 0.5
_STOP_S = 10.0
_HEARD_S = 5.0  # in which a machine whose end broke this one's processes is heard of


def request_file(out: Path) -> Path:
    """Where the request of the training into `out` lies while it runs."""
    return out.with_name(f"{out.name}{_REQUEST}")


def out_of(request: Path) -> Path:
    """What the training asked for in this file makes."""
    return request.with_name(request.name.removesuffix(_REQUEST))


def progress_file(out: Path) -> Path:
    """Where the first process writes a line of JSON a progress."""
    return out.with_name(f"{out.name}.progress")


def log_file(out: Path) -> Path:
    """What the processes of this machine say; kept where they fail."""
    return out.with_name(f"{out.name}.log")


def launched(request: TrainingRequest, launch: Launch, out: Path, progress: Callable[[TrainingProgress], None]) -> None:
    """Runs the request by `launch.processes` processes here, together with those of the other machines, if any.

    Raises BadInput where there are fewer GPUs or a machine does not come, RuntimeError with the end of the log where a
    process fails or a machine is lost. Whatever ends it early, kill -9 too, ends the processes here and elsewhere.
    """
    check(launch)
    if launch.nodes == 1:
        _run(request, launch, out, progress)
        return
    published, folder = Published(request.settings.checkpoints), without_secrets(request.settings.checkpoints)
    with published.called(request) as call, meeting(call) as met:
        log.info(
            f"waiting at {launch.meet_at} for machines 1 to {launch.nodes - 1}; on machine K run: "
            f"python -m leastwise.training.training_worker {folder} --join K"
        )
        place = met.gather()
        meets = launch.model_copy(update={"meet_at": f"{place.host}:{place.port}"})
        _run(request, meets, out, progress, place.interface, met)


def with_place(request: TrainingRequest, out: Path) -> TrainingRequest:
    """The request with a URI for what all machines need, where several train: checkpoints are put there too."""
    settings, launch = request.settings, request.settings.launch
    if launch.nodes == 1:
        return request
    seen_by_all = out.absolute().with_name(f"{out.name}.shared").as_uri()
    place = launch.request or settings.checkpoints or seen_by_all
    return request.model_copy(update={"settings": settings.model_copy(update={"checkpoints": place})})


def _run(
    request: TrainingRequest,
    launch: Launch,
    out: Path,
    progress: Callable[[TrainingProgress], None],
    interface: str = "",
    met: Meeting | None = None,
) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    request_at, progress_at, log_at = request_file(out), progress_file(out), log_file(out)
    progress_at.write_text("", encoding="utf-8")
    request_at.write_text(request.model_dump_json(), encoding="utf-8")
    with running(launch, 0, request_at, log_at, interface) as started:
        _follow(started, progress_at, progress, met.check if met else lambda: None)
    if started.returncode or not out.exists():
        if met and (lost := met.lost(_HEARD_S)):
            raise RuntimeError(f"{lost}; the training has ended on all machines, and goes on from its last checkpoint")
        raise RuntimeError(
            f"training by {launch.together} processes failed; the end of {log_at}:\n"
            f"{log_at.read_text(encoding='utf-8')[-2000:]}"
        )
    for path in (request_at, progress_at, log_at):
        path.unlink(missing_ok=True)


@contextmanager
def running(
    launch: Launch, node: int, request: Path, log_at: Path, interface: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """The processes of one machine, ended when the block is left, and by themselves where this process is killed."""
    with log_at.open("w", encoding="utf-8") as written:
        started = subprocess.Popen(
            command(launch, node, request),
            env={**environment(launch, interface), HELD: "1"},
            stdin=subprocess.PIPE,
            stdout=written,
            stderr=subprocess.STDOUT,
        )
        try:
            yield started
        finally:
            _end(started)


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


def environment(launch: Launch, interface: str = "") -> dict[str, str]:
    """The processes find the same modules as this one; those of one machine speak over the loopback alone, those of
    several over the interface by which the machines reach each other, unless the environment names one.
    """
    names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
    if launch.nodes == 1:
        speaks = dict.fromkeys(names, "lo")
    else:
        speaks = {name: os.environ.get(name, interface) for name in names if os.environ.get(name, interface)}
    # The search path of this process has leastwise on it, from a checkout or installed, wherever they start.
    path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
    modules = {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    return {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), **modules, **speaks}


def check(launch: Launch) -> None:
    """Raises BadInput where this machine has not what each of them needs."""
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


def _follow(
    started: subprocess.Popen[bytes],
    file: Path,
    progress: Callable[[TrainingProgress], None],
    check_others: Callable[[], None],
) -> None:
    rest = ""
    with file.open(encoding="utf-8") as lines:
        while True:
            ended = started.poll() is not None
            *whole, rest = (rest + lines.read()).split("\n")
            for line in whole:
                progress(TrainingProgress(**json.loads(line)))
            if ended:
                return
            check_others()
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
    with suppress(subprocess.TimeoutExpired):
        started.wait(_STOP_S)  # before psutil waits for it, after which its exit status is lost
    for process in psutil.wait_procs(alive, _STOP_S)[1]:
        process.kill()
    started.wait()
