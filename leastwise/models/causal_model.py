"""Runs a causal model with its adapter in process: answers in batches, perplexity, merging.

It trains nothing (`leastwise.training.training` does) and serves nothing. Runs on the device there is, one process.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, TypeVar, overload

from leastwise.errors import BadInput
from leastwise.models.machine import THREADS, device_here, fitting, in_4_bits, native_dtype, torch_threads
from leastwise.models.weights import built
from leastwise.use_case.training import LONGEST_TOKENS

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase
    from transformers.models.auto.modeling_auto import _BaseModelWithGenerate

    CausalModel: TypeAlias = _BaseModelWithGenerate  # what AutoModelForCausalLM gives; transformers names it privately
    LoadedModel: TypeAlias = CausalModel | PeftModel
    Tokenizer: TypeAlias = PreTrainedTokenizerBase

T = TypeVar("T")

IGNORED = -100  # the label of a token that carries no loss; torch's cross-entropy passes over it
PROOF = "proof/logits.safetensors"  # apart: whoever reads weights globs the folder


def merge(base: Path, adapter_dir: Path, out: Path) -> Path:
    """Writes base and adapter as one model directory of safetensors with the tokenizer; an existing `out` is kept."""
    if not out.exists():
        with built(out) as folder:
            _merged(base, adapter_dir).save_pretrained(folder)
            save_tokenizer(base, folder)
    return out


def save_tokenizer(base: Path, folder: Path) -> None:
    """Writes the tokenizer of `base` beside weights made of it, the file that llama.cpp alone reads too."""
    tokenizer_of(str(base)).save_pretrained(folder)
    pieces = base / "tokenizer.model"
    if pieces.exists():
        shutil.copyfile(pieces, folder / pieces.name)


def _merged(base: Path, adapter_dir: Path | None) -> CausalModel:
    from peft import PeftModel

    model = loaded(base, adapter_dir)
    if not isinstance(model, PeftModel):
        return model
    merged: CausalModel = model.merge_and_unload()
    return merged


def perplexity(
    model_dir: Path, texts: Sequence[str], threads: int = THREADS, max_tokens: int = LONGEST_TOKENS
) -> float:
    """exp of the mean negative log-likelihood a token, texts apart, the first token of each unscored."""
    with torch_threads(threads):
        return perplexity_of(loaded(model_dir), tokenizer_of(str(model_dir)), texts, max_tokens)


def perplexity_of(
    model: LoadedModel, tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int = LONGEST_TOKENS
) -> float:
    """As `perplexity`, of a model in memory; texts are cut at `max_tokens`. BadInput where no text has two tokens."""
    import torch

    total, count = 0.0, 0
    with torch.inference_mode():
        for text in texts:
            encoded = tokenizer(text, return_tensors="pt", truncation=True, max_length=max_tokens)
            ids = encoded.input_ids.to(model.device)
            if ids.shape[1] > 1:
                logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
                total += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
                count += ids.shape[1] - 1
    if not count:
        raise BadInput("held-out texts: none has two tokens; perplexity needs at least one such text")
    return math.exp(total / count)


def log_likelihoods(
    model: LoadedModel,
    tokenizer: Tokenizer,
    context: str,
    continuations: Sequence[str],
    max_tokens: int = LONGEST_TOKENS,
) -> list[float]:
    """Log-likelihood (nats) of each continuation after the context; a long context loses its beginning.

    Context and continuation are tokenized apart. BadInput where one of them has no token, or a continuation leaves no
    room for any context within `max_tokens`.
    """
    import torch

    head = tokenizer(context, add_special_tokens=False).input_ids
    tails = [tokenizer(text, add_special_tokens=False).input_ids for text in continuations]
    longest = max(map(len, tails))
    head = head[-max(0, max_tokens - longest) :] if longest < max_tokens else []
    if not head or not all(tails):
        raise BadInput(
            f"general task {context[:60]!r}: context or a choice is empty or longer than {max_tokens} tokens; "
            "shorten it"
        )
    # Padding at the end: what comes after a token does not change its probability.
    rows = torch.tensor([head + tail + [0] * (longest - len(tail)) for tail in tails], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=rows, use_cache=False, logits_to_keep=longest + 1).logits[:, :-1].float()
        scores = logits.log_softmax(-1).gather(-1, rows[:, -longest:, None])[..., 0]
    return [float(row[: len(tail)].sum()) for row, tail in zip(scores, tails, strict=True)]


class ConfidentAnswer(NamedTuple):
    """An answer with the probability the model gave its own words, the end mark left out."""

    text: str
    probability: float


class Generator:
    """Answers prompts greedily with a model directory, an adapter merged into it; loads at once, keeps it in memory."""

    def __init__(self, model_dir: Path, adapter_dir: Path | None = None, threads: int = THREADS) -> None:
        self.model = _merged(model_dir, adapter_dir)
        spare_head(self.model)
        self.tokenizer = tokenizer_of(str(model_dir))
        self.threads = threads

    def answer(self, prompts: Sequence[str], max_new_tokens: int, batch_size: int = 32) -> list[str]:
        """One answer a prompt (already in chat format), in their order, stripped; equal prompts are computed once."""
        return self._in_batches(
            prompts, batch_size, lambda batch: greedy_batch(self.model, self.tokenizer, batch, max_new_tokens)
        )

    def confident(self, prompts: Sequence[str], max_new_tokens: int, batch_size: int = 32) -> list[ConfidentAnswer]:
        """As `answer`, each with the probability the model gave it."""
        return self._in_batches(
            prompts, batch_size, lambda batch: _confident_batch(self.model, self.tokenizer, batch, max_new_tokens)
        )

    def tokens(self, text: str) -> int:
        """How many tokens `text` is."""
        return len(self.tokenizer(text, add_special_tokens=False).input_ids)

    def _in_batches(self, prompts: Sequence[str], size: int, answer: Callable[[list[str]], list[T]]) -> list[T]:
        distinct = sorted(dict.fromkeys(prompts), key=lambda prompt: (len(prompt), prompt))
        answers: dict[str, T] = {}
        with torch_threads(self.threads):
            while left := distinct[len(answers) :]:

                def of(most: int, texts: list[str] = left) -> list[T]:
                    return answer(texts[:most])

                answers.update(zip(left, fitting("answers", size, of), strict=False))
        return [answers[prompt] for prompt in prompts]


def spare_head(model: LoadedModel) -> None:
    """Hands the head contiguous inputs: `generate` gives it a slice of the last positions.

    On one that is not contiguous torch copies the whole weight once a row, which was half the time of a batch.
    """
    model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))


def greedy_batch(model: CausalModel, tokenizer: Tokenizer, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
    """One greedy answer a prompt (already in chat format), stripped; the prompts are one batch, padded on the left."""
    return _texts(tokenizer, _generate(model, tokenizer, prompts, max_new_tokens).tokens)


def _confident_batch(
    model: CausalModel, tokenizer: Tokenizer, prompts: Sequence[str], max_new_tokens: int
) -> list[ConfidentAnswer]:
    import torch

    generated = _generate(model, tokenizer, prompts, max_new_tokens, keeps_logits=True)
    tokens = generated.tokens
    nats = [
        logits.float().log_softmax(-1).gather(1, tokens[:, [at]])[:, 0] for at, logits in enumerate(generated.logits)
    ]
    ended = (tokens == tokenizer.eos_token_id).cumsum(dim=1) > 0  # the end mark and the padding after it
    probabilities = torch.stack(nats, 1).masked_fill(ended, 0.0).sum(dim=1).exp()
    return [ConfidentAnswer(*each) for each in zip(_texts(tokenizer, tokens), map(float, probabilities), strict=True)]


def _texts(tokenizer: Tokenizer, tokens: torch.Tensor) -> list[str]:
    return [text.strip() for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]


@dataclass(frozen=True)
class _Generated:
    tokens: torch.Tensor  # new ones, (prompts, longest answer)
    logits: Sequence[torch.Tensor]  # of each step, (prompts, vocabulary); none where they are not kept


def _generate(
    model: CausalModel, tokenizer: Tokenizer, prompts: Sequence[str], max_new_tokens: int, keeps_logits: bool = False
) -> _Generated:
    import torch

    pad = pad_token_id(tokenizer)
    ids = tokenizer(list(prompts), add_special_tokens=False).input_ids
    longest = max(map(len, ids))
    inputs = torch.tensor([[pad] * (longest - len(row)) + row for row in ids], device=model.device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids], device=model.device)
    with torch.no_grad():
        output = model.generate(  # type: ignore[misc]  # its annotation of self fits none of transformers' own models
            input_ids=inputs,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=pad,
            eos_token_id=tokenizer.eos_token_id,
            return_dict_in_generate=True,
            output_logits=keeps_logits,
        )
    assert not isinstance(output, torch.Tensor)
    return _Generated(output.sequences[:, longest:], output.logits or ())


def proof_inputs(proof: Mapping[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor | bool]:
    """What the model is given when the logits of a proof are computed, on its device."""
    return {name: proof[name].to(device) for name in ("input_ids", "attention_mask")} | {"use_cache": False}


@overload
def loaded(
    model_dir: Path,
    adapter_dir: None = None,
    attention: str = ...,
    device: torch.device | None = ...,
    quantize: Literal["nf4"] | None = ...,
) -> CausalModel: ...


@overload
def loaded(
    model_dir: Path,
    adapter_dir: Path | None,
    attention: str = ...,
    device: torch.device | None = ...,
    quantize: Literal["nf4"] | None = ...,
) -> LoadedModel: ...


def loaded(
    model_dir: Path,
    adapter_dir: Path | None = None,
    attention: str = "sdpa",
    device: torch.device | None = None,
    quantize: Literal["nf4"] | None = None,
) -> LoadedModel:
    """Model in eval mode on the device there is unless another is given, with its adapter; `adapter_dir` may hold a
    full model instead.

    A GPU's weights are read straight onto it, one after the other. With `quantize` the blocks' are held in 4 bits.
    """
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    is_adapter = adapter_dir is not None and (adapter_dir / "adapter_config.json").exists()
    source = model_dir if adapter_dir is None or is_adapter else adapter_dir
    place = device or device_here()
    model = AutoModelForCausalLM.from_pretrained(
        source,
        dtype=native_dtype(),
        attn_implementation=attention,
        device_map=None if place.type == "cpu" else place,
        **({"quantization_config": in_4_bits()} if quantize else {}),
    )
    model.eval()
    if is_adapter:
        return PeftModel.from_pretrained(
            model, str(adapter_dir), autocast_adapter_dtype=False, torch_device=str(place)
        ).eval()
    return model


@lru_cache(maxsize=8)
def tokenizer_of(directory: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model directory, loaded once."""
    from transformers import AutoTokenizer

    tokenizer: Tokenizer = AutoTokenizer.from_pretrained(directory)
    return tokenizer


def pad_token_id(tokenizer: Tokenizer) -> int:
    """The token that fills short rows; the end mark where the tokenizer has none."""
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)
