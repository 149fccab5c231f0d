"""Where to look in MLflow's pages: saved views of an experiment's runs, and links to them and to two runs side by side.

It draws nothing; what a view shows is logged elsewhere.
"""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from leastwise.record.run import CONFIRMED, KIND, OUTCOME, SPENT, VERDICT

if TYPE_CHECKING:
    from mlflow import MlflowClient

GATE_VIEW, COSTS_VIEW = "leastwise-gate-verdicts", "leastwise-costs"
SHARED = "mlflow.sharedViewState."
NAME, NAME_PIXELS = "attributes.`Run Name`", 400  # a run's name says its verdict and the figure that decided
SORTED_BY = "tags.`mlflow.user`"  # and then newest first; sorted by time stages are nested in their climbs, unseen
COSTS = (SPENT, "usd.estimated", "usd.estimated.worst", "usd.per_request", "usd.month.cheapest", "usd.avoided")
TOKENS = ("tokens.input", "tokens.cached", "tokens.output", "calls.paid", "calls.cached")


def make_views(client: MlflowClient, experiment_id: str, requirements: Sequence[str]) -> None:
    """The saved views "Gate verdicts" and "Costs" of an experiment; made once, and anew where a requirement came."""
    figures = [each for name in requirements for each in (name, f"{name}.lower", f"{name}.upper", f"{name}.bound")]
    counts = [f"{name}.n" for name in requirements]
    verdicts = [_tag(VERDICT), *map(_metric, figures), *map(_metric, counts), _metric(SPENT)]
    costs = [_tag(OUTCOME), _tag(VERDICT), _tag(CONFIRMED), *map(_metric, (*COSTS, "usd_per_1k_requests", *TOKENS))]
    _save(client, experiment_id, GATE_VIEW, "Gate verdicts", verdicts, f"tags.`{KIND}` = 'stage'")
    _save(client, experiment_id, COSTS_VIEW, "Costs", costs, f"tags.`{KIND}` != 'try' and metrics.`{SPENT}` >= 0")


def view_url(tracking_uri: str, experiment_id: str, view: str) -> str:
    """The page of a saved view."""
    return f"{tracking_uri}/#/experiments/{experiment_id}/runs?viewStateShareKey={view}"


def comparison_url(tracking_uri: str, experiment_id: str, run_id: str, other_run_id: str) -> str:
    """The page that pairs the examples of two judged runs by their input."""
    pair = f"selectedRunUuid={run_id}&compareToRunUuid={other_run_id}"
    return f"{tracking_uri}/#/experiments/{experiment_id}/evaluation-runs?{pair}"


def _metric(name: str) -> str:
    return f"metrics.`{name}`"


def _tag(name: str) -> str:
    return f"tags.`{name}`"


def _save(client: MlflowClient, experiment_id: str, key: str, name: str, columns: list[str], filter_: str) -> None:
    state: dict[str, object] = {
        "searchFilter": filter_,
        "orderByKey": SORTED_BY,
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": [NAME, *columns],
        "columnWidths": {NAME: NAME_PIXELS},
        "runsHiddenMode": "FIRST_10_RUNS",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": False,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "runsExpanded": {},
        "groupsExpanded": {},
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }
    packed = "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    there = json.loads(client.get_experiment(experiment_id).tags.get(SHARED + key, "{}"))
    if there.get("state") == packed:
        return
    now_ms = int(time.time() * 1000)
    kept = {"name": name, "createdAt": there.get("createdAt", now_ms), "updatedAt": now_ms, "state": packed}
    client.set_experiment_tag(experiment_id, SHARED + key, json.dumps(kept))
