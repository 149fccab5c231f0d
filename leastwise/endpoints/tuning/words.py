"""What a host says of a training, as far as people and logs may see it: without keys, and without what it repeats of
the rows that were put there.

It knows no host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leastwise.endpoints.failure import shown

LEAST_QUOTED = 24  # characters in a row of which it is said that they come from the rows, and not by chance
LEAST_TEXT = 8  # of a whole text: shorter ones are words that anybody may use
LEFT_OUT = "(its words are left out: they hold training text)"


@dataclass(frozen=True)
class Rows:
    """The texts that were put at a host, and the file they were put there as."""

    texts: Sequence[str]
    file: str

    def said(self, message: str) -> str:
        """A message as it may be shown."""
        return LEFT_OUT if self._are_quoted_in(message) else shown(message)

    def _are_quoted_in(self, message: str) -> bool:
        if any(len(text) >= LEAST_TEXT and text in message for text in self.texts):
            return True
        starts = range(len(message) - LEAST_QUOTED + 1)
        return any(message[at : at + LEAST_QUOTED] in self.file for at in starts)


NO_ROWS = Rows((), "")
