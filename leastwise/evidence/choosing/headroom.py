"""Is there anything that other words could bring out of a model? Told from answers that are there already.

Optimising an instruction lowered accuracy in 49% of 72 published runs and gained little but a missing format
(arXiv 2604.14585), so it is begun only where there is room. Two null hypotheses, each at half of `ALPHA`, so that with
neither false it is begun with probability at most `ALPHA`:

- at most `FORM_SHARE` of the answers are in no demanded form (exact binomial test);
- where the best variant is wrong, what the others answered is independent of what was expected (permutation test:
  expected labels are exchanged among rows that the best variant answered alike, so none can be what it said).

Rejected, they say that there is something to gain, not that anything will find it. It asks nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from leastwise.evidence.betting import FloatArray
from leastwise.evidence.bounded_mean import PairedTest
from leastwise.evidence.choosing.one_standard_error import interval

ALPHA = 0.05
FORM_SHARE = 0.05  # of answers out of form that no other words are looked for
PERMUTATIONS = 1999
LEAD = 0.1  # of a better instruction, against which the paired test bets most


@dataclass(frozen=True)
class Headroom:
    """How many rows there are, are wrong under the best variant, in no form, and right under another variant; how many
    of these chance explains, and how probable as many or more are under either null hypothesis.
    """

    rows: int
    wrong: int
    out_of_form: int
    right_elsewhere: int
    by_chance: float
    p_form: float
    p_elsewhere: float

    @property
    def room(self) -> float:
        """The share of rows that other words are known to get right beyond chance, or that lack their form."""
        known = max(0.0, self.right_elsewhere - self.by_chance) if self.p_elsewhere <= ALPHA / 2 else 0.0
        form = self.out_of_form if self.p_form <= ALPHA / 2 else 0
        return max(known, form) / self.rows if self.rows else 0.0

    @property
    def most(self) -> float:
        """Surely no more than this share is right if every row had the best words for it (Wilson, about 97.5%).

        A row without a form counts as one that could be right.
        """
        right = min(self.rows, self.rows - self.wrong + self.right_elsewhere + self.out_of_form)
        return interval([1.0] * right + [0.0] * (self.rows - right))[1]

    def why_not(self, least_gain: float, floor: float | None) -> str:
        """Why other words are not looked for; empty where they are. `floor`: the least quality that may pass."""
        if self.room == 0.0:
            return f"no headroom: {self.words}"
        if self.room < least_gain:
            return f"no headroom: {self.words}; that is {self.room:.3f}, and no less than {least_gain:.3f} can be told"
        if floor is not None and self.most < floor:
            return f"no headroom: {self.words}; the best words for every row reach at most {self.most:.2f} < {floor:g}"
        return ""

    @property
    def words(self) -> str:
        """In words."""
        return (
            f"of {self.wrong} wrong of {self.rows} dev answers {self.out_of_form} are in no form (p {self.p_form:.3f}) "
            f"and {self.right_elsewhere} are right under another variant, {self.by_chance:.1f} by chance "
            f"(p {self.p_elsewhere:.3f})"
        )


def headroom(
    said: Sequence[str | None], elsewhere: Sequence[frozenset[str]], expected: Sequence[str], seed: int = 0
) -> Headroom:
    """The headroom of a best variant that `said` these labels (None: none of them), where other variants said those.

    Every argument has one entry a row.
    """
    from scipy.stats import binom

    wrong = [at for at, label in enumerate(said) if label != expected[at]]
    out_of_form = sum(said[at] is None for at in wrong)
    drawn = np.zeros(PERMUTATIONS)
    known, rng = 0, np.random.default_rng(seed)
    for label in sorted({said[at] or "" for at in wrong}):
        alike = [at for at in wrong if (said[at] or "") == label]
        hits = np.array([[expected[other] in elsewhere[at] for other in alike] for at in alike], dtype=float)
        known += int(np.trace(hits))
        drawn += _exchanged(hits, rng)
    reached = int((drawn >= known).sum())
    return Headroom(
        rows=len(said),
        wrong=len(wrong),
        out_of_form=out_of_form,
        right_elsewhere=known,
        by_chance=float(drawn.mean()),
        p_form=float(binom.sf(out_of_form - 1, len(said), FORM_SHARE)) if len(said) else 1.0,
        p_elsewhere=(1 + reached) / (1 + PERMUTATIONS),
    )


def _exchanged(hits: FloatArray, rng: np.random.Generator) -> FloatArray:
    """How many rows hit when what they expect is exchanged at random, once a permutation; shape (PERMUTATIONS,)."""
    places = np.arange(len(hits))
    orders = rng.permuted(np.tile(places, (PERMUTATIONS, 1)), axis=1)
    return np.asarray(hits[places, orders].sum(axis=1))


class SurelyBetter:
    """Is a new instruction surely better than the old one on the same rows? Valid at every look, at `alpha`.

    A paired bet (`PairedTest`) against "the new one is no better on average": it is adopted wrongly with probability
    at most `alpha`, however often one looks.
    """

    def __init__(self, alpha: float = ALPHA) -> None:
        self._test = PairedTest(LEAD, alpha, alpha)

    def add(self, new: Sequence[float], old: Sequence[float]) -> None:
        """Take both scores, in [0, 1], of more rows; a row on which either was lost is none."""
        apart = np.column_stack([np.asarray(new, dtype=float), np.asarray(old, dtype=float)])
        known = apart[~np.isnan(apart).any(axis=1)]
        if len(known):
            self._test.add(known[:, 0], known[:, 1])

    @property
    def is_better(self) -> bool:
        """Whether it surely is."""
        return self._test.n > 0 and self._test.lower > 0

    @property
    def is_over(self) -> bool:
        """Whether more rows would change nothing: it is surely better, or surely no better."""
        return self._test.n > 0 and (self._test.lower > 0 or self._test.upper < 0)

    @property
    def gain(self) -> float:
        """The mean difference so far."""
        return self._test.estimate if self._test.n else 0.0

    @property
    def bounds(self) -> tuple[float, float]:
        """An interval of the mean difference that holds at every look, 1 - alpha on either side."""
        return (self._test.lower, self._test.upper) if self._test.n else (-1.0, 1.0)

    @property
    def rows(self) -> int:
        """How many rows count."""
        return self._test.n


def least_gain(rows: int, alpha: float = ALPHA) -> float:
    """The smallest share of so many rows by which a new instruction can be told to be better: won, none lost.

    More than 1 where so few rows can tell nothing.
    """
    test = SurelyBetter(alpha)
    for won in range(1, rows + 1):
        test.add([1.0], [0.0])
        if test.is_better:
            return won / rows
    return 2.0
