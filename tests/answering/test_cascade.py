"""A cascade at work: what escalates costs both, takes both times, and is counted."""

from dataclasses import replace

import pandas as pd

from leastwise.answering.answerer import PlainAnswerer
from leastwise.answering.cascade import CascadeAnswerer, escalates
from leastwise.metrics.answer import Answer


class Toy(PlainAnswerer):
    """Answers with the id and a confidence from the column `sure`; `lost` rows bring nothing."""

    price = None
    usd_worst_case = fixed_usd_per_request = 1.0

    def __init__(self, name: str, ms: float | None, lost: frozenset[str] = frozenset()) -> None:
        self.name, self.ms, self.lost = name, ms, lost

    def answer(self, rows: pd.DataFrame) -> list[Answer]:
        made = zip(rows["id"], rows["sure"], strict=True)
        return [
            Answer(None, None, 0.0, error="cut")
            if row in self.lost
            else Answer(f"{self.name} {row}", self.ms, 1.0, 10, 5, 1, confidence=sure)
            for row, sure in made
        ]

    def again(self, rows: pd.DataFrame) -> list[Answer]:
        return [replace(answer, text=answer.text and f"{answer.text} again") for answer in self.answer(rows)]

    def timed(self, rows: pd.DataFrame, answers: list[Answer]) -> list[float]:
        return [7.0] * len(rows)


def test_what_escalates_costs_both_takes_both_times_and_is_counted() -> None:
    rows = pd.DataFrame({"id": ["a", "b", "c", "d"], "sure": [0.9, 0.2, 0.9, 0.1]})
    cascade = CascadeAnswerer(Toy("first", 10.0, frozenset({"c"})), Toy("then", 20.0, frozenset({"d"})), 0.5)
    answers = cascade.answer(rows)
    assert [a.text for a in answers] == ["first a", "then b", "then c", None], (
        "lost by the first escalates, by the other is lost"
    )
    assert (answers[1].usd, answers[1].latency_ms, answers[1].input_tokens, answers[1].escalated) == (
        2.0,
        30.0,
        20,
        True,
    )
    assert cascade.figures() == {"cascade.escalated_share": 0.75, "cascade.below": 0.5}
    assert [a.text for a in cascade.again(rows)] == ["first a again", "then b again", "then c again", None]
    assert cascade.figures()["cascade.escalated_share"] == 0.75, "asking again is no traffic"
    assert (cascade.usd_worst_case, cascade.fixed_usd_per_request) == (2.0, 2.0)
    assert cascade.timed(rows, answers) == [7.0, 14.0, 14.0, 14.0]


def test_at_a_threshold_of_one_every_request_escalates_however_sure_the_first_is() -> None:
    sure = Answer("yes", 1.0, 0.0, confidence=1.0)
    assert escalates(sure, 1.0) and not escalates(sure, 0.999)
    assert escalates(Answer("yes", 1.0, 0.0), 0.0) and escalates(Answer(None, None, 0.0, error="lost"), 0.0)
