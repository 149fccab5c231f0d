"""A version that answers although the alias champion does not name it, until somebody moves that alias.

Whether it still holds is told by the alias and the promotion log alone, so that every process says the same, whenever
it was started. It moves no alias.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pydantic import Field

from leastwise.part import Part
from leastwise.record.published.moves import ALIAS, CHAMPION, Move


class Pin(Part):
    """A version, and how champion and promotion log stood when it was pinned."""

    version: str
    champion: str = Field("", description="The version the alias named then; empty: none.")
    move: int = Field(0, ge=0, description="Number of the promotion log's last entry then.")
    is_fixed: bool = Field(False, description="Whether it answers with that version whatever is moved later.")

    def holds(self, champion: str, log: Callable[[], Sequence[Move]]) -> bool:
        """Whether nobody has moved the alias since. `champion`: what it names now; the log is read only where that is
        as it was, for a promotion that was rolled back is a move too.
        """
        if self.is_fixed or champion != self.champion:
            return self.is_fixed
        return not any(_moves_champion(move) and move.number > self.move for move in log())

    def aliases(self, held: Mapping[str, str], log: Callable[[], Sequence[Move]]) -> dict[str, str]:
        """The aliases as whoever is pinned serves them."""
        holds = self.holds(held.get(CHAMPION, ""), log)
        return {**held, CHAMPION: self.version} if holds else dict(held)

    def predecessor(self, champions_predecessor: str) -> str:
        """Who answered here before the present champion: the pinned version, where that champion was the first one
        since.
        """
        is_own = self.is_fixed or champions_predecessor == self.champion
        return self.version if is_own else champions_predecessor


def _moves_champion(move: Move) -> bool:
    return move.finished and ALIAS[move.event] == CHAMPION  # one that is not finished has not moved it yet
