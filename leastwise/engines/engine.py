"""What every engine is asked and says of itself: who serves weights, under which names, what it can, how much it does.

It starts nothing and knows no engine (`llama_cpp.py`, `mlflow_server.py`, `endpoint.py`, the room `vllm/`).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from leastwise.endpoints.request import Endpoint
from leastwise.models.machine import THREADS

NO_ADAPTERS: Mapping[str, Path] = MappingProxyType({})


@dataclass(frozen=True)
class Capabilities:
    """What an engine can tell and hold answers to. None: nobody knows before it is asked.

    `adapters`: how many it serves at once on one model, each by its name; 0: none.
    """

    json_schema: bool | None = None
    logprobs: bool | None = None
    cached_tokens: bool | None = None
    adapters: int = 0


@dataclass(frozen=True)
class ToServe:
    """A model as an engine takes it (a GGUF file, a folder of safetensors, a folder or URI of MLflow's), and adapters
    on it by the name each is asked for.

    `name`: what the model alone is asked for as. `context_tokens`: prompt and answer of one request. `port`: of the
    loopback; None: any that is free.
    """

    model: str
    name: str
    log: Path
    adapters: Mapping[str, Path] = field(default_factory=lambda: NO_ADAPTERS)
    context_tokens: int = 2048
    threads: int = THREADS
    port: int | None = None


@dataclass(frozen=True)
class AtWork:
    """What an engine does now, in requests, and has done since it was started, in tokens."""

    waiting: int
    running: int
    input_tokens: int
    output_tokens: int


class Running(Protocol):
    """An engine that serves, from being ready to its end."""

    @property
    def names(self) -> tuple[str, ...]:
        """What it may be asked for: the model alone, if it serves that, then each adapter."""
        ...

    def endpoint(self, name: str | None = None) -> Endpoint:
        """Where the model or adapter of this name answers (None: the first); KeyError for a name it does not serve."""
        ...

    def is_healthy(self) -> bool:
        """Whether it answers now."""
        ...

    def at_work(self) -> AtWork | None:
        """What it says of itself; None where it counts nothing, or does not answer."""
        ...

    def drain(self, within_s: float) -> bool:
        """Take no new request, answer those in flight, then end; whether all that was done in time."""
        ...

    def stop(self) -> None:
        """End it now, with whatever it was doing. Ending what has ended changes nothing."""
        ...


class Engine(Protocol):
    """A way of serving weights."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What it can."""
        ...

    @property
    def computes_as(self) -> str:
        """What tells its answers from another engine's of the same weights (engine, number format), as a part of the
        key they are kept under; empty: llama.cpp's Q8_0, and whatever is no weights of ours.
        """
        ...

    def serving(self, what: ToServe) -> AbstractContextManager[Running]:
        """Serve until the block ends. BadInput for what it cannot serve, StartError with the end of its log where it
        dies or is not ready in time.
        """
        ...
