"""Which models llama.cpp serves as transformers computes them, told from configuration and tokenizer files alone.

It loads no weights and imports no torch. What passes here is compared number by number once it is converted.
"""

from __future__ import annotations

import ast
import json
import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from leastwise.engines.gguf.vendored import SCRIPTS
from leastwise.errors import BadInput, problems_of, refuse

# Attention within a window, as their conversion writes it; every other architecture is run with the whole context.
_WINDOWED = frozenset({"gemma", "command_r", "gpt_oss", "olmo", "exaone", "afmoe", "laguna", "mimo", "plamo", "step3"})
_SILU_ONLY = frozenset({"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"})
_SENTENCEPIECE_ONLY = frozenset({"GemmaForCausalLM", "Gemma2ForCausalLM", "Phi3ForCausalLM"})
_BY_WIDTH = {"Gemma2": 46, "Gemma3": 62}  # blocks of the one size whose queries llama.cpp scales by width and heads
_BY_LENGTH = frozenset({"longrope", "su", "dynamic"})  # rotations that depend on how long the text is
_REMEDY = "name another model, or set last_stage before it is trained or served"
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_QWEN_2 = _LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")

Json = dict[str, Any]


def check_convertible(model_dir: Path, uri: str, context_tokens: int) -> None:
    """BadInput with everything for which llama.cpp would not run this model, or would run it otherwise, in a context of
    so many tokens.
    """
    config = _text_config(read_json(model_dir / "config.json"))
    checks = (_check_architecture, _check_activation, _check_scale, _check_window, _check_rotation)
    problems = problems_of([*(lambda each=each: each(config, context_tokens) for each in checks)])
    problems += problems_of([lambda: _check_tokenizer(model_dir, config)])
    refuse(tuple(f"model {uri!r}: {problem}; {_REMEDY}" for problem in problems))


def read_json(path: Path) -> Json:
    """What a JSON file says, not to be changed; BadInput where it is missing or no mapping."""
    try:
        about = path.stat()
        content = _parsed(path, (about.st_ino, about.st_mtime_ns, about.st_size))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); fetch the model again, or name another") from None
    if not isinstance(content, dict):
        raise BadInput(f"{path}: is no mapping of fields; fetch the model again, or name another")
    return content


@lru_cache(maxsize=8)  # a tokenizer's file has megabytes, and several checks look into it
def _parsed(path: Path, _as_it_is: tuple[int, ...]) -> object:
    return json.loads(path.read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def _known() -> dict[str, str]:
    """llama.cpp's own table: the file of its conversion that writes an architecture, by the architecture's name."""
    tree = ast.parse((SCRIPTS / "conversion" / "__init__.py").read_text(encoding="utf-8"))
    tables = {ast.unparse(node.target): node.value for node in tree.body if isinstance(node, ast.AnnAssign)}
    table = tables["TEXT_MODEL_MAP"]
    assert table is not None
    known: dict[str, str] = ast.literal_eval(table)
    return known


def _text_config(config: Json) -> Json:
    """The configuration of the text model in a model of several parts."""
    inner = config.get("text_config")
    return {**config, **inner, "architectures": config.get("architectures")} if isinstance(inner, dict) else config


def _architecture(config: Json) -> str:
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else "none"


def _check_architecture(config: Json, _context_tokens: int) -> None:
    name = _architecture(config)
    speaks = name.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"))
    if name not in _known() or not speaks or config.get("is_encoder_decoder"):
        raise BadInput(f"config.json: llama.cpp serves no {name}")


def _check_activation(config: Json, _context_tokens: int) -> None:
    activation = config.get("hidden_act", "silu")
    if _architecture(config) in _SILU_ONLY and activation not in ("silu", "swish"):
        raise BadInput(f"config.json: llama.cpp computes {_architecture(config)} with SiLU, not with {activation}")


def _check_scale(config: Json, _context_tokens: int) -> None:
    blocks = next((count for kind, count in _BY_WIDTH.items() if _architecture(config).startswith(f"{kind}For")), None)
    said, head = config.get("query_pre_attn_scalar"), config.get("head_dim", 256)
    if blocks is None or not said:
        return
    taken = head
    if config.get("num_hidden_layers") == blocks:
        taken = config.get("hidden_size", 0) // config.get("num_attention_heads", 1)
    if said != taken:
        raise BadInput(
            f"config.json: llama.cpp scales the queries of this {_architecture(config)} by {taken}, not by "
            f"query_pre_attn_scalar = {said:g}"
        )


def _check_window(config: Json, context_tokens: int) -> None:
    name, window = _architecture(config), config.get("sliding_window")
    is_used = config.get("use_sliding_window", not name.startswith("Qwen"))
    kinds = config.get("layer_types")
    is_used = is_used and (not kinds or "sliding_attention" in kinds)
    if isinstance(window, int) and is_used and window < context_tokens and _known().get(name) not in _WINDOWED:
        raise BadInput(
            f"config.json: llama.cpp runs {name} without its sliding_window of {window:,} tokens, which answers "
            f"otherwise in a context of {context_tokens:,}; set the model's context_tokens to at most {window}"
        )


def _check_rotation(config: Json, context_tokens: int) -> None:
    name = _architecture(config)
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    share = config.get("partial_rotary_factor", rope.get("partial_rotary_factor", 1.0))
    if name in _SILU_ONLY and share != 1.0:
        raise BadInput(f"config.json: llama.cpp rotates the whole of a head of {name}, not {share:g} of it")
    kind = rope.get("rope_type", rope.get("type", "default"))
    first = config.get("original_max_position_embeddings") or rope.get("original_max_position_embeddings")
    trained = first or config.get("max_position_embeddings")
    if kind in _BY_LENGTH and isinstance(trained, int) and context_tokens > trained:
        raise BadInput(
            f"config.json: with {kind} rotation llama.cpp turns short texts as long ones in a context above "
            f"{trained:,} tokens; set the model's context_tokens to at most {trained}"
        )


def _check_tokenizer(model_dir: Path, config: Json) -> None:
    has_pieces = (model_dir / "tokenizer.model").exists()
    if _architecture(config) in _SENTENCEPIECE_ONLY and not has_pieces and not _is_gpt2(model_dir):
        raise BadInput(f"{_architecture(config)} is written with its tokenizer.model, which is not in {model_dir}")
    if has_pieces:
        if find_spec("sentencepiece") is None:
            raise BadInput("its tokenizer.model is read by sentencepiece, which is not installed: pip install it")
        return
    kind = read_json(model_dir / "tokenizer.json").get("model", {})
    if kind.get("type") == "BPE" and (kind.get("byte_fallback") or pre_tokenizer_of(model_dir)):
        return
    if kind.get("type") != "BPE" or _hash_of(model_dir) not in _hashes():
        raise BadInput(f"tokenizer.json: llama.cpp knows no tokenizer of this make ({kind.get('type')})")


def _is_gpt2(model_dir: Path) -> bool:
    named = model_dir / "tokenizer_config.json"
    return named.exists() and read_json(named).get("tokenizer_class") == "GPT2Tokenizer"


def pre_tokenizer_of(model_dir: Path) -> str | None:
    """llama.cpp's name of how text is cut before byte-pair merging, by the steps of the tokenizer's file; None where
    they are no make that is known here.
    """
    file = model_dir / "tokenizer.json"
    stage = (read_json(file).get("pre_tokenizer") if file.exists() else None) or {}
    steps = stage.get("pretokenizers", [stage])
    kinds = [step.get("type") for step in steps]
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
        return "smollm"
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True) and not steps[0].get("add_prefix_space"):
        return "gpt-2"
    if kinds == ["Split", "ByteLevel"]:
        return {_LLAMA_3: "llama-bpe", _QWEN_2: "qwen2"}.get(steps[0].get("pattern", {}).get("Regex", ""))
    return None


@lru_cache(maxsize=1)
def _source() -> str:
    return (SCRIPTS / "conversion" / "base.py").read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _hashes() -> frozenset[str]:
    """What llama.cpp knows tokenizers by: a digest of the tokens they make of one text."""
    return frozenset(re.findall(r'chkhsh == "([0-9a-f]{64})"', _source()))


def _hash_of(model_dir: Path) -> str:
    import hashlib

    from leastwise.models.causal_model import tokenizer_of

    found = re.search(r"^ +chktxt = (.+)$", _source(), re.MULTILINE)
    assert found is not None
    tokens = tokenizer_of(str(model_dir)).encode(ast.literal_eval(found[1]))
    return hashlib.sha256(str(tokens).encode()).hexdigest()
