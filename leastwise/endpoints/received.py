"""What came back of a call, read from the body as it was received: text, why the model stopped, tokens.

It is read here once more, and more leniently, than by the providers' clients, since what was paid is not thrown away
for a field that nobody needs. Tokens are read once and as billed, in every dialect by the same rules: a count that
contradicts the total is put right by it, and what cannot be read is unknown, never nothing. It sends, prices and keeps
nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leastwise.use_case.price import Usage

CONTENT_FILTER = "content_filter"
UNREADABLE = "unreadable"  # paid, kept as received, and no evidence of anything
STOPPED = {  # in small letters, whatever they are sent in
    **dict.fromkeys(("stop", "eos", "eos_token", "stop_sequence", "stop_token", "end_turn", "completed"), "stop"),
    **dict.fromkeys(("complete", "end", "finished", "stop_str"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "max_output_tokens", "max_length", "model_length", "limit"), "length"),
    **dict.fromkeys(("token_limit", "max_new_tokens", "model_context_window_exceeded", "truncated"), "length"),
    **dict.fromkeys(("tool_call", "tool_calls", "tool_use", "function_call"), "tool_call"),
    **dict.fromkeys((CONTENT_FILTER, "refusal", "safety", "sensitive", "content_filtered"), CONTENT_FILTER),
    "guardrail_intervened": CONTENT_FILTER,
    **dict.fromkeys(("prohibited_content", "recitation", "blocklist", "spii", "language"), CONTENT_FILTER),
}

MOST_NAME = 200  # characters of a model's name that are kept
MOST_TOKENS = 100_000_000  # of one request; no model takes as many, so a count above is none

INPUT = ("prompt_tokens", "input_tokens", "promptTokenCount", "inputTokens", "total_input_tokens")
OUTPUT = ("completion_tokens", "output_tokens", "candidatesTokenCount", "outputTokens", "total_output_tokens")
TOTAL = ("total_tokens", "totalTokenCount", "totalTokens")
CACHED = (
    *("cached_tokens", "cache_read_input_tokens", "prompt_cache_hit_tokens"),
    *("cachedContentTokenCount", "cacheReadInputTokens"),
)
WRITTEN = ("cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens", "cacheWriteInputTokens")
THOUGHTS = ("reasoning", "thinking", "thought", "summary_text", "reasoning_text", "redacted_thinking")  # types of parts
REASONING = ("reasoning_tokens", "thoughtsTokenCount")
INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details")
OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details")
BESIDE_INPUT = (  # of Anthropic's and Bedrock's, no part of their count of the input
    *("cache_read_input_tokens", "cache_creation_input_tokens"),
    *("cacheReadInputTokens", "cacheWriteInputTokens"),
)


@dataclass(frozen=True)
class Received:
    """An answer as it was received; `usage` is None where what was reported cannot be billed by; `answered_by` is
    the model it names.
    """

    text: str
    finish_reason: str
    usage: Usage | None
    answered_by: str = ""


def stopped(reason: str) -> str:
    """Why a model stopped, in one word for all dialects; what nobody knows as it was said."""
    return STOPPED.get(reason.casefold(), reason)


def received_of(body: object) -> Received | None:
    """The answer in a provider's body, whichever of the five interfaces it is of; None where there is none in it."""
    if not isinstance(body, Mapping):
        return None
    read = _of_chat(body) or _of_blocks(body) or _of_output(body) or _of_candidates(body) or _of_converse(body)
    if read is None:
        return None
    text, reason = read
    return Received(text, stopped(reason), reported_usage(body, is_empty=not text), model_in(body))


def model_in(body: object) -> str:
    """The model that a provider's body says has answered, which an alias or a retirement may make another than the one
    asked for; empty where it names none (Bedrock's never does).
    """
    told = (body.get("model") or body.get("modelVersion")) if isinstance(body, Mapping) else None
    return well_formed(told)[:MOST_NAME] if isinstance(told, str) else ""


def reported_usage(body: object, *, is_empty: bool) -> Usage | None:
    """What a provider's body says of tokens; None where it says nothing that can be billed by."""
    if not isinstance(body, Mapping):
        return None
    return usage_of(body.get("usage") or body.get("usageMetadata"), is_empty=is_empty)


def probabilities_in(body: object, choices: Sequence[str]) -> dict[str, float] | None:
    """How likely each choice is by the one answer in a decision model's body: OpenAI's list of values, or the others'
    mapping by label. None where one of them is missing or no probability, or none is likely at all.
    """
    answers = body.get("answers") if isinstance(body, Mapping) else None
    listed = list(answers.values()) if isinstance(answers, Mapping) else answers
    answer = _first(listed)
    told = answer.get("probabilities") if answer else None
    if isinstance(told, list):
        told = {each.get("value"): each.get("probability") for each in told if isinstance(each, Mapping)}
    if not isinstance(told, Mapping):
        return None
    found = {choice: told.get(choice) for choice in choices}
    likely = {name: float(each) for name, each in found.items() if isinstance(each, int | float) and 0 <= each <= 1}
    return likely if len(likely) == len(found) and any(likely.values()) else None


def log_probabilities(likely: Mapping[str, float]) -> dict[str, float]:
    """Logarithms of probabilities as they were told. What was rounded to nothing is taken for a quarter of the last
    digit that is told of the others, at least of the second: the mean of what rounds to it.
    """
    digits = max((len(f"{each:.12f}".rstrip("0").partition(".")[2]) for each in likely.values()), default=0)
    least = 0.25 * 10.0 ** -max(2, digits)
    return {name: round(math.log(max(each, least)), 6) for name, each in likely.items()}


def well_formed(text: str) -> str:
    """The text without halves of characters, which no file and no store takes."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def error_in(body: object) -> Mapping[str, object] | None:
    """The error a body holds in place of an answer, with a `message` and perhaps a `code`; None where it holds none."""
    if not isinstance(body, Mapping):
        return None
    error = body.get("error")
    if isinstance(of_aws := body.get("Error"), Mapping):
        error = {str(name).casefold(): value for name, value in of_aws.items()}
    if isinstance(error, Mapping):
        inner = error.get("error")  # a batch of Anthropic's holds the whole body of the error
        error = inner if isinstance(inner, Mapping) else error
        return {str(name): value for name, value in error.items()}
    blocked = body.get("promptFeedback")
    if isinstance(blocked, Mapping) and blocked.get("blockReason"):
        return {"message": f"blocked: {blocked['blockReason']}", "code": CONTENT_FILTER}
    return {"message": error} if isinstance(error, str) and error else None


def _of_chat(body: Mapping[object, object]) -> tuple[str, str] | None:
    choice = _first(body.get("choices"))
    if choice is None:
        return None
    message, reason = choice.get("message"), str(choice.get("finish_reason") or "stop")
    if not isinstance(message, Mapping):
        text = choice.get("text")
        return (text, reason) if isinstance(text, str) else None
    if message.get("refusal") and not message.get("content"):
        return "", CONTENT_FILTER
    content = message.get("content")
    if content in (None, "") and (call := _call(message)) is not None:
        function = call.get("function")
        content = function.get("arguments") if isinstance(function, Mapping) else None
    return _text(content), reason


def _call(message: Mapping[object, object]) -> Mapping[object, object] | None:
    """The first call of a tool, or of a function as it was before tools."""
    old = message.get("function_call")
    return _first(message.get("tool_calls")) or ({"function": old} if isinstance(old, Mapping) else None)


def _of_blocks(body: Mapping[object, object]) -> tuple[str, str] | None:
    blocks = body.get("content")
    return (_text(blocks), str(body.get("stop_reason") or "stop")) if isinstance(blocks, list) else None


def _of_output(body: Mapping[object, object]) -> tuple[str, str] | None:
    output = body.get("output")
    if not isinstance(output, list):
        return None
    messages = [item for item in output if isinstance(item, Mapping) and item.get("type", "message") == "message"]
    details = body.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, Mapping) else None
    return "".join(_text(item.get("content")) for item in messages), str(reason or body.get("status") or "stop")


def _of_candidates(body: Mapping[object, object]) -> tuple[str, str] | None:
    candidate = _first(body.get("candidates"))
    if candidate is None:
        return None
    content = candidate.get("content")
    parts = content.get("parts") if isinstance(content, Mapping) else None
    return _text(parts), str(candidate.get("finishReason") or "stop")


def _of_converse(body: Mapping[object, object]) -> tuple[str, str] | None:
    """Bedrock's: what is thought stands in parts without a text."""
    output = body.get("output")
    message = output.get("message") if isinstance(output, Mapping) else None
    if not isinstance(message, Mapping):
        return None
    return _text(message.get("content")), str(body.get("stopReason") or "stop")


def _text(content: object) -> str:
    """Content as text: of parts those that are text, anything else as the JSON it is."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, Sequence):
        parts = [part if isinstance(part, str) else part.get("text") for part in content if _is_said(part)]
        return "".join(part for part in parts if isinstance(part, str))
    return json.dumps(content, ensure_ascii=False)


def _is_said(part: object) -> bool:
    if not isinstance(part, Mapping):
        return isinstance(part, str)
    return not part.get("thought") and part.get("type") not in THOUGHTS


def _first(listed: object) -> Mapping[object, object] | None:
    first = listed[0] if isinstance(listed, list) and listed else None
    return first if isinstance(first, Mapping) else None


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


def tells_of_thinking(body: object) -> bool:
    """Whether a provider's body counts tokens that went into thinking."""
    reported = (body.get("usage") or body.get("usageMetadata")) if isinstance(body, Mapping) else None
    return isinstance(reported, Mapping) and bool(_reasoning(reported))


def _reasoning(reported: Mapping[object, object]) -> int:
    return _count(_details(reported, OUTPUT_DETAILS), REASONING) or _count(reported, REASONING) or 0


def _with_reasoning(reported: Mapping[object, object], output: int, beyond_prompt: int | None) -> tuple[int, int]:
    """Output with reasoning that is counted apart from it, as far as the counts tell."""
    reasoning = _reasoning(reported)
    is_apart = reasoning > output or (beyond_prompt is None and "thoughtsTokenCount" in reported)
    return output + (reasoning if is_apart else 0), beyond_prompt or 0


def _is_anthropics(reported: Mapping[object, object]) -> bool:
    return ("input_tokens" in reported or "inputTokens" in reported) and any(name in reported for name in BESIDE_INPUT)


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
