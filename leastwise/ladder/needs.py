"""What a stage needs and what it can remedy: why one can never run, or is skipped now (rule 2).

It decides no step (see `leastwise.ladder.next_step`) and looks at no data: row counts are handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

from pydantic import Field

from leastwise.ladder.gate import RequirementVerdict, Verdict
from leastwise.ladder.history import Record, best, evaluated, teacher
from leastwise.part import Part
from leastwise.use_case import Stage, UseCase
from leastwise.use_case.model import Venue
from leastwise.use_case.price import Usd
from leastwise.use_case.requirements import SHARES, RequirementName

ALL: frozenset[str] = frozenset(get_args(RequirementName))
COST_AND_LATENCY = ALL - SHARES
REMEDIES: dict[Stage, frozenset[str]] = {
    "prompt": ALL,
    "rag": frozenset({"quality", "adherence", "ood_decline", "shift_quality"}),
    "cache": COST_AND_LATENCY,
    "fine_tune": ALL - {"general_ability"},  # training can only lose it; another model may have more of it
    "pretrain": frozenset({"quality", "shift_quality"}),
    "distill": COST_AND_LATENCY | {"ood_decline"},
    "self_host": COST_AND_LATENCY,
}
MIN_TRAINING_ROWS = 1_000


StageAnswer = Literal["granted", "rejected"]  # what a person says when leave for a stage is asked


class Situation(Part):
    """What a step depends on beside use case and history: counts, estimates, spend and people's answers."""

    train_rows: int | None = Field(None, description="None: not counted, taken as enough.")
    document_rows: int | None = None
    unlabelled_rows: int | None = None
    repeat_share: float | None = Field(None, ge=0, le=1, description="Share of sampled traffic that repeats.")
    estimates: dict[Stage, Usd] = Field({}, description="Dollars each stage may cost at worst.")
    usd_spent: float = Field(0.0, ge=0, description="By this climb.")
    usd_spent_this_month: float = Field(0.0, ge=0, description="By every flow of the use case.")
    answers: dict[Stage, StageAnswer] = Field({}, description="What people said when asked.")
    can_ask: bool = Field(False, description="Whether there is a server on which a person can answer.")


def ruled_out(use_case: UseCase, stage: Stage, situation: Situation | None = None) -> str | None:
    """Why a stage can never run in this use case, whatever will be measured; None where that depends on evidence."""
    if stage not in use_case.reachable_stages:
        return f"last_stage is {use_case.last_stage}"
    if use_case.approvals.get(stage) == "never":
        return f"approvals.{stage} is never"
    if not REMEDIES[stage] & set(use_case.requirements.bounds):
        return f"remedies only {', '.join(sorted(REMEDIES[stage]))}, and none of these is asked for"
    return lacks(use_case, stage, (_if_all_went_well(use_case),), situation or Situation())


def lacks(use_case: UseCase, stage: Stage, history: Sequence[Record], situation: Situation) -> str | None:
    """What a stage needs and has not, in words; None where nothing is missing."""
    return _LACKS[stage](use_case, history, situation)


def could_run(use_case: UseCase, stage: Stage, history: Sequence[Record], situation: Situation | None = None) -> bool:
    """Whether a stage above the winner was applicable: not ruled out, and nothing it needs is missing."""
    now = situation or Situation()
    return ruled_out(use_case, stage, now) is None and lacks(use_case, stage, history, now) is None


def student_venue(use_case: UseCase) -> Venue | None:
    """Where a distilled student would answer: at a managed host, where residency does not allow that on own machines.

    Which host that will be is not known yet, so a list of hosts rules it out.
    """
    limits = use_case.requirements.residency
    if limits is None or ("managed" in limits.venues and not limits.hosts):
        return "managed"
    return "self_host" if "self_host" in limits.venues else None


def _if_all_went_well(use_case: UseCase) -> Record:
    """A parent that leaves nothing to wish for: what is lacking beside it, no measurement can supply."""
    models = use_case.models
    met = tuple(RequirementVerdict(name=name, outcome="PASS", reason="") for name in use_case.requirements.bounds)
    is_open = bool(models.base or models.student or any(model.is_open for model in models.candidates))
    managed = use_case.training.managed
    asked = (*models.candidates, *([managed.base] if managed else []))
    may_teach = bool(models.base) or any(model.training_on_output is not False for model in asked)
    passed = Verdict(outcome="PASS", reason="", requirements=met)
    return Record(stage="prompt", verdict=passed, open_weights=is_open, may_teach=may_teach)


def _lacks_for_prompt(use_case: UseCase, history: Sequence[Record], now: Situation) -> str | None:
    allowed = any(use_case.may_be_sent_to(model) for model in use_case.models.candidates)
    return None if allowed else "no model in an allowed venue"


def _lacks_for_rag(use_case: UseCase, history: Sequence[Record], now: Situation) -> str | None:
    if not use_case.models.embedder:
        return "models.embedder is not set"
    rows = (use_case.data.train and now.train_rows != 0) or (use_case.data.documents and now.document_rows != 0)
    return None if rows else "neither data.documents nor data.train has anything to retrieve"


def _lacks_for_cache(use_case: UseCase, history: Sequence[Record], now: Situation) -> str | None:
    parent = best(history)
    if parent is None or not parent.passes("quality", "adherence"):
        return "no candidate passes quality and adherence yet, so there is nothing worth caching"
    if not use_case.data.traffic:
        return "data.traffic is not set: caching is judged on traffic with its real repetition"
    return "the sampled traffic repeats nothing" if now.repeat_share == 0 else None


def _lacks_for_fine_tune(use_case: UseCase, history: Sequence[Record], now: Situation) -> str | None:
    managed = use_case.training.managed
    if managed is None:
        return _lacks_base(use_case) or _lacks_examples(use_case, now)
    if not use_case.may_be_sent_to(managed.base):
        where = f"{managed.base.venue} at {managed.base.request_host}"
        return f"training.managed is in {where}, where residency does not allow it, nor its training rows"
    return _lacks_examples(use_case, now)


def _lacks_base(use_case: UseCase) -> str | None:
    base = use_case.models.base
    if base is None:
        return "models.base names no open weights"
    allowed = use_case.may_be_sent_to(base)
    return None if allowed else f"models.base is in {base.venue}, where residency does not allow it"


def _lacks_examples(use_case: UseCase, now: Situation) -> str | None:
    if not use_case.data.train:
        return "data.train is not set"
    if not use_case.task.stable:
        return "the task is not stable (task.stable is false)"
    if now.train_rows is not None and now.train_rows < MIN_TRAINING_ROWS:
        return f"{now.train_rows} training examples, at least {MIN_TRAINING_ROWS:,} are needed"
    return None


def _lacks_for_pretrain(use_case: UseCase, history: Sequence[Record], now: Situation) -> str | None:
    if use_case.task.domain_is_public:
        return "the domain is public text the base has seen (task.domain_is_public), so Level 4 adds little"
    if not use_case.data.documents or now.document_rows == 0:
        return "data.documents is not set: there is no corpus"
    return _lacks_base(use_case) or _lacks_examples(use_case, now)


def _lacks_for_distill(use_case: UseCase, history: Sequence[Record], now: Situation) -> str | None:
    student = use_case.training.student
    is_encoder = student.kind == "encoder"
    if is_encoder and use_case.task.kind != "classification":
        return (
            f"an encoder student answers with a label, and the task is {use_case.task.kind}; training.student: "
            "{kind: causal} can"
        )
    if teacher(history) is None:
        passing = [each.stage for each in evaluated(history) if each.passes("quality") and not each.may_teach]
        if passing:
            who = " and ".join(passing)
            return f"{who} may not teach (training_on_output is not true), and nothing else passes quality"
        return "no candidate passes quality, so there is no teacher"
    if is_encoder and not use_case.models.student:
        return "models.student is not set"
    if student.kind == "causal" and not (student.uri or use_case.models.base):
        return "neither training.student.uri nor models.base names open weights to make a causal student of"
    if not use_case.task.stable:
        return "the task is not stable (task.stable is false): a student would soon answer by old rules"
    if "general_ability" in use_case.requirements.bounds:
        return "a student has no general ability, which requirements.general_ability asks for"
    if student_venue(use_case) is None:
        return "residency allows neither a managed host nor an own endpoint for a student"
    if not use_case.data.unlabelled or now.unlabelled_rows == 0:
        return "data.unlabelled is not set: there is nothing for a teacher to label"
    return None


def _lacks_for_self_host(use_case: UseCase, history: Sequence[Record], now: Situation) -> str | None:
    limits = use_case.requirements.residency
    if limits and "self_host" not in limits.venues:
        return "residency does not list the venue self_host"
    if not use_case.hosting.capacity:
        return "hosting.capacity is false: there are no machines to serve on"
    parent = best(history)
    return None if parent is None or parent.open_weights else "the best candidate's weights are not open"


_Lacks = Callable[[UseCase, Sequence[Record], Situation], str | None]
_LACKS: dict[Stage, _Lacks] = {
    "prompt": _lacks_for_prompt,
    "rag": _lacks_for_rag,
    "cache": _lacks_for_cache,
    "fine_tune": _lacks_for_fine_tune,
    "pretrain": _lacks_for_pretrain,
    "distill": _lacks_for_distill,
    "self_host": _lacks_for_self_host,
}
