"""What stages were expected to cost beside what they did, over the embedded examples.

`python -m benchmarks.estimates [USE_CASE…]`. Reads the newest ended climb of each use case from MLflow, or climbs
where there is none (minutes each; LEASTWISE_HOME says where). `logged` is the estimate of that climb, `now` today's
arithmetic on what is known of it, `spent` what the stage would have been billed with nothing stored from before.
Outside a factor of 2 a row is marked; the exit status is the number of such rows.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from leastwise.answering.asked import asked_of
from leastwise.ladder import Record
from leastwise.record.client import connect, experiment_id
from leastwise.record.climb_run import ClimbRun
from leastwise.record.costing import Costing
from leastwise.record.run import FINISHED, KIND, is_status, is_tag
from leastwise.record.stage_run import StageRun
from leastwise.rows.use_case_file import load
from leastwise.use_case import LADDER, Stage
from tasks.session.workspace import open_workspace

EXAMPLES = (
    "alert-triage",
    "alert-triage-guarded",
    "alert-triage-cheap",
    "alert-triage-strict",
    "perl-questions",
    "us-addresses",
)
WITHIN = 2.0


@dataclass(frozen=True)
class Row:
    """One stage of one climb, dollars."""

    stage: Stage
    logged: float
    now: float
    worst: float
    spent: float

    @property
    def ratio(self) -> float | None:
        """Spent over expected by today's arithmetic; None where nothing was expected or spent."""
        return self.spent / self.now if self.now > 0 and self.spent > 0 else None

    @property
    def is_off(self) -> bool:
        """Whether the estimate is out by more than a factor of 2, or the worst case was passed."""
        ratio = self.ratio
        return self.spent > self.worst or (ratio is not None and not 1 / WITHIN <= ratio <= WITHIN)


def ended(name: str) -> ClimbRun | None:
    """The newest climb of a use case that came to its end."""
    client = connect()
    query = f"{is_tag(KIND, 'ladder')} and {is_status(FINISHED)}"
    newest_first = ["attributes.start_time DESC"]
    runs = client.search_runs([experiment_id(client, name)], query, max_results=1, order_by=newest_first)
    return ClimbRun(client, runs[0]) if runs else None


@dataclass(frozen=True)
class Before(Costing):
    """What could be known of a climb before one of its stages."""

    stage: Stage = "prompt"

    def _history(self) -> list[Record]:
        below = {"reference", *LADDER[: LADDER.index(self.stage)]}
        return [record for record in super()._history() if record.stage in below]


def rows_of(climb: ClimbRun) -> list[Row]:
    """The measured stages of a climb."""
    work = open_workspace(climb.id)
    costing = (work.question, work.catalogue, lambda: asked_of(work.question), lambda: work.alphas, work.run)
    runs = {run.stage: run.origin for run in climb.stage_runs() if run.is_evidence and run.stage in LADDER}
    return [
        _row(stage, run, Before(*costing, stage=stage).expected()[stage].usd)
        for stage in LADDER
        if (run := runs.get(stage)) is not None and "usd.estimated" in run.figures
    ]


def _row(stage: Stage, run: StageRun, now: float) -> Row:
    logged, ratio = run.figures["usd.estimated"], run.figures.get("usd.estimate_ratio")
    spent = run.figures.get("usd.spent", 0.0) if ratio is None else ratio * logged
    return Row(stage, logged, now, run.figures["usd.estimated.worst"], spent)


def main() -> int:
    """Print the table; how many rows are off."""
    off = 0
    print("| use case | stage | logged | now | worst | spent | spent / now |\n|---|---|---|---|---|---|---|")
    for name in sys.argv[1:] or EXAMPLES:
        use_case = load(name)
        climb = ended(use_case.name)
        if climb is None:
            path = name if name.endswith(".yaml") else str(Path("use_cases") / f"{name}.yaml")
            subprocess.run([sys.executable, "-m", "flows.customize", path], check=False, stdout=sys.stderr)
            climb = ended(use_case.name)
        for row in rows_of(climb) if climb else ():
            ratio = "" if row.ratio is None else f"{row.ratio:.2f}{' *' if row.is_off else ''}"
            usd = " | ".join(f"${each:.5f}" for each in (row.logged, row.now, row.worst, row.spent))
            print(f"| {use_case.name} | {row.stage} | {usd} | {ratio} |", flush=True)
            off += row.is_off
    return off


if __name__ == "__main__":
    sys.exit(main())
