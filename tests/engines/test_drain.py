"""A drain answers what is in flight and lets nothing in; somebody else's endpoint goes on as it was."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from leastwise.endpoints.request import Endpoint
from leastwise.endpoints.student import ask_student
from leastwise.engines.endpoint import ForeignEndpoint
from leastwise.engines.engine import Running, ToServe
from leastwise.engines.mlflow_server import MlflowServer
from leastwise.errors import BadInput
from tests.engines.test_engine import said_by

SLOW = """
import time
from pathlib import Path

import mlflow
from mlflow.pyfunc import PythonModel


class Slow(PythonModel):
    def predict(self, context, model_input: list[str], params=None) -> list[int]:
        for text in model_input:
            if text.startswith("/"):
                Path(text).touch()
                time.sleep(3.0)
        return [len(text) for text in model_input]


mlflow.models.set_model(Slow())
"""


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that takes three seconds for the path of a file, which it touches when it begins."""
    import mlflow

    folder = tmp_path_factory.mktemp("slow")
    (folder / "slow.py").write_text(SLOW)
    mlflow.pyfunc.save_model(folder / "model", python_model=str(folder / "slow.py"), pip_requirements=["mlflow"])
    return str(folder / "model")


def in_flight(pool: ThreadPoolExecutor, endpoint: Endpoint, begun: Path) -> Future[tuple[int, ...]]:
    """A request that its server has begun to answer."""
    asked = pool.submit(lambda: ask_student(endpoint, [str(begun)]).predictions)
    deadline = time.monotonic() + 20
    while not begun.exists():
        assert time.monotonic() < deadline and not asked.done()
        time.sleep(0.02)
    return asked


def test_mlflows_server_drained_answers_what_it_has_refuses_the_next_and_leaves_no_process(
    slow: str, tmp_path: Path
) -> None:
    with MlflowServer().serving(ToServe(slow, "student", tmp_path / "log", threads=1)) as running:
        endpoint, drained = running.endpoint(), list[bool]()
        assert running.is_healthy() and running.at_work() is None, "MLflow counts nothing"
        family = psutil.Process(endpoint.pid).children(recursive=True)
        with ThreadPoolExecutor(1) as pool:
            asked = in_flight(pool, endpoint, tmp_path / "begun")
            ending = threading.Thread(target=lambda: drained.append(running.drain(30.0)))
            ending.start()
            time.sleep(1.0)
            assert not asked.done() and not drained, "the drain waits for it"
            with pytest.raises((ConnectionError, urllib.error.URLError, RuntimeError)):
                ask_student(endpoint, ["new"])
            assert asked.result() == (len(str(tmp_path / "begun")),)
            ending.join()
        assert drained == [True] and not running.is_healthy()
        assert family
        assert not [each for each in family if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
        running.stop()


def test_a_drain_without_the_time_for_what_is_in_flight_says_so_and_cuts_nothing_off(slow: str, tmp_path: Path) -> None:
    with MlflowServer().serving(ToServe(slow, "student", tmp_path / "log", threads=1)) as running:
        with ThreadPoolExecutor(1) as pool:
            asked = in_flight(pool, running.endpoint(), tmp_path / "begun")
            assert running.drain(0.5) is False and not asked.done()
            assert asked.result() == (len(str(tmp_path / "begun")),)
        assert running.drain(30.0), "asked again, once it is done"


class Somebody(BaseHTTPRequestHandler):
    """Somebody else's server: lists a model, and takes a second for what is slow."""

    def do_GET(self) -> None:
        self._say({"data": [{"id": "theirs"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][0]["content"]
        if text == "slow":
            self.server.begun.set()  # type: ignore[attr-defined]  # of the fixture
            time.sleep(1.0)
        self._say({"choices": [{"message": {"content": f"they say {text}"}}]})

    def _say(self, content: dict) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def somebody() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Somebody)
    server.begun = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_somebody_elses_endpoint_is_left_as_it_is_by_a_drain_and_by_its_end(
    somebody: ThreadingHTTPServer, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{somebody.server_address[1]}/v1"
    what = ToServe("", "theirs", tmp_path / "log")
    with ForeignEndpoint(url).serving(what) as running, ThreadPoolExecutor(1) as pool:
        kept: Running = running
        assert kept.names == ("theirs",) and kept.is_healthy() and kept.at_work() is None
        asked = pool.submit(said_by, kept.endpoint(), "slow")
        assert somebody.begun.wait(10)  # type: ignore[attr-defined]
        assert kept.drain(5.0), "there is nothing of ours to wait for"
        assert said_by(kept.endpoint(), "new") == "they say new", "it takes what others ask"
        assert asked.result() == "they say slow", "and what was in flight is not cut off"
        kept.stop()
    assert kept.is_healthy()
    with pytest.raises(KeyError):
        kept.endpoint("another")
    with pytest.raises(BadInput, match="serves none of our adapters"):
        ForeignEndpoint(url).serving(ToServe("", "theirs", tmp_path / "log", {"a": tmp_path})).__enter__()
