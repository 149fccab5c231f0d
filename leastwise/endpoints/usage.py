"""Tokens as providers report them, read once and as billed; what cannot be read is unknown, never nothing.

It prices nothing. Every dialect is read by the same rules: the names of the fields, and which count is part of which,
are all that differs. A count that contradicts `total_tokens` is put right by it, since the total is what is billed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from leastwise.use_case.price import Usage

MOST_TOKENS = 100_000_000  # of one request; no model takes as many, so a count above is none

INPUT = ("prompt_tokens", "input_tokens", "promptTokenCount")
OUTPUT = ("completion_tokens", "output_tokens", "candidatesTokenCount")
TOTAL = ("total_tokens", "totalTokenCount")
CACHED = ("cached_tokens", "cache_read_input_tokens", "prompt_cache_hit_tokens", "cachedContentTokenCount")
WRITTEN = ("cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens")
REASONING = ("reasoning_tokens", "thoughtsTokenCount")
INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details")
OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details")
BESIDE_INPUT = ("cache_read_input_tokens", "cache_creation_input_tokens")  # Anthropic's, not part of its input_tokens


def usage_of(reported: object, *, is_empty: bool) -> Usage | None:
    """What a response's `usage` comes to; None where it says too little to bill by.

    `is_empty`: the answer has no text, so that no output token is nothing strange.
    """
    if not isinstance(reported, Mapping):
        return None
    total = _count(reported, TOTAL)
    prompt, output = _count(reported, INPUT), _count(reported, OUTPUT)
    if output is None and prompt is not None and total is not None:
        output = total - prompt
    if prompt is None and output is not None and total is not None:
        prompt = total - output
    if not prompt or prompt < 0 or output is None or output < 0:
        return None
    cached = _count(_details(reported, INPUT_DETAILS), CACHED) or _count(reported, CACHED) or 0
    written = _count(_details(reported, INPUT_DETAILS), WRITTEN) or _count(reported, WRITTEN) or 0
    is_apart = cached + written > prompt or total == prompt + cached + written + output or _is_anthropics(reported)
    if is_apart:
        prompt += cached + written
    output = max(output, *_with_reasoning(reported, output, None if total is None else total - prompt))
    return None if output == 0 and not is_empty else Usage(prompt, cached, written, output)


def _with_reasoning(reported: Mapping[object, object], output: int, beyond_prompt: int | None) -> tuple[int, int]:
    """Output with reasoning that is counted apart from it, as far as the counts tell."""
    reasoning = _count(_details(reported, OUTPUT_DETAILS), REASONING) or _count(reported, REASONING) or 0
    is_apart = reasoning > output or (beyond_prompt is None and "thoughtsTokenCount" in reported)
    return output + (reasoning if is_apart else 0), beyond_prompt or 0


def _is_anthropics(reported: Mapping[object, object]) -> bool:
    return "input_tokens" in reported and any(name in reported for name in BESIDE_INPUT)


def _details(reported: Mapping[object, object], names: tuple[str, ...]) -> Mapping[object, object]:
    found = next((reported[name] for name in names if name in reported), None)
    return found if isinstance(found, Mapping) else {}


def _count(reported: Mapping[object, object], names: tuple[str, ...]) -> int | None:
    return next((count for name in names if (count := _whole(reported.get(name))) is not None), None)


def _whole(value: object) -> int | None:
    """A count of tokens, whatever it is written as; None for what is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if not isinstance(value, int | float) or not 0 <= value <= MOST_TOKENS:  # what is no number is in no range
        return None
    return math.ceil(value)
