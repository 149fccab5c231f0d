"""A use case whose endpoint's logs stand still while a run rests on them (`leastwise.rows.reading.log_copies`).

It checks nothing else of the use case.
"""

from __future__ import annotations

from collections.abc import Iterable

from leastwise.rows.question import Question
from leastwise.rows.reading.log_copies import has_logs, with_copies, with_copies_of
from leastwise.rows.tables import TABLES, Tables
from leastwise.stores import storage
from leastwise.use_case import UseCase


def resting_on_copies(case: UseCase, begun: Iterable[UseCase]) -> UseCase:
    """The use case with copies of the logs among its tables: those of what was `begun` with the same question and is
    not finished, else of what the logs hold now; itself where it has none.
    """
    home = storage.home()
    if not has_logs(case, TABLES):
        return case
    for before in begun:
        earlier = with_copies_of(before, case, TABLES, home)
        if earlier and _key(earlier) == _key(before):
            return earlier
    return with_copies(case, TABLES, home)


def _key(case: UseCase) -> str:
    return Question(case, Tables(case)).key
