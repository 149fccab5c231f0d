"""Whether vLLM computes what transformers does with the same weights: the same tokens of a chat, and along some prompts
the same log-probabilities of what is likely to come next, within what the number format costs.

It starts nothing; what was found is kept by `proof.py`. Not run on a GPU.
"""

from __future__ import annotations

import json
import math
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from leastwise.endpoints.request import Endpoint
from leastwise.engines.gguf.comparison import TIMEOUT_S, chats_of, prompts_of
from leastwise.models.causal_model import tokenizer_of
from leastwise.models.chat import format_chat
from leastwise.models.next_token import log_probabilities_along
from leastwise.part import Part

Precision = Literal["half", "float32"]
TOLD = 20  # tokens a place that vLLM tells of, unless it is started otherwise
LAST = 128  # places looked at of a prompt, from its end: also of one that is longer than a window
# Of natural log-probabilities. Half precision (bfloat16, float16) and the kernels made for it move what is likely by as
# much as Q8_0 does; a wrong rotation, a window left out or an adapter that is not laid on moves it by more.
LARGEST: dict[Precision, float] = {"half": 1.0, "float32": 0.05}
LIKELY = 0.001  # what is less likely, for either of them, is not held to it
DIVERGENCE: dict[Precision, float] = {"half": 0.03, "float32": 0.001}

Told = Mapping[int, float]  # log-probabilities by token id, of the likeliest and of the one that comes


class Comparison(Part):
    """What was compared, and by how much it differs."""

    engine: str = Field(description="Version of vLLM, its hardware and number format.")
    precision: Precision
    largest: float = Field(description="Largest difference of the log-probability of a likely token at any place.")
    divergence: float = Field(description="Kullback-Leibler divergence from transformers, nats, mean over places.")
    places: int
    other: str = ""  # what is not a matter of degree: other tokens

    @property
    def refusal(self) -> str:
        """Why these weights must not be judged or served by it; empty where they may."""
        if self.other:
            return self.other
        most, apart = LARGEST[self.precision], DIVERGENCE[self.precision]
        if self.largest <= most and self.divergence <= apart:  # a NaN is neither
            return ""
        return (
            f"its log-probabilities differ by up to {self.largest:.3g} from those of transformers, its distributions "
            f"by {self.divergence:.2g} nats ({most:g} and {apart:g} are explained by {self.precision} precision)"
        )


def compare(
    endpoint: Endpoint,
    base: Path,
    adapter: Path | None,
    engine: str,
    precision: Precision,
    context_tokens: int,
    threads: int,
) -> Comparison:
    """Ask a vLLM that serves these weights at `endpoint`, in a context of so many tokens, and hold it to transformers.
    OSError where it does not answer.
    """
    import numpy as np

    prompts = [prompt[: context_tokens - 1] for prompt in prompts_of(base)]
    told = [_along(endpoint, prompt) for prompt in prompts]
    wanted = log_probabilities_along(base, adapter, prompts, threads, LAST)
    pairs = [pair for ours, theirs in zip(wanted, told, strict=True) for pair in zip(ours, theirs, strict=True)]
    largest, apart = [], []
    for ours, theirs in pairs:
        ids = list(theirs)
        one, other = ours[ids].astype(np.float64), np.array([theirs[each] for each in ids], dtype=np.float64)
        likely = np.maximum(one, other) >= math.log(LIKELY)
        largest.append(float(np.abs(one - other)[likely].max(initial=0.0)))
        apart.append(_divergence(np.exp(one).tolist(), np.exp(other).tolist()))
    return Comparison(
        engine=engine,
        precision=precision,
        largest=float(np.max(largest)),
        divergence=float(np.mean(apart)),
        places=len(pairs),
        other=_other_tokens(endpoint, base),
    )


def _divergence(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Of the tokens that were told, and of all others as one."""
    rest = [max(1.0 - sum(each), 1e-9) for each in (ours, theirs)]
    pairs = zip([*ours, rest[0]], [*theirs, rest[1]], strict=True)
    return sum(p * math.log(p / max(q, 1e-30)) for p, q in pairs if p > 0)


def _along(endpoint: Endpoint, prompt: Sequence[int]) -> list[Told]:
    """What it tells after each of the last places of a prompt."""
    body = {"prompt": list(prompt), "max_tokens": 1, "temperature": 0, "logprobs": TOLD, "prompt_logprobs": TOLD}
    (choice,) = _asked(endpoint, "completions", {**body, "return_tokens_as_token_ids": True})["choices"]
    inside: list[Told] = [
        {int(token): float(each["logprob"]) for token, each in told.items()} for told in choice["prompt_logprobs"][1:]
    ]
    after = choice["logprobs"]["top_logprobs"][0]
    last: Told = {int(token.removeprefix("token_id:")): float(value) for token, value in after.items()}
    return [*inside, last][-LAST:]


def _other_tokens(endpoint: Endpoint, base: Path) -> str:
    """Where it feeds its model other tokens for a chat than training does; empty: nowhere."""
    tokenizer = tokenizer_of(str(base))
    for chat in chats_of(base) if tokenizer.chat_template else []:
        text = format_chat(base, chat)
        wanted = list(tokenizer(text, add_special_tokens=False).input_ids)
        body = {"messages": chat, "max_tokens": 1, "temperature": 0, "return_token_ids": True}
        tokens = _asked(endpoint, "chat/completions", body)["prompt_token_ids"]
        if tokens != wanted:
            at = next((i for i, (a, b) in enumerate(zip(tokens, wanted, strict=False)) if a != b), -1)
            return f"it cuts {text[:60]!r} into {len(tokens)} tokens and not {len(wanted)} (first other one: {at})"
    return ""


def _asked(endpoint: Endpoint, route: str, body: Mapping[str, object]) -> dict[str, Any]:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {endpoint.api_key}"}
    data = json.dumps({"model": endpoint.model, **body}).encode()
    request = urllib.request.Request(f"{endpoint.base_url}/{route}", data, headers)  # noqa: S310 - our own loopback
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=TIMEOUT_S) as reply:
        said: dict[str, Any] = json.loads(reply.read())
    return said
