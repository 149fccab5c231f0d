"""What one answer scores, whatever the kind of task. It does not say by which metric."""

from __future__ import annotations

from pydantic import Field

from leastwise.part import Part


class Score(Part):
    """Scores of one answer, each in 0..1."""

    quality: float
    adherence: float
    declined: float
    grade: float | None = Field(None, description="A judge's grade, where one only reports.")
