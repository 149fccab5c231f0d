"""Model servers for a candidate's weights on this machine, each file they need converted once and kept.

How a server is started and ended is in `leastwise.engines`; nothing is asked of it here.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from leastwise.endpoints.request import Endpoint
from leastwise.engines import llama_cpp, mlflow_server
from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate
from leastwise.models import gguf_export, weights
from leastwise.models.machine import THREADS
from leastwise.stores import storage

log = logging.getLogger(__name__)


def check_servable(uri: str, home: Path) -> None:
    """BadInput where open weights could not be served here, told without their weights."""
    directory = weights.described(uri, home)
    if directory is not None:
        gguf_export.check_exportable(directory)
        return
    architecture = weights.architecture_of(weights.package_gguf(uri))
    if architecture != "llama":
        raise BadInput(f"model {uri!r}: only the Llama architecture can be served here, this is {architecture}")


def student_server(home: Path, candidate: Candidate, student: Path) -> AbstractContextManager[Endpoint]:
    """MLflow's model server with the distilled encoder, laid out once as a pyfunc model."""
    from leastwise.record import student_model

    assert candidate.weights is not None
    directory = home / "served" / candidate.weights.revision
    if not directory.exists():
        with weights.built(directory) as folder:
            student_model.save_pyfunc(student, folder)
    return mlflow_server.serve_student(str(directory), log=home / "logs" / "student.log", threads=1)


@dataclass(frozen=True)
class GgufFiles:
    """A model, and an adapter on it, as llama.cpp takes them."""

    model: Path
    adapter: Path | None = None


def gguf_files(home: Path, candidate: Candidate) -> GgufFiles:
    """The candidate's weights, converted once to Q8_0.

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
    fetched = storage.fetch(trained.uri, folder) if trained and adapter and not adapter.exists() else None
    base = weights.materialize(model, home)
    gguf = folder / f"{weights.directory_hash(base)}.gguf"
    if not gguf.exists():
        log.info(f"converting {model} for llama.cpp, once")
        gguf_export.to_gguf(base, gguf, dtype="q8_0")
    if fetched and adapter:
        gguf_export.adapter_to_gguf(fetched, base, adapter)
    return GgufFiles(gguf, adapter)


def causal_server(
    files: GgufFiles, candidate: Candidate, logs: Path, context_tokens: int
) -> AbstractContextManager[Endpoint]:
    """llama.cpp with a candidate's weights."""
    return llama_cpp.serve_causal(
        files.model,
        name=f"{candidate.stage}-{candidate.key[:6]}",
        log=logs / f"{candidate.stage}.log",
        adapter=files.adapter,
        context_tokens=context_tokens,
        threads=THREADS,
    )
