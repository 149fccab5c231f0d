"""A student as it answers: an encoder with a head over the labels, read from its directory.

It trains nothing (see `leastwise.training.distillation`) and serves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from leastwise.errors import BadInput
from leastwise.evidence.abstention import compare
from leastwise.models.causal_model import tokenizer_of
from leastwise.models.machine import THREADS
from leastwise.models.student_network import Compute, Network
from leastwise.models.student_runtime import Runtime, RuntimeSpeed, compute_in

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


MOST_FALSE_DECLINES = 0.05  # share of in-scope dev texts a student, or a reference served as one, may decline


class DeclineThreshold(BaseModel):
    """An abstention threshold on the largest probability, and what it did on dev; None where dev had no such inputs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decline_below: float
    declined_in_scope: float
    declined_out_of_scope: float | None
    auroc: float | None


class StudentAbout(BaseModel):
    """What a student directory says of its head, in labels.json beside the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: tuple[str, ...] = Field(min_length=1, description="The head's answers, in the order of its rows")
    max_tokens: int = Field(gt=0, description="Tokens read of a text; the rest is cut off")
    decline_label: str | None = Field(None, description="The answer of an unsure student; none: it never declines")
    decline_below: float = Field(0.0, ge=0, description="Confidence under which it declines")
    normalize: bool = Field(False, description="Whether the head reads vectors of length 1, as a reference's does")
    runtime: Runtime = Field("float32", description="How its numbers are computed when it answers")
    measured: tuple[RuntimeSpeed, ...] = Field((), description="What each runtime did where the student was exported")


@dataclass(frozen=True)
class StudentAnswer:
    """A student's answer; `label` is the decline label where `confidence` is under the threshold."""

    label: str
    confidence: float
    energy: float  # log-sum-exp of the logits: higher for what the student was trained on (Liu et al. 2020)


@dataclass(frozen=True)
class Student:
    """A trained student directory, loaded on first use; without a `decline_label` in it, it never declines."""

    directory: Path
    threads: int = THREADS

    @cached_property
    def about(self) -> StudentAbout:
        """What is stored beside the weights; BadInput where it is missing or does not read."""
        path = self.directory / "labels.json"
        if not path.is_file():
            raise BadInput(f"student {self.directory}: labels.json is missing; train it with train_student")
        try:
            return StudentAbout.model_validate_json(path.read_text())
        except ValidationError as error:
            raise BadInput(f"{path}: {error}; train the student again with train_student") from error

    @cached_property
    def _compute(self) -> Compute:
        return compute_in(self.about.runtime, self.stored_network, self.about.normalize, self.threads)

    @property
    def stored_network(self) -> Network:
        """Encoder and head as they are on disk, in float32, loaded afresh."""
        import torch
        from safetensors.torch import load_file
        from transformers import AutoModel
        from transformers.utils import logging

        logging.disable_progress_bar()
        encoder = AutoModel.from_pretrained(
            self.directory, add_pooling_layer=False, local_files_only=True, dtype=torch.float32
        )
        head = torch.nn.Linear(encoder.config.hidden_size, len(self.about.labels))
        head.load_state_dict(load_file(self.directory / "head.safetensors"))
        return Network(encoder.eval(), head.eval())

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        from transformers import AutoTokenizer

        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(self.directory, local_files_only=True)
        return tokenizer

    def probabilities(self, texts: Sequence[str], batch_size: int = 32) -> npt.NDArray[np.float32]:
        """Label probabilities, shape (n, labels), rows summing to 1, columns in the order of `about.labels`."""
        from scipy.special import softmax

        return np.asarray(softmax(self.logits(texts, batch_size), axis=1))

    def logits(
        self, texts: Sequence[str], batch_size: int = 32, compute: Compute | None = None
    ) -> npt.NDArray[np.float32]:
        """The head's output, shape (n, labels), in the student's own runtime unless another one is given."""
        compute = compute or self._compute
        tokens = tokenized(self._tokenizer, texts, self.about.max_tokens)
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        result = np.zeros((len(tokens), len(self.about.labels)), dtype=np.float32)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            result[rows] = compute([tokens[i] for i in rows])
        return result

    def answer(self, texts: Sequence[str]) -> list[StudentAnswer]:
        """Label and confidence of each text, declining under the threshold where a decline label is set."""
        from scipy.special import logsumexp, softmax

        labels, floor, decline = self.about.labels, self.about.decline_below, self.about.decline_label
        logits = self.logits(texts)
        energies = logsumexp(logits, axis=1).tolist()
        chosen = [(labels[int(row.argmax())], float(row.max())) for row in softmax(logits, axis=1)]
        return [
            StudentAnswer(decline if decline is not None and top < floor else label, top, energy)
            for (label, top), energy in zip(chosen, energies, strict=True)
        ]

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The label of each text."""
        return [answer.label for answer in self.answer(texts)]


def fit_dev_threshold(
    probabilities: Callable[[Sequence[str]], npt.NDArray[np.floating]],
    in_scope: Sequence[str],
    out_of_scope: Sequence[str],
    max_false_decline: float,
) -> DeclineThreshold:
    """The threshold on the largest probability that keeps false declines to `max_false_decline`.

    How is in `leastwise.evidence.abstention`. `probabilities` maps n texts to an (n, labels) array (a Student's or a
    Reference's). AUROC is None without `out_of_scope`. BadInput for no in-scope texts, or a share outside [0, 1).
    """
    if not in_scope or not 0 <= max_false_decline < 1:
        raise BadInput(
            f"threshold: {len(in_scope)} in-scope texts, share {max_false_decline}; give texts, and a share in [0, 1)"
        )
    inside = probabilities(in_scope).max(axis=1).tolist()
    outside = probabilities(out_of_scope).max(axis=1).tolist() if out_of_scope else None
    (comparison,) = compare(
        {"max_probability": inside}, {} if outside is None else {"max_probability": outside}, max_false_decline
    )
    return DeclineThreshold(
        decline_below=comparison.below,
        declined_in_scope=comparison.false_decline,
        declined_out_of_scope=comparison.declined,
        auroc=comparison.auroc,
    )


def tokenized(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """The token ids a student reads of each text, cut at `max_tokens`."""
    if not texts:
        return []
    tokens: list[list[int]] = tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"]
    return tokens


def texts_cut(source: str, texts: Sequence[str], encoder: Path, max_tokens: int) -> str:
    """How many of these texts the student reads only the start of, in words; empty where it reads all of each."""
    ids = tokenized(tokenizer_of(str(encoder)), list(texts), max_tokens + 1)
    cut = sum(len(each) > max_tokens for each in ids)
    if not cut:
        return ""
    return (
        f"{source}: {cut:,} of {len(ids):,} texts are longer than the {max_tokens} tokens the student reads; the "
        "rest of them is cut off (raise training.student.max_tokens, up to 512)"
    )
