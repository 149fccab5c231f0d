"""One chat-completions server that speaks every known habit of real endpoints: the first path part chooses which.

The right answer to a request is the word after `key=` in its last message, or the text between `json=` and ` end`
(`alpha` where there is neither). A new habit is a function of what was asked, added at the end of the file.

    with hostile_server() as server:
        target = Target("openai:m", base_url=server.base_url("no_usage"), api_key="k")
        ...
        assert server.calls("no_usage") == 1
"""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

from aiohttp import web

from tests.servers.web_server import served

USAGE: dict[str, Any] = {"prompt_tokens": 50, "completion_tokens": 3, "total_tokens": 53}
ABSENT = object()  # a part of an answer that is left out of it


@dataclass(frozen=True)
class Asked:
    """One request as it came: its body and headers, and the how manieth (from 1) of its habit it is."""

    habit: str
    body: dict[str, Any]
    headers: Mapping[str, str]
    nth: int

    @property
    def messages(self) -> list[dict[str, Any]]:
        return list(self.body["messages"])

    @property
    def text(self) -> str:
        """The last message, whatever shape its content has."""
        content = self.messages[-1]["content"]
        return content if isinstance(content, str) else json.dumps(content)

    @property
    def right(self) -> str:
        """The answer that is right."""
        if "json=" in self.text:
            return self.text.split("json=", 1)[1].split(" end")[0]
        return self.text.split("key=")[-1].split()[0] if "key=" in self.text else "alpha"

    @property
    def is_constrained(self) -> bool:
        return "response_format" in self.body

    @property
    def cap(self) -> int:
        """The cap on output tokens that was sent, in whichever field."""
        return int(self.body.get("max_completion_tokens") or self.body.get("max_tokens") or 1)

    @property
    def content(self) -> str:
        """The right answer as it is wanted: wrapped as a label where the request holds it to one."""
        schema = (self.body.get("response_format") or {}).get("json_schema", {}).get("schema", {})
        is_label = self.is_constrained and list(schema.get("properties", {})) == ["label"]
        return json.dumps({"label": self.right}) if is_label else self.right


Habit = Callable[[Asked], web.Response]
HABITS: dict[str, Habit] = {}


class HostileServer:
    """A running server, and what each of its habits was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: dict[str, list[Asked]] = defaultdict(list)
        self.elsewhere: list[Mapping[str, str]] = []  # the headers of what came to the other host

    def base_url(self, habit: str) -> str:
        """The address under which it has this habit, as a use case names it."""
        assert habit in HABITS, f"no habit {habit}"
        return f"{self.url}/{habit}/v1"

    def calls(self, habit: str) -> int:
        """How many requests came to this habit since the start, or since it was forgotten."""
        return len(self.asked[habit])

    def forget(self) -> None:
        """Count anew."""
        self.asked.clear()

    async def respond(self, incoming: web.Request) -> web.StreamResponse:
        habit, body = incoming.match_info["habit"], await incoming.json()
        asked = Asked(habit, body, dict(incoming.headers), len(self.asked[habit]) + 1)
        self.asked[habit].append(asked)
        answer = HABITS[habit](
            asked
        )  # its header X-Wait: seconds before it is sent; X-Cut: the connection breaks instead
        if wait_s := float(answer.headers.get("X-Wait", 0)):
            await asyncio.sleep(wait_s)
        if answer.headers.get("X-Cut"):
            assert incoming.transport is not None
            incoming.transport.close()
        if promised := answer.headers.get("X-Promised"):
            return await _cut_after(incoming, answer.text or "", int(promised))
        if answer.headers.get("X-Elsewhere"):
            return web.Response(status=answer.status, headers={"Location": f"{self.url_elsewhere}/stolen"})
        return answer

    async def steal(self, incoming: web.Request) -> web.Response:
        """What the other host does with whatever comes."""
        self.elsewhere.append(dict(incoming.headers))
        return web.json_response(_stolen())

    @property
    def url_elsewhere(self) -> str:
        """The same server under the name of another host."""
        return self.url.replace("127.0.0.1", "localhost")


async def _cut_after(incoming: web.Request, text: str, promised: int) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Length": str(promised), "Content-Type": "application/json"})
    await answer.prepare(incoming)
    await answer.write(text.encode())
    assert incoming.transport is not None
    incoming.transport.close()
    return answer


def _stolen() -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": "stolen"}, "finish_reason": "stop"}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": USAGE}


@contextmanager
def hostile_server() -> Iterator[HostileServer]:
    """A server with every habit on a free port of this machine; it ends with the block."""
    server = HostileServer()
    respond, steal = web.post("/{habit}/v1/chat/completions", server.respond), web.post("/stolen", server.steal)
    with served(respond, steal) as url:
        server.url = url
        yield server


def habit(name: str) -> Callable[[Habit], Habit]:
    """Give the server a habit."""

    def add(answer: Habit) -> Habit:
        assert name not in HABITS, f"{name} twice"
        HABITS[name] = answer
        return answer

    return add


def completion(
    asked: Asked, content: object = None, *, usage: object = None, finish: object = "stop", **message: object
) -> web.Response:
    """A good answer but for what is given; `usage=ABSENT` leaves it out, `content=ABSENT` gives null."""
    said = asked.content if content is None else None if content is ABSENT else content
    choice = {"index": 0, "message": {"role": "assistant", "content": said, **message}, "finish_reason": finish}
    whole = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    if usage is not ABSENT:
        whole["usage"] = USAGE if usage is None else usage
    return web.json_response(whole)


def refused(
    status: int, message: str, code: object = "invalid_request_error", headers: Sequence[tuple[str, str]] = ()
) -> web.Response:
    """An error as OpenAI's interface words it."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return web.json_response({"error": error}, status=status, headers=dict(headers))


# -- what is reported of usage ----------------------------------------------------------------------------------------

CACHED = {"prompt_tokens_details": {"cached_tokens": 900}}
USAGES: dict[str, object] = {
    "good": USAGE,
    "absent_usage": ABSENT,
    "zero_usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    "empty_usage": {},
    "cached_beyond_prompt": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15, **CACHED},
    "cached_within_prompt": {"prompt_tokens": 950, "completion_tokens": 3, "total_tokens": 953, **CACHED},
    "null_details": {**USAGE, "prompt_tokens_details": None, "completion_tokens_details": None},
    "reasoning_within": {**USAGE, "completion_tokens": 30, "completion_tokens_details": {"reasoning_tokens": 27}},
    "reasoning_apart": {
        "prompt_tokens": 50,
        "completion_tokens": 3,
        "total_tokens": 80,
        "completion_tokens_details": {"reasoning_tokens": 27},
    },
    "negative_usage": {"prompt_tokens": -50, "completion_tokens": 3, "total_tokens": -47},
    "float_usage": {"prompt_tokens": 50.0, "completion_tokens": 3.0, "total_tokens": 53.0},
    "fraction_usage": {"prompt_tokens": 50.4, "completion_tokens": 2.5, "total_tokens": 52.9},
    "digits_usage": {"prompt_tokens": "50", "completion_tokens": "3", "total_tokens": "53"},
    "words_usage": {"prompt_tokens": "many", "completion_tokens": "few", "total_tokens": "n/a"},
    "total_only": {"total_tokens": 53},
    "huge_usage": {"prompt_tokens": 10**12, "completion_tokens": 3, "total_tokens": 10**12 + 3},
    "beyond_int64": {"prompt_tokens": 10**30, "completion_tokens": 3, "total_tokens": 10**30},
    "list_usage": [50, 3],
    "no_completion_count": {"prompt_tokens": 50, "total_tokens": 50},
    "anthropic_fields": {"input_tokens": 50, "output_tokens": 3},
    "hits_and_misses": {**USAGE, "prompt_cache_hit_tokens": 40, "prompt_cache_miss_tokens": 10},
    "cache_writes": {
        "prompt_tokens": 950,
        "completion_tokens": 3,
        "total_tokens": 953,
        "prompt_tokens_details": {"cached_tokens": 600, "cache_write_tokens": 300},
    },
}


def _usage_habit(name: str, usage: object) -> None:
    @habit(name)
    def _(asked: Asked) -> web.Response:
        return completion(asked, usage=usage)


for _name, _usage in USAGES.items():
    _usage_habit(_name, _usage)


@habit("null_usage")
def _null_usage(asked: Asked) -> web.Response:
    body = json.loads(completion(asked).body)  # type: ignore[arg-type]
    return web.json_response(body | {"usage": None})


@habit("runaway")
def _runaway(asked: Asked) -> web.Response:
    """Ignores the cap."""
    usage = {"prompt_tokens": 50, "completion_tokens": 4000, "total_tokens": 4050}
    return completion(asked, "word " * 4000, usage=usage)


@habit("nan_logprobs")
def _nan_logprobs(asked: Asked) -> web.Response:
    return _with_logprobs(asked, math.nan)


@habit("null_logprob")
def _null_logprob(asked: Asked) -> web.Response:
    return _with_logprobs(asked, None)


@habit("positive_logprob")
def _positive_logprob(asked: Asked) -> web.Response:
    return _with_logprobs(asked, 0.7)


def _with_logprobs(asked: Asked, value: float | None) -> web.Response:
    body = json.loads(completion(asked).body)  # type: ignore[arg-type]
    token = {"token": asked.right, "logprob": value, "bytes": None, "top_logprobs": []}
    body["choices"][0]["logprobs"] = {"content": [token], "refusal": None}
    return web.Response(text=json.dumps(body), content_type="application/json")


# -- refusals of content ----------------------------------------------------------------------------------------------

AZURE = {"code": "content_filter", "innererror": {"code": "ResponsibleAIPolicyViolation"}}


@habit("azure_filter")
def _azure_filter(asked: Asked) -> web.Response:
    message = "The response was filtered due to the prompt triggering Azure OpenAI's content management policy."
    return web.json_response({"error": {"message": message, "type": None, "param": "prompt", **AZURE}}, status=400)


@habit("dashscope_filter")
def _dashscope_filter(_: Asked) -> web.Response:
    return refused(400, "Input data may contain inappropriate content.", "data_inspection_failed")


@habit("openai_policy")
def _openai_policy(_: Asked) -> web.Response:
    return refused(400, "Your request was rejected as a result of our safety system.", "content_policy_violation")


@habit("openrouter_moderation")
def _openrouter_moderation(_: Asked) -> web.Response:
    reasons = {"reasons": ["harassment"], "flagged_input": "text", "provider_name": "OpenAI"}
    error = {"code": 403, "message": "Your chosen model requires moderation and your input was flagged"}
    return web.json_response({"error": error | {"metadata": reasons}}, status=403)


@habit("zhipu_filter")
def _zhipu_filter(_: Asked) -> web.Response:
    return refused(400, "系统检测到输入或生成内容可能包含不安全或敏感内容", "1301")


@habit("deepseek_filter")
def _deepseek_filter(_: Asked) -> web.Response:
    return refused(400, "Content Exists Risk", "invalid_request_error")


@habit("refusal")
def _refusal(asked: Asked) -> web.Response:
    return completion(asked, ABSENT, refusal="I cannot help with that.")


@habit("filtered_finish")
def _filtered_finish(asked: Asked) -> web.Response:
    return completion(asked, ABSENT, finish="content_filter")


@habit("filter_200")
def _filter_200(_: Asked) -> web.Response:
    """A refusal of content in an error envelope with status 200."""
    return web.json_response({"error": {"code": "content_filter", "message": "blocked by the content filter"}})


@habit("blocked_no_choices")
def _blocked_no_choices(asked: Asked) -> web.Response:
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [], "usage": USAGE}
    return web.json_response(body | {"promptFeedback": {"blockReason": "SAFETY"}})


@habit("some_filtered")
def _some_filtered(asked: Asked) -> web.Response:
    """Refuses about an eighth of all inputs, always the same ones."""
    if sum(map(ord, asked.text)) % 8 == 0:
        return refused(400, "Input data may contain inappropriate content.", "data_inspection_failed")
    return completion(asked)


# -- faults of the transport ------------------------------------------------------------------------------------------


@habit("error_200")
def _error_200(asked: Asked) -> web.Response:
    """An error envelope with status 200, then the answer."""
    if asked.nth == 1:
        return web.json_response({"error": {"code": 429, "message": "rate limited upstream"}})
    return completion(asked)


@habit("always_error_200")
def _always_error_200(_: Asked) -> web.Response:
    return web.json_response({"error": {"code": 500, "message": "upstream is down"}})


@habit("no_choices")
def _no_choices(asked: Asked) -> web.Response:
    """No choice and no reason, once."""
    if asked.nth == 1:
        body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [], "usage": USAGE}
        return web.json_response(body)
    return completion(asked)


@habit("html_200")
def _html_200(asked: Asked) -> web.Response:
    """A proxy's page with status 200, once."""
    if asked.nth == 1:
        return web.Response(text="<html>Just a moment...</html>", content_type="text/html")
    return completion(asked)


@habit("dated_429")
def _dated_429(asked: Asked) -> web.Response:
    """Retry-After as an HTTP date two seconds ahead, once."""
    if asked.nth == 1:
        return refused(429, "slow down", "rate_limit", [("Retry-After", formatdate(time.time() + 2, usegmt=True))])
    return completion(asked)


@habit("hour_429")
def _hour_429(_: Asked) -> web.Response:
    return refused(429, "daily quota reached", "rate_limit", [("Retry-After", "3600")])


@habit("quota_429")
def _quota_429(_: Asked) -> web.Response:
    return refused(429, "You exceeded your current quota, please check your plan and billing", "insufficient_quota")


@habit("odd_retry_after")
def _odd_retry_after(asked: Asked) -> web.Response:
    if asked.nth == 1:
        return refused(429, "slow down", "rate_limit", [("Retry-After", "soon")])
    return completion(asked)


@habit("always_503")
def _always_503(_: Asked) -> web.Response:
    return refused(503, "overloaded", "overloaded")


@habit("early_425")
def _early_425(asked: Asked) -> web.Response:
    return refused(425, "too early") if asked.nth == 1 else completion(asked)


# -- what a person must put right -------------------------------------------------------------------------------------


@habit("bad_key")
def _bad_key(_: Asked) -> web.Response:
    return refused(401, "Incorrect API key provided: sk-live-0123456789abcdef", "invalid_api_key")


@habit("forbidden")
def _forbidden(_: Asked) -> web.Response:
    return refused(403, "Country, region, or territory not supported", "unsupported_country_region_territory")


@habit("unknown_model")
def _unknown_model(asked: Asked) -> web.Response:
    return refused(404, f"The model `{asked.body['model']}` does not exist", "model_not_found")


@habit("unpaid")
def _unpaid(_: Asked) -> web.Response:
    return refused(402, "Insufficient Balance")


@habit("short_context")
def _short_context(asked: Asked) -> web.Response:
    """Takes no more than 400 characters."""
    if sum(len(message["content"]) for message in asked.messages) > 400:
        message = "This model's maximum context length is 2048 tokens. However, your messages resulted in 9000 tokens."
        return refused(400, message, "context_length_exceeded")
    return completion(asked)


# -- shapes of an answer ----------------------------------------------------------------------------------------------


@habit("parts")
def _parts(asked: Asked) -> web.Response:
    """Content as a list of parts, thinking among them."""
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    return completion(asked, [thinking, {"type": "text", "text": asked.content}])


@habit("tool_call")
def _tool_call(asked: Asked) -> web.Response:
    arguments = json.dumps({"label": asked.right})
    call = {"id": "c1", "type": "function", "function": {"name": "answer", "arguments": arguments}}
    return completion(asked, ABSENT, finish="tool_calls", tool_calls=[call])


@habit("null_finish")
def _null_finish(asked: Asked) -> web.Response:
    body = json.loads(completion(asked).body)  # type: ignore[arg-type]
    body["choices"][0]["finish_reason"] = None
    return web.json_response(body)


@habit("eos_finish")
def _eos_finish(asked: Asked) -> web.Response:
    return completion(asked, finish="eos_token")


@habit("number_content")
def _number_content(asked: Asked) -> web.Response:
    return completion(asked, 42)


@habit("object_content")
def _object_content(asked: Asked) -> web.Response:
    """An object where its text was wanted."""
    return completion(asked, {"label": asked.right})


@habit("null_label")
def _null_label(asked: Asked) -> web.Response:
    return completion(asked, '{"label": null}')


@habit("lone_surrogate")
def _lone_surrogate(asked: Asked) -> web.Response:
    """Half a character, as a cut in the middle of an emoji leaves it."""
    body = json.loads(completion(asked).body)  # type: ignore[arg-type]
    body["choices"][0]["message"]["content"] = "half \ud83d"
    return web.Response(text=json.dumps(body), content_type="application/json")


@habit("wrong")
def _wrong(asked: Asked) -> web.Response:
    return completion(asked, "nonsense")


# -- further habits: add below ----------------------------------------------------------------------------------------


# -- how it wants to be asked -----------------------------------------------------------------------------------------


@habit("no_system")
def _no_system(asked: Asked) -> web.Response:
    """Gemma's template: a system message is an error."""
    if any(message["role"] == "system" for message in asked.messages):
        return refused(400, "System role not supported")
    return completion(asked)


@habit("alternating")
def _alternating(asked: Asked) -> web.Response:
    """Mistral's first template, rendered by llama.cpp: the server's own error."""
    if any(message["role"] == "system" for message in asked.messages):
        return refused(500, "Conversation roles must alternate user/assistant/user/assistant/...")
    return completion(asked)


def _refusing(field: str, status: int, words: str, code: str = "invalid_request_error") -> Habit:
    """Refuses a request that has this field."""

    def answer(asked: Asked) -> web.Response:
        is_sent = asked.body.get(field, False) is not False
        return refused(status, words, code) if is_sent else completion(asked)

    return answer


for _name, _refusal in {
    "old_cap": _refusing("max_completion_tokens", 422, "body.max_completion_tokens: extra inputs are not permitted"),
    "own_temperature": _refusing(
        "temperature", 400, "Unsupported value: 'temperature' does not support 0 with this model.", "unsupported_value"
    ),
    "no_cache_key": _refusing("prompt_cache_key", 400, "Unsupported parameter(s): `prompt_cache_key`"),
    "no_logprobs": _refusing("logprobs", 400, "logprobs is not supported"),
    "no_effort": _refusing("reasoning_effort", 400, "Unrecognized request argument supplied: reasoning_effort"),
}.items():
    habit(_name)(_refusal)


@habit("no_schema")
def _no_schema(asked: Asked) -> web.Response:
    if asked.is_constrained:
        return refused(400, "This response_format type is unavailable now")
    return completion(asked)


@habit("no_strict")
def _no_strict(asked: Asked) -> web.Response:
    """Takes a schema, but not the field `strict`."""
    if "strict" in (asked.body.get("response_format") or {}).get("json_schema", {}):
        return refused(422, "body.response_format.json_schema.strict: extra inputs are not permitted")
    return completion(asked)


@habit("no_seed_no_nothing")
def _no_seed_no_nothing(asked: Asked) -> web.Response:
    """Takes nothing but model, messages and max_tokens, and names one offender at a time."""
    known = {"model", "messages", "max_tokens", "stream"}
    if extra := sorted(set(asked.body) - known):
        return refused(400, f"Unrecognized request argument supplied: {extra[0]}")
    if any(message["role"] == "system" for message in asked.messages):
        return refused(400, "System role not supported")
    return completion(asked)


@habit("wordless")
def _wordless(asked: Asked) -> web.Response:
    """Refuses a temperature without a word of it."""
    return (
        web.json_response({"detail": "Bad Request"}, status=400) if "temperature" in asked.body else completion(asked)
    )


@habit("misleading")
def _misleading(asked: Asked) -> web.Response:
    """Refuses everything, and blames the temperature, whatever is sent."""
    return refused(400, "temperature out of range")


@habit("named")
def _named(asked: Asked) -> web.Response:
    if asked.body["model"] != "acme/tiny-chat":
        return refused(404, f"The model `{asked.body['model']}` does not exist.", "NotFoundError")
    return completion(asked)


@habit("switched_off")
def _switched_off(asked: Asked) -> web.Response:
    """Thinks aloud unless its template is told not to."""
    told = asked.body.get("chat_template_kwargs") == {"enable_thinking": False}
    return completion(asked) if told else _thinking_on(asked)


@habit("locked")
def _locked(asked: Asked) -> web.Response:
    """Takes its own key alone, and says the one it got, as some gateways do."""
    sent = asked.headers.get("Authorization", "")
    if sent != "Bearer the-right-key-0001":
        return refused(401, f"Invalid token: {sent}", "invalid_api_key")
    return completion(asked)


# -- thinking ---------------------------------------------------------------------------------------------------------


@habit("think")
def _think(asked: Asked) -> web.Response:
    return completion(asked, f"<think>The sender asks for {asked.right}?</think>\n{asked.content}")


@habit("half_think")
def _half_think(asked: Asked) -> web.Response:
    """The template opened the thought in the prompt."""
    return completion(asked, f"The sender asks about money. </think>\n\n{asked.content}")


@habit("endless_think")
def _endless_think(asked: Asked) -> web.Response:
    """A thought that names the right answer and is cut off."""
    return _thinking_on(asked)


def _thinking_on(asked: Asked) -> web.Response:
    usage = {"prompt_tokens": 50, "completion_tokens": asked.cap, "total_tokens": 50 + asked.cap}
    return completion(asked, f"<think>{asked.right} or not {asked.right}", usage=usage, finish="length")


@habit("thinking_field")
def _thinking_field(asked: Asked) -> web.Response:
    return completion(asked, reasoning_content="nonsense, surely")


@habit("starved")
def _starved(asked: Asked) -> web.Response:
    """Needs 500 tokens to think; whoever caps it lower gets nothing."""
    if asked.cap >= 500:
        usage = {"prompt_tokens": 50, "completion_tokens": 480, "total_tokens": 530}
        return completion(asked, usage=usage, reasoning_content="hm")
    return _all_thought(asked)


@habit("insatiable")
def _insatiable(asked: Asked) -> web.Response:
    """Thinks for as long as it may, whatever that is."""
    return _all_thought(asked)


def _all_thought(asked: Asked) -> web.Response:
    usage = {
        "prompt_tokens": 50,
        "completion_tokens": asked.cap,
        "total_tokens": 50 + asked.cap,
        "completion_tokens_details": {"reasoning_tokens": asked.cap},
    }
    return completion(asked, "", usage=usage, finish="length", reasoning_content="Let me think")


# -- what gateways make of an answer ----------------------------------------------------------------------------------


def _body(asked: Asked, content: object = None, **message: object) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(completion(asked, content, **message).body)  # type: ignore[arg-type]
    return body


@habit("streamed")
def _streamed(asked: Asked) -> web.Response:
    """Streams whether it was asked to or not; the usage comes last."""
    half = len(asked.content) // 2
    deltas = [{"role": "assistant", "content": asked.content[:half]}, {"content": asked.content[half:]}, {}]
    ends = [None, None, "stop"]
    head = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    chunks = [
        head | {"choices": [{"index": 0, "delta": delta, "finish_reason": end}]}
        for delta, end in zip(deltas, ends, strict=True)
    ]
    lines = [json.dumps(chunk) for chunk in [*chunks, head | {"choices": [], "usage": USAGE}]]
    text = ": keep-alive\n\n" + "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"])
    return web.Response(text=text, content_type="text/event-stream")


@habit("byte_order_mark")
def _byte_order_mark(asked: Asked) -> web.Response:
    return web.Response(body=b"\xef\xbb\xbf" + json.dumps(_body(asked)).encode(), content_type="application/json")


@habit("secret_gzip")
def _secret_gzip(asked: Asked) -> web.Response:
    """Compressed without saying so."""
    return web.Response(body=gzip.compress(json.dumps(_body(asked)).encode()), content_type="application/json")


@habit("text_plain")
def _text_plain(asked: Asked) -> web.Response:
    return web.Response(text=json.dumps(_body(asked)), content_type="text/plain")


@habit("in_an_array")
def _in_an_array(asked: Asked) -> web.Response:
    return web.json_response([_body(asked)])


@habit("in_data")
def _in_data(asked: Asked) -> web.Response:
    """An envelope of its own around the answer."""
    return web.json_response({"code": 0, "msg": "success", "data": _body(asked)})


@habit("padded")
def _padded(asked: Asked) -> web.Response:
    """Blank lines that kept the connection alive stand before the answer."""
    return web.Response(text="\n\n   \n" + json.dumps(_body(asked)), content_type="application/json")


@habit("two_choices")
def _two_choices(asked: Asked) -> web.Response:
    body = _body(asked)
    body["choices"] *= 2
    return web.json_response(body)


@habit("new_finish")
def _new_finish(asked: Asked) -> web.Response:
    """A reason that no client knows."""
    return completion(asked, finish="eos")


@habit("upper_finish")
def _upper_finish(asked: Asked) -> web.Response:
    return completion(asked, finish="STOP")


@habit("minimal")
def _minimal(asked: Asked) -> web.Response:
    """No id, no object, no time, no model."""
    body = _body(asked)
    return web.json_response({"choices": [{"message": body["choices"][0]["message"]}], "usage": USAGE})


@habit("text_choice")
def _text_choice(asked: Asked) -> web.Response:
    """Its choice is that of the interface for plain completions."""
    body = _body(asked) | {"choices": [{"index": 0, "text": asked.content, "finish_reason": "stop"}]}
    return web.json_response(body)


@habit("reasoning_named")
def _reasoning_named(asked: Asked) -> web.Response:
    return completion(asked, reasoning="nonsense, surely", reasoning_details=[{"type": "reasoning.text", "text": "hm"}])


@habit("thinking_named")
def _thinking_named(asked: Asked) -> web.Response:
    return completion(asked, thinking="nonsense, surely")


@habit("beside_refusal")
def _beside_refusal(asked: Asked) -> web.Response:
    """An empty refusal beside the answer."""
    return completion(asked, refusal="", annotations=[], audio=None)


@habit("old_function")
def _old_function(asked: Asked) -> web.Response:
    """The call of a function as it was before tools."""
    call = {"name": "answer", "arguments": json.dumps({"label": asked.right})}
    return completion(asked, ABSENT, finish="function_call", function_call=call)


@habit("string_error")
def _string_error(_: Asked) -> web.Response:
    """An error that is a word, with a message beside it."""
    return web.json_response({"error": "Unauthorized", "message": "invalid api key", "statusCode": 401}, status=401)


@habit("detail_error")
def _detail_error(asked: Asked) -> web.Response:
    """FastAPI's list of what is wrong."""
    if "max_completion_tokens" in asked.body:
        detail = [{"type": "extra_forbidden", "loc": ["body", "max_completion_tokens"], "msg": "Extra inputs"}]
        return web.json_response({"detail": detail}, status=422)
    return completion(asked)


@habit("coded_200")
def _coded_200(asked: Asked) -> web.Response:
    """An error beside no error field, with status 200, once."""
    if asked.nth == 1:
        return web.json_response({"code": 1305, "msg": "too many requests", "success": False})
    return completion(asked)


@habit("null_body")
def _null_body(asked: Asked) -> web.Response:
    return web.json_response(None) if asked.nth == 1 else completion(asked)


@habit("empty_body")
def _empty_body(asked: Asked) -> web.Response:
    return web.Response(status=200) if asked.nth == 1 else completion(asked)


@habit("no_content")
def _no_content(asked: Asked) -> web.Response:
    return web.Response(status=204) if asked.nth == 1 else completion(asked)


@habit("cut_short")
def _cut_short(asked: Asked) -> web.Response:
    """Half the body, and then the connection is closed though more was promised, once."""
    if asked.nth > 1:
        return completion(asked)
    half = json.dumps(_body(asked))[:40]
    return web.Response(text=half, content_type="application/json", headers={"X-Promised": "4000"})


@habit("past_429")
def _past_429(asked: Asked) -> web.Response:
    """Retry-After as a date that is past, once."""
    if asked.nth > 1:
        return completion(asked)
    return refused(429, "slow down", "rate_limit", [("Retry-After", formatdate(time.time() - 3600, usegmt=True))])


@habit("negative_429")
def _negative_429(asked: Asked) -> web.Response:
    return refused(429, "slow", "rate_limit", [("Retry-After", "-5")]) if asked.nth == 1 else completion(asked)


@habit("nan_429")
def _nan_429(asked: Asked) -> web.Response:
    return refused(429, "slow", "rate_limit", [("Retry-After", "nan")]) if asked.nth == 1 else completion(asked)


@habit("overloaded_529")
def _overloaded_529(asked: Asked) -> web.Response:
    return refused(529, "Overloaded", "overloaded_error") if asked.nth == 1 else completion(asked)


@habit("cloudflare_522")
def _cloudflare_522(asked: Asked) -> web.Response:
    if asked.nth > 1:
        return completion(asked)
    return web.Response(status=522, text="<html>error code: 522</html>", content_type="text/html")


@habit("login_page")
def _login_page(_: Asked) -> web.Response:
    """Whoever is not signed in gets a page, with status 200, always."""
    return web.Response(text="<!doctype html><title>Sign in</title>", content_type="text/html")


@habit("redirected")
def _redirected(_: Asked) -> web.Response:
    """Sends callers to another host, where their key does not belong."""
    return web.Response(status=307, headers={"X-Elsewhere": "1"})


@habit("moved_within")
def _moved_within(asked: Asked) -> web.Response:
    """Sends callers to another path of its own."""
    return web.Response(status=308, headers={"Location": "/good/v1/chat/completions"})


@habit("odd_parts")
def _odd_parts(asked: Asked) -> web.Response:
    """Content as parts of types that nobody has heard of, the answer among them."""
    return completion(
        asked, [{"type": "reasoning", "text": "nonsense"}, {"type": "output_text", "text": asked.content}]
    )
