"""Model servers for a candidate's weights on this machine, each file they need converted and compared once, and kept.

How a server is started and ended is in `leastwise.engines`; nothing is asked of it here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from leastwise.endpoints.request import Endpoint
from leastwise.engines import mlflow_server
from leastwise.engines.endpoint import ForeignEndpoint
from leastwise.engines.engine import Engine, Running, ToServe
from leastwise.engines.gguf import ahead, deciding, files
from leastwise.engines.gguf.architectures import check_convertible
from leastwise.engines.llama_cpp import LlamaCpp
from leastwise.engines.mlflow_server import MlflowServer
from leastwise.engines.vllm import proof
from leastwise.engines.vllm import settings as vllm_settings
from leastwise.engines.vllm.servable import refusal_of
from leastwise.engines.vllm.server import Vllm
from leastwise.engines.vllm.settings import VllmSettings
from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate, EngineName
from leastwise.models import weights
from leastwise.models.catalogue import Catalogue
from leastwise.models.machine import THREADS, device_here
from leastwise.record.handover.handover import Handover
from leastwise.stores import storage
from leastwise.stores.made.naming import is_made

log = logging.getLogger(__name__)

PROOFS = "vllm"  # the folder of what vLLM was held to
LEAST_TOKENS = 1  # a model that is to be trained is looked at for its architecture alone


def check_servable(uri: str, home: Path, context_tokens: int, engine: EngineName | None = None) -> None:
    """BadInput where open weights could not be served here in a context of so many tokens, told without their
    weights; by this engine, or by the one that would be chosen for them.
    """
    directory = weights.described(uri, home)
    if engine != "llama.cpp" and (engine == "vllm" or vllm_settings.named()):
        refusal = why_not_vllm(directory or weights.materialize(uri, home), context_tokens)
        if not refusal:
            return
        if engine == "vllm":
            raise BadInput(f"model {uri!r}: vLLM does not serve it here: {refusal}; name another model or engine")
    if directory is not None:
        check_convertible(directory, uri, context_tokens)
        return
    architecture = weights.architecture_of(weights.package_gguf(uri))
    if architecture != "llama":
        raise BadInput(f"model {uri!r}: of packages only those of the Llama architecture are read, not {architecture}")


def prove_servable(home: Path, base: Path, uri: str) -> None:
    """Hold weights that are to be trained to transformers in the engine that will serve them (for llama.cpp they are
    converted) before a training is paid: what it runs otherwise could not be judged on what was trained. BadInput with
    the difference and what to do. `uri` is what people call them.
    """
    settings = vllm_settings.named()
    if settings is None or why_not_vllm(base, LEAST_TOKENS):
        ahead.make(uri, base, home)
        return
    what = ToServe(str(base), "base", home / "logs" / "compared.log")
    if not proof.check_known(settings, base, None, home / PROOFS):
        log.info(f"serving {uri} by vLLM and comparing it with transformers, once")
        with Vllm(settings).serving(what) as running:
            proof.prove(settings, running, what, base, None, home / PROOFS)


def why_not_vllm(model_dir: Path, context_tokens: int) -> str:
    """Why this machine's vLLM does not serve a model; empty where it does."""
    settings = vllm_settings.named()
    if settings is None:
        return f"{vllm_settings.VARIABLES['executable']} names none"
    return _lacks_hardware(settings) or refusal_of(settings.executable, model_dir, context_tokens) or ""


def _lacks_hardware(settings: VllmSettings) -> str:
    return "there is no GPU here" if settings.device == "gpu" and device_here().type != "cuda" else ""


def student_server(home: Path, candidate: Candidate, student: Path) -> AbstractContextManager[Endpoint]:
    """MLflow's model server with the distilled encoder, laid out once as a pyfunc model."""
    from leastwise.record import student_model

    assert candidate.weights is not None
    directory = home / "served" / candidate.weights.revision
    if not directory.exists():
        with weights.built(directory) as folder:
            student_model.save_pyfunc(student, folder)
    return mlflow_server.serve_student(str(directory), log=home / "logs" / "student.log", threads=1)


def engine_for(catalogue: Catalogue, candidate: Candidate) -> Engine:
    """The engine that answers for a candidate (of a cascade: for what its first is unsure of), as it was chosen when
    the candidate was made. BadInput where it is to be started here, and this machine has none.
    """
    if candidate.weights and candidate.weights.kind == "student":
        return MlflowServer()
    if not catalogue.is_served_here(candidate):
        return ForeignEndpoint(catalogue.model(candidate.model).base_url or "")
    if candidate.engine == "llama.cpp":
        return LlamaCpp()
    settings, missing = vllm_settings.named(), missing_engine(candidate.model_copy(update={"cascade": None}))
    if settings is None or missing:
        raise BadInput(
            f"{candidate.stage} {candidate.key} was measured with vLLM, and {missing}; another engine would compute "
            "something else. Name it here, or run this where it is (a climb resumes there, and nothing is paid twice)"
        )
    return Vllm(settings)


def missing_engine(candidate: Candidate) -> str | None:
    """Why this machine cannot start what a candidate, or who is asked before it, was measured with; None: it can."""
    if candidate.cascade and (missing := missing_engine(candidate.cascade.first)):
        return missing
    if candidate.engine != "vllm":
        return None
    settings = vllm_settings.named()
    if settings is None:
        return f"{vllm_settings.VARIABLES['executable']} names none on this machine"
    return _lacks_hardware(settings) or None


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
    if candidate.engine == "vllm":
        return (
            f"vLLM on this machine: {vllm_settings.VARIABLES['executable']} names it, it serves this model, and {why}"
        )
    settings, passed_by = vllm_settings.named(), ""
    if settings:
        passed_by = f"; vLLM is named and was not chosen: {_lacks_hardware(settings) or 'it does not serve this model'}"
    return f"llama.cpp on this machine's CPU: {why}{passed_by}"


@dataclass(frozen=True)
class Safetensors:
    """A model's folder, and that of an adapter on it, as vLLM takes them. `proofs`: where it is kept how vLLM compares
    with transformers; None where that was looked at when they were judged.
    """

    model: Path
    adapter: Path | None = None
    proofs: Path | None = None


class Files(Protocol):
    """Where a candidate's weights lie: a climb's, or a winner's own (a part of `answerer.Surroundings`)."""

    @property
    def home(self) -> Path:
        """Where logs go."""
        ...

    def gguf(self, candidate: Candidate) -> GgufFiles:
        """As llama.cpp takes them."""
        ...

    def safetensors(self, candidate: Candidate) -> Safetensors:
        """As vLLM takes them."""
        ...


@dataclass(frozen=True)
class GgufFiles:
    """A model, and an adapter on it, as llama.cpp takes them."""

    model: Path
    adapter: Path | None = None


@dataclass(frozen=True)
class WeightsHere:
    """Weights as this machine has them: what was made is brought here, open weights come from where their URI says."""

    handover: Handover

    @property
    def home(self) -> Path:
        """Where they are kept."""
        return self.handover.home

    def local(self, uri: str, revision: str = "") -> str:
        """A URI as this machine has it: any but that of what was made stays as it is."""
        return self.handover.path(uri, revision).as_uri() if is_made(uri) else uri

    def model_dir(self, uri: str, revision: str = "") -> Path:
        """The directory of open weights, those that were made too."""
        return weights.materialize(self.local(uri, revision), self.home)

    def tokenizer(self, uri: str) -> Path:
        """The directory of a model's tokenizer."""
        return weights.tokenizer_dir(self.local(uri), self.home)

    def gguf(self, candidate: Candidate) -> GgufFiles:
        """For llama.cpp, converted once."""
        here = self.handover.here(candidate)
        found = gguf_files(self.home, here)
        if not candidate.decides:
            return found
        return GgufFiles(deciding.marked(found.model, self.tokenizer(here.model)), found.adapter)

    def safetensors(self, candidate: Candidate) -> Safetensors:
        """As they are, for vLLM."""
        trained = self.trained(candidate) if candidate.weights else None
        if trained and candidate.weights and candidate.weights.kind == "merged":
            return Safetensors(trained, proofs=self.home / PROOFS)
        return Safetensors(self.model_dir(candidate.model, candidate.revision), trained, self.home / PROOFS)

    def trained(self, candidate: Candidate) -> Path:
        """What a stage made for it, fetched where it is elsewhere."""
        assert candidate.weights is not None
        return self.handover.weights_dir(candidate.weights)


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
    ahead.wait(home)
    # Fetched first: converting a base takes long, and is for nothing where its adapter is gone.
    fetched = storage.fetch(trained.uri, folder) if trained and adapter and not files.is_proven(adapter) else None
    base = weights.materialize(model, home)
    gguf = ahead.make(model, base, home)
    if fetched and adapter:
        files.proven_adapter(fetched, base, gguf, adapter, THREADS)
    return GgufFiles(gguf, adapter)


def causal_server(
    engine: Engine, work: Files, candidate: Candidate, context_tokens: int
) -> AbstractContextManager[Running]:
    """The candidate's weights in its engine; `served_name` is what they are asked for as."""
    name = served_name(candidate)
    files = work.safetensors(candidate) if candidate.engine == "vllm" else work.gguf(candidate)
    is_beside = candidate.engine == "vllm" and files.adapter is not None  # the model alone answers too, by another name
    what = ToServe(
        model=str(files.model),
        name=f"{name}-base" if is_beside else name,
        log=work.home / "logs" / f"{candidate.stage}.log",
        adapters={name: files.adapter} if files.adapter else {},
        context_tokens=context_tokens,
        threads=THREADS,
    )
    if isinstance(engine, Vllm) and isinstance(files, Safetensors) and files.proofs is not None:
        return _proven(engine, what, name, files, files.proofs)
    return engine.serving(what)


@contextmanager
def _proven(engine: Vllm, what: ToServe, name: str, files: Safetensors, proofs: Path) -> Iterator[Running]:
    """As `serving`, held to transformers first where nobody has."""
    is_known = proof.check_known(engine.settings, files.model, files.adapter, proofs)
    with engine.serving(what) as running:
        if not is_known:
            proof.prove(engine.settings, running, what, files.model, files.adapter, proofs, name)
        yield running


def served_name(candidate: Candidate) -> str:
    """The name a server of ours knows a candidate by."""
    return f"{candidate.stage}-{candidate.key[:6]}"
