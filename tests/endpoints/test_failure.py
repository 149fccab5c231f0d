"""What a provider's words mean: a refusal of content, something a person must put right, or neither."""

import pytest

from leastwise.endpoints.failure import TOO_LONG_REMEDY, failure_told, refuses_content, remedy_of, shown

REFUSALS = [
    (400, "content_filter", "The response was filtered"),
    (400, "invalid_prompt", "Invalid prompt: your prompt was flagged as potentially violating our usage policy."),
    (400, "DataInspectionFailed", "Output data may contain inappropriate content."),
    (403, None, "meta-llama requires moderation on OpenInference. Your input was flagged"),
    (422, "x", "Blocked by guardrail: sensitive content detected"),
    (451, None, "The prompt contains prohibited content"),
    (200, "content_filter", ""),
]
OTHERS = [
    (400, "invalid_request_error", "Unsupported parameter: 'max_tokens'"),
    (400, "invalid_request_error", "System role not supported"),
    (403, None, "Your account has been suspended for violating our usage policies"),
    (403, None, "This API key was disabled; see the content policy"),
    (429, "content_filter", "rate limit of the content filter"),
    (500, None, "the safety system is down"),
    (404, None, "No endpoints found matching your data policy"),
]


@pytest.mark.parametrize(("status", "code", "message"), REFUSALS)
def test_a_refusal_of_content_is_known_whoever_words_it(status: int, code: object, message: str) -> None:
    failure = failure_told(status, {"error": {"code": code, "message": message}}, message)
    assert failure.kind == "content_filter" and not failure.is_retried and not failure.is_billed


@pytest.mark.parametrize(("status", "code", "message"), OTHERS)
def test_what_is_said_of_the_request_or_the_customer_is_no_refusal_of_content(
    status: int, code: object, message: str
) -> None:
    assert not refuses_content(status, code, message)


@pytest.mark.parametrize(
    ("status", "message", "remedy"),
    [
        (401, "", "set a valid one"),
        (400, "API key not valid. Please pass a valid API key.", "set a valid one"),
        (400, "Incorrect API key provided", "set a valid one"),
        (400, "openai/gpt-9 is not a valid model ID", "check the model's name"),
        (422, "The model `x` does not exist", "check the model's name"),
        (404, "The model has been deprecated", "check the model's name"),
        (400, "This model's maximum context length is 2048 tokens", TOO_LONG_REMEDY),
        (413, "Request too large: prompt is too long", TOO_LONG_REMEDY),
        (400, "the request exceeds the available context size", TOO_LONG_REMEDY),
        (402, "Insufficient Balance", "top it up"),
    ],
)
def test_what_a_person_can_put_right_is_told_from_what_it_says(status: int, message: str, remedy: str) -> None:
    assert remedy in str(remedy_of(status, message))


@pytest.mark.parametrize("message", ["Unsupported parameter: logprobs", "too many tokens a minute", "overloaded"])
def test_what_nobody_can_put_right_has_no_remedy(message: str) -> None:
    assert remedy_of(429, message) is None and remedy_of(503, message) is None


def test_what_looks_like_a_key_is_not_shown() -> None:
    key = "AbCdEfGhIjKl0123456789"
    said = shown(f"Incorrect API key provided: sk-proj-{key}. gsk_{key}, AIza{key}, Bearer {key}")
    assert said.startswith("Incorrect API key") and key not in said
