"""One candidate that somebody proposes, judged at the gate as a question of its own.

How it is measured and judged is what a retraining's challenger goes through (`leastwise.evaluating.stage`); here it is
checked before money, its run opened or found again, and its ending written down. Nothing is registered or promoted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from prefect import task

from leastwise.answering.answerer import UNMEASURABLE
from leastwise.answering.workspace import Workspace
from leastwise.content import content_key
from leastwise.errors import problems_of, refuse
from leastwise.evaluating.proposal.checking import checks_of, parts_of
from leastwise.evaluating.proposal.reading import Proposal, read_proposal
from leastwise.evaluating.stage import evaluate_challenger
from leastwise.ladder.alphas import challenger_alphas
from leastwise.ladder.candidate import Candidate
from leastwise.ladder.ending import GateEnding
from leastwise.record.client import connect
from leastwise.record.judged_runs import unfinished_use_cases
from leastwise.record.registry import Registry
from leastwise.record.reports import gate_table
from leastwise.record.run import CANDIDATE, QUESTION, STAGE
from leastwise.record.stage_run import CANDIDATE_FILE, StageRun
from leastwise.record.upkeep_run import Kind, UpkeepRun, ended_before, open_upkeep
from leastwise.rows.use_case_file import load
from leastwise.run_id import RunId
from leastwise.use_case import Stage, UseCase
from tasks.session.checks import UNTRAINED, candidate_checks
from tasks.session.console import say
from tasks.session.log_copies import resting_on_copies
from tasks.session.results import show_result
from tasks.session.workspace import Prospect, open_workspace, prospect_of

GATE: Kind = "gate"


@dataclass(frozen=True)
class Opening:
    """The run of a gate, and its ending where the same candidate was judged by the same question before."""

    run: RunId
    ending: GateEnding | None = None


@task(name="open gate")
def open_gate(use_case: str, candidate: str) -> Opening:
    """Check use case and candidate, all that is wrong in one report, and open the run; an ending where it is known."""
    case, client = load(use_case), connect()
    case = resting_on_copies(case, unfinished_use_cases(client, case.name, GATE))
    proposal = _checked(case, candidate, Registry(client, case.name))
    proposed, question = proposal.candidate, prospect_of(case).question
    _show(case, proposal)
    key = content_key(GATE, question.key, proposed.key)
    ended = ended_before(client, case, GATE, key)
    if ended:
        return Opening(ended.mlflow_run_id, _known(case, UpkeepRun.read(client, ended.mlflow_run_id)))
    tags = {STAGE: proposed.stage, CANDIDATE: proposed.key, QUESTION: key}
    run = open_upkeep(client, case, GATE, key, tags)
    run.log_text(proposed.model_dump_json(indent=2), CANDIDATE_FILE)
    run.log_data(question.data_sets())
    return Opening(run.id)


def _checked(case: UseCase, named: str, registry: Registry) -> Proposal:
    """The proposed candidate; BadInput lists all that is wrong with it and with the use case."""
    prospect, found = prospect_of(case), list[Proposal]()

    def read() -> None:
        found.append(read_proposal(named, prospect.question, prospect.catalogue, registry))

    problems = problems_of([read])
    if found:
        own = checks_of(found[0], prospect.question, prospect.catalogue)
        alone = _alone(case, prospect, found[0].candidate)
        problems += problems_of([*own, *candidate_checks(alone, _stage_of(found[0].candidate))])
    else:
        problems += problems_of([partial(prospect.question.tables.check)])
    refuse(tuple(dict.fromkeys(problems)))
    return found[0]


def _alone(case: UseCase, prospect: Prospect, candidate: Candidate) -> Prospect:
    """The use case as if it had the models of this candidate alone: no other's key, price or budget is asked for."""
    uris = list(dict.fromkeys(each.model for _, each in parts_of(candidate)))
    named = tuple(model for uri in uris if (model := prospect.catalogue.named(uri)))
    last = stage if (stage := _stage_of(candidate)) in UNTRAINED else "prompt"
    models = case.models.model_copy(update={"candidates": named or case.models.candidates})
    return prospect_of(case.model_copy(update={"models": models, "last_stage": last}))


def _stage_of(candidate: Candidate) -> Stage | None:
    return None if candidate.stage == "reference" else candidate.stage


def _show(case: UseCase, proposal: Proposal) -> None:
    candidate = proposal.candidate
    base = f", differing from {proposal.base}" if proposal.base else ""
    say(f"\nLeastwise · {case.name} · one candidate at the gate: {proposal.source}{base}")
    say(f"  … {candidate.stage} with {candidate.model}, candidate {candidate.key}")


@task(name="judge")
def judge_candidate(run_id: RunId) -> GateEnding:
    """Measure the candidate on the gate rows, with the share of alpha that its question draws, and write the ending.

    What cannot be measured (a model that cannot be asked, an outage) ends in `error`, to be taken up again.
    """
    work = open_workspace(run_id)
    run = UpkeepRun.read(work.run.client, run_id)
    candidate = StageRun(run.client, run.run).candidate()
    drawn = work.account.draw(work.question, run.tag(QUESTION), work.use_case.alpha)
    try:
        result = evaluate_challenger(work, candidate, challenger_alphas(work.use_case, drawn), called="candidate")
    except UNMEASURABLE as why:
        return _end(work, "error", f"{why}; run it again when that is put right")
    show_result(work, result)
    outcome = "error" if result.verdict.outcome == "ERROR" else result.verdict.outcome
    return _end(work, outcome, result.verdict.reason, result.table)


def halted(run_id: RunId, why: str) -> GateEnding:
    """The ending of a gate that a cap stopped; it can be taken up again."""
    return _end(open_workspace(run_id), "budget", why)


def _end(work: Workspace, outcome: str, reason: str, table: str = "") -> GateEnding:
    run, budget = UpkeepRun.read(work.run.client, work.run.id), work.budget
    ended = run.end(outcome, reason, budget.usd_spent, budget.calls, note=table)
    return _said(GateEnding(outcome, reason, ended.usd_spent, ended.calls_paid, run.tag(CANDIDATE), run.id, table))


def _known(case: UseCase, run: UpkeepRun) -> GateEnding:
    """How the same question ended before, judged again from its record; nothing is spent anew."""
    requirements = case.gate_requirements
    again = run.stage_runs()[-1].judged(requirements)
    table = gate_table(again.evaluation, again.verdict, requirements, case.alpha)
    verdict = again.verdict
    return _said(GateEnding(verdict.outcome, verdict.reason, 0.0, 0, run.tag(CANDIDATE), run.id, table))


def _said(ending: GateEnding) -> GateEnding:
    say(f"gate: {ending.outcome} · {ending.reason}")
    return ending
