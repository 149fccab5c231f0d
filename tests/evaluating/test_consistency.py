"""Asking again: paraphrases against the rows they paraphrase, the same input twice, what counts, and what it costs."""

from typing import Any

import pandas as pd
import pytest

from leastwise.answering.answerer import PlainAnswerer
from leastwise.evaluating.samples.consistency import ask_again
from leastwise.metrics.answer import Answer
from leastwise.use_case import UseCase
from tests.toys import use_case

ROWS = pd.DataFrame({"id": ["r1", "r2", "r3"], "text": ["yes 1", "no 2", "yes 3"]})
PARAPHRASES = pd.DataFrame(
    {
        "id": ["r1", "r1", "r3", "r9"],
        "text": ["YES, one", "no, that one", "lost", "yes of a row that is not judged here"],
    }
)


class Toy(PlainAnswerer):
    """Answers with its text's first word, loses the text `lost`, and sells what it has not answered before."""

    def __init__(self) -> None:
        self.known: set[str] = set()

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        return [self._one(text) for text in rows["text"]]

    def _one(self, text: str) -> Answer:
        if text == "lost":
            return Answer(None, None, 0.0, error="connection reset")
        is_known = text in self.known
        self.known.add(text)
        return Answer(text.split(maxsplit=1)[0].strip(","), 5.0, 0.5, from_store=is_known)


class Fickle(Toy):
    """Says something else for one row in three when asked again."""

    def again(self, rows: pd.DataFrame) -> list[Answer]:
        return [Answer("no", 5.0, 0.0, from_store=True) for _ in rows["text"]]


def wanted(**more: Any) -> UseCase:
    return use_case({"quality": (0.8, 0.1)}).model_copy(update=more)


def test_a_paraphrase_counts_as_the_task_compares_and_only_what_is_bought_now_is_paid() -> None:
    toy = Toy()
    toy.answer(ROWS.head(1))  # r1 was answered by the gate
    asked = ask_again(wanted(), toy, ROWS, PARAPHRASES)
    assert (asked.figures["consistency.paraphrase"], asked.figures["consistency.paraphrase.n"]) == (0.5, 2)
    assert (asked.figures["consistency.calls"], asked.usd) == (
        3,
        pytest.approx(1.5),
    )  # r3 and the two of r1; the third was lost


def test_the_same_input_is_asked_again_only_where_wanted_and_the_model_behind_a_cache_is_asked() -> None:
    class Cached(PlainAnswerer):
        uncached = Fickle()

    consistency = UseCase.model_validate(wanted().model_dump() | {"consistency": {"rows": 10}}).consistency
    asked = ask_again(wanted(consistency=consistency), Cached(), ROWS, None)
    assert asked.figures == {"consistency.same": pytest.approx(1 / 3), "consistency.same.n": 3, "consistency.calls": 3}
    assert asked.usd == pytest.approx(1.5), "what the gate had not asked yet is bought for it"
    assert ask_again(wanted(), Fickle(), ROWS, None).figures == {}
