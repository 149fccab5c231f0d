"""Training the champion again on old and new examples; the challenger goes through the gate and is compared with it.

The simple version: only a champion with a trained adapter is retrained; a distilled student is not (its teacher would
have to be), nor is the base pre-trained further. Examples are never dropped, so training data only grow.
"""

from __future__ import annotations

from dataclasses import dataclass

from prefect import task

from leastwise.answering.answerer import Outage
from leastwise.answering.answerers import open_answerer
from leastwise.answering.bundle.packing import referred
from leastwise.answering.workspace import Workspace
from leastwise.content import content_key
from leastwise.errors import BadInput, CannotBeAsked
from leastwise.evaluating.comparison import PairedComparison, compare, paired_margin
from leastwise.evaluating.judge_scorer import open_scorer
from leastwise.evaluating.stage import evaluate_challenger
from leastwise.evidence import PairedTest
from leastwise.ladder import Verdict
from leastwise.ladder.alphas import challenger_alphas
from leastwise.ladder.candidate import Candidate, Weights
from leastwise.ladder.ending import UpkeepEnding
from leastwise.record.client import connect
from leastwise.record.judged_runs import unfinished_use_cases
from leastwise.record.registry import Registered, Registry
from leastwise.record.run import CANDIDATE, CHAMPION_VERSION, QUESTION, STAGE, VERDICT
from leastwise.record.stage_run import StageRun
from leastwise.record.upkeep_run import UpkeepRun, ended_before, open_upkeep
from leastwise.rows import data_quality
from leastwise.rows.reading.request_log import without_own
from leastwise.rows.tables import Tables
from leastwise.rows.use_case_file import load
from leastwise.run_id import RunId
from leastwise.serving.registering import register
from leastwise.stores import storage
from leastwise.use_case import UseCase
from tasks.fine_tune import retrain_adapter
from tasks.session.checks import check_retraining
from tasks.session.console import say_ending
from tasks.session.held import JUDGED
from tasks.session.log_copies import resting_on_copies
from tasks.session.results import show_result
from tasks.session.shown import show_rest
from tasks.session.workspace import open_workspace, prospect_of

VERDICTS = {"pass": "PASS", "fail": "FAIL", "undecided": "UNDECIDED"}


@dataclass(frozen=True)
class Opening:
    """The run of a retraining, and its ending where there is nothing to do."""

    run: RunId
    ending: UpkeepEnding | None = None


@task(name="open retraining")
def open_retraining(use_case: str, new_examples: str = "") -> Opening:
    """Check the new examples and open the retraining's run; an ending where there is nothing to do."""
    case, client = load(use_case), connect()
    case = resting_on_copies(case, unfinished_use_cases(client, case.name, "retrain"))
    registry = Registry(client, case.name)
    champion = registry.champion()
    if champion is None:
        raise BadInput(f"{case.name}: has no champion to retrain; promote a run first (python -m flows.promote)")
    if not _can_be_trained_again(champion.candidate):
        run = open_upkeep(client, case, "retrain", content_key("not trained", champion.version))
        why = _no_adapter(champion.candidate)
        ending = run.end("not_trained", f"{why}, so there is nothing to train again", 0.0, 0)
        return Opening(run.id, say_ending("retrain", ending))
    union = _trained_here(with_examples(case, registry.training_data(champion), new_examples))
    check_apart(case, new_examples)
    prospect = prospect_of(union)
    check_retraining(prospect)
    key = content_key("retrain", champion.version, prospect.question.tables.hashes["train"])
    ended = ended_before(client, union, "retrain", key)
    if ended:
        return Opening(ended.mlflow_run_id, ended)
    tags = {CHAMPION_VERSION: champion.version, STAGE: champion.candidate.stage}
    return Opening(open_upkeep(client, union, "retrain", key, tags).id)


def _trained_here(use_case: UseCase) -> UseCase:
    """A champion's adapter is trained again where it can be: on machines of one's own."""
    training = use_case.training.model_copy(update={"managed": None})
    return use_case.model_copy(update={"training": training})


def _no_adapter(champion: Candidate) -> str:
    if champion.stage == "fine_tune" and champion.weights is None:
        return "the champion was trained at a host, where retraining is not done: climb again with the new examples"
    return f"the champion ({champion.stage}) has no adapter trained on people's labels"


def _can_be_trained_again(champion: Candidate) -> bool:
    trained = champion.weights
    return trained is not None and trained.kind == "adapter" and champion.stage != "distill"


def pay_for_labels(run_id: RunId, use_case: str, new_examples: str) -> None:
    """Book what people's labels of the new examples cost, once a run; raises BudgetExceeded where a cap does not allow
    it.
    """
    work, case = open_workspace(run_id), load(use_case)
    already = set(Tables(case).need("train")["id"]) if case.data.train else set()
    new = set(Tables(_training_on(case, new_examples)).need("train")["id"]) - already if new_examples else set()
    usd = len(new) * case.training.usd_per_label
    if usd > 0 and "data" not in work.budget.spent_by_purpose():
        work.budget.meter("retrain", "data").pay(usd)


def halted(run_id: RunId, why: str) -> UpkeepEnding:
    """The ending of a retraining that a cap stopped; it can be taken up again."""
    return _end(open_workspace(run_id), "budget", why)


def with_examples(use_case: UseCase, trained_on: str | None, new_examples: str) -> UseCase:
    """The use case with data.train replaced by the union of its own, what the champion was trained on, and the new.

    An id given again with the same text replaces the label; with another text it is BadInput.
    """
    import pandas as pd

    uris = list(dict.fromkeys(filter(None, [use_case.data.train, trained_on, new_examples])))
    parts = [without_own(Tables(_training_on(use_case, uri)).need("train")) for uri in uris]
    union = pd.concat(parts, ignore_index=True).drop_duplicates(["id", "text"], keep="last")
    twice = union["id"][union["id"].duplicated()]
    if len(twice):
        raise BadInput(
            f"new_examples ({new_examples}): id {twice.iloc[0]!r} is taken by another text; give new rows new ids"
        )
    stored = storage.home() / "retraining" / f"{content_key(*(storage.sha256(uri) for uri in uris))}.parquet"
    if not stored.exists():
        data = use_case.data
        columns = {"id": data.id_column, "text": data.text_column, "label": data.label_column}
        apart = [name for name in columns.values() if name not in columns and name in union]
        storage.write_bytes(stored, union.drop(columns=apart).rename(columns=columns).to_parquet(index=False))
    return _training_on(use_case, str(stored))


def check_apart(use_case: UseCase, new_examples: str) -> None:
    """BadInput where a new example says what a row of gate, dev or test says, or nearly: it would be learnt."""
    if not new_examples:
        return
    new, tables = Tables(_training_on(use_case, new_examples)).need("train"), Tables(use_case)
    against = {name: rows for name in JUDGED if (rows := tables.get(name)) is not None}
    leaks = data_quality.profiled(new, against=against)["leaks_from"]
    leaking = new["id"][leaks.notna()]
    if len(leaking):
        row_id, source = leaking.iloc[0], leaks.dropna().iloc[0]
        raise BadInput(
            f"new_examples ({new_examples}): {len(leaking)} of {len(new)} rows say what a judged row says, or nearly "
            f"(id {row_id!r} is in {source}), so the gate would measure memory; leave them out"
        )


def _training_on(use_case: UseCase, uri: str) -> UseCase:
    return use_case.model_copy(update={"data": use_case.data.model_copy(update={"train": uri})})


def train_again(run_id: RunId) -> Weights:
    """Train a new adapter on the union, on the base the champion's adapter is for."""
    work = open_workspace(run_id)
    model = _champion(work).candidate.model
    return retrain_adapter(run_id, None if model == work.catalogue.base().uri else model)


@task(name="challenge")
def challenge(run_id: RunId, trained: Weights) -> UpkeepEnding:
    """Put the challenger through the gate itself, compare it with the champion, register it, and promote it only if it
    passes every requirement and is surely not worse.

    The gate keeps champions from getting a little worse each time, which no comparison with the last one would notice.
    One share of alpha serves both tests, since both must pass. What cannot be measured (a model that cannot be asked,
    an outage) ends in `error` with the reason, to be taken up again.
    """
    work = open_workspace(run_id)
    try:
        return _challenged(work, _champion(work), trained)
    except (CannotBeAsked, Outage) as why:
        return _end(work, "error", f"{why}; run it again when that is put right")


def _challenged(work: Workspace, champion: Registered, trained: Weights) -> UpkeepEnding:
    old = champion.candidate
    if old.weights and trained.revision == old.weights.revision:
        return _end(work, "unchanged", "the training data are those the champion was trained on")
    new, margin = old.model_copy(update={"weights": trained, "parent": old.key}), paired_margin(work.use_case)
    question, alpha = content_key("paired", old.key, new.key), work.use_case.alpha
    drawn = work.account.draw(work.question, question, alpha)
    work.run.write(tags={QUESTION: question})
    gate = evaluate_challenger(work, new, challenger_alphas(work.use_case, drawn))
    show_result(work, gate)
    if gate.verdict.outcome == "ERROR":
        return _end(work, "error", gate.verdict.reason)
    if gate.verdict.outcome != "PASS":
        return _kept_by_gate(work, champion.version, new, gate.verdict)
    with open_answerer(work, old) as theirs, open_answerer(work, new) as ours, open_scorer(work, new.stage) as scorer:
        test = PairedTest(margin, alpha_pass=drawn, alpha_fail=alpha)
        comparison = compare(scorer, work.question.gate.rows, theirs, ours, test)
    figures = comparison.figures | {"paired.margin": margin, "paired.alpha_pass": drawn}
    if comparison.too_many_lost:
        pairs = f"{comparison.lost} of {comparison.n + comparison.lost} pairs"
        return _end(work, "error", f"{pairs} were lost to the infrastructure; run it again", figures)
    _log_challenger(work, new, VERDICTS[comparison.outcome])
    return _settle(work, champion.version, comparison, margin, figures)


def _log_challenger(work: Workspace, new: Candidate, verdict: str) -> None:
    run = StageRun(work.run.client, work.run.run)
    run.write(tags={VERDICT: verdict, CANDIDATE: new.key})
    with referred(work, new) as bundle:
        run.log_candidate(new, work.use_case, bundle)


def _kept_by_gate(work: Workspace, champion: str, new: Candidate, verdict: Verdict) -> UpkeepEnding:
    """The champion stays: the challenger does not surely meet what is required of it."""
    _log_challenger(work, new, verdict.outcome)
    registry = Registry(work.run.client, work.use_case.name)
    version = register(work, StageRun.read(work.run.client, work.run.id))
    words = f"the gate says {verdict.outcome}: {verdict.reason}"
    registry.challenge(version, words)
    return _end(work, "kept", f"version {champion} stays, {version} does not surely meet the requirements: {words}")


def _settle(
    work: Workspace, champion: str, comparison: PairedComparison, margin: float, figures: dict[str, float]
) -> UpkeepEnding:
    """Register the challenger of a run and let the comparison decide who is champion."""
    run, registry = StageRun.read(work.run.client, work.run.id), Registry(work.run.client, work.use_case.name)
    version = register(work, run)
    words = (
        f"quality {comparison.challenger_quality:.3f} against {comparison.champion_quality:.3f}, difference at least "
        f"{comparison.lower:+.3f} (tolerance {margin:g}, n={comparison.n})"
    )
    registry.challenge(version, words)
    if comparison.outcome == "pass":
        registry.promote(version, f"surely not worse: {words}")
        return _end(work, "promoted", f"version {version} replaces {champion}: {words}", figures)
    why = "surely worse" if comparison.outcome == "fail" else "not surely as good"
    return _end(work, "kept", f"version {champion} stays, {version} is {why}: {words}", figures)


def _end(work: Workspace, outcome: str, reason: str, figures: dict[str, float] | None = None) -> UpkeepEnding:
    run, budget = UpkeepRun.read(work.run.client, work.run.id), work.budget
    ending = say_ending(run.kind, run.end(outcome, reason, budget.usd_spent, budget.calls, figures))
    show_rest(work)
    return ending


def _champion(work: Workspace) -> Registered:
    version = UpkeepRun.read(work.run.client, work.run.id).champion_version
    return Registry(work.run.client, work.use_case.name).version(version)
