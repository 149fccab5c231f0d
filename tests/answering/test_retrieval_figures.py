"""Retrieval is measured on its own against gold documents, with a real encoder and index."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from leastwise.answering.prompts import fit_prompts
from leastwise.answering.retrieval_figures import MODES, NONE, RetrievalMeter
from leastwise.answering.workspace import Workspace
from leastwise.ladder.gate import Evaluation
from leastwise.ladder.measured import Measured
from tasks.prompt import prompt_candidates
from tasks.rag import rag_candidates
from tests.parts import open_parts


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, empty_tracking: Path) -> Iterator[Workspace]:
    """An open climb, shared: nothing here changes what another test reads."""
    with open_parts(tmp_path_factory.mktemp("parts"), empty_tracking) as parts:
        yield parts


def answered(scores: dict[str, float]) -> Measured:
    rows = [{"id": row_id, "score": score, "set": "gate"} for row_id, score in scores.items()]
    return Measured(Evaluation(stage="rag", candidate="c", gate_hash="g", measurements={}), {}, rows=rows)  # type: ignore[arg-type]


def test_auto_takes_the_search_that_finds_most_gold_documents_of_dev_and_says_so(work: Workspace) -> None:
    (candidate,) = rag_candidates(work)
    run = work.run.again()
    shares = {mode: run.figures[f"retrieval.dev.{mode}.recall_at_k"] for mode in MODES}
    assert shares["bm25"] == 1.0 > shares["dense"]
    assert candidate.retriever is not None and candidate.retriever.mode == "bm25" == run.tag("leastwise.retrieval.mode")


def test_every_search_is_measured_over_the_gate_rows_and_quality_is_split_by_what_was_shown(work: Workspace) -> None:
    (candidate,) = rag_candidates(work)
    dense = candidate.model_copy(update={"retriever": candidate.retriever.model_copy(update={"mode": "dense"})})  # type: ignore[union-attr]
    rows = work.question.gate.rows
    shown = [each.documents for each in fit_prompts(work, dense, list(rows["text"]))]
    found = [f"d{row_id[1:]}" in documents for row_id, documents in zip(rows["id"], shown, strict=True)]
    assert 0 < sum(found[:10]) < 10, "some of the first rows are found by meaning, some are not"
    scores = {row_id: 0.9 if is_found else 0.1 for row_id, is_found in list(zip(rows["id"], found, strict=True))[:10]}
    got = RetrievalMeter(work).measure(dense, answered(scores))
    assert got.metrics["retrieval.recall_at_k"] == got.metrics["retrieval.dense.recall_at_k"] == sum(found) / 20
    assert (
        got.metrics["retrieval.n"] == 20
        and got.metrics["retrieval.k"] == 3
        and got.metrics["retrieval.documents_shown"] == 3
    )
    for mode in ("dense", "bm25", "hybrid"):
        shares = [got.metrics[f"retrieval.{mode}.recall_at_{k}"] for k in (1, "k", 5, 20)]
        assert shares == sorted(shares) and shares[0] <= got.metrics[f"retrieval.{mode}.mrr"] <= shares[-1]
    assert got.metrics["retrieval.bm25.recall_at_1"] == 1.0 and got.metrics["retrieval.bm25.mrr"] == 1.0
    assert got.metrics["quality.gold_found"] == pytest.approx(0.9) and got.metrics["quality.gold_found.n"] == sum(
        found[:10]
    )
    assert got.metrics["quality.gold_missed"] == pytest.approx(0.1) and got.metrics[
        "quality.gold_missed.n"
    ] == 10 - sum(found[:10])
    assert (
        got.tags["leastwise.retrieval.fault"] == "retrieval"
        and got.sentence in got.note
        and "| bm25 | 1.000 |" in got.note
    )


def test_a_candidate_that_is_shown_no_documents_has_no_retrieval_figures(work: Workspace) -> None:
    (candidate,) = prompt_candidates(work)
    assert RetrievalMeter(work).measure(candidate, answered({})) == NONE
