"""Several processes train what one would: each step's examples divided, a model in shards, machines that meet.

No GPU is here: the processes speak gloo on the processor. For shards accelerate is told that they are GPUs, else it
makes none.
"""

import json
import re
import shutil
import subprocess
import sys
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
from leastwise.stores import storage
from leastwise.training.request import DevMetric, TrainingReport, TrainingRequest
from leastwise.training.settings import TrainingSettings
from leastwise.training.training import fine_tune
from leastwise.training.training_processes import command, environment, launched, request_file
from leastwise.training.training_rows import Row, encoded_row
from leastwise.use_case.task import Classification
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
SHARDED = """
import os
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
made = leastwise.training.training.trainable_model

def read_by_the_first_alone(*args):
    model = made(*args)
    held = [p for p in model.parameters() if not p.requires_grad and not p.is_meta]
    assert bool(held) == (os.environ["RANK"] == "0"), "the others are sent their shards"
    return model

leastwise.training.training.trainable_model = read_by_the_first_alone
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


def machine(home: Path, server: S3, *words: str, **started) -> subprocess.Popen[str]:
    """A process that has a state directory of its own and nothing in common with others but the address of S3."""
    home.mkdir(exist_ok=True)
    own = {**environment(Launch()), **server.environment(), "LEASTWISE_HOME": str(home), "PYTHONPATH": str(ROOT)}
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        own.pop(name)
    return subprocess.Popen([sys.executable, *words], cwd=home, env=own, text=True, stderr=subprocess.PIPE, **started)


def first_machine(home: Path, server: S3, tiny, rows, metric, launch: Launch) -> subprocess.Popen[str]:
    """It trains by its own command, as a flow's worker does."""
    home.mkdir(exist_ok=True)
    (home / "train.py").write_text(
        "from pathlib import Path\n"
        "from leastwise.training.training import *\nfrom leastwise.training.training_rows import Row\n"
        f"rows = [Row(*pair) for pair in {[(row.prompt, row.completion) for row in rows]!r}]\n"
        f"settings = TrainingSettings.model_validate_json({together(**launch.model_dump()).model_dump_json()!r})\n"
        f"metric = DevMetric.model_validate_json({metric.model_dump_json()!r})\n"
        f"report = fine_tune(Path({str(tiny)!r}), rows, rows[:8], settings, Path('adapters/made'), None, metric)\n"
        "print(report.model_dump_json())\n"
    )
    return machine(home, server, "train.py", stdout=subprocess.PIPE)


@pytest.mark.soak
def test_the_processes_of_one_machine_end_with_the_command_that_started_them_and_a_new_one_goes_on(
    tiny, rows, metric, alone, server, tmp_path
):
    home = tmp_path / "one"
    out = home / "adapters" / "made"
    first = first_machine(home, server, tiny, rows, metric, Launch(processes=2))
    deadline = time.monotonic() + 120
    while not list(out.parent.glob("*.unfinished/checkpoint-*/trainer_state.json")):
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    assert len(left_running(Path("adapters/made"))) >= 2
    first.kill()
    first.wait()
    deadline = time.monotonic() + 20
    while left := left_running(Path("adapters/made")):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    assert not out.exists()
    said, errors = first_machine(home, server, tiny, rows, metric, Launch(processes=2)).communicate(timeout=120)
    report = TrainingReport.model_validate_json(said.splitlines()[-1])
    assert report.resumed_from_step >= 1, errors
    the_same(alone, report)


@pytest.mark.soak
@pytest.mark.parametrize("dies", ["first", "other"])
def test_two_machines_with_nothing_in_common_but_s3_take_the_steps_of_one_and_go_on_after_a_kill(
    tiny, rows, metric, alone, server, monkeypatch, tmp_path, dies
):
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    place = f"s3://{server.bucket}/trainings-{dies}"
    launch = Launch(nodes=2, meet_at=f"127.0.0.1:{free_port()}", request=place)
    homes = tmp_path / "one", tmp_path / "other"
    joins = "-m", "leastwise.training.training_worker", place, "--join", "1"

    def start() -> tuple[subprocess.Popen[str], subprocess.Popen[str]]:
        return first_machine(homes[0], server, tiny, rows, metric, launch), machine(homes[1], server, *joins)

    first, other = start()
    put = f"{place}/{alone.key}"
    deadline = time.monotonic() + 120
    while not any(re.search(r"/checkpoint-\d+\.json$", name) for name in storage.files_below(put)):
        assert first.poll() is None and other.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    killed, left = (first, other) if dies == "first" else (other, first)
    killed.kill()
    assert left.wait(timeout=60) != 0, "the others end too"
    said = left.stderr.read()
    assert ("machine 1" in said and "is gone" in said) if dies == "other" else "the first machine is gone" in said

    if dies == "first":  # its worker is another machine now, and has nothing
        shutil.rmtree(homes[0])
    shutil.rmtree(homes[1])
    first, other = start()
    out, errors = first.communicate(timeout=120)
    assert first.returncode == 0, errors
    assert other.wait(timeout=60) == 0, other.stderr.read()
    report = TrainingReport.model_validate_json(out.splitlines()[-1])
    assert report.resumed_from_step >= 1
    the_same(alone, report)
    assert [path.name for path in (homes[0] / "adapters").iterdir()] == ["made"], "nothing else is left"
    assert not list((homes[1] / "joined").iterdir())
    there = {name.partition("/trainings-")[2].partition("/")[2] for name in storage.files_below(place)}
    assert there and all(name.startswith("bases/") for name in there), "the base stays for the next training"


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
