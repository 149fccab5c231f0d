"""Brings a base model named by a URI to a local directory of safetensors; how this machine best computes with it.

It trains nothing and serves nothing, never runs a repository's own code and reads no pickle. Writing GGUF for llama.cpp
is in `leastwise.engines.gguf`.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit

from leastwise.errors import BadInput
from leastwise.stores import storage
from leastwise.stores.gguf_header import read_header

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")

SCHEMES = "package://NAME, file:///DIRECTORY, hf://ORG/NAME[@REVISION] and s3://BUCKET/PREFIX"
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


def materialize(uri: str, home: Path) -> Path:
    """A local directory of safetensors and tokenizer for the base model `uri`.

    A GGUF package is converted once to bf16 and cached under `home/models/<hash of the file>`; `hf://` and `s3://` are
    downloaded there. Raises BadInput, naming the URI and the remedy, for an unknown scheme or an unreadable model.
    """
    parts = urlsplit(uri)
    if parts.scheme == "package" and parts.netloc:
        return _converted(package_gguf(uri), home)
    if parts.scheme == "file" and parts.path:
        return _checked(Path(unquote(parts.path)), uri)
    if parts.scheme == "hf" and parts.netloc and parts.path.strip("/"):
        return _checked(_hub_snapshot(uri, home), uri)
    if parts.scheme == "s3" and parts.netloc and parts.path.strip("/"):
        return _checked(_fetched(uri, home), uri)
    raise BadInput(f"model {uri!r}: open weights are named {SCHEMES}")


def revision(uri: str) -> str:
    """What pins the weights: a hash of the content (package, file, s3) or the hub's commit."""
    parts = urlsplit(uri)
    if parts.scheme == "package" and parts.netloc:
        return _file_hash(*_stamp(package_gguf(uri)))
    if parts.scheme == "file" and parts.path:
        return directory_hash(_checked(Path(unquote(parts.path)), uri))
    if parts.scheme == "hf" and parts.netloc:
        return _hub_revision(uri)
    if parts.scheme == "s3" and parts.netloc:
        return _s3_revision(uri)
    raise BadInput(f"model {uri!r}: open weights are named {SCHEMES}")


def described(uri: str, home: Path) -> Path | None:
    """A local directory with at least configuration and tokenizer of a model; from a hub its weights are not fetched.

    None for a package that was not converted yet. BadInput where nothing can be read.
    """
    parts = urlsplit(uri)
    if parts.scheme == "package":
        target = home / "models" / f"{_file_hash(*_stamp(package_gguf(uri)))}-{_CONVERSION}"
        return target if target.exists() else None
    if parts.scheme == "hf":
        return _hub_snapshot(uri, home, tuple(each for each in _FILES if "safetensors" not in each))
    return materialize(uri, home)


def tokenizer_dir(uri: str, home: Path) -> Path:
    """A local directory with the tokenizer of a model; a package's is read out of its file, once, without its weights.

    It is that of the converted weights: the same tokens.
    """
    directory = described(uri, home)
    if directory is not None:
        return directory
    from transformers import AutoTokenizer

    file = package_gguf(uri)
    target = home / "tokenizers" / f"{_file_hash(*_stamp(file))}-{_CONVERSION}"
    if not target.exists():
        with built(target) as folder:
            AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
            _restore_pre_tokenizer(file, folder / "tokenizer.json")
    return target


def directory_hash(directory: Path) -> str:
    """16 hex digits over names and contents of the weights, configuration and tokenizer in `directory`."""
    digest = hashlib.sha256()
    for path in files_of(directory):
        digest.update(f"{path.name}:{_file_hash(*_stamp(path))}\n".encode())
    return digest.hexdigest()[:16]


def files_of(directory: Path) -> list[Path]:
    """The weights, configuration and tokenizer in `directory`, by name: all that a model directory is used for."""
    return sorted({path for pattern in _FILES for path in directory.glob(pattern)})


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
    parts = {"config.json": "a configuration", "*.safetensors": "safetensors weights", "tokenizer*": "a tokenizer"}
    missing = [what for pattern, what in parts.items() if not any(directory.glob(pattern))]
    if missing:
        raise BadInput(
            f"model {uri!r}: {directory} has not {' nor '.join(missing)}; name a directory of safetensors "
            f"(pickled weights are not read), one of {SCHEMES}"
        )
    absent = sorted(name for name in _shards(directory) if not (directory / name).exists())
    if absent:
        raise BadInput(
            f"model {uri!r}: {directory} holds not all of its weights, {absent[0]} is missing; fetch it again"
        )
    return directory


def _shards(directory: Path) -> set[str]:
    """The files an index of weights names: a fetch that was cut off leaves the index and some of them."""
    indexes = directory.glob("*.safetensors.index.json")
    return {name for index in indexes for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}


def package_gguf(uri: str) -> Path:
    """The GGUF file a `package://` URI names, as it is: what a llama.cpp server loads untrained.

    BadInput where the package is not installed or holds not one such file.
    """
    name = urlsplit(uri).netloc
    spec = find_spec(re.sub(r"\W", "_", name))
    if spec is None or spec.origin is None:
        raise BadInput(f"model {uri!r}: package {name!r} is not installed; install it, or name one of {SCHEMES}")
    files = sorted(Path(spec.origin).parent.rglob("*.gguf"))
    if len(files) != 1:
        raise BadInput(
            f"model {uri!r}: package {name!r} holds {len(files)} GGUF files, wanted one; or name one of {SCHEMES}"
        )
    return files[0]


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


def _clear_quantization_marks(model: PreTrainedModel) -> None:
    """transformers 5.23 refuses to save what it read from GGUF although it holds plain bf16 by now."""
    vars(model.config).pop("quantization_config", None)
    vars(model).pop("quantization_method", None)
    vars(model).update(hf_quantizer=None, is_quantized=False)


def architecture_of(file: Path) -> str:
    """What a GGUF file says its model is."""
    return str(read_header(file).fields.get("general.architecture", "unknown"))


def _restore_pre_tokenizer(file: Path, tokenizer_file: Path) -> None:
    family = read_header(file).fields.get("tokenizer.ggml.pre")
    if family in ("smollm", "starcoder", "refact", "command-r"):  # llama.cpp treats these four alike
        content = json.loads(tokenizer_file.read_text(encoding="utf-8"))
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [_DIGITS, level]}
        tokenizer_file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _hub_parts(uri: str) -> tuple[str, str]:
    parts = urlsplit(uri)
    name, _, pinned = f"{parts.netloc}{parts.path}".partition("@")
    return name.strip("/"), pinned or "main"


def _from_hub(uri: str, call: Callable[[], T]) -> T:
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return call()
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        remedy = "set HF_TOKEN if it is gated, check its name and the network"
        if constants.is_offline_mode():
            remedy = "run once with HF_HUB_OFFLINE=0 in the environment (and HF_TOKEN where it is gated)"
        raise BadInput(
            f"model {uri!r} is not in the local cache and could not be fetched ({type(error).__name__}); {remedy}, or "
            f"name one of {SCHEMES}"
        ) from error


def _hub_snapshot(uri: str, home: Path, files: tuple[str, ...] = _FILES) -> Path:
    from huggingface_hub import snapshot_download

    name, pinned = _hub_parts(uri)
    cache = home / "models" / "hub"
    return Path(
        _from_hub(uri, lambda: snapshot_download(name, revision=pinned, cache_dir=cache, allow_patterns=list(files)))
    )


def _hub_revision(uri: str) -> str:
    from huggingface_hub import HfApi, constants

    name, pinned = _hub_parts(uri)
    if re.fullmatch(r"[0-9a-f]{40}", pinned):
        return pinned
    fetched = storage.home() / "models" / "hub" / f"models--{name.replace('/', '--')}" / "refs" / pinned
    if constants.is_offline_mode() and fetched.exists():
        return fetched.read_text().strip()
    return str(_from_hub(uri, lambda: HfApi().model_info(name, revision=pinned)).sha)


def _fetched(uri: str, home: Path) -> Path:
    target = home / "models" / _s3_revision(uri)
    if not target.exists():
        with built(target) as folder:
            fetched = storage.fetch(uri, folder)
            for path in fetched.iterdir():
                path.rename(folder / path.name)
            fetched.rmdir()
    return target


def _s3_revision(uri: str) -> str:
    return storage.sha256(uri)[:16]
