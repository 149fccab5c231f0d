"""Showing what a stage came to: its rows of the table, and its gate table among the flow run's artifacts."""

from __future__ import annotations

from leastwise.answering.workspace import Workspace
from leastwise.evaluating.stage import StageResult
from leastwise.run_id import RunId
from tasks.session import console
from tasks.session.artifacts import publish_markdown
from tasks.session.shown import show_stage


def show_result(work: Workspace, result: StageResult) -> RunId:
    """Show a stage; gives back its run's id. One that this very climb had measured already was shown then."""
    show_stage(work, result.run)
    if result.how == "there":
        return result.run.id
    stage, usd = str(result.run.stage), result.evaluation.usd_spent
    seconds = work.run.seconds_of(result.run) if result.how == "measured" else None
    if "cache.hit_rate" in result.run.figures and result.how == "measured":
        console.show_savings(result.run.figures)
    publish_markdown(f"gate-{stage}", result.table)
    end, requirements = console.money_and_time(usd, seconds), work.use_case.gate_requirements
    console.show_stage(stage, result.evaluation, result.verdict, requirements, end, result.retrieval.sentence)
    return result.run.id
