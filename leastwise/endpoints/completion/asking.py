"""One completion asked for, and what came of it as the provider layer has it, so that all else is as with a chat.

How likely each label is comes from one token: all first tokens of labels are raised by the same amount, so that nothing
else is likely, and the probabilities that are left to them are told. That is the softmax over the labels exactly, in
one small answer; asked for without, llama.cpp tells of every token it knows, megabytes. It reads no prompt.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from leastwise.endpoints.received import stopped
from leastwise.endpoints.request import Request, Target
from leastwise.evidence.choosing.calibration import FLOOR

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from pydantic_ai.messages import ModelResponse
    from pydantic_ai.models import Model

RAISED = 100  # the most that OpenAI's interface takes of a bias
END = "\n"  # an answer is one line


async def complete(model: Model, target: Target, request: Request, timeout_s: float) -> ModelResponse:
    """What the model goes on with; for labels' first tokens their log-probabilities, as JSON by choice.

    Raises what the provider layer raises of a failed call.
    """
    from openai import APIConnectionError, APIStatusError
    from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError

    client = cast("AsyncOpenAI", model.client)  # type: ignore[attr-defined]  # of OpenAI's interface, all that has it
    try:
        came = await client.completions.create(**_body(target, request), timeout=timeout_s)
    except APIStatusError as error:
        headers = dict(error.response.headers)
        raise ModelHTTPError(error.status_code, target.model_name, error.body, headers=headers) from error
    except APIConnectionError as error:
        raise ModelAPIError(target.model_name, error.message) from error
    return _response(request, came.model_dump(mode="json"))


def likelihoods_in(text: str) -> dict[str, float] | None:
    """The log-probability of each choice, out of a kept answer; None where it tells none."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    if not isinstance(found, dict) or not found:
        return None
    return {str(name): float(each) for name, each in found.items() if isinstance(each, int | float)} or None


def _body(target: Target, request: Request) -> dict[str, Any]:
    (message,) = request.messages
    body: dict[str, Any] = {"model": target.model_name, "prompt": message.content, "stop": [END]}
    body["max_tokens"] = request.most_output_tokens
    extra = dict(target.habits.extra_body)
    if request.first_tokens:
        # All by name, for what a server does by default (a cut of the least likely) would leave labels out.
        extra |= {"post_sampling_probs": True, "samplers": []}
        body |= {"temperature": 1.0, "seed": 0, "logprobs": len(request.first_tokens)}
        body["logit_bias"] = {str(token): RAISED for token in request.first_tokens}
        del body["stop"]
    else:
        body["temperature"] = request.temperature
        if request.sample:
            body["seed"] = request.sample
        if request.wants_confidence and target.habits.logprobs is not False:
            body["logprobs"] = 1
    return body | ({"extra_body": extra} if extra else {})


def _response(request: Request, came: Mapping[str, Any]) -> ModelResponse:
    from pydantic_ai.messages import ModelResponse, TextPart

    choice = (came.get("choices") or [{}])[0]
    tokens = _tokens(choice)
    text = str(choice.get("text") or "").strip()
    reason = stopped(str(choice.get("finish_reason") or "stop"))
    if request.first_tokens and (likely := _likelihoods(request, tokens)):
        text, reason = json.dumps(likely, ensure_ascii=False), "stop"
    told = [{"token": each["token"], "logprob": each["logprob"]} for each in tokens if _says_something(each)]
    details = {"finish_reason": reason, **({"logprobs": told} if told else {})}
    return ModelResponse(parts=[TextPart(text)], provider_details=details)


def _tokens(choice: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The tokens of an answer with what is told of each: as llama.cpp has it, which is as chats have it."""
    told = choice.get("logprobs")
    content = told.get("content") if isinstance(told, Mapping) else None
    return [each for each in content if isinstance(each, Mapping)] if isinstance(content, list) else []


def _says_something(token: Mapping[str, Any]) -> bool:
    return "logprob" in token and bool(str(token.get("token", "")).strip())


def _likelihoods(request: Request, tokens: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """By choice; None where the endpoint tells no probability of any, or of something else beside them."""
    ranked = tokens[0].get("top_probs") if tokens else None
    if not isinstance(ranked, list):
        return None
    found = {each.get("id"): each.get("prob") for each in ranked if isinstance(each, Mapping)}
    if not found.keys() <= set(request.first_tokens):
        return None
    likely = (_log(found.get(token)) for token in request.first_tokens)
    return dict(zip(request.choices or (), likely, strict=True))


def _log(probability: object) -> float:
    known = isinstance(probability, int | float) and probability > 0
    return max(FLOOR, round(math.log(cast("float", probability)), 6)) if known else FLOOR
