"""Traffic asked in its own order, all of it, and then judged in an order drawn by the seed.

It judges nothing: it asks, and stops where an outage or answers without usage leave nothing to judge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leastwise.evaluating.looks import why_lost
from leastwise.evidence.examples_needed import LOOK
from leastwise.evidence.measurement import MAX_LOST_SHARE
from leastwise.metrics.answer import Answer
from leastwise.rows.gate_rows import seeded
from leastwise.rows.question import JudgedRows

if TYPE_CHECKING:
    import pandas as pd

_PLACE = "place in the replay"


@dataclass(frozen=True)
class Replay:
    """Traffic that was asked in its own order, with its answers, in an order drawn at random to be judged in.

    At first a cache misses and later it hits: in the order of a replay costs and times fall, and a test that may stop
    at any look would take its beginning for the whole. In an order drawn by the seed each look is a sample of it all.
    """

    rows: pd.DataFrame
    answers: list[Answer]
    problem: str | None

    @classmethod
    def of(
        cls,
        judged: JudgedRows,
        answer: Callable[[pd.DataFrame], list[Answer]],
        usage_problem: Callable[[int, int, int], str | None],
        on_part: Callable[[Sequence[Answer]], None],
    ) -> Replay:
        """All of the judged rows asked, whole units drawn together; a part of them where there is a `problem`: so many
        lost, or without usage (`usage_problem` of so many rows, so many of so many answers), that there is no verdict.
        """
        answers, problem, of = list[Answer](), None, len(judged.rows)
        while len(answers) < of and problem is None:
            answers += answer(judged.rows.iloc[len(answers) : len(answers) + LOOK])
            on_part(answers)
            lost = [each.error or "lost" for each in answers if each.text is None]
            unmetered = sum(not each.usage_known for each in answers if each.text is not None)
            is_outage = len(lost) > max(1.0, MAX_LOST_SHARE * of)
            problem = why_lost(lost, len(answers)) if is_outage else usage_problem(of, unmetered, len(answers))
        asked = judged.rows.head(len(answers))
        drawn = seeded(asked.assign(**{_PLACE: range(len(answers))}))
        return cls(drawn.drop(columns=_PLACE), [answers[at] for at in drawn[_PLACE]], problem)

    def answers_to(self, look: pd.DataFrame) -> list[Answer]:
        """What was answered to these of its rows."""
        return [self.answers[at] for at in look.index]
