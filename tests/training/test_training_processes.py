"""Several processes train what one would: each step's examples divided, a model in shards, machines that meet.

No GPU is here: the processes speak gloo on the processor. For shards accelerate is told that they are GPUs, else it
makes none.
"""

import json
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest
from pydantic import ValidationError

from leastwise.errors import BadInput
from leastwise.models.causal_model import tokenizer_of
from leastwise.models.chat import format_chat
from leastwise.progress import TrainingProgress
from leastwise.training.request import DevMetric, TrainingReport, TrainingRequest
from leastwise.training.settings import TrainingSettings
from leastwise.training.training import fine_tune
from leastwise.training.training_processes import command, environment, launched, request_file
from leastwise.training.training_rows import Row, encoded_row
from leastwise.use_case.task import Classification
from leastwise.use_case.training import Launch

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
SHARDED = """
import sys
from accelerate import PartialState
from accelerate.utils import DistributedType

started = PartialState.__init__

def as_if_gpus(self, *args, **kwargs):
    started(self, *args, **kwargs)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU

PartialState.__init__ = as_if_gpus

import leastwise.training.training
from leastwise.training.training_worker import main

gathered = leastwise.training.training.gathered

def checked(trainer, base, settings):
    trained = next(p for p in trainer.model.parameters() if p.requires_grad)
    assert trained.to_local().shape[0] * 2 == trained.shape[0], "each process holds half"
    return gathered(trainer, base, settings)

leastwise.training.training.gathered = checked
sys.exit(main())
"""


@pytest.fixture(scope="session")
def rows(tiny):
    texts = [(f"{word} number {n}", label) for n in range(8) for word, label in zip("abc", LABELS, strict=True)]
    return [Row(format_chat(tiny, [{"role": "user", "content": text}]), label) for text, label in texts]


@pytest.fixture(scope="session")
def metric(rows):
    return DevMetric(
        task=Classification(instruction="?", labels=LABELS),
        prompts=tuple(row.prompt for row in rows[:8]),
        expected=tuple(row.completion for row in rows[:8]),
        max_new_tokens=4,
    )


@pytest.fixture(scope="session")
def alone(tiny, rows, metric, tmp_path_factory):
    return fine_tune(tiny, rows, rows[:8], SETTINGS, tmp_path_factory.mktemp("alone") / "adapter", None, metric)


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
    assert several.reload_difference == 0.0


def together(**launch) -> TrainingSettings:
    return SETTINGS.model_copy(update={"launch": Launch(**launch)})


def free_port() -> int:
    import socket

    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


def left_running(out: Path) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if str(request_file(out)) in (p.info["cmdline"] or [])]


def kill_once_there_is_a_checkpoint(tiny: Path, rows: list[Row], metric: DevMetric, out: Path) -> None:
    """A command that trains by two processes is killed with SIGKILL; they end too."""
    script = out.parent.parent / "train.py"
    script.write_text(
        "from pathlib import Path\n"
        "from leastwise.training.training import *\nfrom leastwise.training.training_rows import Row\n"
        f"rows = [Row(*pair) for pair in {[(row.prompt, row.completion) for row in rows]!r}]\n"
        f"settings = TrainingSettings.model_validate_json({together(processes=2).model_dump_json()!r})\n"
        f"metric = DevMetric.model_validate_json({metric.model_dump_json()!r})\n"
        f"fine_tune(Path({str(tiny)!r}), rows, rows[:8], settings, Path({str(out)!r}), None, metric)\n"
    )
    elsewhere = {**environment(Launch()), "PYTHONPATH": str(ROOT)}  # the processes are started away from the checkout
    child = subprocess.Popen([sys.executable, script], env=elsewhere, cwd=script.parent)
    deadline = time.monotonic() + 120
    while not list(out.parent.glob("*.unfinished/checkpoint-*/trainer_state.json")) and time.monotonic() < deadline:
        assert child.poll() is None
        time.sleep(0.02)
    child.kill()
    child.wait()
    deadline = time.monotonic() + 20
    while left := left_running(out):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    assert not out.exists()


@pytest.mark.soak
def test_two_processes_take_the_steps_of_one_and_go_on_after_a_kill_as_two_machines(
    tiny, rows, metric, alone, tmp_path
):
    (tmp_path / "made").mkdir()
    out, seen = tmp_path / "made" / "adapter", []
    kill_once_there_is_a_checkpoint(tiny, rows, metric, out)
    settings = together(nodes=2, meet_at=f"127.0.0.1:{free_port()}")
    found = []
    first = threading.Thread(
        target=lambda: found.append(fine_tune(tiny, rows, rows[:8], settings, out, seen.append, metric))
    )
    before = request_file(out).stat().st_mtime_ns
    first.start()
    while request_file(out).stat().st_mtime_ns == before:
        assert first.is_alive()
    subprocess.run(
        [sys.executable, "-m", "leastwise.training.training_worker", request_file(out), "--join", "1"],
        cwd=ROOT,
        check=True,
        timeout=120,
        env=environment(Launch()),
    )
    first.join()
    assert found[0].resumed_from_step >= 1 and seen[0].step == found[0].resumed_from_step + 1
    the_same(alone, found[0])
    assert [path.name for path in out.parent.iterdir()] == [out.name], "request, progress, log and checkpoints are gone"


@pytest.mark.soak
def test_a_model_in_shards_is_trained_measured_and_gathered_as_a_whole_one(tiny, rows, metric, alone, tmp_path):
    encoded = [encoded_row(tokenizer_of(str(tiny)), row, at, 512) for at, row in enumerate(rows)]
    launch = Launch(processes=2, shard=True)
    request = TrainingRequest(
        base=tiny,
        encoded=encoded,
        watched=encoded[:8],
        settings=SETTINGS.model_copy(update={"launch": launch}),
        dev_metric=metric,
    )
    asked = request_file(tmp_path / "adapter")
    (tmp_path / "worker.py").write_text(SHARDED)
    asked.write_text(request.model_dump_json())
    told = command(launch, 0, asked)
    told[told.index("-m", 3) : told.index("leastwise.training.training_worker") + 1] = [str(tmp_path / "worker.py")]
    done = subprocess.run(
        told,
        cwd=ROOT,
        env={**environment(launch), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    the_same(alone, TrainingReport.model_validate_json((tmp_path / "adapter" / "training.json").read_text()))


def test_what_cannot_be_shared_is_refused_before_anything_starts(tiny, rows, tmp_path):
    with pytest.raises(BadInput, match="8 examples a step cannot be shared by 3 processes"):
        fine_tune(tiny, rows, [], together(processes=3), tmp_path / "a")
    with pytest.raises(BadInput, match=r"training\.launch\.shard"):
        fine_tune(tiny, rows, [], together(processes=2, shard=True), tmp_path / "b")
    with pytest.raises(ValidationError, match="meet_at"):
        Launch(nodes=2)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def standing_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Starts a program of the test's in place of the training processes."""

    def stand_in(program: str) -> TrainingRequest:
        monkeypatch.setattr(
            "leastwise.training.training_processes.command",
            lambda launch, node, asked: [sys.executable, "-c", program, str(asked)],
        )
        row = {"input_ids": [1, 2], "labels": [-100, 2]}
        return TrainingRequest(base=Path("/nowhere"), encoded=[row], watched=[], settings=SETTINGS)

    return stand_in


def test_a_process_that_fails_is_an_error_with_the_end_of_its_log(standing_in, tmp_path):
    request = standing_in("raise SystemExit('out of memory')")
    with pytest.raises(RuntimeError, match=r"(?s)training by 2 processes failed.*adapter\.log.*out of memory"):
        launched(request, Launch(processes=2), tmp_path / "adapter", lambda progress: None)


def test_what_progress_raises_ends_the_processes(standing_in, tmp_path):
    """As a budget does that is spent."""
    first = TrainingProgress(1, 4, 2.5, 0.5, 1.5)
    request = standing_in(
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', sys.argv[1]])\n"
        f"open(sys.argv[1].replace('.request.json', '.progress'), 'a').write({json.dumps(asdict(first))!r} + '\\n')\n"
        "time.sleep(600)\n"
    )

    def spent(progress):
        assert progress == first and len(left_running(tmp_path / "adapter")) == 2
        raise RuntimeError("the budget is spent")

    with pytest.raises(RuntimeError, match="the budget is spent"):
        launched(request, Launch(processes=2), tmp_path / "adapter", spent)
    assert not left_running(tmp_path / "adapter")
