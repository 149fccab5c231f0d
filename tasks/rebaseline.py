"""Would a cheaper level do by now? It changes nothing: a rebaseline recommends.

It asks the stages that train nothing (prompt, rag); whether a distilled student would do is not asked yet.
"""

from __future__ import annotations

from collections.abc import Sequence

from prefect import task

from leastwise import ladder
from leastwise.content import content_key
from leastwise.errors import BadInput
from leastwise.ladder.ending import UpkeepEnding
from leastwise.record.client import connect
from leastwise.record.judged_runs import unfinished_use_cases
from leastwise.record.registry import Registry
from leastwise.record.run import CHAMPION_VERSION, QUESTION, STAGE
from leastwise.record.stage_run import StageRun
from leastwise.record.upkeep_run import UpkeepRun, open_upkeep
from leastwise.rows.use_case_file import load
from leastwise.run_id import RunId
from leastwise.use_case import LADDER, Stage
from tasks.session.checks import check
from tasks.session.console import say, say_ending
from tasks.session.log_copies import resting_on_copies
from tasks.session.shown import show_rest
from tasks.session.workspace import open_workspace, prospect_of, situation_of

UNTRAINED: tuple[Stage, ...] = ("prompt", "rag")


@task(name="open rebaseline")
def open_rebaseline(use_case: str) -> RunId:
    """Check the use case as it is now and open the run its cheaper stages are measured under."""
    case, client = load(use_case), connect()
    case = resting_on_copies(case, unfinished_use_cases(client, case.name, "rebaseline"))
    champion = Registry(client, case.name).champion()
    if champion is None:
        raise BadInput(f"{case.name}: has no champion to step down from; promote a run first (python -m flows.promote)")
    prospect = prospect_of(case)
    check(prospect)
    key = content_key(prospect.question.key, champion.version)
    tags = {CHAMPION_VERSION: champion.version, STAGE: champion.candidate.stage, QUESTION: prospect.question.key}
    return open_upkeep(client, case, "rebaseline", key, tags).id


def stages_below(run_id: RunId) -> list[Stage]:
    """The untrained stages below the champion's, cheapest first."""
    work = open_workspace(run_id)
    champion = UpkeepRun.read(work.run.client, run_id).champion_stage
    reachable = [stage for stage in LADDER[: LADDER.index(champion)] if stage in UNTRAINED]
    return [stage for stage in reachable if ladder.could_run(work.use_case, stage, [])]


def short_of_money(run_id: RunId, stage: Stage) -> str | None:
    """Why a stage could pass a budget, and so does not start; None where it cannot."""
    work = open_workspace(run_id)
    return ladder.short_of_money(work.use_case, stage, situation_of(work))


def suffices(stage_run: RunId) -> bool:
    """Whether a stage surely passed or could not be measured: either way there is nothing more to ask."""
    return (StageRun.read(connect(), stage_run).verdict or "ERROR") in ("PASS", "ERROR")


@task(name="recommend")
def recommend(run_id: RunId, tried: Sequence[RunId], halted: str = "", outcome: str = "budget") -> UpkeepEnding:
    """What the record of a rebaseline recommends: step_down or stay; nothing is changed.

    `halted`: why it was cut short, with the outcome that names it.
    """
    work = open_workspace(run_id)
    run, budget = UpkeepRun.read(work.run.client, run_id), work.budget

    def end(outcome: str, reason: str) -> UpkeepEnding:
        ending = say_ending("rebaseline", run.end(outcome, reason, budget.usd_spent, budget.calls))
        show_rest(work)
        return ending

    if halted:
        return end(outcome, halted)
    runs, champion = [work.run.stage(each) for each in tried], run.champion_stage
    reasons = "; ".join(each.name for each in runs) or f"nothing untrained is below {champion}"
    verdicts = [each.verdict or "ERROR" for each in runs]
    if "ERROR" in verdicts:
        return end("error", reasons)
    winner = next((each for each in runs if each.verdict == "PASS"), None)
    if winner is None:
        return end("stay", f"{champion} stays: {reasons}")
    say(f"  … to step down: python -m flows.promote {work.use_case.name} {winner.id}")
    enough = f"{winner.stage} now suffices where {champion} is champion ({reasons})"
    return end("step_down", f"{enough}; promote run {winner.id} to step down")
