"""What the upkeep flows (retrain, drift, rebaseline, promote, rollback) write down: one MLflow run each, and its ending.

It decides nothing and moves no alias. An upkeep run holds `use_case.json` as a climb's run does, so that a workspace can
be opened from its id; one that a crash left RUNNING is taken up again by the same question.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from leastwise.record import run_record, tracking
from leastwise.stores import storage
from leastwise.stores.ledger import Ledger
from leastwise.use_case import UseCase
from tasks import console

if TYPE_CHECKING:
    from mlflow import MlflowClient

Kind = Literal["retrain", "drift", "rebaseline"]
EXIT_STATUS = {"drift": 3, "budget": 3, "error": 1}


@dataclass(frozen=True)
class Upkeep:
    """How an upkeep flow ended; its fields are the JSON line a command prints."""

    outcome: str
    reason: str
    usd_spent: float
    calls_paid: int
    mlflow_run_id: str

    @property
    def exit_status(self) -> int:
        """0 done, quiet or nothing to do; 3 drift or budget; 1 error."""
        return EXIT_STATUS.get(self.outcome, 0)


def open_run(
    client: MlflowClient, use_case: UseCase, kind: Kind, key: str, tags: Mapping[str, str] | None = None
) -> str:
    """The unfinished run of this kind and key, or a new one; gives back its id."""
    where = tracking.experiment(client, use_case.name)
    found = client.search_runs([where], f"{_is(kind, key)} and attributes.status = 'RUNNING'", max_results=1)
    written = {"leastwise.kind": kind, "leastwise.key": key, "leastwise.use_case": use_case.name, **(tags or {})}
    run = found[0] if found else client.create_run(where, tags=written, run_name=f"{kind} · running")
    client.log_dict(run.info.run_id, use_case.model_dump(mode="json"), "use_case.json")
    return str(run.info.run_id)


def recorded(client: MlflowClient, use_case: UseCase, kind: Kind, key: str) -> Upkeep | None:
    """How the same question ended before, nothing spent anew; None where it was not asked to its end."""
    where = tracking.experiment(client, use_case.name)
    found = client.search_runs([where], f"{_is(kind, key)} and attributes.status = 'FINISHED'", max_results=1)
    if not found:
        return None
    tags = found[0].data.tags
    return Upkeep(tags["leastwise.outcome"], tags["leastwise.reason"], 0.0, 0, str(found[0].info.run_id))


def close_run(
    client: MlflowClient,
    run_id: str,
    outcome: str,
    reason: str,
    figures: Mapping[str, float] | None = None,
    note: str = "",
) -> Upkeep:
    """Write the ending of an upkeep run and show it; one that ended in an error or at a budget can be taken up again."""
    from mlflow.entities import Metric, RunTag

    usd, calls = _spent(run_id)
    kind = client.get_run(run_id).data.tags["leastwise.kind"]
    now = int(time.time() * 1000)
    metrics = {"usd.spent": usd, "calls.paid": float(calls), **(figures or {})}
    tags = {
        "leastwise.outcome": outcome,
        "leastwise.reason": reason,
        run_record.NOTE: note or f"### {outcome}\n{reason}",
        "mlflow.runName": f"{kind} · {outcome} · {reason}"[:200],
    }
    client.log_batch(
        run_id, [Metric(k, v, now, 0) for k, v in metrics.items()], tags=[RunTag(k, v[:5000]) for k, v in tags.items()]
    )
    if outcome not in ("error", "budget"):
        client.set_terminated(run_id, "FINISHED")
    console.say(f"{kind}: {outcome.upper() if outcome == 'drift' else outcome} · {reason}")
    return Upkeep(outcome, reason, usd, calls, run_id)


def _is(kind: Kind, key: str) -> str:
    return f"tags.`leastwise.kind` = '{kind}' and tags.`leastwise.key` = '{key}'"


def _spent(run_id: str) -> tuple[float, int]:
    """Dollars and calls that were billed to this run."""
    path = storage.home() / "ledger.db"
    if not path.exists():
        return 0.0, 0
    with Ledger(path) as ledger:
        return ledger.spent(run_id), ledger.calls(run_id)
