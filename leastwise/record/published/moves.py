"""The entries of the promotion log, and the line of champions they tell. It moves no alias and reads nothing itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from leastwise.record.run import FINISHED, REASON
from leastwise.run_id import RunId

if TYPE_CHECKING:
    from mlflow.entities import Run

CHAMPION, CHALLENGER = "champion", "challenger"
PREDECESSOR = "predecessor"  # shown to people, read from the log: nothing is decided by this alias
Event = Literal["challenge", "promote", "rollback"]
ALIAS: dict[str, str] = {"challenge": CHALLENGER, "promote": CHAMPION, "rollback": CHAMPION}
EVENT, NUMBER, BEFORE, AFTER = "leastwise.event", "leastwise.number", "leastwise.before", "leastwise.after"
STARTED = "leastwise.started"  # whether an endpoint could start a version, of it and of the move that named it


@dataclass(frozen=True)
class Move:
    """One entry of the promotion log: an alias moves from `before` (empty: it was not set) to `after`."""

    run_id: RunId
    number: int
    event: Event
    before: str
    after: str
    reason: str
    finished: bool


def champions(moves: Sequence[Move], now: str = "") -> list[str]:
    """The line of champions as versions, the present one last: promotions add to it, a rollback takes the last off.

    A champion that somebody set by hand is not in the log; it takes its place in the line by what the next entry says
    it replaced, and the present one by `now`.
    """
    line: list[str] = []
    for move in moves:
        if ALIAS[move.event] != CHAMPION:
            continue
        line = _reaching(line, move.before)
        line = line[:-1] if move.event == "rollback" else [*line, move.after]
    return _reaching(line, now)


def _reaching(line: list[str], version: str) -> list[str]:
    return line if not version or (line and line[-1] == version) else [*line, version]


def move_of(run: Run) -> Move:
    """The entry that a run of the promotion log holds."""
    tags = run.data.tags
    return Move(
        run_id=RunId(str(run.info.run_id)),
        number=int(tags[NUMBER]),
        event=cast("Event", tags[EVENT]),
        before=tags[BEFORE],
        after=tags[AFTER],
        reason=tags[REASON],
        finished=run.info.status == FINISHED,
    )
