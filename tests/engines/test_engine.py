"""Every engine behind one interface: names, health, counts, a drain that loses no answer, and an end."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from leastwise.endpoints.request import Endpoint, Message, Request, Target, request_key
from leastwise.engines.engine import AtWork, ToServe
from leastwise.engines.gguf import conversion
from leastwise.engines.llama_cpp import LlamaCpp
from tests.engines.test_gguf import adapter_on


def said_by(endpoint: Endpoint, text: str = "one two", tokens: int = 8, **more: Any) -> str:
    body = {"model": endpoint.model, "messages": [{"role": "user", "content": text}], "max_tokens": tokens}
    data = json.dumps(body | dict(endpoint.body) | {"temperature": 0} | more).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {endpoint.api_key}"}
    with urllib.request.urlopen(
        urllib.request.Request(f"{endpoint.base_url}/chat/completions", data, headers), timeout=60
    ) as answer:
        content = json.load(answer)["choices"][0]["message"]["content"]
    assert isinstance(content, str)
    return content


@pytest.fixture(scope="module")
def adapters(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters on the tiny model, as llama.cpp takes them."""
    import torch

    folder, made = tmp_path_factory.mktemp("adapters"), {}
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        made[name] = folder / f"{name}.gguf"
        conversion.convert_adapter(adapter_on(tiny, folder / name), tiny, made[name])
    return made


def test_llama_cpp_serves_several_adapters_at_once_each_as_it_answers_alone(
    tiny_gguf: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    (gguf,) = tiny_gguf.glob("*.gguf")
    alone = {}
    for name, kept in {"base": {}, "one": {"one": adapters["one"]}, "two": {"two": adapters["two"]}}.items():
        with LlamaCpp().serving(ToServe(str(gguf), "base", tmp_path / "log", kept)) as running:
            assert running.names == (name,), "with one adapter the model alone is not served"
            alone[name] = said_by(running.endpoint())
    assert len(set(alone.values())) == 3
    with LlamaCpp(parallel=2).serving(ToServe(str(gguf), "base", tmp_path / "log", adapters)) as running:
        assert running.names == ("base", "one", "two")
        with ThreadPoolExecutor(6) as pool:
            asked = [*running.names] * 3
            said = list(pool.map(lambda name: said_by(running.endpoint(name)), asked))
        assert said == [alone[name] for name in asked], "mixed in one batch"
        keys = {
            request_key(Target.served(running.endpoint(name), "u", "r"), Request("1", (Message("user", "x"),), 5))
            for name in running.names
        }
        assert len(keys) == 3, "an answer of one is never taken for another's"
        with pytest.raises(KeyError):
            running.endpoint("three")


def test_an_engine_counts_its_requests_and_tokens_and_a_drain_answers_what_it_has_and_lets_nothing_in(
    tiny_gguf: Path, tmp_path: Path
) -> None:
    (gguf,) = tiny_gguf.glob("*.gguf")
    with LlamaCpp().serving(ToServe(str(gguf), "base", tmp_path / "log")) as running:
        assert running.is_healthy() and running.at_work() == AtWork(0, 0, 0, 0)
        endpoint, text = running.endpoint(), "word " * 400
        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(said_by, endpoint, text + str(n), 700, ignore_eos=True) for n in range(3)]
            deadline = time.monotonic() + 20
            while (now := running.at_work()) is None or now.running + now.waiting < 3:
                assert time.monotonic() < deadline, now
            assert (now.running, now.waiting) == (1, 2)
            ended = threading.Thread(target=lambda: results.append(running.drain(60.0)))
            results: list[bool] = []
            ended.start()
            time.sleep(0.5)
            with pytest.raises((urllib.error.URLError, ConnectionError)):
                said_by(endpoint)
            assert all(len(each.result()) > 100 for each in asked)
            ended.join()
        assert results == [True]
        assert not running.is_healthy() and running.at_work() is None
        running.stop()
