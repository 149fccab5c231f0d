"""Over the wire: a batch is paid at its price, collected after a crash, and never stands in for a timed answer.

The server is ours: it speaks the files and batches interface of OpenAI. No provider was asked.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from leastwise.endpoints import batches
from leastwise.endpoints.batches import ask_in_batch, batch_key
from leastwise.endpoints.request import Message, Request, Target, request_key, usd_worst
from leastwise.errors import BadInput
from leastwise.stores.answer_store import ResponseStore
from leastwise.stores.caps import BudgetExceeded, Caps
from leastwise.stores.ledger import Ledger, Meter
from leastwise.use_case.price import Usage
from tests.servers.web_server import served


class BatchServer:
    """Keeps files and jobs; a job ends after so many looks. Of texts, `broken` gets an error and `late` expires."""

    def __init__(self, looks: int = 1) -> None:
        self.looks, self.files, self.jobs, self.asked = looks, {}, {}, []
        self.refuse_after = 99

    async def upload(self, incoming: web.Request) -> web.Response:
        form = await incoming.post()
        name = f"file-{len(self.files)}"
        self.files[name] = form["file"].file.read().decode()
        return web.json_response(
            {"id": name, "object": "file", "bytes": 1, "created_at": 1, "filename": "b", "purpose": "batch"}
        )

    async def create(self, incoming: web.Request) -> web.Response:
        wanted = await incoming.json()
        if len(self.jobs) >= self.refuse_after:
            return web.json_response({"error": {"message": "no", "type": "invalid_request_error"}}, status=400)
        job = f"batch-{len(self.jobs)}"
        lines = [json.loads(line) for line in self.files[wanted["input_file_id"]].splitlines()]
        self.asked += [line["body"]["input"][-1]["content"] for line in lines]
        answers = [self.answer(line) for line in lines]
        self.files[f"out-{job}"] = "\n".join(json.dumps(answer) for answer in answers)
        self.jobs[job] = {
            "id": job,
            "object": "batch",
            "endpoint": "/v1/responses",
            "input_file_id": wanted["input_file_id"],
            "completion_window": "24h",
            "status": "in_progress",
            "created_at": 1,
            "looks": 0,
        }
        return web.json_response(self.jobs[job])

    @staticmethod
    def answer(line: dict[str, Any]) -> dict[str, Any]:
        text = str(line["body"]["input"][-1]["content"])
        if "late" in text:
            return {
                "id": "r",
                "custom_id": line["custom_id"],
                "response": None,
                "error": {"code": "batch_expired", "message": "late"},
            }
        if "garbled" in text:
            return {
                "id": "r",
                "custom_id": line["custom_id"],
                "response": {"status_code": 200, "body": {"id": "x"}},
                "error": None,
            }
        if "refused" in text:
            refusal = {"message": "Input data may contain inappropriate content.", "code": "data_inspection_failed"}
            response = {"status_code": 400, "body": {"error": refusal}}
            return {"id": "r", "custom_id": line["custom_id"], "response": response, "error": None}
        if "broken" in text:
            body: dict[str, Any] = {"error": {"message": "no", "type": "invalid_request_error", "code": "bad"}}
            return {
                "id": "r",
                "custom_id": line["custom_id"],
                "response": {"status_code": 400, "body": body},
                "error": None,
            }
        content = [{"type": "output_text", "text": f"ANSWER:{text}", "annotations": []}]
        output = [{"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": content}]
        usage: dict[str, Any] | None = {
            "input_tokens": 100,
            "output_tokens": 5,
            "total_tokens": 105,
            "input_tokens_details": {"cached_tokens": 40},
            "output_tokens_details": {"reasoning_tokens": 0},
        }
        if "uncounted" in text:
            usage = None
        if "odd" in text:
            usage = {"input_tokens": 12, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 40}}
        if "endless" in text:
            usage = usage | {"output_tokens": 4000, "total_tokens": 4100}
        body = {
            "id": "x",
            "object": "response",
            "created_at": 1,
            "model": "m",
            "status": "completed",
            "output": output,
            "usage": usage,
        }
        return {
            "id": "r",
            "custom_id": line["custom_id"],
            "response": {"status_code": 200, "body": body},
            "error": None,
        }

    async def look(self, incoming: web.Request) -> web.Response:
        job = self.jobs[incoming.match_info["id"]]
        job["looks"] += 1
        if job["looks"] >= self.looks:
            job |= {"status": "completed", "output_file_id": f"out-{job['id']}"}
        return web.json_response(job)

    async def content(self, incoming: web.Request) -> web.Response:
        return web.Response(text=self.files[incoming.match_info["id"]])

    async def delete(self, incoming: web.Request) -> web.Response:
        return web.json_response({"id": incoming.match_info["id"], "object": "file", "deleted": True})


@contextmanager
def running(server: BatchServer) -> Iterator[Target]:
    with served(
        web.post("/v1/files", server.upload),
        web.get("/v1/files/{id}/content", server.content),
        web.delete("/v1/files/{id}", server.delete),
        web.post("/v1/batches", server.create),
        web.get("/v1/batches/{id}", server.look),
    ) as url:
        yield Target("openai:m", "1", base_url=f"{url}/v1", api_key="k")


def half_price(usage: Usage) -> float:
    return (usage.input_tokens - 0.9 * usage.cached_tokens + 4 * usage.output_tokens) / 2e6


def request(text: str) -> Request:
    return Request(text, (Message("system", "Name the tactic."), Message("user", text)), max_tokens=6)


@pytest.fixture
def options(tmp_path: Path) -> Iterator[dict[str, Any]]:
    with ResponseStore(tmp_path / "answers.db") as store, Ledger(tmp_path / "ledger.db") as ledger:
        meter = Meter(ledger, Caps("c", 1.0), "triage", "distill")
        yield {"store": store, "price": half_price, "meter": meter, "jobs": tmp_path / "jobs.db", "first_poll_s": 0.02}


def test_a_batch_is_one_job_paid_at_its_price_and_asked_once(options: dict[str, Any]) -> None:
    server, wanted = BatchServer(looks=3), [request(f"row {i}") for i in range(5)] + [request("row 0")]
    with running(server) as target:
        replies = ask_in_batch(target, wanted, **options)
        again = ask_in_batch(target, wanted, **options)
    assert [r.text for r in replies] == [f"ANSWER:row {i}" for i in (0, 1, 2, 3, 4, 0)]
    assert len(server.jobs) == 1 and sorted(server.asked) == [f"row {i}" for i in range(5)]
    assert all(r.from_store for r in again) and [r.text for r in again] == [r.text for r in replies]
    assert (replies[0].input_tokens, replies[0].cached_tokens, replies[0].output_tokens) == (100, 40, 5)
    ledger = options["meter"].ledger
    assert ledger.spent("c") == pytest.approx(5 * half_price(Usage(100, 40, 0, 5))) and ledger.reserved("c") == 0


def test_what_the_provider_did_not_answer_is_lost_not_stored_and_not_paid(options: dict[str, Any]) -> None:
    with running(BatchServer()) as target:
        replies = ask_in_batch(target, [request("fine"), request("broken"), request("late")], **options)
    assert [r.error is None for r in replies] == [True, False, False]
    assert len(options["store"]) == 1
    assert options["meter"].ledger.counts("c") == {"settled": 1, "released": 2}


def test_an_answer_that_came_and_cannot_be_read_is_lost_but_paid_at_its_worst(options: dict[str, Any]) -> None:
    with running(BatchServer()) as target:
        fine, garbled = ask_in_batch(target, [request("fine"), request("garbled")], **options)
    assert fine.error is None and garbled.error is not None
    ledger = options["meter"].ledger
    assert ledger.counts("c") == {"settled": 1, "unknown": 1} and ledger.reserved("c") == 0
    assert ledger.spent("c") > half_price(Usage(100, 40, 0, 5))


def test_a_batch_reads_usage_and_refusals_by_the_rules_of_single_calls(options: dict[str, Any]) -> None:
    server, wanted = BatchServer(), [request(name) for name in ("fine", "uncounted", "odd", "refused")]
    with running(server) as target:
        replies = ask_in_batch(target, wanted, **options)
        again = ask_in_batch(target, wanted, **options)
    assert [reply.text for reply in replies] == ["ANSWER:fine", "ANSWER:uncounted", "ANSWER:odd", ""]
    assert not any(reply.error for reply in replies) and replies[3].finish_reason == "content_filter"
    assert [reply.usage_known for reply in replies] == [True, False, True, True]
    assert (replies[2].input_tokens, replies[2].cached_tokens) == (52, 40) and replies[3].usd == 0
    worst = usd_worst(request("uncounted"), half_price)
    assert replies[1].usd == pytest.approx(worst)
    ledger = options["meter"].ledger
    assert ledger.counts("c") == {"settled": 3, "unknown": 1} and ledger.reserved("c") == 0
    assert ledger.spent("c") == pytest.approx(sum(reply.usd for reply in replies), abs=1e-8)
    assert len(server.jobs) == 1 and all(reply.from_store for reply in again)


def test_a_cap_that_an_answer_of_a_batch_passes_stops_after_all_of_it_is_kept(options: dict[str, Any]) -> None:
    server, wanted = BatchServer(), [request(f"row {i}") for i in range(3)] + [request("endless")]
    cap = 1.05 * sum(usd_worst(each, half_price) for each in wanted)
    low = options | {"meter": Meter(options["meter"].ledger, Caps("c", cap), "triage", "distill")}
    with running(server) as target:
        with pytest.raises(BudgetExceeded):
            ask_in_batch(target, wanted, **low)
        assert len(options["store"]) == 4 and low["meter"].ledger.reserved("c") == 0
        replies = ask_in_batch(target, wanted, **low)
    assert all(reply.from_store for reply in replies) and len(server.jobs) == 1


def test_more_requests_than_a_job_takes_are_several_jobs_and_one_cap(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "MOST_REQUESTS", 3)
    server = BatchServer(looks=2)
    with running(server) as target:
        replies = ask_in_batch(target, [request(f"row {i}") for i in range(8)], **options)
        assert [r.text for r in replies] == [f"ANSWER:row {i}" for i in range(8)]
        assert len(server.jobs) == 3 and options["meter"].ledger.counts("c") == {"settled": 8}
        monkeypatch.setattr(batches, "MOST_BYTES", 2_500)
        ask_in_batch(target, [request(f"long {i} " + "x" * 1000) for i in range(3)], **options)
    assert len(server.jobs) == 6


def test_jobs_created_before_one_that_failed_are_kept_and_collected(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "MOST_REQUESTS", 2)
    server, wanted = BatchServer(), [request(f"row {i}") for i in range(5)]
    server.refuse_after = 1
    with running(server) as target:
        with pytest.raises(Exception, match="400"):
            ask_in_batch(target, wanted, **options)
        ledger = options["meter"].ledger
        assert ledger.counts("c") == {"unknown": 2, "released": 3} and ledger.reserved("c") == 0
        server.refuse_after = 99
        replies = ask_in_batch(target, wanted, **options)
    assert [r.text for r in replies] == [f"ANSWER:row {i}" for i in range(5)]
    assert sorted(server.asked) == [f"row {i}" for i in range(5)], "none was asked twice"


def test_a_job_that_was_left_waiting_is_collected_by_the_next_run_and_not_bought_again(options: dict[str, Any]) -> None:
    server, wanted = BatchServer(looks=10_000), [request(f"row {i}") for i in range(3)]
    with running(server) as target:
        with pytest.raises(TimeoutError, match="run again"):
            ask_in_batch(target, wanted, **options, patience_s=0.1)
        server.looks = 1
        replies = ask_in_batch(target, [*wanted, request("row 3")], **options)
    assert [r.text for r in replies] == [f"ANSWER:row {i}" for i in range(4)]
    assert sorted(server.asked) == [f"row {i}" for i in range(4)], "three of the first job, one of a second"


def test_a_cap_below_the_worst_case_of_the_whole_batch_creates_no_job(options: dict[str, Any]) -> None:
    server = BatchServer()
    low = Meter(options["meter"].ledger, Caps("c", 1e-4), "triage", "distill")
    with running(server) as target, pytest.raises(BudgetExceeded):
        ask_in_batch(target, [request(f"row {i}") for i in range(50)], **(options | {"meter": low}))
    assert not server.jobs and low.ledger.reserved("c") == 0 and low.ledger.spent("c") == 0


def test_a_batch_answer_has_a_key_of_its_own_since_it_has_no_latency() -> None:
    target, asked = Target("openai:m"), request("x")
    assert batch_key(target, asked) != request_key(target, asked)


def test_open_weights_have_no_batch_interface(options: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="no batch interface"):
        ask_in_batch(Target("file:///x", base_url="http://127.0.0.1:1/v1", api_key="k"), [request("x")], **options)
