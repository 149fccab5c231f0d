"""`residency` by packets: a climb that may speak to one host sends nothing anywhere else."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.machines import ELSEWHERE, Machine, machines, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")

MODEL = {"uri": "openai:m", "base_url": "http://provider:8000/v1", "venue": "api", "key_variable": "none"}

REPORTS_AFTER_S = 15.0  # by then ONNX Runtime 1.32 had looked its maker's host up, where it was let
STUDENT = f"""
import time
import torch
from transformers import BertConfig, BertModel
from leastwise.models.student_network import Network, in_onnx

sizes = dict(vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
network = Network(BertModel(BertConfig(**sizes)).eval(), torch.nn.Linear(32, 2).eval())
print(in_onnx(network, True, 1, quantized=False)([[1, 2, 3]]).shape)
time.sleep({REPORTS_AFTER_S})
"""


@pytest.fixture
def there(tmp_path: Path, empty_tracking: Path) -> Iterator[dict[str, Machine]]:
    data = tmp_path / "data"
    data.mkdir()
    texts = [f"text {i} says {('yes', 'no')[i % 2]}" for i in range(60)]
    rows = pd.DataFrame({"id": [f"r{i}" for i in range(60)], "text": texts, "label": [t.split()[-1] for t in texts]})
    rows[:20].to_parquet(data / "train.parquet")
    rows[20:].to_parquet(data / "gate.parquet")
    case = {
        "name": "stays",
        "task": {"instruction": "Yes or no?", "labels": ["yes", "no"]},
        "data": {"train": "train.parquet", "gate": "gate.parquet"},
        "requirements": {
            "quality": {"bound": 0.8, "margin": 0.3},
            "residency": {"venues": ["api"], "hosts": ["provider"]},
        },
        "traffic": {"requests_per_month": 1000},
        "models": {"candidates": [MODEL | {"price": {"input": 0.1, "cached": 0.01, "output": 0.4}}]},
        "retrieval": {"fixed_examples": 2},
        "allow_no_test": True,
        "alpha": 0.2,
    }
    (data / "case.yaml").write_text(yaml.safe_dump(case))
    with machines(["worker", "provider"], tmp_path / "machines", {}, {data: "/data"}) as made:
        shutil.copy(empty_tracking, made["worker"].state / "mlflow.db")  # setting one up takes seconds
        made["provider"].start(["python", "-m", "tests.servers.labelling_server", "0.0.0.0", "8000"], "provider")
        yield made


def test_a_climb_that_is_held_to_one_host_sends_not_one_packet_anywhere_else(there: dict[str, Machine]) -> None:
    worker, elsewhere = there["worker"], there[ELSEWHERE]
    _answers(there["provider"])
    done = worker.run(["python", "-m", "flows.customize", "/data/case.yaml"], timeout_s=300)
    ending = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, ending["outcome"]) == (0, "prompt"), done.stderr
    assert ending["calls_paid"] > 0
    assert elsewhere.packets() == []
    # What would have been seen: a name that is looked up, a connection that is tried.
    worker.run(["python", "-c", "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'?', ('192.0.2.1', 53))"])
    until = time.monotonic() + 20
    while not elsewhere.packets() and time.monotonic() < until:  # what it recorded is still being written
        time.sleep(0.1)
    (seen,) = elsewhere.packets()
    assert seen.startswith(f"{worker.address} -> 192.0.2.1:53 ")


def test_a_student_that_onnx_runtime_computes_reports_to_nobody_whatever_is_set_around_it(tmp_path: Path) -> None:
    with machines(["worker"], tmp_path / "machines", {}, {}) as there:
        done = there["worker"].run(["env", "-u", "ORT_DISABLE_TELEMETRY", "python", "-c", STUDENT])
        assert done.stdout.splitlines()[-1:] == ["(1, 2)"], done.stderr
        assert there[ELSEWHERE].packets() == []


def _answers(provider: Machine) -> None:
    until = time.monotonic() + 60
    asked = "import urllib.request as u; u.urlopen('http://provider:8000/', timeout=1)"
    while "404" not in provider.run(["python", "-S", "-c", asked]).stderr:
        assert time.monotonic() < until, provider.log("provider")
        time.sleep(0.3)
