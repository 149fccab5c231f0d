"""The way to GGUF, against the real SmolLM2 package and a real llama.cpp server."""

import json
import urllib.request
from pathlib import Path

import pytest

from leastwise.errors import BadInput
from leastwise.models.chat import format_chat
from leastwise.models.gguf_export import adapter_to_gguf, check_exportable, to_gguf

MESSAGES = [
    {"role": "system", "content": "Classify the sentence into one ATT&CK tactic."},
    {"role": "user", "content": "APT29 used port 8443 in 2021, v1.24."},
]
TEXTS = ["APT29 used port 8443 in 2021, v1.24.", "Ports were scanned", "Files were encrypted", "A mail carried malware"]


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    """A LoRA on the real base, strong enough to change every answer and to make greedy answers far from tied."""
    from leastwise.training.settings import TrainingSettings
    from leastwise.training.training import fine_tune
    from leastwise.training.training_rows import Row

    out = tmp_path_factory.mktemp("trained") / "adapter"
    prompts = [format_chat(base, [MESSAGES[0], {"role": "user", "content": text}]) for text in TEXTS]
    rows = [Row(prompt, f"reconnaissance of {at} hosts") for at, prompt in enumerate(prompts)]
    settings = TrainingSettings(
        batch_size=4, epochs=10, max_examples=40, learning_rate=5e-3, upper_blocks_share=0.34, threads=1
    )
    fine_tune(base, rows, [], settings, out)
    return out


def served(gguf: Path, lora: Path | None = None):
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(gguf)
    params.hostnames, params.port, params.ui = ["127.0.0.1"], 0, False
    params.n_parallel, params.n_ctx, params.fit_params = 1, 512, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    if lora:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(lora), 1.0)]
    return xllamacpp.Server(params)


def post(server, path: str, body: dict) -> dict:
    request = urllib.request.Request(
        f"{server.listening_address}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.loads(reply.read())


def chat(server) -> str:
    body = {"messages": MESSAGES, "temperature": 0, "max_tokens": 12}
    return post(server, "/v1/chat/completions", body)["choices"][0]["message"]["content"].strip()


def test_another_architecture_is_refused_by_name(base, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["GPT2LMHeadModel"]}))
    with pytest.raises(BadInput, match="GPT2LMHeadModel"):
        to_gguf(tmp_path, tmp_path / "x.gguf")


def test_llama_cpp_answers_as_transformers_does_merged_or_with_the_adapter(base, adapter, tmp_path):
    from leastwise.models.causal_model import Generator, merge

    prompt = format_chat(base, MESSAGES)
    wanted = Generator(base, adapter, threads=1).answer([prompt], 12)[0]
    assert wanted and wanted != Generator(base, threads=1).answer([prompt], 12)[0]
    merged = served(to_gguf(merge(base, adapter, tmp_path / "merged"), tmp_path / "merged.gguf", "q8_0"))
    assert chat(merged) == wanted
    plain = to_gguf(base, tmp_path / "base.gguf")
    adapted = served(plain, adapter_to_gguf(adapter, base, tmp_path / "adapter.gguf"))
    assert chat(adapted) == wanted


def test_llama_cpp_feeds_the_same_text_and_tokens_that_training_does(base, tmp_path):
    from transformers import AutoTokenizer

    server = served(to_gguf(base, tmp_path / "base.gguf", "q8_0"))
    prompt = format_chat(base, MESSAGES)
    assert post(server, "/apply-template", {"messages": MESSAGES})["prompt"] == prompt
    tokens = post(server, "/tokenize", {"content": prompt, "parse_special": True, "add_special": True})["tokens"]
    assert tokens == AutoTokenizer.from_pretrained(base)(prompt, add_special_tokens=False).input_ids


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": ["Qwen2ForCausalLM"]},
        {"architectures": ["MistralForCausalLM"]},
        {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},  # Llama 3.1's
        {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}},
        {"mlp_bias": True},
        {"hidden_act": "gelu"},
        {"partial_rotary_factor": 0.5},
    ],
    ids=lambda config: next(iter(config)),
)
def test_what_llama_cpp_would_run_otherwise_is_refused_by_its_configuration_alone(tmp_path: Path, config: dict):
    plain = {"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_attention_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps(plain | config))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BadInput, match="only LlamaForCausalLM"):
        check_exportable(tmp_path)
