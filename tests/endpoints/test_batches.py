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
from leastwise.endpoints.inference import Asker
from leastwise.endpoints.reply import Reply
from leastwise.endpoints.request import Message, Request, Target, request_key, usd_worst
from leastwise.errors import BadInput
from leastwise.stores.answer_store import ResponseStore
from leastwise.stores.caps import BudgetExceeded, Caps
from leastwise.stores.ledger import Meter
from leastwise.stores.ledger_file import LedgerFile
from leastwise.stores.remembered import Remembered
from leastwise.stores.shared.jobs import JobFile
from leastwise.use_case.price import Usage
from tests.servers.hostile_server import refused
from tests.servers.web_server import chat_completion, served


class BatchServer:
    """Keeps files and jobs; a job ends after so many looks. Of texts, `broken` gets an error and `late` expires."""

    def __init__(self, looks: int = 1) -> None:
        self.looks, self.files, self.jobs, self.asked = looks, {}, {}, []
        self.refuse_after = 99
        self.faults: dict[str, list[web.Response]] = {"create": [], "look": [], "content": [], "upload": []}
        self.ends = ["completed"]  # how jobs end, in turn; the last one goes on
        self.done_before_that = 99  # of a job's requests
        self.alone: list[dict[str, Any]] = []  # what was asked without a batch

    def fault(self, where: str) -> web.Response | None:
        return self.faults[where].pop(0) if self.faults[where] else None

    async def chat(self, incoming: web.Request) -> web.Response:
        """Takes no temperature."""
        self.alone.append(await incoming.json())
        if "temperature" in self.alone[-1]:
            return refused(400, "Unsupported value: 'temperature' does not support 0 with this model.")
        return chat_completion("m", f"ANSWER:{self.alone[-1]['messages'][-1]['content']}", 100, 5)

    async def upload(self, incoming: web.Request) -> web.Response:
        if fault := self.fault("upload"):
            return fault
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
        if fault := self.fault("create"):
            return fault
        job = f"batch-{len(self.jobs)}"
        lines = [json.loads(line) for line in self.files[wanted["input_file_id"]].splitlines()]
        self.asked += [line["body"]["input"][-1]["content"] for line in lines]
        self.bodies = [line["body"] for line in lines]
        answers = [self.answer(line) for line in lines[: self.done_before_that]]
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
        if fault := self.fault("look"):
            return fault
        job = self.jobs[incoming.match_info["id"]]
        job["looks"] += 1
        if job["looks"] >= self.looks and job["status"] == "in_progress":
            end = self.ends.pop(0) if len(self.ends) > 1 else self.ends[0]
            job |= {"status": end, "output_file_id": f"out-{job['id']}"}
            self.done_before_that = 99
        return web.json_response(job)

    async def content(self, incoming: web.Request) -> web.Response:
        if fault := self.fault("content"):
            return fault
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
        web.post("/v1/chat/completions", server.chat),
    ) as url:
        yield Target("openai:m", "1", base_url=f"{url}/v1", api_key="k")


def half_price(usage: Usage) -> float:
    return (usage.input_tokens - 0.9 * usage.cached_tokens + 4 * usage.output_tokens) / 2e6


def request(text: str) -> Request:
    return Request(text, (Message("system", "Name the tactic."), Message("user", text)), max_tokens=6)


@pytest.fixture
def options(tmp_path: Path) -> Iterator[dict[str, Any]]:
    with ResponseStore(tmp_path / "answers.db") as store, LedgerFile(tmp_path / "ledger.db") as ledger:
        meter = Meter(ledger, Caps("c", 1.0), "triage", "distill")
        yield {
            "store": store,
            "price": half_price,
            "meter": meter,
            "jobs": JobFile(tmp_path / "jobs.db"),
            "first_poll_s": 0.02,
        }


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
    assert options["meter"].ledger.counts("c") == {"settled": 1, "released": 3}, "the late one was asked once more"


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


@pytest.mark.parametrize("end", ["expired", "cancelled", "completed"])
def test_of_a_batch_that_ends_partly_what_came_is_kept_and_the_rest_is_asked_once_more(
    options: dict[str, Any], end: str
) -> None:
    server, wanted = BatchServer(), [request(f"row {i}") for i in range(5)]
    server.ends, server.done_before_that = [end, "completed"], 2  # completed: lines are missing from its file
    with running(server) as target:
        replies = ask_in_batch(target, wanted, **options)
        again = ask_in_batch(target, wanted, **options)
    assert [r.text for r in replies] == [f"ANSWER:row {i}" for i in range(5)] and all(r.from_store for r in again)
    assert server.asked == [f"row {i}" for i in (0, 1, 2, 3, 4, 2, 3, 4)]
    counts = options["meter"].ledger.counts("c")
    assert counts == {"settled": 5, "unknown" if end == "completed" else "released": 3}


def test_what_never_comes_is_lost_after_the_second_time(options: dict[str, Any]) -> None:
    server = BatchServer()
    server.ends, server.done_before_that = ["expired"], 0
    with running(server) as target:
        server.answer = lambda line: {"id": "r", "custom_id": "of-nobody", "error": None, "response": None}  # type: ignore
        (reply,) = ask_in_batch(target, [request("row")], **options)
    assert reply.error and server.asked == ["row", "row"] and len(options["store"]) == 0
    assert options["meter"].ledger.reserved("c") == 0


REFUSED = [
    ("create", refused(401, "Incorrect API key provided: sk-live-0123456789abcdef", "invalid_api_key"), "key_variable"),
    ("create", refused(400, "Unsupported endpoint for batch"), "label_in_batches: false"),
    ("create", refused(404, "Not Found"), "no batch interface"),
    ("upload", web.Response(status=404, text="<html>no such page</html>"), "no batch interface"),
    ("create", refused(404, "The model `m` does not exist", "model_not_found"), "no such model"),
    ("create", refused(403, "You have insufficient permissions for this operation"), "no leave"),
    ("look", refused(401, "Incorrect API key provided", "invalid_api_key"), "key_variable"),
    (
        "look",
        refused(404, "No batch found with id 'batch-0'"),
        "made it; or where it is gone for good, delete .*jobs.db",
    ),
    ("content", refused(404, "No such File object: out-batch-0"), "gone for good"),
]


@pytest.mark.parametrize(("where", "fault", "words"), REFUSED)
def test_what_a_person_must_put_right_of_a_batch_is_said_in_our_words_and_costs_no_second_job(
    options: dict[str, Any], where: str, fault: web.Response, words: str
) -> None:
    server = BatchServer()
    with running(server) as target:
        server.faults[where] = [_again(fault)]
        with pytest.raises(BadInput, match=words) as told:
            ask_in_batch(target, [request("row")], **options)
        assert "127.0.0.1" in str(told.value) and "sk-" not in str(told.value)
        assert options["meter"].ledger.reserved("c") == 0
        assert (options["meter"].ledger.spent("c") == 0) == (where in ("create", "upload"))
        (reply,) = ask_in_batch(target, [request("row")], **options)
    assert reply.text == "ANSWER:row" and server.asked == ["row"]


def _again(response: web.Response) -> web.Response:
    """A response that can be sent: each test needs one of its own."""
    return web.Response(status=response.status, text=response.text, content_type=response.content_type)


@pytest.mark.parametrize(("where", "status"), [("look", 503), ("look", 429), ("content", 500), ("create", 429)])
def test_an_outage_while_a_batch_is_made_or_awaited_passes(options: dict[str, Any], where: str, status: int) -> None:
    server = BatchServer(looks=2)
    with running(server) as target:
        server.faults[where] = [refused(status, "later") for _ in range(3)]
        (reply,) = ask_in_batch(target, [request("row")], **options)
    assert reply.text == "ANSWER:row" and server.asked == ["row"] and not server.faults[where]


def test_an_outage_that_lasts_leaves_the_job_to_be_collected_by_the_next_run(options: dict[str, Any]) -> None:
    server = BatchServer()
    with running(server) as target:
        server.faults["look"] = [refused(503, "down") for _ in range(8)]
        with pytest.raises(ConnectionError, match=r"batch-0 cannot be looked at .*run again"):
            ask_in_batch(target, [request("row")], **(options | {"first_poll_s": 0.001}))
        (reply,) = ask_in_batch(target, [request("row")], **options)
    assert reply.text == "ANSWER:row" and server.asked == ["row"]


def test_where_a_job_may_have_been_made_it_is_counted_at_its_worst(options: dict[str, Any]) -> None:
    server = BatchServer()
    with running(server) as target:
        server.faults["create"] = [refused(500, "oops")]
        with pytest.raises(ConnectionError, match="may have been made or not"):
            ask_in_batch(target, [request("row")], **options)
    assert options["meter"].ledger.counts("c") == {"unknown": 1}


def test_a_job_that_answers_nothing_for_a_reason_a_person_can_put_right_says_it(options: dict[str, Any]) -> None:
    server = BatchServer()
    told = {"message": "The model `m` does not exist", "code": "model_not_found"}
    server.answer = lambda line: {  # type: ignore[method-assign]
        "id": "r",
        "custom_id": line["custom_id"],
        "response": {"status_code": 404, "body": {"error": told}},
        "error": None,
    }
    with running(server) as target, pytest.raises(BadInput, match="served_name"):
        ask_in_batch(target, [request(f"row {i}") for i in range(3)], **options)
    assert len(server.jobs) == 1 and options["meter"].ledger.counts("c") == {"released": 3}


def test_one_request_alone_finds_out_how_to_ask_before_a_job_is_made_and_its_answer_is_not_bought_again(
    options: dict[str, Any], tmp_path: Path
) -> None:
    server, wanted = BatchServer(), [request(f"row {i}") for i in range(4)]

    def asked(target: Target, requests: list[Request]) -> list[Reply]:
        kept = {"store": options["store"], "price": half_price, "meter": options["meter"]}
        with Asker(target, memory=Remembered(tmp_path / "habits"), **kept) as asker:

            def met(one: Request) -> Target:
                asker.ask([one])
                return asker.target

            return ask_in_batch(asker.target, requests, meet=met, **options)

    with running(server) as target:
        replies = asked(target, wanted)
        assert [r.text for r in replies] == [f"ANSWER:row {i}" for i in range(4)]
        assert ["temperature" in body for body in server.alone] == [True, False]
        assert server.asked == ["row 1", "row 2", "row 3"]
        assert not any("temperature" in body for body in server.bodies)
        assert all(reply.from_store for reply in asked(target, wanted)) and len(server.alone) == 2
        asked(target, [request("row 9")])
    assert len(server.alone) == 3 and "temperature" not in server.alone[2], "what was found out is remembered"
    assert options["meter"].ledger.counts("c") == {"settled": 5, "released": 1}


def test_what_an_earlier_job_brings_is_collected_before_anything_is_asked_alone(options: dict[str, Any]) -> None:
    server = BatchServer(looks=10_000)

    def met(one: Request) -> Target:
        raise AssertionError(f"{one.row_id} was asked alone")

    with running(server) as target:
        with pytest.raises(TimeoutError):
            ask_in_batch(target, [request("row")], **options, patience_s=0.1)
        server.looks = 1
        (reply,) = ask_in_batch(target, [request("row")], meet=met, **options)
    assert reply.text == "ANSWER:row" and server.asked == ["row"]


def test_an_answer_that_was_bought_alone_is_not_bought_again_in_a_batch(
    options: dict[str, Any], tmp_path: Path
) -> None:
    server = BatchServer()
    with (
        running(server) as target,
        Asker(target, store=options["store"], price=half_price, memory=Remembered(tmp_path)) as asker,
    ):
        asker.ask([request("row 0")])
        replies = ask_in_batch(asker.target, [request("row 0"), request("row 1")], **options)
    assert [r.text for r in replies] == ["ANSWER:row 0", "ANSWER:row 1"] and server.asked == ["row 1"]


def test_a_batch_answer_has_a_key_of_its_own_since_it_has_no_latency() -> None:
    target, asked = Target("openai:m"), request("x")
    assert batch_key(target, asked) != request_key(target, asked)


def test_open_weights_have_no_batch_interface(options: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="no batch interface"):
        ask_in_batch(Target("file:///x", base_url="http://127.0.0.1:1/v1", api_key="k"), [request("x")], **options)
