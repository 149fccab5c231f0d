"""GGUF files of a base and of an adapter on it, each converted once, held to transformers once, and kept with what the
comparison found beside it; another version of llama.cpp is held to it again.

A base is first written in 16 bits and compared, where any fault of the conversion shows, then in Q8_0, which is served.
What was refused is not made again.
"""

from __future__ import annotations

import logging
import uuid
from pathlib import Path

from pydantic import ValidationError

from leastwise.engines.gguf import comparison, conversion
from leastwise.engines.gguf.comparison import Comparison, Reference
from leastwise.engines.gguf.conversion import TAIL_CHARACTERS, Quantization
from leastwise.engines.processes import StartError
from leastwise.errors import BadInput
from leastwise.stores import storage

log = logging.getLogger(__name__)

REMEDY = (
    "serve it with an engine of your own and name that by base_url, name another model, or set last_stage before it"
)


def proven_model(base_dir: Path, gguf: Path, threads: int) -> Path:
    """The model as Q8_0 in the file `gguf`, written where it is not there, and compared where nobody has.

    BadInput where llama.cpp does not compute what transformers does.
    """
    if is_proven(gguf):
        return gguf
    _refuse_again(gguf, base_dir)
    plain = gguf.with_name(f".{gguf.stem}.{uuid.uuid4().hex}.f16.gguf")
    wanted: dict[Quantization, Path] = {"f16": plain}
    if not gguf.exists():
        wanted["q8_0"] = gguf
    try:
        conversion.convert_model(base_dir, wanted)
        reference = Reference.of(base_dir, None, threads)
        _hold(gguf, base_dir, _compared(plain, None, reference, "f16", threads))
    finally:
        plain.unlink(missing_ok=True)
    _keep(gguf, _hold(gguf, base_dir, _compared(gguf, None, reference, "q8_0", threads)))
    return gguf


def proven_adapter(adapter_dir: Path, base_dir: Path, model: Path, gguf: Path, threads: int) -> Path:
    """The adapter as a file for llama.cpp, compared on the Q8_0 `model` that it is served on; as `proven_model`."""
    if is_proven(gguf):
        return gguf
    _refuse_again(gguf, adapter_dir)
    if not gguf.exists():
        conversion.convert_adapter(adapter_dir, base_dir, gguf)
    reference = Reference.of(base_dir, adapter_dir, threads)
    _keep(gguf, _hold(gguf, adapter_dir, _compared(model, gguf, reference, "q8_0", threads)))
    return gguf


def is_proven(gguf: Path) -> bool:
    """Whether the file is there and this llama.cpp computes with it what transformers does, as far as was compared."""
    known = _compared_here(gguf)
    return known is not None and not known.refusal and gguf.exists()


def comparison_of(gguf: Path) -> Comparison | None:
    """What was found when this file was compared; None where nobody has, or another version wrote it down."""
    try:
        return Comparison.model_validate_json(_beside(gguf).read_bytes())
    except (OSError, ValidationError):
        return None


def _compared_here(gguf: Path) -> Comparison | None:
    """What was found with the llama.cpp there is: another may compute otherwise."""
    known = comparison_of(gguf)
    return known if known is not None and known.engine == comparison.engine() else None


def _compared(gguf: Path, adapter: Path | None, reference: Reference, dtype: Quantization, threads: int) -> Comparison:
    """As `comparison.compare`; BadInput where llama.cpp cannot load what its own conversion wrote. That is not kept: a
    machine without memory looks the same.
    """
    try:
        return comparison.compare(gguf, adapter, reference, dtype, threads)
    except StartError as error:
        said = " ".join(str(error).split())[-TAIL_CHARACTERS:]
        raise BadInput(f"{reference.base}: llama.cpp cannot load it as {dtype} ({said}); {REMEDY}") from None


def _refuse_again(gguf: Path, source: Path) -> None:
    known = _compared_here(gguf)
    if known is not None and known.refusal:
        raise _refusal(source, known)


def _hold(gguf: Path, source: Path, found: Comparison) -> Comparison:
    """What was found; BadInput, and the file gone, where it must not be used."""
    if found.refusal:
        gguf.unlink(missing_ok=True)
        _keep(gguf, found)
        raise _refusal(source, found)
    log.info(
        f"as {found.dtype} llama.cpp agrees with transformers: largest difference of log-probabilities "
        f"{found.largest:.2g}, divergence {found.divergence:.2g} nats"
    )
    return found


def _refusal(source: Path, found: Comparison) -> BadInput:
    return BadInput(f"{source}: llama.cpp does not run it as it was trained: {found.refusal}; {REMEDY}")


def _keep(gguf: Path, found: Comparison) -> None:
    storage.write_bytes(_beside(gguf), found.model_dump_json(indent=1).encode())


def _beside(gguf: Path) -> Path:
    return gguf.with_suffix(".comparison.json")
