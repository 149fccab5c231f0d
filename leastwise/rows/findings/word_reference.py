"""What labels cost without any model: words and pairs of words in a linear classifier, measured on dev.

Row 0 of a climb embeds and is measured on the gate (`leastwise.models.reference`); this one takes seconds and sees no
gate row, so that a bound suggested by it was not read from what judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WORD = r"(?u)\b\w+\b|[^\x00-\x7f]"  # and each letter of scripts that write no blanks
ITERATIONS, SEED, SURE = 1000, 0, 0.95


@dataclass(frozen=True)
class WordReference:
    """Its right answers on dev, and the share it surely has (one-sided, Clopper and Pearson 1934)."""

    right: int
    rows: int
    lower: float

    @property
    def quality(self) -> float:
        """Share of right answers."""
        return self.right / self.rows


def word_reference(
    train: tuple[Sequence[str], Sequence[str]], dev: tuple[Sequence[str], Sequence[str]]
) -> WordReference:
    """Fitted on texts and labels of train, measured on those of dev."""
    from scipy.stats import beta
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.svm import LinearSVC

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=WORD)
    model = LinearSVC(max_iter=ITERATIONS, random_state=SEED)
    model.fit(words.fit_transform(train[0]), list(train[1]))
    said = model.predict(words.transform(dev[0]))
    right = sum(str(one) == other for one, other in zip(said, dev[1], strict=True))
    lower = float(beta.ppf(1 - SURE, right, len(dev[1]) - right + 1)) if right else 0.0
    return WordReference(right, len(dev[1]), lower)
