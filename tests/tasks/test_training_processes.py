"""Several processes train what one would: each step's examples divided, a model in shards, machines that meet over the network.

No GPU is here: the processes speak gloo on the processor. For shards accelerate is told that they are GPUs, else it makes none.
"""

import json
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from pydantic import ValidationError

from leastwise.errors import BadInput
from leastwise.settings import Launch
from leastwise.task import Classification
from tasks.causal_model import tokenizer_of
from tasks.dev_metric import DevMetric
from tasks.training import Request, TrainingReport, TrainingSettings, fine_tune
from tasks.training_processes import ROOT, command, environment, launched, request_file
from tasks.training_rows import Row, encoded_row, format_chat

LABELS = ("discovery", "impact", "exfiltration")
SETTINGS = TrainingSettings(batch_size=8, epochs=10, max_examples=64, learning_rate=1e-3, upper_blocks_share=1.0, threads=2, rank=32,
                            alpha=64, save_every_share=0.01, eval_every_share=0.5)  # fmt: skip
SHARDED = '''
import sys
from accelerate import PartialState
from accelerate.utils import DistributedType

started = PartialState.__init__

def as_if_gpus(self, *args, **kwargs):
    started(self, *args, **kwargs)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU

PartialState.__init__ = as_if_gpus

import tasks.training
from tasks.training_worker import main

gathered = tasks.training.gathered

def checked(trainer, base, settings):
    trained = next(p for p in trainer.model.parameters() if p.requires_grad)
    assert trained.to_local().shape[0] * 2 == trained.shape[0], "each process holds half"
    return gathered(trainer, base, settings)

tasks.training.gathered = checked
sys.exit(main())
'''


@pytest.fixture(scope="session")
def rows(tiny):
    texts = [(f"{word} number {n}", label) for n in range(8) for word, label in zip("abc", LABELS, strict=True)]
    return [Row(format_chat(tiny, [{"role": "user", "content": text}]), label) for text, label in texts]


@pytest.fixture(scope="session")
def metric(rows):
    return DevMetric(
        task=Classification(instruction="?", labels=LABELS), prompts=tuple(row.prompt for row in rows[:8]),
        expected=tuple(row.completion for row in rows[:8]), max_new_tokens=4,
    )  # fmt: skip


@pytest.fixture(scope="session")
def alone(tiny, rows, metric, tmp_path_factory):
    return fine_tune(tiny, rows, rows[:8], SETTINGS, tmp_path_factory.mktemp("alone") / "adapter", None, metric)


def the_same(one: TrainingReport, several: TrainingReport) -> None:
    assert (one.key, one.steps, one.examples, one.trainable_share) == (several.key, several.steps, several.examples, several.trainable_share)
    assert several.train_losses == pytest.approx(one.train_losses, rel=5e-3)
    assert several.dev_losses == pytest.approx(one.dev_losses, rel=2e-2), "a mean over processes weighs tokens a little otherwise"
    assert several.reload_difference == 0.0


def together(**launch) -> TrainingSettings:
    return SETTINGS.model_copy(update={"launch": Launch(**launch)})


def free_port() -> int:
    import socket

    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


def test_two_processes_take_the_steps_of_one_and_two_machines_go_on_where_they_were_stopped(tiny, rows, metric, alone, tmp_path):
    out, seen = tmp_path / "adapter", []

    def stop(progress):
        seen.append(progress)
        if progress.step >= 3:
            raise RuntimeError("the budget is spent")

    with pytest.raises(RuntimeError, match="the budget is spent"):
        fine_tune(tiny, rows, rows[:8], together(processes=2), out, stop, metric)
    assert not out.exists() and seen[0].step == 1 and seen[0].loss == pytest.approx(alone.train_losses[0], rel=5e-3)
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(request_file(out)) in (p.info["cmdline"] or [])], "none is left running"

    settings = together(nodes=2, meet_at=f"127.0.0.1:{free_port()}")
    found = []
    first = threading.Thread(target=lambda: found.append(fine_tune(tiny, rows, rows[:8], settings, out, None, metric)))
    before = request_file(out).stat().st_mtime_ns
    first.start()
    while request_file(out).stat().st_mtime_ns == before:
        assert first.is_alive()
    subprocess.run([sys.executable, "-m", "tasks.training_worker", request_file(out), "--join", "1"], cwd=ROOT, check=True, timeout=120,
                   env=environment(Launch()))  # fmt: skip
    first.join()
    assert found[0].resumed_from_step >= 3
    the_same(alone, found[0])
    assert [path.name for path in tmp_path.iterdir()] == [out.name], "request, progress, log and checkpoints are gone"


def test_a_model_in_shards_is_trained_measured_and_gathered_as_a_whole_one(tiny, rows, metric, alone, tmp_path):
    encoded = [encoded_row(tokenizer_of(str(tiny)), row, at, 512) for at, row in enumerate(rows)]
    launch = Launch(processes=2, shard=True)
    request = Request(base=tiny, encoded=encoded, watched=encoded[:8], settings=SETTINGS.model_copy(update={"launch": launch}),
                      out=tmp_path / "adapter", dev_metric=metric)  # fmt: skip
    (tmp_path / "worker.py").write_text(SHARDED)
    (tmp_path / "request.json").write_text(request.model_dump_json())
    told = command(launch, 0, tmp_path / "request.json")
    told[told.index("-m", 3) : told.index("tasks.training_worker") + 1] = [str(tmp_path / "worker.py")]
    done = subprocess.run(told, cwd=ROOT, env={**environment(launch), "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]
    the_same(alone, TrainingReport.model_validate_json((request.out / "training.json").read_text()))


def test_what_cannot_be_shared_is_refused_before_anything_starts(tiny, rows, tmp_path):
    with pytest.raises(BadInput, match="8 examples a step cannot be shared by 3 processes"):
        fine_tune(tiny, rows, [], together(processes=3), tmp_path / "a")
    with pytest.raises(BadInput, match=r"training\.launch\.shard"):
        fine_tune(tiny, rows, [], together(processes=2, shard=True), tmp_path / "b")
    with pytest.raises(ValidationError, match="meet_at"):
        Launch(nodes=2)
    assert not list(tmp_path.iterdir())


def test_a_process_that_fails_is_an_error_with_the_end_of_its_log(tiny, tmp_path):
    request = Request(base=Path("/nowhere"), encoded=[{"input_ids": [1, 2], "labels": [-100, 2]}], watched=[], settings=together(processes=2),
                      out=tmp_path / "adapter")  # fmt: skip
    with pytest.raises(RuntimeError, match=r"(?s)training by 2 processes failed.*adapter\.log"):
        launched(request, Launch(processes=2), request.out, lambda progress: None)
    assert json.loads(request_file(request.out).read_text())["base"] == "/nowhere"
