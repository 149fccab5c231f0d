"""What several processes and machines trained is what one would have: tensor by tensor, in copies and in shards.

No GPU is here: the processes speak gloo on the processor. For shards accelerate is told that they are GPUs, else it
makes none.
"""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from leastwise.stores import storage
from leastwise.training.request import DevMetric, TrainingReport
from leastwise.training.training import fine_tune
from leastwise.training.training_processes import environment
from leastwise.training.training_rows import Row
from leastwise.use_case.training import Launch
from tests.servers.s3_server import S3
from tests.training.together import AS_IF_GPUS, LETS_SHARD, ROOT, first_machine, free_port, machine, the_same, together

APART = """
import json, os, sys
import torch
from accelerate import PartialState
from leastwise.training.causal.replicas import difference

PartialState(cpu=True)
second = os.environ["RANK"] == "1"

def said(change):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3).to(torch.float32)
    model.coarse = torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    model.frozen = torch.nn.Parameter(torch.zeros(2), requires_grad=False)
    if second:
        with torch.no_grad():
            change(model)
    try:
        return difference(model)
    except RuntimeError as error:
        return str(error)

found = [
    said(lambda model: None),
    said(lambda model: model.frozen.add_(1)),
    said(lambda model: model.bias.mul_(1 + 1e-6)),
    said(lambda model: model.weight[0].add_(0.1)),
    said(lambda model: model.coarse.mul_(float("nan"))),
]
open(os.path.join(sys.argv[1], os.environ["RANK"]), "w").write(json.dumps(found))
PartialState().destroy_process_group()
"""


def test_processes_that_trained_apart_are_refused_and_what_rounds_otherwise_is_told(tmp_path):
    program = tmp_path / "apart.py"
    program.write_text(APART)
    launch = "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program), str(tmp_path)
    own = {**environment(Launch()), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *launch], env=own, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    of_both = [json.loads((tmp_path / rank).read_text()) for rank in "01"]
    assert of_both[0] == of_both[1], "all end alike"
    same, frozen, rounded, moved, no_number = of_both[0]
    assert same == frozen == 0.0 and 0 < rounded < 1e-5
    assert "trained apart: weight differs" in moved and "trained apart: coarse differs by nan" in no_number


def further(one: Path, other: Path) -> float:
    """How far two adapters are apart, as a share of how long what was trained is."""
    some, others = (load_file(folder / "adapter_model.safetensors") for folder in (one, other))
    assert some.keys() == others.keys() and len(some) == 28
    apart = sum(float((tensor.double() - others[name].double()).square().sum()) for name, tensor in some.items())
    return (apart / sum(float(tensor.double().square().sum()) for tensor in some.values())) ** 0.5


@pytest.mark.soak
def test_two_processes_train_the_weights_of_one(tiny, rows, metric, alone_at, alone, tmp_path):
    report = fine_tune(tiny, rows, rows[:8], together(processes=2), tmp_path / "made", None, metric)
    the_same(alone, report)
    assert further(alone_at, tmp_path / "made") < 1e-2


class Two:
    """Two machines that have nothing in common but S3, and what they train."""

    def __init__(self, folder: Path, server: S3, asked: tuple[Path, list[Row], DevMetric], shard: bool) -> None:
        self.folder, self.server, self.asked = folder, server, asked
        self.place, self.begins = f"s3://{server.bucket}/{folder.name}", LETS_SHARD if shard else ""
        self.launch = Launch(nodes=2, meet_at=f"127.0.0.1:{free_port()}", request=self.place, shard=shard)
        if shard:
            (folder / "sitecustomize.py").write_text(AS_IF_GPUS)
        (folder / "join.py").write_text(
            f"{self.begins}import sys\nfrom leastwise.training import training_worker\n"
            "sys.exit(training_worker.main())\n"
        )

    @property
    def made(self) -> Path:
        return self.folder / "one" / "adapters" / "made"

    def start(self) -> tuple[subprocess.Popen[str], subprocess.Popen[str]]:
        paths = (self.folder,)
        first = first_machine(self.folder / "one", self.server, *self.asked, self.launch, self.begins, paths)
        joins = str(self.folder / "join.py"), self.place, "--join", "1"
        return first, machine(self.folder / "other", self.server, *joins, paths=paths)

    def train(self) -> TrainingReport:
        first, other = self.start()
        said, errors = first.communicate(timeout=300)
        assert first.returncode == 0, errors
        assert other.wait(timeout=60) == 0, other.stderr and other.stderr.read()
        return TrainingReport.model_validate_json(said.splitlines()[-1])


@pytest.mark.soak
@pytest.mark.parametrize("shard", [False, True], ids=["copies", "shards"])
def test_two_machines_train_the_weights_of_one(tiny, rows, metric, alone_at, alone, server, tmp_path, shard):
    two = Two(tmp_path, server, (tiny, rows, metric), shard)
    the_same(alone, two.train())
    assert further(alone_at, two.made) < 1e-2


@pytest.mark.soak
def test_a_model_in_shards_over_two_machines_goes_on_after_a_kill(
    tiny, rows, metric, alone_at, alone, server, monkeypatch, tmp_path
):
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    two = Two(tmp_path, server, (tiny, rows, metric), shard=True)
    first, other = two.start()
    deadline = time.monotonic() + 600
    while not any(re.search(r"/checkpoint-\d+\.json$", at) for at in storage.files_below(f"{two.place}/{alone.key}")):
        assert first.poll() is None and other.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    other.kill()
    assert first.wait(timeout=120) != 0, "the first ends too"
    shutil.rmtree(tmp_path / "other")
    report = two.train()
    assert report.resumed_from_step >= 1
    the_same(alone, report)
    assert further(alone_at, two.made) < 1e-2
