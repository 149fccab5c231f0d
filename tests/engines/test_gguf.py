"""GGUF by llama.cpp's own conversion: what it writes computes what transformers does, or is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from leastwise.engines.gguf import architectures, comparison, conversion, files
from leastwise.engines.gguf.architectures import check_convertible
from leastwise.engines.gguf.comparison import Comparison, Reference
from leastwise.errors import BadInput
from tests.engines.pieces import save_gemma_tokenizer

LLAMA: dict[str, Any] = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 4096}
MISTRAL = LLAMA | {"architectures": ["MistralForCausalLM"]}
QWEN = LLAMA | {"architectures": ["Qwen2ForCausalLM"], "sliding_window": 64}
GEMMA = LLAMA | {"architectures": ["Gemma3ForCausalLM"], "sliding_window": 64, "hidden_act": "gelu"}
GEMMA_27B = GEMMA | {"num_hidden_layers": 62, "hidden_size": 5376, "num_attention_heads": 32, "head_dim": 128}
PHI = LLAMA | {"architectures": ["Phi3ForCausalLM"]}
LONG = {"rope_scaling": {"type": "longrope"}, "original_max_position_embeddings": 1024}
BYTES = {"model": {"type": "BPE"}, "pre_tokenizer": {"type": "ByteLevel", "use_regex": True}}


def described(folder: Path, config: dict[str, Any], tokenizer: dict[str, Any] | None = None) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer or BYTES))
    return folder


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (LLAMA | {"architectures": ["GPT9LMHeadModel"]}, "serves no GPT9LMHeadModel"),
        (LLAMA | {"architectures": ["BertModel"]}, "serves no BertModel"),
        (LLAMA | {"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "serves no T5"),
        ({}, "serves no none"),
        (LLAMA | {"hidden_act": "gelu"}, "with SiLU, not with gelu"),
        (LLAMA | {"partial_rotary_factor": 0.5}, "the whole of a head"),
        (LLAMA | {"rope_parameters": {"partial_rotary_factor": 0.5}}, "the whole of a head"),
        (MISTRAL | {"sliding_window": 64}, "without its sliding_window of 64 tokens.*context_tokens to at most 64"),
        (QWEN | {"use_sliding_window": True}, "without its sliding_window"),
        (LLAMA | LONG, "context_tokens to at most 1024"),
        (LLAMA | {"rope_scaling": {"rope_type": "dynamic"}, "max_position_embeddings": 512}, "at most 512"),
        (PHI, "tokenizer.model"),
        (GEMMA | {"head_dim": 256, "query_pre_attn_scalar": 224}, "by 256, not by query_pre_attn_scalar = 224"),
        (GEMMA_27B | {"query_pre_attn_scalar": 128}, "by 168, not by query_pre_attn_scalar = 128"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_what_llama_cpp_would_run_otherwise_is_refused_by_its_configuration_alone(
    tmp_path: Path, config: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        check_convertible(described(tmp_path, config), "hf://org/model", 2048)


@pytest.mark.parametrize(
    "config",
    [
        LLAMA,
        LLAMA | {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        LLAMA | {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}},
        LLAMA | {"mlp_bias": True, "attention_bias": True},
        LLAMA | LONG | {"original_max_position_embeddings": 2048},
        MISTRAL | {"sliding_window": 4096},
        MISTRAL | {"sliding_window": None},
        QWEN,
        QWEN | {"use_sliding_window": True, "layer_types": ["full_attention"]},
        GEMMA,
        GEMMA | {"query_pre_attn_scalar": 256},
        GEMMA_27B | {"query_pre_attn_scalar": 168},
        {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": GEMMA},
    ],
    ids=lambda config: config["architectures"][0],
)
def test_what_llama_cpp_runs_as_transformers_does_passes_by_its_configuration(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    check_convertible(described(tmp_path, config), "hf://org/model", 2048)


@pytest.mark.parametrize(
    ("tokenizer", "is_known"),
    [
        (BYTES, True),
        ({"model": {"type": "BPE", "byte_fallback": True}, "pre_tokenizer": None}, True),
        (
            {"model": {"type": "BPE"}, "pre_tokenizer": {"type": "Split", "pattern": {"Regex": architectures._QWEN_2}}},
            0,
        ),
        ({"model": {"type": "WordPiece"}, "pre_tokenizer": None}, False),
        ({"model": {"type": "Unigram"}}, False),
    ],
)
def test_a_tokenizer_of_unknown_make_is_refused_before_anything_is_converted(
    tmp_path: Path, tokenizer: dict[str, Any], is_known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(architectures, "_hash_of", lambda _: "of no tokenizer")  # these have no vocabulary
    described(tmp_path, LLAMA, tokenizer)
    if is_known:
        check_convertible(tmp_path, "m", 2048)
    else:
        with pytest.raises(BadInput, match="knows no tokenizer of this make"):
            check_convertible(tmp_path, "m", 2048)


def test_everything_that_speaks_against_a_model_is_one_report(tmp_path: Path) -> None:
    config = MISTRAL | {"sliding_window": 64, "hidden_act": "gelu"}
    with pytest.raises(BadInput) as refused:
        check_convertible(described(tmp_path, config, {"model": {"type": "Unigram"}}), "hf://org/model", 2048)
    for word in ("3 things", "sliding_window", "SiLU", "tokenizer.json"):
        assert word in str(refused.value)


def found(**changes: Any) -> Comparison:
    same: dict[str, Any] = {"engine": comparison.engine(), "dtype": "q8_0", "prompts": 4, "vocabulary": 9}
    return Comparison.model_validate({**same, "largest": 0.5, "largest_likely": 0.1, "divergence": 0.004, **changes})


@pytest.mark.parametrize(
    ("changes", "is_refused"),
    [
        ({}, False),
        ({"largest": 2.7}, False),  # of a token that is never answered, by the number format alone
        ({"dtype": "f16"}, True),
        ({"dtype": "f16", "largest": 0.02, "largest_likely": 0.02, "divergence": 0.0002}, False),
        ({"largest_likely": 1.5}, True),
        ({"divergence": 0.2}, True),
        ({"largest_likely": float("nan")}, True),
        ({"other": "it cuts 'a' into 2 tokens"}, True),
    ],
)
def test_a_file_is_refused_beyond_what_its_number_format_explains(changes: dict[str, Any], is_refused: bool) -> None:
    assert bool(found(**changes).refusal) == is_refused


def test_a_file_counts_as_proven_only_where_this_llama_cpp_was_held_to_it(tmp_path: Path) -> None:
    gguf = tmp_path / "a.gguf"
    gguf.write_bytes(b"GGUF")
    assert not files.is_proven(gguf), "a climbed state of before is compared once"
    for changes, is_proven in (({}, True), ({"engine": "xllamacpp 1"}, False), ({"divergence": 0.2}, False)):
        (tmp_path / "a.comparison.json").write_text(found(**changes).model_dump_json())
        assert files.is_proven(gguf) == is_proven
    (tmp_path / "a.comparison.json").write_text("{}")
    assert not files.is_proven(gguf)


def test_what_was_refused_is_refused_again_without_another_conversion(tmp_path: Path) -> None:
    (tmp_path / "a.comparison.json").write_text(found(divergence=0.2).model_dump_json())
    with pytest.raises(BadInput, match=r"does not run it as it was trained.*0\.2 nats.*base_url"):
        files.proven_model(tmp_path / "no weights", tmp_path / "a.gguf", 1)


@pytest.mark.parametrize("odd", ["use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save"])
def test_an_adapter_that_would_be_written_in_part_is_refused(tmp_path: Path, odd: str) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 16, odd: {"q_proj": 8}}))
    with pytest.raises(BadInput, match=f"{odd} cannot be written as GGUF"):
        conversion.convert_adapter(tmp_path, tmp_path, tmp_path / "a.gguf")


def test_what_llama_cpp_cannot_load_is_refused_with_what_to_do(tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF, and then nothing")
    with pytest.raises(BadInput, match=r"cannot load it as q8_0 \(.*name another model"):
        files._compared(tmp_path / "a.gguf", None, Reference(tiny, [[1, 2]], []), "q8_0", 1)


def adapter_on(base: Path, out: Path) -> Path:
    """A LoRA of random weights on every linear layer, strong enough to change what comes next."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    lora = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False))
    lora.save_pretrained(out)
    return out


def test_a_model_and_an_adapter_are_converted_once_and_compute_what_transformers_does(
    tiny: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    (gguf,), lora = tiny_gguf.glob("*.gguf"), tmp_path / "lora.gguf"
    known, written = files.comparison_of(gguf), gguf.stat().st_mtime_ns
    assert known is not None and not known.refusal and known.vocabulary == 49152
    assert files.proven_model(tiny, gguf, 1).stat().st_mtime_ns == written
    adapter = adapter_on(tiny, tmp_path / "adapter")
    files.proven_adapter(adapter, tiny, gguf, lora, 1)
    assert [path.name for path in tmp_path.glob("*.gguf")] == ["lora.gguf"] and files.is_proven(lora)
    tuned = Reference.of(tiny, adapter, 1)
    untuned = comparison.compare(gguf, None, tuned, "q8_0", 1)
    assert untuned.refusal, "the base in place of its adapter is noticed"


SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"num_key_value_heads": 2, "vocab_size": 49156, "max_position_embeddings": 2048, "initializer_range": 0.1}
LLAMA_3_ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA_3_ROPE |= {"original_max_position_embeddings": 512, "rope_theta": 500000.0}
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA_2: dict[str, Any] = {"sliding_window": 64, "head_dim": 32, "query_pre_attn_scalar": 32}
GEMMA_2 |= {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
FAMILIES: dict[str, tuple[str, dict[str, Any], bool]] = {  # class, configuration, whether it must be refused
    "llama": ("Llama", {}, False),
    "llama, tied": ("Llama", {"tie_word_embeddings": True}, False),
    "llama 3.1 rope": ("Llama", {"rope_parameters": LLAMA_3_ROPE}, False),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}, False),
    "qwen3": ("Qwen3", {"head_dim": 32}, False),
    "mistral": ("Mistral", {"sliding_window": None}, False),
    "mistral with a window": ("Mistral", {"sliding_window": 64}, True),
    "gemma2": ("Gemma2", GEMMA_2, False),
    "gemma2 of another scale": ("Gemma2", GEMMA_2 | {"query_pre_attn_scalar": 8}, True),
    "gemma3": ("Gemma3", {"sliding_window": 64, "head_dim": 32, "query_pre_attn_scalar": 32}, False),
    "phi": ("Phi", {"intermediate_size": 256, "num_key_value_heads": 4, "partial_rotary_factor": 0.5}, False),
    "llama with another activation": ("Llama", {"hidden_act": "gelu"}, True),
}


def family(name: str, tiny: Path, out: Path) -> Path:
    """Random weights of a family, with the tokenizer of the package, four added tokens, and no system role; of Gemma 2
    with a `tokenizer.model` and Gemma's own template.
    """
    import torch
    import transformers

    kind, config, _ = FAMILIES[name]
    if kind == "Gemma2":
        config = config | {"vocab_size": save_gemma_tokenizer(out)}
    prefix = f"{kind}Text" if kind == "Gemma3" else kind
    torch.manual_seed(1)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    made = getattr(transformers, f"{prefix}Config")(**{**SIZES, **ids, **config})
    getattr(transformers, f"{kind}ForCausalLM")(made).to(torch.float32).save_pretrained(out)
    if kind == "Gemma2":
        return out
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny)
    tokenizer.add_tokens(["<tool>", "</tool>"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|one|>", "<|two|>"]})
    tokenizer.chat_template = NO_SYSTEM
    tokenizer.save_pretrained(out)
    return out


@pytest.mark.soak
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_computes_what_transformers_does_as_a_model_and_with_an_adapter_or_is_refused(
    name: str, tiny: Path, tmp_path: Path
) -> None:
    base, is_refused = family(name, tiny, tmp_path / "base"), FAMILIES[name][2]
    gguf = tmp_path / "base.gguf"
    if is_refused:
        with pytest.raises(BadInput, match=r"log-probabilities differ by up to"):
            files.proven_model(base, gguf, 1)
        assert not gguf.exists()
        with pytest.raises(BadInput, match=r"llama\.cpp"):
            check_convertible(base, name, 2048)
        return
    check_convertible(base, name, 2048)
    files.proven_model(base, gguf, 1)
    adapter = adapter_on(base, tmp_path / "adapter")
    files.proven_adapter(adapter, base, gguf, tmp_path / "lora.gguf", 1)
    for file in (gguf, tmp_path / "lora.gguf"):
        print(name, file.name, files.comparison_of(file))
