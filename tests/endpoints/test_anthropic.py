"""Anthropic's models over the wire, through its own SDK: thinking, refusals, counts, and its batches."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from leastwise.endpoints.batches import ask_in_batch
from leastwise.endpoints.inference import Asker
from leastwise.endpoints.reply import Reply
from leastwise.endpoints.request import Message, Request, Target
from leastwise.errors import BadInput, CannotBeAsked
from leastwise.stores.answer_store import ResponseStore
from leastwise.stores.caps import Caps
from leastwise.stores.ledger import Meter
from leastwise.stores.ledger_file import LedgerFile
from leastwise.stores.remembered import Remembered
from leastwise.stores.shared.jobs import JobFile
from leastwise.use_case.price import Price
from tests.servers.web_server import served

PRICE = Price(input=1.0, cached=0.1, cache_write=1.25, output=4.0)
USAGE = {"input_tokens": 10, "cache_read_input_tokens": 900, "cache_creation_input_tokens": 40, "output_tokens": 5}


def said(text: str | None, reason: str = "end_turn", usage: dict[str, int] | None = None) -> dict[str, Any]:
    content = [] if text is None else [{"type": "text", "text": text}]
    head = {"id": "m", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
    return head | {"content": content, "stop_reason": reason, "usage": usage or USAGE}


def error(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}


class AnthropicServer:
    """Answers `ANSWER:<text>`; some texts get what their first word says. Batches end at the first look."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.lines: list[dict[str, Any]] = []
        self.jobs = 0

    def answer(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        text = body["messages"][-1]["content"]
        text = text if isinstance(text, str) else text[-1]["text"]
        if text.startswith("temperature") and "temperature" in body:
            return 400, error("invalid_request_error", "`temperature` is deprecated for this model.")
        if text.startswith("thinking") and "thinking" in body:
            return 400, error("invalid_request_error", "thinking: adaptive thinking is not supported on this model")
        if text.startswith("long"):
            return 400, error("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum")
        if text.startswith("gone"):
            return 404, error("not_found_error", "model: m")
        if text.startswith("key"):
            return 401, error("authentication_error", "invalid x-api-key")
        if text.startswith("busy") and sum("busy" in json.dumps(each) for each in self.asked) == 1:
            return 529, error("overloaded_error", "Overloaded")
        if text.startswith("refused"):
            return 200, said(None, "refusal")
        if text.startswith("starved"):
            used = {"input_tokens": 10, "output_tokens": body["max_tokens"]}
            return 200, said(None, "max_tokens", used) | {
                "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}]
            }
        return 200, said(f"ANSWER:{text}")

    async def chat(self, incoming: web.Request) -> web.Response:
        self.keys.append(incoming.headers.get("Authorization", ""))
        self.asked.append(await incoming.json())
        status, body = self.answer(self.asked[-1])
        return web.json_response(body, status=status)

    async def create(self, incoming: web.Request) -> web.Response:
        wanted = (await incoming.json())["requests"]
        self.jobs += 1
        self.lines = [{"custom_id": each["custom_id"], "result": self.result(each["params"])} for each in wanted]
        return web.json_response(self.job("in_progress"))

    def result(self, params: dict[str, Any]) -> dict[str, Any]:
        text = json.dumps(params["messages"])
        if "late" in text and self.jobs == 1:
            return {"type": "expired"}
        status, body = self.answer(params)
        return {"type": "succeeded", "message": body} if status == 200 else {"type": "errored", "error": body}

    def job(self, status: str) -> dict[str, Any]:
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        times = {"created_at": "2026-11-26T00:00:00Z", "expires_at": "2026-11-27T00:00:00Z"}
        ends = {"archived_at": None, "cancel_initiated_at": None, "ended_at": None, "results_url": self.results_url}
        return (
            {"id": f"b{self.jobs}", "type": "message_batch", "processing_status": status, "request_counts": counts}
            | times
            | ends
        )

    results_url = ""

    async def look(self, _: web.Request) -> web.Response:
        return web.json_response(self.job("ended"))

    async def results(self, _: web.Request) -> web.Response:
        return web.Response(text="\n".join(json.dumps(line) for line in self.lines))


@pytest.fixture
def server() -> Iterator[AnthropicServer]:
    running = AnthropicServer()
    with served(
        web.post("/v1/messages", running.chat),
        web.post("/v1/messages/batches", running.create),
        web.get("/v1/messages/batches/{id}", running.look),
        web.get("/v1/messages/batches/{id}/results", running.results),
    ) as url:
        running.url = url  # type: ignore[attr-defined]
        running.results_url = f"{url}/v1/messages/batches/b/results"
        yield running


@pytest.fixture
def options(tmp_path: Path) -> Iterator[dict[str, Any]]:
    with ResponseStore(tmp_path / "answers.db") as store, LedgerFile(tmp_path / "ledger.db") as ledger:
        yield {"store": store, "price": PRICE.usd, "meter": Meter(ledger, Caps("c", 1.0), "t", "prompt")}


@pytest.fixture
def ask(server: AnthropicServer, tmp_path: Path, options: dict[str, Any]) -> Callable[..., list[Reply]]:
    def asked(*texts: str, name: str = "m", tokens: int = 0, **how: Any) -> list[Reply]:
        with Asker(target(server, name, **how), memory=Remembered(tmp_path / "habits"), attempts=3, **options) as asker:
            return asker.ask([request(text, tokens) for text in texts])

    return asked


def target(server: AnthropicServer, name: str = "m", **how: Any) -> Target:
    return Target(f"anthropic:{name}", base_url=server.url, api_key="the-key-0001", **how)  # type: ignore[attr-defined]


def request(text: str, tokens: int = 0) -> Request:
    messages = (Message("system", "Name it."), Message("user", text))
    return Request(text, messages, max_tokens=6, reasoning_tokens=tokens)


def test_a_request_carries_cap_system_text_and_its_key_and_cached_tokens_come_beside_the_input(
    server: AnthropicServer, ask: Any, options: dict[str, Any]
):
    (reply,) = ask("fine")
    assert (reply.text, reply.input_tokens, reply.cached_tokens, reply.cache_write_tokens) == (
        "ANSWER:fine",
        950,
        900,
        40,
    )
    assert (server.asked[0]["max_tokens"], server.keys) == (6, ["Bearer the-key-0001"])
    assert "Name it." in json.dumps(server.asked[0]["system"])
    assert options["meter"].ledger.spent("c") == pytest.approx((10 + 90 + 50 + 20) / 1e6, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "reasoning", "tokens", "sent"),
    [
        ("claude-sonnet-4-5", 2048, 2048, {"type": "enabled", "budget_tokens": 2048}),
        ("claude-sonnet-4-5", "low", 1024, {"type": "enabled", "budget_tokens": 1024}),
        ("claude-haiku-5-5", 5000, 5000, {"type": "adaptive"}),
    ],
)
def test_the_budget_of_thinking_is_sent_and_is_part_of_the_cap(
    server: AnthropicServer, ask: Any, name: str, reasoning: Any, tokens: int, sent: dict[str, Any]
):
    ask("fine", name=name, reasoning=reasoning, tokens=tokens)
    body = server.asked[0]
    assert body["max_tokens"] == 6 + tokens and sent.items() <= body["thinking"].items()
    if sent["type"] == "adaptive":
        assert body["output_config"]["effort"] == "medium", "the highest effort within the budget"


def test_what_a_model_refuses_is_found_out_once(server: AnthropicServer, ask: Any):
    assert [reply.text for reply in ask("temperature 1", "temperature 2")] == [
        "ANSWER:temperature 1",
        "ANSWER:temperature 2",
    ]
    assert ["temperature" in body for body in server.asked] == [True, False, False]


def test_thinking_that_is_refused_is_left_out(server: AnthropicServer, ask: Any):
    (reply,) = ask("thinking 1", name="claude-haiku-5-5", reasoning="low", tokens=1024)
    assert reply.text == "ANSWER:thinking 1" and "thinking" not in server.asked[-1]


def test_a_refusal_is_the_models_answer_and_a_cap_spent_on_thinking_is_named(server: AnthropicServer, ask: Any):
    assert [(r.text, r.error, r.finish_reason) for r in ask("refused")] == [("", None, "content_filter")]
    with pytest.raises(CannotBeAsked, match=r"finish_reason length.*set reasoning"):
        ask("starved 1", "starved 2")
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("text", "words"), [("long", "context_tokens"), ("gone", "served_name"), ("key", "key_variable")]
)
def test_what_a_person_must_put_right_is_said_after_one_call(server: AnthropicServer, ask: Any, text: str, words: str):
    with pytest.raises(BadInput, match=words) as told:
        ask(f"{text} 1", f"{text} 2")
    assert len(server.asked) == 1 and "the-key" not in str(told.value)


def test_what_passes_is_asked_again(server: AnthropicServer, ask: Any):
    assert ask("busy")[0].text == "ANSWER:busy" and len(server.asked) == 2


def test_a_batch_is_counted_as_billed_and_what_expired_is_asked_once_more(
    server: AnthropicServer, options: dict[str, Any], tmp_path: Path
):
    texts = [f"row {n}" for n in range(3)] + ["late", "refused"]
    how = options | {"jobs": JobFile(tmp_path / "jobs.db"), "first_poll_s": 0.02}
    replies = ask_in_batch(target(server), [request(text) for text in texts], **how)
    assert [reply.text for reply in replies] == ["ANSWER:row 0", "ANSWER:row 1", "ANSWER:row 2", "ANSWER:late", ""]
    assert all(reply.usage_known and reply.cached_tokens == 900 for reply in replies) and server.jobs == 2
    assert replies[4].finish_reason == "content_filter"
    assert options["meter"].ledger.spent("c") == pytest.approx(5 * 170 / 1e6, abs=1e-9)
    assert options["meter"].ledger.counts("c") == {"settled": 5, "released": 1}


def test_a_batch_whose_model_is_gone_says_so(server: AnthropicServer, options: dict[str, Any], tmp_path: Path):
    how = options | {"jobs": JobFile(tmp_path / "jobs.db"), "first_poll_s": 0.02}
    with pytest.raises(BadInput, match="served_name"):
        ask_in_batch(target(server), [request("gone 1"), request("gone 2")], **how)
    assert server.jobs == 1 and options["meter"].ledger.spent("c") == 0
