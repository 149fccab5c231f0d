"""What stages may ask, in tokens at most: how many rows of which lengths, and what stands around a row's text.

It counts no call and prices nothing (see `leastwise.money.worst_cost`), and reads no data: lengths are handed in.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from leastwise.part import Part
from leastwise.use_case import Stage


class Lengths(Part):
    """The texts of some rows, in UTF-8 bytes."""

    rows: int = Field(0, ge=0)
    in_all: int = Field(0, ge=0)
    longest: int = Field(0, ge=0)

    @classmethod
    def of(cls, each: Iterable[int]) -> Lengths:
        """Of texts of these many bytes."""
        listed = list(each)
        return cls(rows=len(listed), in_all=sum(listed), longest=max(listed, default=0))


class Asked(Part):
    """What may be asked: the rows of each kind, and what stands around a row's text in each form of request.

    Everything in tokens at most, which are bytes, with what a chat template adds.
    """

    gate: Lengths = Lengths()
    out_of_scope: Lengths = Lengths()
    shifted: Lengths = Lengths()
    paraphrases: Lengths = Lengths()
    traffic: Lengths = Field(Lengths(), description="Each text once.")
    beside_traffic: Lengths = Field(
        Lengths(), description="Gate rows that are asked besides traffic without expected answers."
    )
    again: Lengths = Field(Lengths(), description="Gate rows that are asked again.")
    traffic_again: Lengths = Lengths()
    under_load: Lengths = Field(
        Lengths(), description="Gate rows that are sent to measure the capacity of own machines, the longest."
    )
    test: Lengths = Field(Lengths(), description="The rows the winner is confirmed on.")
    cascade_dev: Lengths = Lengths()
    guard_dev: Lengths = Field(Lengths(), description="Dev rows of either kind a guard is chosen on.")
    unlabelled: Lengths = Field(Lengths(), description="What a teacher labels, the longest texts.")
    train: Lengths = Field(
        Lengths(), description="The longest examples that are trained on at a host, with answers; none elsewhere."
    )
    graded: Lengths = Field(Lengths(), description="Texts, answers and references that people graded.")
    references: int = Field(0, ge=0, description="The longest expected answer.")
    prompt: int = Field(0, ge=0)
    rag: int = Field(0, ge=0)
    trained: int = Field(0, ge=0)
    judge: int = Field(0, ge=0)
    escaped: float = Field(1.0, ge=1, description="Most times a text grows when it is written as JSON for a judge.")
    constraint: int = Field(0, ge=0, description="Schema or choices that hold an answer to its format.")

    def judged(self, stage: Stage) -> tuple[Lengths, ...]:
        """What every candidate of a stage is asked once; under load only where it answers on own machines."""
        main = (self.traffic, self.beside_traffic) if stage == "cache" else (self.gate,)
        beyond = () if stage == "cache" else (self.paraphrases,)
        return (*main, self.out_of_scope, self.shifted, *beyond, self.under_load)

    def graded_in(self, stage: Stage) -> tuple[Lengths, ...]:
        """What a judge grades of every candidate of a stage, but for shifted rows: answers that can be scored."""
        if stage != "cache":
            return (self.gate,)
        return (self.beside_traffic,) if self.beside_traffic.rows else (self.traffic,)
