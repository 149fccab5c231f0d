"""How likely a causal model holds each allowed label to be its answer: soft targets for a student.

It decides on no answer and trains nothing. A model behind an endpoint is not asked: no provider scores given answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from leastwise.errors import BadInput
from leastwise.models.causal_model import IGNORED, pad_token_id
from leastwise.models.machine import fitting, torch_threads

if TYPE_CHECKING:
    import torch
    from transformers import Cache

    from leastwise.models.causal_model import CausalModel, Generator


def label_probabilities(
    generator: Generator, prompts: Sequence[str], labels: Sequence[str], *, whole: bool = False, batch_size: int = 32
) -> npt.NDArray[np.float32]:
    """Probability of each label given that the answer is one of them, shape (prompts, labels), rows sum to 1.

    The log-likelihoods of a label's tokens and its end mark after the prompt (already in chat format) are summed, then
    normalized over the labels. Where every label begins with a token of its own, the first tokens stand for the labels
    unless `whole`: that is how a decoder held to the labels chooses, and a trained model is sure of the rest.
    """
    if not labels or len(set(labels)) != len(labels):
        raise BadInput(f"labels: {len(labels)} of which {len(set(labels))} distinct; give each once, at least one")
    tokenizer = generator.tokenizer
    ids = tokenizer(list(prompts), add_special_tokens=False).input_ids if len(prompts) else []
    endings = [tokenizer(label + tokenizer.eos_token, add_special_tokens=False).input_ids for label in labels]
    if not whole and begin_apart(endings):
        endings = [ending[:1] for ending in endings]
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    probabilities = np.zeros((len(ids), len(labels)), dtype=np.float32)
    with torch_threads(generator.threads):
        while order:

            def of(most: int, left: list[int] = order) -> npt.NDArray[np.float32]:
                return _normalized(generator, [ids[row] for row in left[:most]], endings)

            found = fitting("label probabilities", batch_size, of)
            probabilities[order[: len(found)]] = found
            order = order[len(found) :]
    return probabilities


def begin_apart(endings: Sequence[Sequence[int]]) -> bool:
    """Whether no two token lists have the same first token."""
    return len({ending[0] for ending in endings}) == len(endings)


def _normalized(generator: Generator, prompts: list[list[int]], endings: list[list[int]]) -> npt.NDArray[np.float32]:
    import torch

    pad, device = pad_token_id(generator.tokenizer), generator.model.device
    longest = max(map(len, prompts))
    inputs = torch.tensor([[pad] * (longest - len(row)) + row for row in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts], device=device)
    with torch.inference_mode():
        likelihood = _log_likelihoods(generator.model, inputs, mask, endings, pad)
        return np.asarray(likelihood.softmax(dim=1).cpu().numpy())


def _log_likelihoods(
    model: CausalModel, inputs: torch.Tensor, mask: torch.Tensor, endings: list[list[int]], pad: int
) -> torch.Tensor:
    """Nats of every ending after every prompt, shape (prompts, endings); prompts are padded on the left.

    A prompt is read once, and its keys and values are shared by the endings.
    """
    positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
    size = max(map(len, endings)) - 1  # the last token of an ending is only predicted, never read
    read = model(input_ids=inputs, attention_mask=mask, position_ids=positions, use_cache=size > 0, logits_to_keep=1)
    first: torch.Tensor = read.logits[:, -1].float().log_softmax(dim=1)[:, [ending[0] for ending in endings]]
    if size == 0:
        return first
    return first + _nats_of_the_rest(model, read.past_key_values, mask, positions[:, -1:] + 1, endings, pad)


def _nats_of_the_rest(
    model: CausalModel, cache: Cache, mask: torch.Tensor, start: torch.Tensor, endings: list[list[int]], pad: int
) -> torch.Tensor:
    """Nats of the endings' tokens after their first, shape (prompts, endings); `start` is the position of the first."""
    import torch

    prompts, labels, size = len(mask), len(endings), max(map(len, endings)) - 1
    device = mask.device
    reads = torch.tensor([ending[:-1] + [pad] * (size - len(ending) + 1) for ending in endings], device=device)
    targets = torch.tensor([ending[1:] + [IGNORED] * (size - len(ending) + 1) for ending in endings], device=device)
    targets = targets.repeat(prompts, 1)
    kept = targets != IGNORED
    cache.batch_repeat_interleave(labels)
    positions = (start + torch.arange(size, device=device)).repeat_interleave(labels, dim=0)
    seen = torch.cat([mask.repeat_interleave(labels, dim=0), torch.ones_like(positions)], dim=1)
    hidden = model.get_decoder()(
        input_ids=reads.repeat(prompts, 1), attention_mask=seen, position_ids=positions, past_key_values=cache
    ).last_hidden_state
    logits = model.get_output_embeddings()(hidden[kept])  # the head is a quarter of the work: none for padding
    nats = torch.zeros(targets.shape, device=device)
    nats[kept] = -torch.nn.functional.cross_entropy(logits.float(), targets[kept], reduction="none")
    return nats.view(prompts, labels, size).sum(dim=2)
