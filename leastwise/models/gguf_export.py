"""Writes models and LoRA adapters as GGUF files for llama.cpp.

It knows the Llama architecture without biases or scaled RoPE, and byte-level BPE tokenizers of three families; all else
is refused. Where weights come from is in `leastwise.models.weights`.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

from leastwise.errors import BadInput

if TYPE_CHECKING:
    import gguf
    import numpy as np
    import numpy.typing as npt

Quantization = Literal["f16", "q8_0"]
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def to_gguf(model_dir: Path, out: Path, dtype: Quantization = "f16") -> Path:
    """Writes a Llama model directory (safetensors, tokenizer, chat template) as one GGUF file for llama.cpp.

    Raises BadInput for another architecture, biases, scaled RoPE or an unknown tokenizer.
    """
    import gguf

    config = _llama_config(model_dir)
    with _gguf_file(out) as part:
        writer = gguf.GGUFWriter(part, "llama")
        _write_architecture(
            writer, config, gguf.LlamaFileType.MOSTLY_F16 if dtype == "f16" else gguf.LlamaFileType.MOSTLY_Q8_0
        )
        _write_tokenizer(writer, model_dir, config)
        for name, tensor in _tensors(model_dir):
            if name == "lm_head.weight" and config.is_tied:
                continue
            _write_tensor(writer, _gguf_name(name, config), _permuted(name, tensor, config), dtype)
        _finish(writer)
    return out


def check_exportable(model_dir: Path) -> None:
    """BadInput where `to_gguf` would refuse the model, told from its configuration and tokenizer alone."""
    try:
        _llama_config(model_dir)
        _pre_tokenizer(model_dir, json.loads((model_dir / "tokenizer.json").read_text(encoding="utf-8")))
    except (KeyError, FileNotFoundError, json.JSONDecodeError) as error:
        raise BadInput(f"{model_dir}: config.json or tokenizer.json lacks {error}; name another model") from None


def adapter_to_gguf(adapter_dir: Path, base_dir: Path, out: Path) -> Path:
    """Writes a PEFT LoRA adapter over the Llama model in `base_dir` as a GGUF adapter (f32) for llama.cpp.

    Raises BadInput for DoRA, rank-stabilised scaling, per-module ranks or fully trained modules.
    """
    import gguf

    config = _llama_config(base_dir)
    lora = json.loads((adapter_dir / "adapter_config.json").read_text(encoding="utf-8"))
    odd = [
        key for key in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save") if lora.get(key)
    ]
    if odd:
        raise BadInput(
            f"{adapter_dir}/adapter_config.json: {', '.join(odd)} cannot be written as GGUF; merge it instead"
        )
    with _gguf_file(out) as part:
        writer = gguf.GGUFWriter(part, "llama")
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(lora["lora_alpha"]))
        for name, tensor in _tensors(adapter_dir):
            module, side = _adapted_module(name)
            rows = _permuted(f"{module}.weight", tensor, config) if side == "B" else tensor
            writer.add_tensor(f"{_gguf_name(f'{module}.weight', config)}.lora_{side.lower()}", rows)
        _finish(writer)
    return out


def _adapted_module(name: str) -> tuple[str, str]:
    """The module a tensor of an adapter belongs to, and its side: A or B."""
    parts = re.fullmatch(r"base_model\.model\.(.+)\.lora_([AB])\.weight", name)
    if parts is None:
        raise BadInput(f"tensor {name} is not part of a LoRA adapter and cannot be written as GGUF; merge it instead")
    return parts[1], parts[2]


@contextmanager
def _gguf_file(out: Path) -> Iterator[Path]:
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.{uuid.uuid4().hex}")  # two containers may have one process id
    try:
        yield part
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@dataclass(frozen=True)
class _LlamaConfig:
    context_tokens: int
    hidden: int
    blocks: int
    feed_forward: int
    heads: int
    key_value_heads: int | None
    head_width: int
    rope_theta: float
    norm_epsilon: float
    vocabulary: int
    is_tied: bool  # whether input and output embeddings are the same weights


def _llama_config(model_dir: Path) -> _LlamaConfig:
    config = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    plain = rope.get("rope_type", rope.get("type", "default")) == "default" and not (
        config.get("attention_bias") or config.get("mlp_bias")
    )
    rotates_whole = config.get("partial_rotary_factor", rope.get("partial_rotary_factor", 1.0)) == 1.0
    plain = plain and rotates_whole and config.get("hidden_act", "silu") in ("silu", "swish")
    if config.get("architectures") != ["LlamaForCausalLM"] or not plain:
        raise BadInput(
            f"{model_dir}/config.json: only LlamaForCausalLM without biases, scaled RoPE, partial RoPE or another "
            f"activation than SiLU is written as GGUF here, not {config.get('architectures')}; serve it with vLLM"
        )
    return _LlamaConfig(
        context_tokens=config["max_position_embeddings"],
        hidden=config["hidden_size"],
        blocks=config["num_hidden_layers"],
        feed_forward=config["intermediate_size"],
        heads=config["num_attention_heads"],
        key_value_heads=config.get("num_key_value_heads"),
        head_width=config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"],
        rope_theta=rope.get("rope_theta", config.get("rope_theta", 10000.0)),
        norm_epsilon=config["rms_norm_eps"],
        vocabulary=config["vocab_size"],
        is_tied=bool(config.get("tie_word_embeddings", False)),
    )


def _write_architecture(writer: gguf.GGUFWriter, config: _LlamaConfig, file_type: int) -> None:
    writer.add_file_type(file_type)
    writer.add_context_length(config.context_tokens)
    writer.add_embedding_length(config.hidden)
    writer.add_block_count(config.blocks)
    writer.add_feed_forward_length(config.feed_forward)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.key_value_heads or config.heads)
    writer.add_key_length(config.head_width)
    writer.add_value_length(config.head_width)
    writer.add_rope_dimension_count(config.head_width)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_vocab_size(config.vocabulary)


class _Token(TypedDict):
    id: int
    special: bool


class _PreTokenizer(TypedDict, total=False):
    type: str
    individual_digits: bool
    use_regex: bool
    add_prefix_space: bool
    pattern: dict[str, str]
    pretokenizers: list[_PreTokenizer]


class _BytePairs(TypedDict):
    type: str
    merges: list[str | list[str]]


class _TokenizerFile(TypedDict):
    added_tokens: list[_Token]
    pre_tokenizer: _PreTokenizer | None
    model: _BytePairs


def _write_tokenizer(writer: gguf.GGUFWriter, model_dir: Path, config: _LlamaConfig) -> None:
    import gguf
    from transformers import AutoTokenizer

    content: _TokenizerFile = json.loads((model_dir / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    special = {token["id"] for token in content["added_tokens"] if token["special"]}
    names = {index: token for token, index in tokenizer.get_vocab().items()}
    kinds = {True: gguf.TokenType.CONTROL, False: gguf.TokenType.NORMAL}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre_tokenizer(model_dir, content))
    writer.add_token_list([names.get(i, f"[PAD{i}]") for i in range(config.vocabulary)])
    unused = gguf.TokenType.UNUSED
    writer.add_token_types([kinds[i in special] if i in names else unused for i in range(config.vocabulary)])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in content["model"]["merges"]])
    writer.add_add_bos_token(bool(tokenizer("a").input_ids[0] == tokenizer.bos_token_id))
    for add, index in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
    ):
        if index is not None:
            add(index)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _pre_tokenizer(model_dir: Path, content: _TokenizerFile) -> str:
    """llama.cpp's name of how text is cut before byte-pair merging; a wrong one would silently change the tokens."""
    stage = content["pre_tokenizer"] or _PreTokenizer()
    steps = stage.get("pretokenizers", [stage]) if content["model"]["type"] == "BPE" else []
    kinds = [step.get("type") for step in steps]
    if kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"]:
        return "smollm"
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True) and not steps[0].get("add_prefix_space"):
        return "gpt-2"
    if kinds == ["Split", "ByteLevel"] and steps[0]["pattern"] == {"Regex": _LLAMA_3}:
        return "llama-bpe"
    raise BadInput(
        f"{model_dir}/tokenizer.json: a tokenizer of kind {content['model']['type']} {kinds} cannot be written "
        f"as GGUF here (known: SmolLM, GPT-2, Llama 3); serve it with vLLM"
    )


def _tensors(directory: Path) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Every tensor of the directory's safetensors by name, as float32."""
    from safetensors import safe_open

    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - a safetensors handle is no mapping
                yield name, file.get_tensor(name).float().numpy()


@lru_cache(maxsize=4)  # making the map takes 15 ms, and a model has hundreds of tensors
def _names(blocks: int) -> gguf.TensorNameMap:
    import gguf

    return gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, blocks)


def _gguf_name(name: str, config: _LlamaConfig) -> str:
    gguf_name = _names(config.blocks).get_name(name, try_suffixes=(".weight",))
    if gguf_name is None:
        raise BadInput(f"tensor {name} is not part of a Llama model and cannot be written as GGUF")
    return gguf_name


def _permuted(name: str, tensor: npt.NDArray[np.float32], config: _LlamaConfig) -> npt.NDArray[np.float32]:
    """q and k rows in llama.cpp's order: it rotates neighbouring rows, transformers the two halves of a head."""
    heads = {"q_proj": config.heads, "k_proj": config.key_value_heads}
    count = heads.get(name.split(".")[-2])
    if not count:
        return tensor
    rows, columns = tensor.shape
    return tensor.reshape(count, 2, rows // count // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _write_tensor(writer: gguf.GGUFWriter, name: str, tensor: npt.NDArray[np.float32], dtype: Quantization) -> None:
    import gguf
    import numpy as np

    if tensor.ndim == 1:  # norms stay exact
        writer.add_tensor(name, tensor.astype(np.float32))
    elif dtype == "q8_0":
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quantize(tensor, kind), raw_dtype=kind)
    else:
        writer.add_tensor(name, tensor.astype(np.float16))
