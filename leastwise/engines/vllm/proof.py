"""A vLLM that serves weights is held to transformers once, and what was found is kept; another vLLM is held again.

It compares nothing itself (see `comparison.py`), and what was refused is not asked again.
"""

from __future__ import annotations

import logging
import urllib.error
from pathlib import Path

from pydantic import ValidationError

from leastwise.content import content_key
from leastwise.engines.engine import Running, ToServe
from leastwise.engines.vllm import comparison
from leastwise.engines.vllm.comparison import Comparison, Precision
from leastwise.engines.vllm.servable import version_of
from leastwise.engines.vllm.settings import VllmSettings
from leastwise.errors import BadInput
from leastwise.models import weights
from leastwise.stores import storage

log = logging.getLogger(__name__)

REMEDY = (
    "unset LEASTWISE_VLLM so that llama.cpp serves it, serve it with an engine of your own and name that by base_url, "
    "or name another model"
)


def engine_of(settings: VllmSettings) -> str:
    """What a comparison holds for."""
    return f"{version_of(settings.executable)}, {settings.computes_as}"


def check_known(settings: VllmSettings, base: Path, adapter: Path | None, proofs: Path) -> bool:
    """Whether this vLLM was held to these weights before; BadInput where it was refused then."""
    known = _known(_file(settings, base, adapter, proofs))
    if known is not None and known.refusal:
        raise _refusal(adapter or base, known)
    return known is not None


def prove(
    settings: VllmSettings,
    running: Running,
    what: ToServe,
    base: Path,
    adapter: Path | None,
    proofs: Path,
    name: str = "",
) -> None:
    """Hold what is served under a name (`what`'s own where none is given) to transformers; BadInput where it computes
    something else.
    """
    source, file = adapter or base, _file(settings, base, adapter, proofs)
    precision: Precision = "float32" if settings.dtype == "float32" else "half"
    try:
        found = comparison.compare(
            running.endpoint(name or what.name),
            base,
            adapter,
            engine_of(settings),
            precision,
            what.context_tokens,
            what.threads,
        )
    except urllib.error.HTTPError as error:
        said = error.read(300).decode(errors="replace")
        raise BadInput(f"{source}: vLLM could not be compared with transformers ({said}); {REMEDY}") from None
    storage.write_bytes(file, found.model_dump_json(indent=1).encode())
    if found.refusal:
        raise _refusal(source, found)
    log.info(
        f"vLLM agrees with transformers at {found.places} places: largest difference of log-probabilities "
        f"{found.largest:.2g}, divergence {found.divergence:.2g} nats"
    )


def _refusal(source: Path, found: Comparison) -> BadInput:
    return BadInput(f"{source}: vLLM does not run it as it was trained: {found.refusal}; {REMEDY}")


def _file(settings: VllmSettings, base: Path, adapter: Path | None, proofs: Path) -> Path:
    served = [weights.directory_hash(each) for each in (base, adapter) if each]
    return proofs / f"{content_key(engine_of(settings), *served)}.json"


def _known(file: Path) -> Comparison | None:
    try:
        return Comparison.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None
