"""Training the champion again on old and new examples, and comparing the challenger with it on the same gate rows.

The simple version: only a champion with a trained adapter is retrained; a distilled student is not (its teacher would
have to be), nor is the base pre-trained further. The comparison is of quality; cost and latency are those of the same
architecture. Examples are never dropped, so training data only grow.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefect import task

from leastwise.answering import answering
from leastwise.answering.workspace import Workspace
from leastwise.content import content_key
from leastwise.errors import BadInput
from leastwise.evaluating import judging
from leastwise.evaluating.evaluation import Answerer
from leastwise.evaluating.scorer import Score, Scorer
from leastwise.evidence import PairedTest
from leastwise.evidence.measurement import MAX_LOST_SHARE
from leastwise.ladder.candidate import Weights
from leastwise.models import weights
from leastwise.record import registry, run_record, tracking, upkeep
from leastwise.record.upkeep import Upkeep
from leastwise.rows.gate_rows import looks, unit_count, unit_scores, whole_units
from leastwise.rows.tables import Tables
from leastwise.rows.use_case_file import load
from leastwise.stores import storage
from leastwise.training import making
from leastwise.use_case import UseCase

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

MARGIN = 0.05  # where the use case sets no requirement on quality
VERDICT = {"pass": "PASS", "fail": "FAIL", "undecided": "UNDECIDED"}


@dataclass(frozen=True)
class PairedComparison:
    """Challenger minus champion in quality on the same rows, with an interval valid at every look."""

    outcome: str
    difference: float
    lower: float
    upper: float
    n: int
    lost: int
    champion_quality: float
    challenger_quality: float

    @property
    def figures(self) -> dict[str, float]:
        """The metrics of the retraining's run."""
        names = ("difference", "lower", "upper", "n", "lost", "champion_quality", "challenger_quality")
        return {f"paired.{name}": float(getattr(self, name)) for name in names}


def compare(
    marker: Scorer, looks_of_rows: Iterable[pd.DataFrame], champion: Answerer, challenger: Answerer, test: PairedTest
) -> PairedComparison:
    """Both answer the same rows look by look until the test is decided or the rows run out.

    A row that the infrastructure lost for either counts against both outcomes. Where rows share a unit, a unit is one
    pair: the means over its rows; it is lost with any of them. Where a judge grades, the difference is between its grades.
    """
    theirs: list[float] = []
    ours: list[float] = []
    for rows in looks_of_rows:
        old, new = (marker.score(rows, each.answer(rows)) for each in (champion, challenger))
        whole = whole_units(rows, [a is None or b is None for a, b in zip(old, new, strict=True)])
        kept = rows.iloc[whole]
        before = len(ours)
        theirs += _quality(kept, [old[at] for at in whole])
        ours += _quality(kept, [new[at] for at in whole])
        if len(ours) > before:
            test.add(ours[before:], theirs[before:])
        if len(kept) < len(rows):
            test.add_lost(unit_count(rows) - unit_count(kept))
        if test.outcome != "undecided":
            break
    n = max(len(ours), 1)
    return PairedComparison(
        test.outcome, test.estimate, test.lower, test.upper, len(ours), test.lost, sum(theirs) / n, sum(ours) / n
    )


def _quality(rows: pd.DataFrame, scores: list[Score | None]) -> list[float]:
    return [float(mean) for mean in unit_scores(rows, [score.quality for score in scores if score is not None])]


@task(name="open retraining")
def open_retraining(use_case: str, new_examples: str = "") -> tuple[str, Upkeep | None]:
    """Check the new examples and open the retraining's run; an ending where there is nothing to do."""
    wanted, client = load(use_case), tracking.connect()
    champion = registry.champion(client, wanted.name)
    if champion is None:
        raise BadInput(f"{wanted.name}: has no champion to retrain; promote a run first (python -m flows.promote)")
    trained = champion.candidate.weights
    if trained is None or trained.kind != "adapter" or champion.candidate.stage == "distill":
        run_id = upkeep.open_run(client, wanted, "retrain", content_key("not trained", champion.version))
        why = f"the champion ({champion.candidate.stage}) has no adapter trained on people's labels, so there is nothing to train again"
        return run_id, upkeep.close_run(client, run_id, "not_trained", why)
    union = with_examples(wanted, _trained_on(client, champion), new_examples)
    tables = Tables(union)
    tables.check()
    Workspace.before_climb(client, union, tables).check()
    key = content_key("retrain", champion.version, tables.hashes["train"])
    known = upkeep.recorded(client, union, "retrain", key)
    if known:
        return known.mlflow_run_id, known
    tags = {"leastwise.champion": champion.version, "leastwise.stage": champion.candidate.stage}
    return upkeep.open_run(client, union, "retrain", key, tags), None


def pay_for_labels(run_id: str, use_case: str, new_examples: str) -> None:
    """Book what people's labels of the new examples cost, once a run; raises BudgetExceeded where a cap does not allow it."""
    work, wanted = Workspace.of(run_id), load(use_case)
    already = set(Tables(wanted).need("train")["id"]) if wanted.data.train else set()
    new = set(Tables(_training_on(wanted, new_examples)).need("train")["id"]) - already if new_examples else set()
    usd = len(new) * wanted.training.usd_per_label
    if usd > 0 and "data" not in work.ledger.spent_for(run_id):
        work.meter("retrain", "data").pay(usd)


def halted(run_id: str, why: str) -> Upkeep:
    """The ending of a retraining that a cap stopped; it can be taken up again."""
    return upkeep.close_run(tracking.connect(), run_id, "budget", why)


def with_examples(use_case: UseCase, trained_on: str | None, new_examples: str) -> UseCase:
    """The use case with data.train replaced by the union of its own, what the champion was trained on, and the new.

    An id given again with the same text replaces the label; with another text it is BadInput.
    """
    import pandas as pd

    uris = list(dict.fromkeys(filter(None, [use_case.data.train, trained_on, new_examples])))
    parts = [Tables(_training_on(use_case, uri)).need("train") for uri in uris]
    union = pd.concat(parts, ignore_index=True).drop_duplicates(["id", "text"], keep="last")
    twice = union["id"][union["id"].duplicated()]
    if len(twice):
        raise BadInput(
            f"new_examples ({new_examples}): id {twice.iloc[0]!r} is taken by another text; give new rows new ids"
        )
    stored = storage.home() / "retraining" / f"{content_key(*(storage.sha256(uri) for uri in uris))}.parquet"
    if not stored.exists():
        data = use_case.data
        named = {"id": data.id_column, "text": data.text_column, "label": data.label_column}
        storage.write_bytes(stored, union.rename(columns=named).to_parquet(index=False))
    return _training_on(use_case, str(stored))


def _training_on(use_case: UseCase, uri: str) -> UseCase:
    return use_case.model_copy(update={"data": use_case.data.model_copy(update={"train": uri})})


def _trained_on(client: MlflowClient, champion: registry.Registered) -> str | None:
    """The training data of a champion that was itself retrained; None for one that came from a climb."""
    if client.get_run(champion.run_id).data.tags.get("leastwise.kind") != "retrain":
        return None
    return tracking.load_use_case(client, champion.run_id).data.train


def train_again(run_id: str) -> Weights:
    """Train a new adapter on the union, on the base the champion's adapter is for."""
    work = Workspace.of(run_id)
    model = _champion(work, run_id).candidate.model
    base = None if model == work.base().uri else str(weights.materialize(model, work.home))
    return making.fine_tuned(run_id, base)


@task(name="challenge")
def challenge(run_id: str, trained: Weights) -> Upkeep:
    """Compare the challenger with the champion, register it, and promote it only if it is surely not worse."""
    work = Workspace.of(run_id)
    champion = _champion(work, run_id)
    old = champion.candidate
    if old.weights and trained.revision == old.weights.revision:
        return upkeep.close_run(
            work.client, run_id, "unchanged", "the training data are those the champion was trained on"
        )
    new = old.model_copy(update={"weights": trained, "parent": old.key})
    quality = work.use_case.requirements.quality
    margin = quality.margin if quality and quality.margin else MARGIN
    alpha = tracking.draw_alpha(
        work.client, work.gate_hash, content_key("paired", old.key, new.key), work.use_case.alpha
    )
    rows, _ = work.gate_rows("gate")
    with (
        answering.open_answerer(work, old) as theirs,
        answering.open_answerer(work, new) as ours,
        judging.open_scorer(work, new.stage) as marker,
    ):
        test = PairedTest(margin, alpha_pass=alpha, alpha_fail=work.use_case.alpha)
        measured = compare(marker, looks(rows), theirs, ours, test)
    figures = measured.figures | {"paired.margin": margin, "paired.alpha_pass": alpha}
    if measured.lost > MAX_LOST_SHARE * max(measured.n, 1):
        why = f"{measured.lost} of {measured.n + measured.lost} pairs were lost to the infrastructure; run it again"
        return upkeep.close_run(work.client, run_id, "error", why, figures)
    work.client.set_tag(run_id, "leastwise.verdict", VERDICT[measured.outcome])
    work.client.set_tag(run_id, "leastwise.ladder.candidate", new.key)
    run_record.log_candidate(work.client, work.client.get_run(run_id), new)
    return settle(work.client, work.use_case.name, run_id, champion.version, measured, margin, figures)


def settle(
    client: MlflowClient,
    name: str,
    run_id: str,
    champion: str,
    measured: PairedComparison,
    margin: float,
    figures: dict[str, float],
) -> Upkeep:
    """Register the challenger of a run and let the comparison decide who is champion."""
    version = registry.register(client, name, run_id)
    shown = f"quality {measured.challenger_quality:.3f} against {measured.champion_quality:.3f}, difference at least "
    shown += f"{measured.lower:+.3f} (tolerance {margin:g}, n={measured.n})"
    registry.challenge(client, name, version, shown)
    if measured.outcome == "pass":
        registry.promote(client, name, version, f"surely not worse: {shown}")
        return upkeep.close_run(client, run_id, "promoted", f"version {version} replaces {champion}: {shown}", figures)
    why = "surely worse" if measured.outcome == "fail" else "not surely as good"
    return upkeep.close_run(client, run_id, "kept", f"version {champion} stays, {version} is {why}: {shown}", figures)


def _champion(work: Workspace, run_id: str) -> registry.Registered:
    version = work.client.get_run(run_id).data.tags["leastwise.champion"]
    return registry.registered(work.client, work.use_case.name, version)
