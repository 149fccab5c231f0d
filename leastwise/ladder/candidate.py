"""A candidate: how to answer one request, as data.

It is what a stage changes, what an evaluation measures and what gets promoted. It answers nothing itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from leastwise.content import identity
from leastwise.evidence.abstention import Guard
from leastwise.evidence.choosing.calibration import Calibration
from leastwise.part import Part, written_but_for
from leastwise.use_case import Stage
from leastwise.use_case.habits import Reasoning
from leastwise.use_case.model import Venue
from leastwise.use_case.settings import LATE_DENSE_SHARE, SearchMode, retrieval_problem

DOCUMENTS_STAND = "in a turn of their own"  # another word whenever documents are put to a model in another way


EngineName = Literal["llama.cpp", "vllm"]
PromptFormat = Literal["chat", "completion"]
Reading = Literal["generate", "likelihood", "decide"]
TELLING: frozenset[Reading] = frozenset({"likelihood", "decide"})  # which say how likely every label is


class Shot(Part):
    """One worked example inside a prompt."""

    text: str
    label: str


class Prompt(Part):
    """The words around a request."""

    system: str = Field(description="Stable part: instruction, labels, rules.")
    shots: tuple[Shot, ...] = Field((), description="Fixed examples, the same for every request.")
    constrained: bool = Field(False, description="Whether the provider forces the answer into the label set.")
    format: PromptFormat = Field(
        "chat", description="completion: one plain text that the model goes on with, in no chat template."
    )
    reading: Reading = Field(
        "generate",
        description="likelihood: the label whose first token the model finds likeliest, not what it writes; decide: "
        "the likeliest of the labels as a decision model tells it, which is given them as options.",
    )
    calibration: Calibration | None = Field(None, description="How likelihoods become probabilities.")
    reasoning: Reasoning | None = Field(
        None, description="How much the model thinks before it writes; empty: as the use case says of the model."
    )

    @model_serializer(mode="wrap")
    def _what_came_later_is_not_written(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Candidates from before there were formats, readings and efforts keep their keys."""
        defaults: dict[str, object] = {"format": "chat", "reading": "generate", "calibration": None, "reasoning": None}
        return written_but_for(write(self), **defaults)

    @model_validator(mode="after")
    def _is_read_in_one_way(self) -> Self:
        if self.constrained and (self.reading != "generate" or self.format != "chat"):
            raise ValueError(
                "constrained: holds what a chat writes to its format; set false, or format: chat and reading: generate"
            )
        if self.calibration and not self.tells_likelihoods:
            raise ValueError("calibration: belongs to reading: likelihood or decide; leave it out")
        if self.reasoning is not None and self.reading != "generate":
            raise ValueError("reasoning: nothing is thought where nothing is written; leave it out")
        if self.reading == "decide" and self.format != "chat":
            raise ValueError("format: completion is no form of a decision; set format: chat with reading: decide")
        return self

    @property
    def tells_likelihoods(self) -> bool:
        """Whether an answer is how likely every label is, and read as the likeliest."""
        return self.reading in TELLING

    @property
    def how(self) -> str:
        """How the model is asked and its answer read, in words."""
        if self.format == "chat" and self.reading == "generate":
            effort = "" if self.reasoning is None else f", reasoning {self.reasoning}"
            return f"{'constrained' if self.constrained else 'unconstrained'}{effort}"
        prior = " / class prior" if self.calibration and self.calibration.log_prior else ""
        return f"decide{prior}" if self.reading == "decide" else f"{self.format}, {self.reading}{prior}"


class Retriever(Part):
    """What is looked up for every request."""

    embedder: str = Field(description="URI of the embedding model.")
    index: str = Field(description="Hash of the indexed rows and their embedding.")
    examples: int = Field(0, ge=0, le=64, description="Labelled examples put before the request.")
    documents: int = Field(0, ge=0, le=64, description="Documents put before the request.")
    mode: SearchMode = Field(
        "dense",
        description="How both are searched: by meaning, by words (BM25), both (hybrid), or by meaning and token by "
        "token (late).",
    )
    dense_share: float | None = Field(
        None, ge=0, le=1, description="Weight of meaning where two scores are added; null with hybrid: ranks are fused."
    )
    chunk_characters: int = Field(
        0, ge=0, le=1_000_000, description="Longer documents are found and shown in parts of about this; 0: whole."
    )

    @model_serializer(mode="wrap")
    def _what_came_later_is_not_written(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Candidates from before there were modes, shares and parts keep their keys."""
        return written_but_for(write(self), mode="dense", dense_share=None, chunk_characters=0)

    @model_validator(mode="after")
    def _can_be_searched_so(self) -> Self:
        problem = retrieval_problem(self.mode, self.dense_share, self.chunk_characters)
        if self.mode == "late" and self.dense_share is None:
            problem = f"dense_share: late adds it to what the tokens say; name it, {LATE_DENSE_SHARE} say"
        if problem:
            raise ValueError(problem)
        return self

    @property
    def how(self) -> str:
        """How it searches, in a word or two."""
        share = "" if self.dense_share is None else f" {self.dense_share:g}"
        parts = f", parts of {self.chunk_characters}" if self.chunk_characters else ""
        return f"{self.mode}{share}{parts}"


class CachePolicy(Part):
    """What is not paid for twice in production."""

    provider: bool = Field(False, description="Provider prompt caching switched on, prompt laid out for it.")
    exact: bool = Field(False, description="Identical requests are answered from a store.")
    ttl_s: int = Field(86_400, ge=1, description="How long a stored answer may be given out, seconds.")
    most_bytes: int = Field(256_000_000, ge=1, description="Size of the store; what was used longest ago goes first.")


class Weights(Part):
    """Weights a stage made."""

    kind: Literal["adapter", "merged", "student"] = Field(description="adapter: LoRA; merged: a full model; student.")
    uri: str = Field(description="What they are (made://), or where (s3://, file://); safetensors only.")
    revision: str = Field(description="Hash of their content.")


class Cascade(Part):
    """A cheaper candidate that is asked first."""

    first: Candidate
    below: float = Field(ge=0, le=1, description="Confidence of the first's answer below which the other is asked.")


class Candidate(Part):
    """Model + venue + prompt + retriever + cache policy + weights, and the candidate it came from."""

    stage: Stage | Literal["reference"]
    model: str = Field(description="URI of the model that answers.")
    revision: str = Field("", description="Revision of that model.")
    venue: Venue
    prompt: Prompt | None = None
    retriever: Retriever | None = None
    cache: CachePolicy = CachePolicy()
    weights: Weights | None = None
    decline_below: float | None = Field(None, ge=0, le=1, description="Confidence below which the student declines.")
    cascade: Cascade | None = Field(
        None, description="Who answers first; this candidate answers what that is unsure of."
    )
    guard: Guard | None = Field(None, description="What declines a request before or after the model was asked.")
    engine: EngineName = Field(
        "llama.cpp", description="What serves a causal model's weights where we start it; another computes otherwise."
    )
    parent: str | None = Field(None, description="Key of the candidate it was made from.")

    @model_serializer(mode="wrap")
    def _first_engine_is_not_written(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Candidates from before there were several keep their keys."""
        return written_but_for(write(self), engine="llama.cpp")

    @property
    def decides(self) -> bool:
        """Whether it is asked as a decision model."""
        return self.prompt is not None and self.prompt.reading == "decide"

    @property
    def key(self) -> str:
        """Content hash, 16 hex digits: equal candidates answer alike, so it tells how documents are put to them too."""
        layout = {"documents": DOCUMENTS_STAND} if self._shows_documents else {}
        said = self.placed(identity).model_dump(mode="json") | layout
        canonical = json.dumps(said, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def placed(self, where: Callable[[str], str]) -> Candidate:
        """The same, with the URIs of model and weights as `where` gives them, of who is asked first too."""
        update: dict[str, object] = {"model": where(self.model)}
        if self.weights:
            update["weights"] = self.weights.model_copy(update={"uri": where(self.weights.uri)})
        if self.cascade:
            update["cascade"] = self.cascade.model_copy(update={"first": self.cascade.first.placed(where)})
        return self.model_copy(update=update)

    @property
    def _shows_documents(self) -> bool:
        own = self.retriever is not None and self.retriever.documents > 0
        return own or (self.cascade is not None and self.cascade.first._shows_documents)
