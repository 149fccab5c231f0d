"""The alpha account of a gate set, kept in MLflow: what each question asked of it has drawn.

How much one draws is said in `leastwise.evidence.alpha_account`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from leastwise.evidence.alpha_account import share_of_alpha
from leastwise.record.client import experiment_id
from leastwise.record.run import FINISHED, GATE_HASH, KIND, QUESTION, is_tag

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "leastwise-alpha-accounts"


@dataclass(frozen=True)
class AlphaAccount:
    """The accounts of all gate sets on one tracking server."""

    client: MlflowClient

    def draw(self, gate_hash: str, question: str, alpha: float) -> float:
        """This question's share of the gate set's alpha account, the same one whenever it is asked again."""
        where = experiment_id(self.client, EXPERIMENT)
        drawn = self.client.search_runs([where], is_tag(GATE_HASH, gate_hash), max_results=5000)
        for run in drawn:
            if run.data.tags.get(QUESTION) == question:
                return float(run.data.metrics["alpha"])
        number = len(drawn) + 1
        share = share_of_alpha(alpha, number)
        tags = {GATE_HASH: gate_hash, QUESTION: question, KIND: "alpha"}
        run = self.client.create_run(where, tags=tags, run_name=f"draw {number} · gate set {gate_hash[:8]}")
        self.client.log_metric(run.info.run_id, "alpha", share)
        self.client.set_terminated(run.info.run_id, FINISHED)
        return share
