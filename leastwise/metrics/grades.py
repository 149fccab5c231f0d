"""Grades of the same answers by people and by a judge. It asks neither (see `leastwise.evaluating.judge_scorer`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Grades:
    """Grades of the same answers by people and by the judge, each in 0..1: what the judge's error is known from."""

    ids: tuple[str, ...]
    human: tuple[float, ...]
    judge: tuple[float, ...]

    @property
    def mean_error(self) -> float:
        """What people gave beyond the judge, on average."""
        return float(np.mean(self.human) - np.mean(self.judge))
