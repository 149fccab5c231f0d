"""What stages are expected to cost, from this use case's own rows, prices, models and hardware; and what they did cost.

The arithmetic is in `leastwise.money.expected_cost`; caps are held by what a stage may cost at worst (`leastwise.money.worst_cost`).
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from leastwise import ladder
from leastwise.evaluating import evaluation
from leastwise.models import hardware
from leastwise.money.expected_cost import ExpectedCost, Facts, Sizes, expected_costs
from leastwise.record import tracking
from leastwise.rows.tables import TABLES
from leastwise.use_case import Stage
from leastwise.use_case.task import completion_of

if TYPE_CHECKING:
    import pandas as pd

    from leastwise.answering.workspace import Workspace

log = logging.getLogger(__name__)

SAMPLE = 200  # rows whose lengths are averaged


def expected(work: Workspace) -> dict[Stage, ExpectedCost]:
    """The expected cost of every stage, as far as is known now: once row 0 is measured, retrieval and training are guessed by it."""
    return expected_costs(work.use_case, facts(work))


def facts(work: Workspace) -> Facts:
    """What the expectation is made of. Before a climb is open, alphas are those of the first question asked of the gate set."""
    models, judge = work.use_case.models, work.use_case.judge_model
    alphas = work.alphas if work.is_open else evaluation.alphas(work.use_case, work.use_case.alpha * 6 / math.pi**2)
    machine = hardware.of(work.use_case, work.home) if models.base or models.student else None
    return Facts(
        prices={model.uri: work.price(model.uri) for model in models.candidates},
        judge_price=work.price(judge.uri) if judge else None,
        rows={name: work.tables.rows(name) or 0 for name in TABLES},
        sizes=_sizes(work),
        hardware=machine,
        base_parameters=hardware.parameters(models.base.uri) if models.base else 0.0,
        student_parameters=hardware.parameters(_student_weights(work)),
        requests_per_s=_requests_per_s(work),
        repeat_share=work.repeat_share or 0.0,
        teacher_is_asked=_teacher_is_asked(work),
        quality=_guesses(work),
        alpha_pass=alphas.to_pass,
        alpha_fail=alphas.to_fail,
    )


def _student_weights(work: Workspace) -> str | None:
    """Whose size the student's training is estimated from; a causal one as if none of its base's blocks were cut."""
    models = work.use_case.models
    if work.use_case.training.student.kind == "encoder":
        return models.student
    return models.base.uri if models.base else None


def _sizes(work: Workspace) -> Sizes:
    gate, shown = work.tables.need("gate"), work.tables.get("train")
    given = {"text": _mean_length(gate, "text")}
    labelled = shown if shown is not None else gate
    if labelled["label"].notna().all():
        answers = labelled["label"].head(SAMPLE).map(lambda label: len(completion_of(work.use_case.task, label)))
        given |= {"answer": float(answers.mean()), "example": _mean_length(labelled, "text") + float(answers.mean())}
    documents = work.tables.get("documents")
    return Sizes(**given | ({"document": _mean_length(documents, "text")} if documents is not None else {}))


def _mean_length(rows: pd.DataFrame, column: str) -> float:
    return float(rows[column].head(SAMPLE).str.len().mean())


def _requests_per_s(work: Workspace) -> float:
    """What the best candidate so far answered a second; 1 before one is measured."""
    best = ladder.best(work.history()) if work.is_open else None
    if best is None:
        return 1.0
    run = tracking.latest_run(work.client, work.climb, best.stage)
    return float(run.data.metrics.get("requests_per_s", 1.0))


def _teacher_is_asked(work: Workspace) -> bool:
    """Whether the teacher, as far as it is known by now, is asked by the token."""
    teacher = ladder.teacher(work.history()) if work.is_open else None
    return teacher is None or teacher.stage not in ("fine_tune", "pretrain")


def _guesses(work: Workspace) -> dict[Stage, float]:
    """Retrieved examples do about what nearest neighbours do, training what logistic regression does; row 0 has both."""
    runs = tracking.reference_runs(work.client, work.climb) if work.is_open else []
    known = runs[0].data.metrics if runs else {}
    found: dict[Stage, float] = {}
    if "reference.nearest_neighbours" in known:
        found["rag"] = found["cache"] = known["reference.nearest_neighbours"]
    if "reference.embeddings_logistic_regression" in known:
        trained = known["reference.embeddings_logistic_regression"]
        found |= {"fine_tune": trained, "pretrain": trained, "distill": trained}
    return found


def announce(work: Workspace, stage: Stage) -> None:
    """Say before a stage what it is expected to cost and how that comes."""
    known = expected(work)[stage]
    log.info(
        f"{stage} is expected to cost ${known.usd:.4f} (at worst ${work.estimates[stage]:.4f}): {'; '.join(known.steps)}"
    )


def figures(work: Workspace, stage: Stage, cost: float) -> dict[str, float]:
    """A stage's estimate beside its actual cost, as metrics of its run; `usd.estimate_ratio` is actual over expected.

    `cost` is what the stage would have been billed with nothing stored from before.
    """
    known = expected(work)[stage]
    found = {
        "usd.estimated": known.usd,
        "usd.estimated.worst": work.estimates.get(stage, 0.0),
        "calls.estimated": known.calls,
    }
    by_purpose = {
        f"usd.spent.{purpose}": usd for purpose, usd in work.ledger.spent_for_stage(work.climb.run_id, stage).items()
    }
    return found | by_purpose | ({"usd.estimate_ratio": cost / known.usd} if known.usd > 0 and cost > 0 else {})
