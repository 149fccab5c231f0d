"""Whether llama.cpp computes what transformers does: the same text and tokens, and after each prompt the same
log-probability of every token of the vocabulary, within what the file's number format costs.

A model that some other code runs almost rightly gives answers that look right, so this is looked at after every
conversion. It converts and keeps nothing.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from leastwise.endpoints.request import Endpoint
from leastwise.engines import llama_cpp
from leastwise.engines.gguf.architectures import read_json
from leastwise.engines.gguf.conversion import Quantization
from leastwise.models.causal_model import tokenizer_of
from leastwise.models.chat import format_chat, takes_system
from leastwise.models.next_token import next_token_log_probabilities
from leastwise.part import Part

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Of natural log-probabilities. 16 and 32 bits show whether the same thing is computed, over the whole vocabulary: a
# wrong rotation, a missing window or other norms of experts made .65 to 2.2. Q8_0 moves what is unlikely as far as that
# by itself (2.7 of a token on an overtrained adapter that answers alike), so it is written only where 16 bits agreed,
# and is held by what may be answered, and by how far apart the distributions are.
LARGEST: dict[Quantization, float] = {"f32": 0.03, "f16": 0.05, "q8_0": 1.0}
LEAST_LIKELY: dict[Quantization, float] = {"f32": 0.0, "f16": 0.0, "q8_0": 0.001}  # the tokens that are held to it
DIVERGENCE: dict[Quantization, float] = {"f32": 0.0005, "f16": 0.001, "q8_0": 0.03}
LONGEST_WINDOW_TOKENS = 1024  # a longer window is not reached: its text would take minutes to compute
SYSTEM = "Classify the sentence into one ATT&CK tactic."
TEXTS = (
    "APT29 used port 8443 in 2021, v1.24, to exfiltrate 3,500 files.",
    "Où est-il? 我想在apple工作; naïve café — “quoted”, it's 100% sure.\nA second line:\n\tx = y[0] + 2",
    "A mail carried malware",
)
TIMEOUT_S = 300.0


class Comparison(Part):
    """What was compared, and by how much it differs at most."""

    engine: str
    dtype: Quantization
    largest: float = Field(description="Largest difference of the log-probability of any token after any prompt.")
    largest_likely: float = Field(description="As `largest`, of the tokens that this number format is held to.")
    divergence: float = Field(description="Kullback-Leibler divergence from transformers, nats, mean over prompts.")
    prompts: int
    vocabulary: int
    other: str = ""  # what is not a matter of degree: another text or other tokens

    @property
    def refusal(self) -> str:
        """Why the file must not be used; empty where it may."""
        if self.other:
            return self.other
        most, apart = LARGEST[self.dtype], DIVERGENCE[self.dtype]
        if self.largest_likely <= most and self.divergence <= apart:  # a NaN is neither
            return ""
        return (
            f"as {self.dtype} its log-probabilities differ by up to {self.largest_likely:.3g} from those of "
            f"transformers, its distributions by {self.divergence:.2g} nats ({most:g} and {apart:g} are explained by "
            "the number format)"
        )


@dataclass(frozen=True)
class _Server:
    endpoint: Endpoint

    def post(self, route: str, body: dict[str, object]) -> dict[str, object]:
        """What the server of ours says to a route that is not OpenAI's."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.endpoint.api_key}"}
        address = self.endpoint.base_url.removesuffix("/v1") + route
        request = urllib.request.Request(address, json.dumps(body).encode(), headers)  # noqa: S310 - our own loopback
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=TIMEOUT_S) as reply:
            said: dict[str, object] = json.loads(reply.read())
        return said

    def tokens(self, text: str) -> list[int]:
        """The tokens it feeds its model for a rendered chat."""
        said = self.post("/tokenize", {"content": text, "add_special": True, "parse_special": True})["tokens"]
        assert isinstance(said, list)
        return [int(token) for token in said]

    def chat(self, messages: Sequence[dict[str, str]]) -> str:
        """The text it makes of a chat."""
        return str(self.post("/apply-template", {"messages": list(messages)})["prompt"])


def engine() -> str:
    """The version of llama.cpp here."""
    return f"xllamacpp {version('xllamacpp')}"


@dataclass(frozen=True)
class Reference:
    """What transformers computes with a base, or with an adapter on it: computed once for all files of them."""

    base: Path
    prompts: list[list[int]]
    wanted: list[npt.NDArray[np.float32]]

    @classmethod
    def of(cls, base: Path, adapter: Path | None, threads: int) -> Reference:
        """Load the weights once and look at the next token after each prompt. Of an adapter two prompts are enough:
        that its base is computed rightly is known, and what were left out of it would move every prompt.
        """
        prompts = prompts_of(base) if adapter is None else prompts_of(base)[::2]
        return cls(base, prompts, next_token_log_probabilities(base, adapter, prompts, threads))


def compare(gguf: Path, adapter: Path | None, reference: Reference, dtype: Quantization, threads: int) -> Comparison:
    """Serve a file (and an adapter's on it) once and hold it to the reference.

    Raises StartError where llama.cpp cannot load it.
    """
    import numpy as np

    context, log = max(512, max(map(len, reference.prompts)) + 64), gguf.with_suffix(".log")
    with llama_cpp.serve_causal(
        gguf, name="compared", log=log, adapter=adapter, context_tokens=context, threads=threads
    ) as endpoint:
        server = _Server(endpoint)
        other = _other_text(server, reference.base)
        both = zip(reference.prompts, reference.wanted, strict=True)
        pairs = [(wanted, _log_probabilities(server, prompt, len(wanted))) for prompt, wanted in both]
    log.unlink(missing_ok=True)
    likely = np.log(LEAST_LIKELY[dtype]) if LEAST_LIKELY[dtype] else -np.inf
    # Where all are unlikely, the likeliest is held to it.
    held = [np.abs(wanted - found)[wanted >= min(likely, wanted.max())] for wanted, found in pairs]
    apart = np.mean([(np.exp(wanted) * (wanted - found)).sum(dtype=np.float64) for wanted, found in pairs])
    return Comparison(
        engine=engine(),
        dtype=dtype,
        largest=float(max(np.abs(wanted - found).max() for wanted, found in pairs)),
        largest_likely=float(max(each.max() for each in held)),
        divergence=abs(float(apart)),  # 0 but for rounding where both are the same
        prompts=len(pairs),
        vocabulary=len(pairs[0][0]),
        other=other,
    )


def chats_of(base_dir: Path) -> list[list[dict[str, str]]]:
    """Chats that an engine must read as training does, with and without an instruction apart where there can be one."""
    user = [[{"role": "user", "content": text}] for text in TEXTS]
    with_system = [[{"role": "system", "content": SYSTEM}, *turns] for turns in user] if takes_system(base_dir) else []
    return user + with_system


def _other_text(server: _Server, base_dir: Path) -> str:
    """Where the server makes another text of a chat, or other tokens of a text, than training does; empty: nowhere."""
    tokenizer = tokenizer_of(str(base_dir))
    if not tokenizer.chat_template:
        texts = {text: text for text in TEXTS}
        wanted = {text: list(tokenizer(text).input_ids) for text in TEXTS}
    else:
        chats = chats_of(base_dir)
        rendered = [format_chat(base_dir, chat) for chat in chats]
        texts = {one: server.chat(chat) for one, chat in zip(rendered, chats, strict=True)}
        wanted = {one: list(tokenizer(one, add_special_tokens=False).input_ids) for one in rendered}
    for one, theirs in texts.items():
        begin = tokenizer.bos_token or ""
        if begin and one.startswith(begin) and not theirs.startswith(begin):
            theirs = begin + theirs  # llama.cpp leaves the first mark to its tokenizer
        if theirs != one:
            return f"it reads a chat as {theirs[:80]!r}, and its template says {one[:80]!r}"
        tokens = server.tokens(texts[one])
        if tokens != wanted[one]:
            at = next((i for i, (a, b) in enumerate(zip(tokens, wanted[one], strict=False)) if a != b), -1)
            return f"it cuts {one[:60]!r} into {len(tokens)} tokens and not {len(wanted[one])} (first other one: {at})"
    return ""


def prompts_of(base_dir: Path) -> list[list[int]]:
    """Token ids after which the next is looked at: chats (the last with the instruction apart, where there can be one),
    one cut in the middle, and one text longer than the window that the model attends within.
    """
    tokenizer = tokenizer_of(str(base_dir))
    if tokenizer.chat_template:
        texts = [format_chat(base_dir, chat) for chat in chats_of(base_dir)]
        whole = [list(tokenizer(text, add_special_tokens=False).input_ids) for text in texts]
    else:
        whole = [list(tokenizer(text).input_ids) for text in TEXTS]
    half = whole[-1][: max(2, len(whole[-1]) // 2)]
    window = read_json(base_dir / "config.json").get("sliding_window")
    length = window + 32 if isinstance(window, int) and window <= LONGEST_WINDOW_TOKENS else 160
    long = (whole[0] * (length // len(whole[0]) + 1))[:length]
    return [whole[-1], whole[1], half, long]


def _log_probabilities(server: _Server, prompt: Sequence[int], vocabulary: int) -> npt.NDArray[np.float32]:
    import numpy as np

    body = {"prompt": list(prompt), "n_predict": 1, "n_probs": vocabulary, "temperature": 0.0, "cache_prompt": False}
    # Told are the probabilities before a grammar; without one it may write half a letter, and then it tells none.
    said = server.post("/completion", {**body, "grammar": 'root ::= "a"'})["completion_probabilities"]
    assert isinstance(said, list)
    told = np.full(vocabulary, -np.inf, dtype=np.float32)
    for each in said[0]["top_logprobs"]:
        told[each["id"]] = each["logprob"]
    return told
