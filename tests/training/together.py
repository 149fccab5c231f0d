"""Trainings by several processes and machines: a command of their own each, and what is equal then."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from leastwise.training.request import TrainingReport
from leastwise.training.settings import TrainingSettings
from leastwise.training.training_processes import environment
from leastwise.use_case.training import Launch
from tests.servers.s3_server import S3

ROOT = Path(__file__).parents[2]
LABELS = ("discovery", "impact", "exfiltration")
SETTINGS = TrainingSettings(
    batch_size=8,
    epochs=10,
    max_examples=64,
    learning_rate=1e-3,
    upper_blocks_share=1.0,
    threads=2,
    rank=32,
    alpha=64,
    save_every_share=0.01,
    eval_every_share=0.5,
)
# Read by Python itself when a process starts, wherever torch's launcher starts it. accelerate shards over GPUs alone.
AS_IF_GPUS = """
import os

if "RANK" in os.environ:
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    started = PartialState.__init__

    def as_if_gpus(self, *args, **kwargs):
        started(self, *args, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = as_if_gpus

    import leastwise.training.training

    gathered = leastwise.training.training.gathered

    def checked(trainer, base, settings):
        trained = next(p for p in trainer.model.parameters() if p.requires_grad)
        assert trained.to_local().shape[0] * 2 == trained.shape[0], "each process holds half"
        return gathered(trainer, base, settings)

    leastwise.training.training.gathered = checked
    made = leastwise.training.training.trainable_model

    def read_by_the_first_alone(*args):
        model = made(*args)
        held = [p for p in model.parameters() if not p.requires_grad and not p.is_meta]
        assert bool(held) == (os.environ["RANK"] == "0"), "the others are sent their shards"
        return model

    leastwise.training.training.trainable_model = read_by_the_first_alone
"""
# A machine's own command, that takes processors for GPUs.
LETS_SHARD = "from leastwise.training import training_processes, training_worker as own\n"
LETS_SHARD += "training_processes.check = own.check = lambda launch: None\n"


def the_same(one: TrainingReport, several: TrainingReport) -> None:
    assert (one.key, one.steps, one.examples, one.trainable_share) == (
        several.key,
        several.steps,
        several.examples,
        several.trainable_share,
    )
    assert several.train_losses == pytest.approx(one.train_losses, rel=5e-3)
    assert several.dev_losses == pytest.approx(one.dev_losses, rel=2e-2), (
        "a mean over processes weighs tokens a little otherwise"
    )
    assert several.reload_difference == several.replica_difference == 0.0


def together(**launch) -> TrainingSettings:
    return SETTINGS.model_copy(update={"launch": Launch(**launch)})


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


def machine(home: Path, server: S3, *words: str, paths: tuple[Path, ...] = (), **started) -> subprocess.Popen[str]:
    """A process that has a state directory of its own and nothing in common with others but the address of S3."""
    home.mkdir(exist_ok=True)
    modules = ":".join(map(str, (*paths, ROOT)))
    own = {**environment(Launch()), **server.environment(), "LEASTWISE_HOME": str(home), "PYTHONPATH": modules}
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        own.pop(name)
    return subprocess.Popen([sys.executable, *words], cwd=home, env=own, text=True, stderr=subprocess.PIPE, **started)


def first_machine(
    home: Path, server: S3, tiny, rows, metric, launch: Launch, begins: str = "", paths: tuple[Path, ...] = ()
) -> subprocess.Popen[str]:
    """It trains by its own command, as a flow's worker does."""
    home.mkdir(exist_ok=True)
    (home / "train.py").write_text(
        f"{begins}from pathlib import Path\n"
        "from leastwise.training.training import *\nfrom leastwise.training.training_rows import Row\n"
        f"rows = [Row(*pair) for pair in {[(row.prompt, row.completion) for row in rows]!r}]\n"
        f"settings = TrainingSettings.model_validate_json({together(**launch.model_dump()).model_dump_json()!r})\n"
        f"metric = DevMetric.model_validate_json({metric.model_dump_json()!r})\n"
        f"report = fine_tune(Path({str(tiny)!r}), rows, rows[:8], settings, Path('adapters/made'), None, metric)\n"
        "print(report.model_dump_json())\n"
    )
    return machine(home, server, "train.py", paths=paths, stdout=subprocess.PIPE)
