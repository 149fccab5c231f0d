"""vLLM itself answers with an adapter of ours as transformers and llama.cpp do; needs an environment with it.

`python infra/vllm_cpu.py FOLDER` makes one. Then LEASTWISE_SOAK=1 LEASTWISE_VLLM=FOLDER/bin/vllm
LEASTWISE_VLLM_DEVICE=cpu LEASTWISE_TUNED=ADAPTER, an adapter that `make demo` has trained (`.leastwise/adapters/…`),
and pytest -s on this file.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from leastwise.endpoints.request import Endpoint
from leastwise.engines.engine import Running, ToServe
from leastwise.engines.gguf import conversion
from leastwise.engines.llama_cpp import LlamaCpp
from leastwise.engines.vllm import proof
from leastwise.engines.vllm.servable import architectures
from leastwise.engines.vllm.server import Vllm
from leastwise.engines.vllm.settings import named
from leastwise.errors import BadInput

ROWS = 64
NEEDED = ("LEASTWISE_VLLM", "LEASTWISE_TUNED")
pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(not all(os.environ.get(each) for each in NEEDED), reason=f"{' and '.join(NEEDED)} are not set"),
]
Chat = list[dict[str, str]]


def asked(endpoint: Endpoint, chat: Chat, **more: object) -> dict:
    body = {"model": endpoint.model, "messages": chat, "max_tokens": 12, "temperature": 0} | dict(endpoint.body) | more
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {endpoint.api_key}"}
    url = f"{endpoint.base_url}/chat/completions"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=120) as answer:
        return json.load(answer)


def text_of(answer: dict) -> str:
    return str(answer["choices"][0]["message"]["content"]).strip()


def texts(endpoint: Endpoint, chats: Sequence[Chat]) -> list[str]:
    started = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        said = [text_of(each) for each in pool.map(lambda chat: asked(endpoint, chat), chats)]
    print(f"{endpoint.model}: {len(chats) / (time.monotonic() - started):.1f} rows/s at 8 in flight")
    return said


def merged(base: Path, adapter: Path, out: Path) -> Path:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(out)
    AutoTokenizer.from_pretrained(base).save_pretrained(out)
    return out


def serving(model: Path, log: Path, adapters: dict[str, Path] | None = None) -> ToServe:
    return ToServe(str(model), "base", log, adapters or {}, context_tokens=2048)


def look_at_the_rest(running: Running, chat: Chat) -> None:
    """What a climb relies on beside the text, and what must not be reachable."""
    tuned, schema = running.endpoint("tuned"), {"type": "object", "properties": {"label": {"enum": ["red", "blue"]}}}
    schema |= {"required": ["label"], "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    held = asked(tuned, chat, response_format=wanted, max_tokens=40)
    assert json.loads(text_of(held))["label"] in ("red", "blue")
    told = asked(tuned, [*chat[:1], {"role": "user", "content": "word " * 300}], logprobs=True, top_logprobs=5)
    again = asked(tuned, [*chat[:1], {"role": "user", "content": "word " * 300}])
    assert len(told["choices"][0]["logprobs"]["content"][0]["top_logprobs"]) == 5
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] >= 128
    now = running.at_work()
    assert now is not None and now.input_tokens > 600 and (now.running, now.waiting) == (0, 0)
    for path in ("/tokenize", "/adapters", "/v1/load_lora_adapter"):
        with pytest.raises(urllib.error.HTTPError, match=r"40[14]"):
            urllib.request.urlopen(
                tuned.base_url.removesuffix("/v1") + path
            )  # without a key: the gateway's own refusal


def test_an_adapter_of_ours_answers_by_vllm_as_by_transformers_and_llama_cpp_unmerged_and_merged(
    shared_models: Path, triage_data: Path, tmp_path: Path
) -> None:
    from leastwise.models.causal_model import Generator
    from leastwise.models.chat import format_chat
    from leastwise.rows.use_case_file import load
    from leastwise.use_case.prompts import trained_prompt

    adapter, settings = Path(os.environ["LEASTWISE_TUNED"]).resolve(), named()
    (base,) = (shared_models / "models").iterdir()
    (gguf,) = (each for each in (shared_models / "gguf").glob("*.gguf") if ".lora." not in each.name)
    assert settings is not None and "LlamaForCausalLM" in (architectures(settings.executable) or ())
    rows = pd.read_parquet(triage_data / "gate.parquet").head(ROWS)
    system = trained_prompt(load("alert-triage"))
    chats = [[{"role": "system", "content": system}, {"role": "user", "content": str(text)}] for text in rows["text"]]
    prompts = [format_chat(base, chat) for chat in chats]
    said = {"transformers": [each.strip() for each in Generator(base, adapter, threads=2).answer(prompts, 12)]}
    conversion.convert_adapter(adapter, base, tmp_path / "lora.gguf")
    with LlamaCpp().serving(serving(gguf, tmp_path / "log", {"tuned": tmp_path / "lora.gguf"})) as running:
        said["llama.cpp Q8_0"] = texts(running.endpoint(), chats)
    started = time.monotonic()
    what = serving(base, tmp_path / "vllm.log", {"tuned": adapter})
    with Vllm(settings).serving(what) as running:
        print(f"vLLM was ready in {time.monotonic() - started:.0f} s")
        said["vLLM, adapter"], untuned = texts(running.endpoint("tuned"), chats), texts(running.endpoint("base"), chats)
        look_at_the_rest(running, chats[0])
        for name, kept in (("base", None), ("tuned", adapter)):
            proof.prove(settings, running, what, base, kept, tmp_path / "proofs", name)
        for file in (tmp_path / "proofs").iterdir():
            print(f"held to transformers: {file.read_text()}")
        with pytest.raises(BadInput, match="log-probabilities differ"):
            proof.prove(settings, running, what, base, adapter, tmp_path / "wrong")
        assert running.drain(60.0)
    with Vllm(settings).serving(
        serving(merged(base, adapter, tmp_path / "merged"), tmp_path / "merged.log")
    ) as running:
        said["vLLM, merged"] = texts(running.endpoint(), chats)
    expected = list(rows["label"])
    for name, words in said.items():
        alike = sum(one == other for one, other in zip(words, said["transformers"], strict=True))
        right = sum(one == label for one, label in zip(words, expected, strict=True))
        print(f"{name}: {alike} of {ROWS} as transformers, {right} right")
        assert alike >= ROWS - 4, name
    assert sum(one == other for one, other in zip(untuned, said["vLLM, adapter"], strict=True)) < ROWS / 2
