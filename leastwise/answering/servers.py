"""Model servers for a candidate's weights on this machine, each file they need converted and compared once, and kept.

How a server is started and ended is in `leastwise.engines`; nothing is asked of it here.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from leastwise.endpoints.request import Endpoint
from leastwise.engines import llama_cpp, mlflow_server
from leastwise.engines.gguf import files
from leastwise.engines.gguf.architectures import check_convertible
from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate
from leastwise.models import weights
from leastwise.models.catalogue import Catalogue
from leastwise.models.machine import THREADS
from leastwise.stores import storage

log = logging.getLogger(__name__)


def check_servable(uri: str, home: Path, context_tokens: int) -> None:
    """BadInput where open weights could not be served here in a context of so many tokens, told without their
    weights.
    """
    directory = weights.described(uri, home)
    if directory is not None:
        check_convertible(directory, uri, context_tokens)
        return
    architecture = weights.architecture_of(weights.package_gguf(uri))
    if architecture != "llama":
        raise BadInput(f"model {uri!r}: of packages only those of the Llama architecture are read, not {architecture}")


def prove_servable(home: Path, base: Path, uri: str) -> None:
    """Convert weights that are to be trained and hold them to transformers before a training is paid: what llama.cpp
    runs otherwise could not be judged on what was trained. BadInput with the difference and what to do. `uri` is what
    people call them.
    """
    _proven_base(home, base, uri)


def student_server(home: Path, candidate: Candidate, student: Path) -> AbstractContextManager[Endpoint]:
    """MLflow's model server with the distilled encoder, laid out once as a pyfunc model."""
    from leastwise.record import student_model

    assert candidate.weights is not None
    directory = home / "served" / candidate.weights.revision
    if not directory.exists():
        with weights.built(directory) as folder:
            student_model.save_pyfunc(student, folder)
    return mlflow_server.serve_student(str(directory), log=home / "logs" / "student.log", threads=1)


def engine_of(catalogue: Catalogue, candidate: Candidate) -> str:
    """Which engine answers for a candidate and why, in words for its run."""
    if candidate.cascade:
        rest = candidate.model_copy(update={"cascade": None})
        return f"{engine_of(catalogue, candidate.cascade.first)}; then {engine_of(catalogue, rest)}"
    if candidate.weights and candidate.weights.kind == "student":
        return "MLflow's model server on this machine: its one engine for an encoder"
    model = catalogue.model(candidate.model)
    if not catalogue.is_served_here(candidate):
        named = "base_url names it" if model.base_url else "the provider's own"
        return f"the endpoint at {model.request_host}: {named}"
    why = "no address is named for these open weights"
    if candidate.weights:
        why = "no server but ours has weights that a stage made"
    elif model.base_url:
        why = "self_host moves these open weights to own machines"
    return f"llama.cpp on this machine's CPU: {why}"


@dataclass(frozen=True)
class GgufFiles:
    """A model, and an adapter on it, as llama.cpp takes them."""

    model: Path
    adapter: Path | None = None


def gguf_files(home: Path, candidate: Candidate) -> GgufFiles:
    """The candidate's weights, converted once to Q8_0 and compared once with what transformers computes.

    Also for a package that ships Q4_1: llama.cpp has no fast kernel for it (prefill was 3.4 times slower than Q8_0),
    and an adapter must be served on the base it was trained on.
    """
    is_merged = candidate.weights is not None and candidate.weights.kind == "merged"
    model = candidate.weights.uri if candidate.weights and is_merged else candidate.model
    folder = home / "gguf"
    folder.mkdir(parents=True, exist_ok=True)
    trained = None if candidate.weights is None or is_merged else candidate.weights
    adapter = folder / f"{trained.revision}.lora.gguf" if trained else None
    # Fetched first: converting a base takes long, and is for nothing where its adapter is gone.
    fetched = storage.fetch(trained.uri, folder) if trained and adapter and not files.is_proven(adapter) else None
    base = weights.materialize(model, home)
    gguf = _proven_base(home, base, model)
    if fetched and adapter:
        files.proven_adapter(fetched, base, gguf, adapter, THREADS)
    return GgufFiles(gguf, adapter)


def _proven_base(home: Path, base: Path, uri: str) -> Path:
    gguf = home / "gguf" / f"{weights.directory_hash(base)}.gguf"
    if not files.is_proven(gguf):
        log.info(f"converting {uri} for llama.cpp and comparing it with transformers, once")
    return files.proven_model(base, gguf, THREADS)


def causal_server(
    gguf: GgufFiles, candidate: Candidate, logs: Path, context_tokens: int
) -> AbstractContextManager[Endpoint]:
    """llama.cpp with a candidate's weights."""
    return llama_cpp.serve_causal(
        gguf.model,
        name=f"{candidate.stage}-{candidate.key[:6]}",
        log=logs / f"{candidate.stage}.log",
        adapter=gguf.adapter,
        context_tokens=context_tokens,
        threads=THREADS,
    )
