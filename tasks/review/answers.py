"""Answers of a judged stage put before people in MLflow, and what they said brought back; the same call does both.

A queue is made where there is none, and whatever was said by now is written into tables of the use case's own columns.
"""

from __future__ import annotations

from typing import cast, get_args

from prefect import task

from leastwise.errors import BadInput
from leastwise.ladder.ending import UpkeepEnding
from leastwise.record.client import connect, shown_uri
from leastwise.record.judged_runs import measured_run
from leastwise.record.review.queue import Which, open_queue, read_reviews
from leastwise.record.review.showing import Showing
from leastwise.record.stage_run import EXAMPLES, StageRun
from leastwise.rows.use_case_file import load
from leastwise.stores import storage
from tasks.review.tables import Written, write_tables
from tasks.session.artifacts import publish_link
from tasks.session.console import say

ASKED = 150  # a judge gates by 100 grades or more, and some of what is asked is never answered


@task(name="review answers")
def review_answers(use_case: str, run_id: str, which: str = "sample") -> UpkeepEnding:
    """Ask people about a stage's answers, and bring back what they have said."""
    if which not in get_args(Which):
        raise BadInput(f"which: {which!r} is none of {', '.join(get_args(Which))}")
    case, client = load(use_case), connect()
    run = _judged(measured_run(client, case.name, run_id))
    Showing(case).now(run)
    queue = open_queue(run, case.task, cast("Which", which), ASKED)
    page = f"{shown_uri()}{queue.path}"
    publish_link(f"review-{case.name}", page, f"the queue {queue.name} in MLflow")
    written = write_tables(case, read_reviews(run), storage.home() / "reviews" / case.name / run.id[:8])
    for file in written.files:
        run.log_file(file, "review")
    where = page if page.startswith("http") else f"the review page of {case.name} in MLflow"
    reason = f"{queue.examples} examples are in the queue {queue.name!r} ({where}); {_in_words(written)}"
    say(reason)
    return UpkeepEnding("reviewed" if written.files else "asked", reason, 0.0, 0, run.id)


def _judged(run: StageRun) -> StageRun:
    """The run that holds the examples; BadInput where there are none to look at."""
    origin = run.origin
    if not origin.is_judged or not origin.has_file(EXAMPLES):
        raise BadInput(
            f"mlflow_run_id: run {run.id} ({run.kind or 'foreign'}) has no judged answers; name a climb with a winner, "
            "or a stage that was measured"
        )
    return origin


def _in_words(written: Written) -> str:
    if not written.graded and not written.labels and not written.left_out:
        return "nobody has finished an example yet: run this again when people have"
    parts = []
    if written.graded:
        parts.append(f"{written.graded} were graded (data.graded: {written.graded_file})")
    if written.labels:
        parts.append(f"{written.labels} labels were corrected ({written.labels_file})")
    if written.of_the_gate:
        parts.append(
            f"{written.of_the_gate} of these are gate rows: correct them in data.gate; as training rows they are "
            "refused while the gate has them"
        )
    return "; ".join([*parts, *written.left_out])
