"""Brings a base model named by a URI to a local directory of safetensors, and writes models and adapters as GGUF.

It trains nothing and serves nothing, never runs a repository's own code and reads no pickle. GGUF export knows the
Llama architecture without biases or scaled RoPE, and byte-level BPE tokenizers of three families; all else is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit

from leastwise.errors import BadInput

if TYPE_CHECKING:
    import gguf
    import numpy as np

KNOWN = "package://NAME, file:///DIRECTORY, hf://ORG/NAME[@REVISION] and s3://BUCKET/PREFIX"
_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "*.jinja",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
)
_CHUNK_BYTES = 1 << 22
_CONVERSION = "2"  # part of the cache key: raise it when a conversion changes its result
# transformers 5.23 reads a GGUF's vocabulary but not `tokenizer.ggml.pre`: SmolLM would no longer split digits, and
# would be trained on other tokens than llama.cpp feeds it.
_DIGITS = {"type": "Digits", "individual_digits": True}
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def materialize(uri: str, home: Path) -> Path:
    """A local directory of safetensors and tokenizer for the base model `uri`.

    A GGUF package is converted once to bf16 and cached under `home/models/<hash of the file>`; `hf://` and `s3://` are
    downloaded there. Raises BadInput, naming the URI and the remedy, for an unknown scheme or an unreadable model.
    """
    parts = urlsplit(uri)
    if parts.scheme == "package" and parts.netloc:
        return _converted(_package_file(uri), home)
    if parts.scheme == "file" and parts.path:
        return _checked(Path(unquote(parts.path)), uri)
    if parts.scheme == "hf" and parts.netloc and parts.path.strip("/"):
        return _checked(_hub_snapshot(uri, home), uri)
    if parts.scheme == "s3" and parts.netloc and parts.path.strip("/"):
        return _checked(_fetched(uri, home), uri)
    raise BadInput(f"model {uri!r}: open weights are named {KNOWN}")


def revision(uri: str) -> str:
    """What pins the weights: a hash of the content (package, file, s3) or the hub's commit."""
    parts = urlsplit(uri)
    if parts.scheme == "package" and parts.netloc:
        return _file_hash(*_stamp(_package_file(uri)))
    if parts.scheme == "file" and parts.path:
        return directory_hash(_checked(Path(unquote(parts.path)), uri))
    if parts.scheme == "hf" and parts.netloc:
        return _hub_revision(uri)
    if parts.scheme == "s3" and parts.netloc:
        return _s3_revision(uri)
    raise BadInput(f"model {uri!r}: open weights are named {KNOWN}")


def directory_hash(directory: Path) -> str:
    """16 hex digits over names and contents of the weights, configuration and tokenizer in `directory`."""
    digest = hashlib.sha256()
    for path in sorted({p for pattern in _FILES for p in directory.glob(pattern)}):
        digest.update(f"{path.name}:{_file_hash(*_stamp(path))}\n".encode())
    return digest.hexdigest()[:16]


@contextmanager
def built(target: Path) -> Iterator[Path]:
    """A folder beside `target` to fill, which becomes `target` in one rename; who comes second keeps the first's."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield folder
        if not target.exists():
            folder.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _stamp(path: Path) -> tuple[Path, int, int]:
    status = path.stat()
    return path, status.st_size, status.st_mtime_ns


@lru_cache(maxsize=256)
def _file_hash(path: Path, size_bytes: int, modified_ns: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()[:16]


def _checked(directory: Path, uri: str) -> Path:
    wanted = {"config.json": "a configuration", "*.safetensors": "safetensors weights", "tokenizer*": "a tokenizer"}
    missing = [what for pattern, what in wanted.items() if not any(directory.glob(pattern))]
    if missing:
        raise BadInput(
            f"model {uri!r}: {directory} has not {' nor '.join(missing)}; name a directory of safetensors "
            f"(pickled weights are not read), one of {KNOWN}"
        )
    return directory


def _package_file(uri: str) -> Path:
    name = urlsplit(uri).netloc
    spec = find_spec(re.sub(r"\W", "_", name))
    if spec is None or spec.origin is None:
        raise BadInput(f"model {uri!r}: package {name!r} is not installed; install it, or name one of {KNOWN}")
    files = sorted(Path(spec.origin).parent.rglob("*.gguf"))
    if len(files) != 1:
        raise BadInput(
            f"model {uri!r}: package {name!r} holds {len(files)} GGUF files, wanted one; or name one of {KNOWN}"
        )
    return files[0]


def package_gguf(uri: str) -> Path:
    """The GGUF file a `package://` URI names, as it is: what a llama.cpp server loads untrained."""
    return _package_file(uri)


def _converted(file: Path, home: Path) -> Path:
    target = home / "models" / f"{_file_hash(*_stamp(file))}-{_CONVERSION}"
    if not target.exists():
        with built(target) as folder:
            _convert(file, folder)
    return target


def _convert(file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.bfloat16)
    _clear_quantization_marks(model)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
    _restore_pre_tokenizer(file, folder / "tokenizer.json")
    again = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).state_dict()
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, again[name])]
    if changed:
        raise RuntimeError(f"{file}: after conversion {len(changed)} tensors reload changed, first {changed[0]}")


def _clear_quantization_marks(model: Any) -> None:
    """transformers 5.23 refuses to save what it read from GGUF although it holds plain bf16 by now."""
    for holder, mark in ((model.config, "quantization_config"), (model, "quantization_method")):
        if hasattr(holder, mark):
            delattr(holder, mark)
    model.hf_quantizer, model.is_quantized = None, False


def _restore_pre_tokenizer(file: Path, tokenizer_file: Path) -> None:
    import gguf

    field = gguf.GGUFReader(file).get_field("tokenizer.ggml.pre")
    family = field.contents() if field else None
    if family in ("smollm", "starcoder", "refact", "command-r"):  # llama.cpp treats these four alike
        content = json.loads(tokenizer_file.read_text(encoding="utf-8"))
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [_DIGITS, level]}
        tokenizer_file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _hub_parts(uri: str) -> tuple[str, str]:
    parts = urlsplit(uri)
    name, _, pinned = f"{parts.netloc}{parts.path}".partition("@")
    return name.strip("/"), pinned or "main"


def _from_hub(uri: str, call: Callable[[], Any]) -> Any:
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return call()
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise BadInput(
            f"model {uri!r} is not in the local cache and could not be fetched ({type(error).__name__}); go online "
            f"(unset HF_HUB_OFFLINE), set HF_TOKEN if it is gated, or name one of {KNOWN}"
        ) from error


def _hub_snapshot(uri: str, home: Path) -> Path:
    from huggingface_hub import snapshot_download

    name, pinned = _hub_parts(uri)
    cache = home / "models" / "hub"
    return Path(
        _from_hub(uri, lambda: snapshot_download(name, revision=pinned, cache_dir=cache, allow_patterns=list(_FILES)))
    )


def _hub_revision(uri: str) -> str:
    from huggingface_hub import HfApi

    name, pinned = _hub_parts(uri)
    if re.fullmatch(r"[0-9a-f]{40}", pinned):
        return pinned
    return str(_from_hub(uri, lambda: HfApi().model_info(name, revision=pinned)).sha)


def _fetched(uri: str, home: Path) -> Path:
    from tasks import storage

    target = home / "models" / _s3_revision(uri)
    if not target.exists():
        with built(target) as folder:
            got = storage.fetch(uri, folder)
            for path in got.iterdir():
                path.rename(folder / path.name)
            got.rmdir()
    return target


def _s3_revision(uri: str) -> str:
    from tasks import storage

    return storage.sha256(uri)[:16]


def to_gguf(model_dir: Path, out: Path, dtype: Literal["f16", "q8_0"] = "f16") -> Path:
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
            if name == "lm_head.weight" and config["tie_word_embeddings"]:
                continue
            _write_tensor(writer, _gguf_name(name, config), _permuted(name, tensor, config), dtype)
        _finish(writer)
    return out


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
            module, side = re.fullmatch(r"base_model\.model\.(.+)\.lora_([AB])\.weight", name).groups()  # type: ignore[union-attr]
            rows = _permuted(f"{module}.weight", tensor, config) if side == "B" else tensor
            writer.add_tensor(f"{_gguf_name(f'{module}.weight', config)}.lora_{side.lower()}", rows)
        _finish(writer)
    return out


@contextmanager
def _gguf_file(out: Path) -> Iterator[Path]:
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.{os.getpid()}")
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


def _llama_config(model_dir: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    plain = rope.get("rope_type", "default") == "default" and not (
        config.get("attention_bias") or config.get("mlp_bias")
    )
    if config.get("architectures") != ["LlamaForCausalLM"] or not plain:
        raise BadInput(
            f"{model_dir}/config.json: only LlamaForCausalLM without biases or scaled RoPE can be written as "
            f"GGUF here, this is {config.get('architectures')}; serve it with vLLM"
        )
    theta = rope.get("rope_theta", config.get("rope_theta", 10000.0))
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    tied = bool(config.get("tie_word_embeddings", False))
    return {**config, "rope_theta": theta, "head_dim": head_dim, "tie_word_embeddings": tied}


def _write_architecture(writer: gguf.GGUFWriter, config: dict[str, Any], file_type: int) -> None:
    writer.add_file_type(file_type)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config.get("num_key_value_heads") or config["num_attention_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def _write_tokenizer(writer: gguf.GGUFWriter, model_dir: Path, config: dict[str, Any]) -> None:
    import gguf
    from transformers import AutoTokenizer

    content = json.loads((model_dir / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    special = {token["id"] for token in content["added_tokens"] if token["special"]}
    names = {index: token for token, index in tokenizer.get_vocab().items()}
    kinds = {True: gguf.TokenType.CONTROL, False: gguf.TokenType.NORMAL}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre_tokenizer(model_dir, content))
    writer.add_token_list([names.get(i, f"[PAD{i}]") for i in range(config["vocab_size"])])
    writer.add_token_types(
        [kinds[i in special] if i in names else gguf.TokenType.UNUSED for i in range(config["vocab_size"])]
    )
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


def _pre_tokenizer(model_dir: Path, content: dict[str, Any]) -> str:
    """llama.cpp's name of how text is cut before byte-pair merging; a wrong one would silently change the tokens."""
    stage = content["pre_tokenizer"] or {}
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


def _tensors(directory: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor of the directory's safetensors by name, as float32."""
    from safetensors.torch import safe_open

    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - a safetensors handle is no mapping
                yield name, file.get_tensor(name).float().numpy()


def _gguf_name(name: str, config: dict[str, Any]) -> str:
    import gguf

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    found = names.get_name(name, try_suffixes=(".weight",))
    if found is None:
        raise BadInput(f"tensor {name} is not part of a Llama model and cannot be written as GGUF")
    return found


def _permuted(name: str, tensor: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """q and k rows in llama.cpp's order: it rotates neighbouring rows, transformers the two halves of a head."""
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config.get("num_key_value_heads")}
    count = heads.get(name.split(".")[-2])
    if not count:
        return tensor
    rows, columns = tensor.shape
    return tensor.reshape(count, 2, rows // count // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _write_tensor(writer: gguf.GGUFWriter, name: str, tensor: np.ndarray, dtype: str) -> None:
    import gguf
    import numpy as np

    if tensor.ndim == 1:  # norms stay exact
        writer.add_tensor(name, tensor.astype(np.float32))
    elif dtype == "q8_0":
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quantize(tensor, kind), raw_dtype=kind)
    else:
        writer.add_tensor(name, tensor.astype(np.float16))


def native_dtype() -> Any:
    """bf16 where the hardware multiplies in it, else fp32: emulated bf16 is slower than fp32."""
    import torch

    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    flags = Path("/proc/cpuinfo")
    words = set(flags.read_text(encoding="utf-8").split()) if flags.exists() else set()
    return torch.bfloat16 if words & {"avx512_bf16", "amx_bf16"} else torch.float32
