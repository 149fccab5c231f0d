"""vLLM behind our gateway: what is let through to it, what it is told and not told, and how it ends.

A process with its surface stands in for it (`stand_in_vllm.py`); what it computes is looked at with vLLM itself in
`test_vllm_itself.py`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from leastwise.endpoints.request import Endpoint, Target
from leastwise.engines.engine import AtWork, Running, ToServe
from leastwise.engines.processes import StartError
from leastwise.engines.vllm import settings as vllm_settings
from leastwise.engines.vllm.command import command_of
from leastwise.engines.vllm.servable import architectures, check_adapter, refusal_of
from leastwise.engines.vllm.server import Vllm
from leastwise.engines.vllm.settings import VllmSettings
from leastwise.errors import BadInput
from leastwise.models.machine import THREADS
from tests.engines.test_engine import said_by

ROOT = Path(__file__).parents[2]
REGISTRY = """
_TEXT_GENERATION_MODELS = {
    # [Decoder-only]
    "LlamaForCausalLM": ("llama", "LlamaForCausalLM"),
    "NewForCausalLM": ("new", "NewForCausalLM"),
}
_EMBEDDING_MODELS = {"BertModel": ("bert", "BertEmbeddingModel")}
_MULTIMODAL_MODELS: dict = {"Gemma3ForConditionalGeneration": ("gemma3_mm", "Gemma3ForConditionalGeneration")}
"""


def stand_in(folder: Path) -> Path:
    """The command `vllm` of an environment laid out as pip lays one out."""
    command = folder / "bin" / "vllm"
    command.parent.mkdir(parents=True)
    command.write_text(f"#!{sys.executable}\n" + (Path(__file__).parent / "stand_in_vllm.py").read_text())
    command.chmod(0o755)
    registry = folder / "lib/python3.11/site-packages/vllm/model_executor/models/registry.py"
    registry.parent.mkdir(parents=True)
    registry.write_text(REGISTRY)
    return command


def adapter_folder(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 12, "bias": "none"} | config))
    (folder / "adapter_model.safetensors").touch()
    return folder


def model_folder(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True)
    described = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 2048} | config
    (folder / "config.json").write_text(json.dumps(described))
    return folder


@pytest.fixture(scope="module")
def executable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stand_in(tmp_path_factory.mktemp("environment"))


@pytest.fixture(scope="module")
def what(tmp_path_factory: pytest.TempPathFactory) -> ToServe:
    folder = tmp_path_factory.mktemp("vllm")
    adapters = {name: adapter_folder(folder / name) for name in ("one", "two")}
    return ToServe(str(model_folder(folder / "model")), "base", folder / "log", adapters, context_tokens=1024)


@pytest.fixture(scope="module")
def noted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the stand-in writes what happens; around it are keys that are nobody's business."""
    file = tmp_path_factory.mktemp("noted") / "lines"
    given = {
        "STAND_IN_LOG": str(file),
        "OPENAI_API_KEY": "sk-ours",
        "LEASTWISE_STATE": "postgresql://u:pw-ours@db/leastwise",
        "PREFECT_SERVER_API_AUTH_STRING": "admin:pw-ours",
        "HTTPS_PROXY": "http://user:pw-ours@proxy:3128",
        "PYTHONPATH": "/ours",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
    }
    before = dict(os.environ)
    os.environ.update(given)
    yield file
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def running(executable: Path, what: ToServe, noted: Path) -> Iterator[Running]:
    with Vllm(VllmSettings(executable=executable, device="cpu")).serving(what) as served:
        yield served


def lines(noted: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in noted.read_text().splitlines()]


def status(url: str, key: str = "", method: str = "GET", body: bytes | None = None) -> int:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method), timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_model_and_every_adapter_answer_by_name_and_are_counted(running: Running) -> None:
    assert running.names == ("base", "one", "two") and running.is_healthy()
    before = running.at_work()
    for name in running.names:
        assert said_by(running.endpoint(name), "hello") == f"{name} says hello"
    assert before is not None
    assert running.at_work() == AtWork(0, 0, before.input_tokens + 9, before.output_tokens + 6)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        said_by(Endpoint(running.endpoint().base_url, "three", running.endpoint().api_key))


BESIDE = (
    "/tokenize /adapters /invocations /version /v1/load_lora_adapter /v1/../tokenize /v1//tokenize / /v1 /V1/tokenize"
)
BESIDE += " /v1/chat/../../tokenize /v1/%2e%2e/tokenize /v1/models/../../adapters"


@pytest.mark.parametrize("path", BESIDE.split())
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nothing_but_openais_interface_is_reached_with_the_key_either(running: Running, path: str, method: str) -> None:
    endpoint = running.endpoint()
    url = endpoint.base_url.removesuffix("/v1") + path
    assert status(url, endpoint.api_key, method, b"{}" if method == "POST" else None) == 404


def test_who_has_not_our_key_reaches_nothing_and_vllms_own_key_is_not_ours(running: Running, noted: Path) -> None:
    endpoint, upstream = running.endpoint(), lines(noted)[0]["environment"]["VLLM_API_KEY"]
    assert upstream and upstream != endpoint.api_key
    root = endpoint.base_url.removesuffix("/v1")
    for key in ("", "guessed", upstream, endpoint.api_key[:-1], "ключ".encode().decode("latin-1")):
        for path in ("/v1/models", "/metrics", "/v1/chat/completions"):
            assert status(root + path, key) == 401, (key, path)
    assert status(f"{root}/health") == 200, "a sign of life is no secret"


def test_no_key_is_on_a_command_line_and_vllm_is_given_none_of_ours(
    running: Running, noted: Path, what: ToServe
) -> None:
    endpoint, told = running.endpoint(), lines(noted)[0]
    gateway = psutil.Process(endpoint.pid)
    said = " ".join(word for each in (gateway, *gateway.children(recursive=True)) for word in each.cmdline())
    given, text = told["environment"], json.dumps(told["environment"])
    assert endpoint.api_key not in said + text + what.log.read_text() and given["VLLM_API_KEY"] not in said
    assert endpoint.api_key not in repr(running) + repr(endpoint)
    assert not [each for each in ("sk-ours", "pw-ours", "/ours") if each in text]
    wanted = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_PLUGINS": "", "VLLM_SERVER_DEV_MODE": "0"}
    wanted |= {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": str(THREADS)}
    assert {name: given.get(name) for name in wanted} == wanted
    assert "--uds" in told["arguments"] and not {"--host", "--port", "--api-key", "--trust-remote-code"} & {
        *told["arguments"]
    }, "it listens on a socket file alone"
    socket = Path(told["arguments"][told["arguments"].index("--uds") + 1])
    assert socket.is_socket() and socket.parent.stat().st_mode & 0o077 == 0, "in a folder of this user alone"


def streamed(endpoint: Endpoint, text: str) -> Any:
    body = {"model": "one", "messages": [{"role": "user", "content": text}], "stream": True}
    headers = {"Authorization": f"Bearer {endpoint.api_key}", "Content-Type": "application/json"}
    url = f"{endpoint.base_url}/chat/completions"
    return urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=10)


def test_a_stream_comes_word_by_word_as_it_is_made(running: Running) -> None:
    with streamed(running.endpoint(), "slow a b") as answer:
        came = [(time.monotonic(), line) for line in answer if line.strip()]
    assert came[-1][1].strip() == b"data: [DONE]" and len(came) == 6
    assert came[0][0] < came[-1][0] - 1.0, "the first word did not wait for the last"


@pytest.mark.parametrize("is_streamed", [True, False])
def test_a_caller_that_goes_away_ends_its_request_at_vllm(running: Running, noted: Path, is_streamed: bool) -> None:
    text, endpoint = f"slow, gone {is_streamed} " + "word " * 50, running.endpoint("one")
    if is_streamed:
        with streamed(endpoint, text) as answer:
            answer.readline()
    else:
        import socket

        body = json.dumps({"model": "one", "messages": [{"role": "user", "content": text}]})
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {endpoint.api_key}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", int(endpoint.base_url[17:].removesuffix("/v1")))) as caller:
            caller.sendall((head + body).encode())
            time.sleep(0.5)
    deadline = time.monotonic() + 5
    while {"gone": text} not in lines(noted):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert said_by(endpoint, "and on") == "one says and on"


def test_a_drain_answers_what_is_in_flight_takes_nothing_new_and_leaves_no_process(
    executable: Path, what: ToServe, noted: Path
) -> None:
    with Vllm(VllmSettings(executable=executable, device="cpu")).serving(what) as served:
        endpoint, drained = served.endpoint("two"), list[bool]()
        family = psutil.Process(endpoint.pid).children(recursive=True)
        with ThreadPoolExecutor(2) as pool:
            asked = [pool.submit(said_by, endpoint, f"slow {n}") for n in range(2)]
            while (now := served.at_work()) is None or now.running < 2:
                time.sleep(0.02)
            ending = threading.Thread(target=lambda: drained.append(served.drain(20.0)))
            ending.start()
            time.sleep(0.4)
            with pytest.raises(urllib.error.HTTPError, match="503"):
                said_by(endpoint)
            assert not served.is_healthy()
            assert [each.result() for each in asked] == ["two says slow 0", "two says slow 1"]
            ending.join()
        assert drained == [True] and len(family) >= 2
        assert not [each for each in family if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    assert lines(noted)[-1] == {"ended": True}, "it was asked to end, not cut off"


def test_kill_9_of_the_gateway_or_of_whoever_started_it_leaves_no_vllm(
    executable: Path, what: ToServe, noted: Path
) -> None:
    code = """
import sys, time
from pathlib import Path
from leastwise.engines.engine import ToServe
from leastwise.engines.vllm.server import Vllm
from leastwise.engines.vllm.settings import VllmSettings
with Vllm(VllmSettings(executable=sys.argv[1])).serving(ToServe(sys.argv[2], "base", Path(sys.argv[3]))) as running:
    print(running.endpoint().pid, flush=True)
    time.sleep(60)
"""
    command = [sys.executable, "-c", code, str(executable), what.model, f"{what.log}.killed"]
    for is_gateway in (False, True):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as starter:
            assert starter.stdout is not None
            gateway = psutil.Process(int(starter.stdout.readline()))
            family = [gateway, *gateway.children(recursive=True)]
            os.kill(gateway.pid if is_gateway else starter.pid, signal.SIGKILL)
            deadline = time.monotonic() + 10
            while [each for each in family if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]:
                assert time.monotonic() < deadline, is_gateway
                time.sleep(0.05)
            starter.kill()


def test_a_vllm_that_dies_at_start_shows_the_end_of_its_log(executable: Path, tmp_path: Path, noted: Path) -> None:
    broken = ToServe(str(model_folder(tmp_path / "broken")), "base", tmp_path / "log")
    with pytest.raises(StartError, match=r"(?s)ended with status.*this model is broken"):
        Vllm(VllmSettings(executable=executable)).serving(broken).__enter__()
    with pytest.raises(BadInput, match=r"absent.*config\.json"):
        Vllm(VllmSettings(executable=executable)).serving(ToServe("absent", "base", tmp_path / "log")).__enter__()


def test_the_command_line_says_what_vllm_would_else_do_otherwise(what: ToServe) -> None:
    said = command_of(VllmSettings(executable=Path("/v"), memory_share=0.5), what, Path("/s"))
    at = {flag: said[said.index(flag) + 1] for flag in said if flag.startswith("--") and flag != said[-1]}
    assert at["--generation-config"] == "vllm" and at["--shutdown-timeout"] == "20" and at["--max-model-len"] == "1024"
    assert at["--load-format"] == "safetensors" and at["--gpu-memory-utilization"] == "0.5"
    assert at["--max-lora-rank"] == "16", "the next above rank 12 that it takes"
    assert "--gpu-memory-utilization" not in command_of(
        VllmSettings(executable=Path("/v"), device="cpu"), what, Path("/s")
    )


ODD: list[dict[str, Any]] = [{"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"rank_pattern": {"q": 4}}]
ODD += [{"bias": "all"}, {"r": 1024}, {"peft_type": "IA3"}, {"trainable_token_indices": [3]}]


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_an_adapter_that_vllm_would_serve_in_part_is_refused(tmp_path: Path, odd: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="merge it"):
        check_adapter(adapter_folder(tmp_path / "a", **odd))


def test_what_vllm_serves_is_read_from_its_own_table_and_where_there_is_none_nothing_is_vouched_for(
    executable: Path, tmp_path: Path
) -> None:
    assert architectures(executable) == {"LlamaForCausalLM", "NewForCausalLM", "Gemma3ForConditionalGeneration"}
    wrapper = tmp_path / "bin" / "wrapper"
    said = {
        None: refusal_of(executable, model_folder(tmp_path / "new", architectures=["NewForCausalLM"]), 2048),
        "names no BertModel": refusal_of(executable, model_folder(tmp_path / "bert", architectures=["BertModel"]), 64),
        "takes 2,048 tokens": refusal_of(executable, model_folder(tmp_path / "short"), 4096),
        "cannot be read": refusal_of(wrapper, model_folder(tmp_path / "any"), 2048),
    }
    for words, refusal in said.items():
        assert refusal is None if words is None else words in (refusal or "")


def test_a_vllm_named_wrongly_is_one_report_that_names_the_variables(
    executable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in vllm_settings.VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    assert vllm_settings.named() is None
    monkeypatch.setenv("LEASTWISE_VLLM", str(executable))
    named = vllm_settings.named()
    assert named is not None and named.device == "gpu" and named.computes_as == "vllm gpu auto"
    monkeypatch.setenv("LEASTWISE_VLLM_DTYPE", "q8_0")
    monkeypatch.setenv("LEASTWISE_VLLM_MEMORY_SHARE", "85")
    with pytest.raises(BadInput, match=r"LEASTWISE_VLLM_DTYPE: 'q8_0'.*LEASTWISE_VLLM_MEMORY_SHARE: '85'"):
        vllm_settings.named()
    for wrong in (tmp_path / "absent", tmp_path):
        monkeypatch.setenv("LEASTWISE_VLLM", str(wrong))
        with pytest.raises(BadInput, match="LEASTWISE_VLLM"):
            vllm_settings.named()


def test_answers_of_vllm_are_kept_apart_from_llama_cpps_of_the_same_weights() -> None:
    from leastwise.endpoints.request import Message, Request, request_key

    endpoint, asked = Endpoint("http://127.0.0.1:1/v1", "m", "k"), Request("r", (Message("user", "x"),), 5)
    engines = ("", "vllm gpu auto", "vllm gpu float16", "vllm cpu auto")
    keys = [request_key(Target.served(endpoint, "hf://o/n", "rev", engine), asked) for engine in engines]
    assert len(set(keys)) == 4
    assert keys[0] == request_key(Target("hf://o/n", "rev", "n2", "http://127.0.0.1:2/v1", is_own=True), asked)
