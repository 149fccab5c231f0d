"""How scores are added and documents are cut, whatever they are."""

import math

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from leastwise.answering.retrieval.chunks import PART, in_parts, split
from leastwise.answering.retrieval.hits import Hit, as_shares, by_ranks, weighed
from leastwise.answering.retrieval.late import Rarity, max_sim

SCORES = st.lists(st.floats(0, 1), min_size=2, max_size=12)
SHARES = st.floats(0, 1)


def hits(scores: list[float]) -> list[Hit]:
    return [Hit(f"d{n:02}", f"text {n}", None, score) for n, score in enumerate(scores)]


def rank(ranked: list[Hit], place: tuple[str, int]) -> int:
    return [hit.place for hit in ranked].index(place)


@settings(deadline=None)
@given(SCORES, st.data(), SHARES)
def test_a_hit_of_which_either_score_rises_is_ranked_no_lower(
    scores: list[float], data: st.DataObject, share: float
) -> None:
    words = data.draw(st.lists(st.floats(0, 30), min_size=len(scores), max_size=len(scores)))
    at, more = data.draw(st.integers(0, len(scores) - 1)), data.draw(st.floats(0.01, 5))
    meant, said = hits(scores), hits(words)
    before = rank(weighed(meant, as_shares(said), share), meant[at].place)
    nearer = hits([score + (more if n == at else 0) for n, score in enumerate(scores)])
    assert rank(weighed(nearer, as_shares(said), share), meant[at].place) <= before
    louder = hits([score + (more if n == at else 0) for n, score in enumerate(words)])
    assert rank(weighed(meant, as_shares(louder), share), meant[at].place) <= before


@settings(deadline=None)
@given(SCORES, SCORES)
def test_all_the_weight_on_one_score_is_the_order_of_that_score(scores: list[float], words: list[float]) -> None:
    meant = hits(scores)
    alone = weighed(meant, as_shares(hits(words)), 1.0)
    assert [hit.score for hit in alone] == sorted((round(score, 6) for score in scores), reverse=True)


@settings(deadline=None)
@given(SCORES)
def test_two_rankings_that_agree_are_fused_to_the_same_order(scores: list[float]) -> None:
    ranked = sorted(hits(scores), key=lambda hit: (-hit.score, hit.place))
    assert [hit.place for hit in by_ranks(ranked, ranked)] == [hit.place for hit in ranked]


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_a_passage_is_no_nearer_than_a_text_is_to_itself_and_more_tokens_never_put_it_farther(
    text: int, passage: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    own, other = (
        each / np.linalg.norm(each, axis=1, keepdims=True)
        for each in (rng.normal(size=(text, 8)), rng.normal(size=(passage, 8)))
    )
    weights = rng.uniform(0.1, 5.0, text)
    assert math.isclose(max_sim(own, weights, own), 1.0, abs_tol=1e-6)
    assert -1.0001 <= max_sim(own, weights, other) <= 1.0001
    assert max_sim(own, weights, np.vstack([other, own[:1]])) >= max_sim(own, weights, other) - 1e-9


def test_a_token_weighs_less_the_more_passages_have_it_and_an_unknown_one_most() -> None:
    rarity = Rarity.among([np.array(each, dtype=np.int32) for each in ([1, 2, 1], [1, 3], [1])])
    often, seldom, never, beyond = rarity.of(np.array([1, 2, 0, 99], dtype=np.int32))
    assert 0 < often < seldom < never == beyond


TEXTS = st.text(st.sampled_from("ab .!?\n\t"), min_size=1, max_size=400)


@settings(deadline=None)
@given(TEXTS, st.integers(1, 80))
def test_parts_join_back_to_the_text_and_none_is_longer_than_asked(text: str, characters: int) -> None:
    parts = split(text, characters)
    assert "".join(parts) == text
    assert all(0 < len(part) <= characters for part in parts)
    assert len(parts) <= 1 + 2 * math.ceil(len(text) / max(1, characters))


def test_documents_are_cut_between_paragraphs_else_between_sentences() -> None:
    paragraphs = ["One. Two and more of it.", "Three is said here.", "Four."]
    assert split("\n\n".join(paragraphs), 45) == [f"{paragraphs[0]}\n\n", "\n\n".join(paragraphs[1:])]
    sentences = "First one is here. Second one is here. Third one is here."
    assert split(sentences, 40) == ["First one is here. Second one is here. ", "Third one is here."]


@settings(deadline=None)
@given(st.lists(TEXTS.filter(lambda text: bool(text.strip())), min_size=1, max_size=5), st.integers(5, 60))
def test_every_part_has_the_id_and_label_of_its_document_and_says_nothing_that_is_not_in_it(
    texts: list[str], characters: int
) -> None:
    rows = pd.DataFrame(
        {"id": [f"d{n}" for n in range(len(texts))], "text": texts, "label": [f"l{n}" for n in range(len(texts))]}
    )
    parts = in_parts(rows, characters)
    assert not parts.duplicated(["id", PART]).any()
    by_id = dict(zip(rows["id"], rows["text"], strict=True))
    for row in parts.itertuples():
        assert row.text in by_id[row.id]
        assert row.label == f"l{row.id[1:]}"
        assert row.text.strip()
    assert list(dict.fromkeys(parts["id"])) == list(rows["id"])
