"""The run of an upkeep flow (retrain, drift, rebaseline, gate, bulk) in MLflow: opened or taken up again, and its end.

It decides nothing and moves no alias. It holds `use_case.json` as a climb's run does, so that what is measured under it
is measured as in a climb; one that a crash left RUNNING is taken up again by the same question.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from leastwise.ladder.ending import UpkeepEnding
from leastwise.record.client import experiment_id, leave, take_up
from leastwise.record.climb_run import USE_CASE_FILE, ClimbRun
from leastwise.record.handover.tables import handed_over
from leastwise.record.run import (
    CHAMPION_VERSION,
    FINISHED,
    KEY,
    KIND,
    NOTE,
    OUTCOME,
    PAID,
    REASON,
    RUN_NAME,
    RUNNING,
    SPENT,
    STAGE,
    USE_CASE,
    is_status,
    is_tag,
)
from leastwise.use_case import UseCase

if TYPE_CHECKING:
    from mlflow import MlflowClient

Kind = Literal["retrain", "drift", "rebaseline", "gate", "bulk"]
RESUMABLE = ("error", "budget")


class UpkeepRun(ClimbRun):
    """One run of an upkeep flow."""

    @property
    def champion_version(self) -> str:
        """The version that was champion when it was opened."""
        return self.tag(CHAMPION_VERSION)

    @property
    def champion_stage(self) -> str:
        """The stage that champion came from."""
        return self.tag(STAGE)

    def end(
        self,
        outcome: str,
        reason: str,
        usd_spent: float,
        calls_paid: int,
        figures: Mapping[str, float] | None = None,
        note: str = "",
    ) -> UpkeepEnding:
        """Write the ending, with a `note` in Markdown of its own where there is one; what ended in an error or at a
        budget can be taken up again.
        """
        tags = {
            OUTCOME: outcome,
            REASON: reason,
            NOTE: note or f"### {outcome}\n{reason}",
            RUN_NAME: f"{self.kind} · {outcome} · {reason}"[:200],
        }
        self.write({SPENT: usd_spent, PAID: float(calls_paid), **(figures or {})}, tags)
        if outcome not in RESUMABLE:
            self.close()
        leave(self.client, self.id)
        return UpkeepEnding(outcome, reason, usd_spent, calls_paid, self.id)


def open_upkeep(
    client: MlflowClient, use_case: UseCase, kind: Kind, key: str, tags: Mapping[str, str] | None = None
) -> UpkeepRun:
    """The unfinished run of this kind and key, or a new one; BadInput where another process is at work on it."""
    where = experiment_id(client, use_case.name)
    query = f"{_is(kind, key)} and {is_status(RUNNING)}"
    written = {KIND: kind, KEY: key, USE_CASE: use_case.name, **(tags or {})}
    run, _ = take_up(
        client,
        f"a {kind} of {use_case.name}",
        key,
        lambda: client.search_runs([where], query),
        lambda: client.create_run(where, tags=written, run_name=f"{kind} · running"),
    )
    client.log_dict(run.info.run_id, handed_over(client, use_case).model_dump(mode="json"), USE_CASE_FILE)
    return UpkeepRun.read(client, run.info.run_id)


def ended_before(client: MlflowClient, use_case: UseCase, kind: Kind, key: str) -> UpkeepEnding | None:
    """How the same question ended before, nothing spent anew; None where it was not asked to its end."""
    query = f"{_is(kind, key)} and {is_status(FINISHED)}"
    runs = client.search_runs([experiment_id(client, use_case.name)], query, max_results=1)
    if not runs:
        return None
    run = UpkeepRun(client, runs[0])
    return UpkeepEnding(run.tag(OUTCOME), run.tag(REASON), 0.0, 0, run.id)


def _is(kind: Kind, key: str) -> str:
    return f"{is_tag(KIND, kind)} and {is_tag(KEY, key)}"
