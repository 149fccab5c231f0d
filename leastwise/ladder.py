"""The ladder: which step comes next, from a use case and the history of what was logged.

A pure fold. It runs no stage, reads no clock and asks nobody: what it needs to know beside the use case and the history
(rows, estimates, spend, answers people gave) is handed in as a `Situation`, so the same history always gives the same
next step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from leastwise.gate import Evaluation, RequirementVerdict, Verdict, plain_outcome
from leastwise.model import Venue
from leastwise.part import Part
from leastwise.prices import Usd
from leastwise.use_case import LADDER, OnUndecided, Stage, UseCase

Resolution = Literal["pass", "climb", "stop", "ask"]
Outcome = Literal[
    "prompt", "rag", "cache", "fine_tune", "pretrain", "distill", "self_host",
    "reference", "none", "undecided", "budget", "rejected", "error",
]  # fmt: skip

ALL = frozenset(
    {"quality", "adherence", "p95_latency_ms", "usd_per_1k_requests", "ood_decline", "shift_quality", "general_ability"}
)
COST_AND_LATENCY = frozenset({"p95_latency_ms", "usd_per_1k_requests"})
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


class Record(Part):
    """One row of the history: a stage that was evaluated or skipped, or the no-LLM reference."""

    stage: Stage | Literal["reference"]
    skipped: str | None = Field(None, description="Why it was skipped; a skip is never evidence.")
    evaluation: Evaluation | None = None
    verdict: Verdict | None = None
    resolution: Resolution | None = Field(None, description="How UNDECIDED was resolved, as logged.")
    open_weights: bool = Field(False, description="Whether the candidate's weights can be served by oneself.")
    usd_per_1k: float = Field(float("inf"), description="For choosing the cheapest among equals.")

    @property
    def passed(self) -> bool:
        """PASS, or UNDECIDED that was resolved to count as one."""
        return self.verdict is not None and (self.verdict.outcome == "PASS" or self.resolution == "pass")

    @property
    def possibly_failing(self) -> frozenset[str]:
        """Requirements that failed or were still open when the evaluation stopped."""
        if self.verdict is None:
            return frozenset()
        return frozenset(self.verdict.named("FAIL") + self.verdict.named("UNDECIDED"))

    def passes(self, *names: str) -> bool:
        """Whether each of these requirements was asked for and surely met, or not asked for."""
        return self.verdict is not None and all(
            v.outcome == "PASS" for v in self.verdict.requirements if v.name in names
        )

    @property
    def quality_lower(self) -> float:
        """Lower end of the interval of quality, 0 where it was not measured."""
        got = self.evaluation.measurements.get("quality") if self.evaluation else None
        return got.lower if got else 0.0


class Situation(Part):
    """What is known beside use case and history."""

    train_rows: int | None = Field(None, description="None: not counted, taken as enough.")
    document_rows: int | None = None
    unlabelled_rows: int | None = None
    repeat_share: float | None = Field(None, ge=0, le=1, description="Share of sampled traffic that repeats.")
    estimates: dict[Stage, Usd] = Field({}, description="Dollars each stage may cost at worst.")
    usd_spent: float = Field(0.0, ge=0, description="By this climb.")
    usd_spent_this_month: float = Field(0.0, ge=0, description="By every flow of the use case.")
    answers: dict[Stage, Literal["granted", "rejected"]] = Field({}, description="What people said when asked.")
    can_ask: bool = Field(False, description="Whether there is a server on which a person can answer.")


class Step(Part):
    """What to do next. `ask` wants a person's answer first: leave for a stage, or how to resolve UNDECIDED."""

    action: Literal["run", "skip", "ask", "end"]
    reason: str
    stage: Stage | None = None
    outcome: Outcome | None = Field(None, description="With action `end` only.")


def next_step(use_case: UseCase, history: Sequence[Record], situation: Situation | None = None) -> Step:
    """The next step of a climb: run or skip a stage, ask a person, or end with an outcome (DESIGN rules 1-7).

    The ladder is walked from its foot whatever order things were logged in, so that a stage somebody ran on its own
    neither hides a lower PASS nor lets the climb start above it. Of two records of a stage the later one counts.
    """
    now = situation or Situation()
    recorded = {record.stage: record for record in history}
    reference = recorded.get("reference")
    if reference and reference.passed and use_case.reference == "stop":
        return Step(action="end", outcome="reference", reason="the no-LLM reference meets every requirement")
    below: list[Record] = []
    for stage in _within_reach(use_case):
        record = recorded.get(stage)
        if record is None:
            return _consider(use_case, stage, below, now)
        halted = _halt(stage, record, now)
        if halted:
            return halted
        below.append(record)
    return Step(action="end", outcome="none", reason=_nearest_miss(below))


def ruled_out(use_case: UseCase, stage: Stage, situation: Situation | None = None) -> str | None:
    """Why a stage can never run in this use case, whatever will be measured; None where that depends on evidence."""
    if stage not in _within_reach(use_case):
        return f"last_stage is {use_case.last_stage}"
    if use_case.approvals.get(stage) == "never":
        return f"approvals.{stage} is never"
    if not REMEDIES[stage] & set(use_case.requirements.bounds):
        return f"remedies only {', '.join(sorted(REMEDIES[stage]))}, and none of these is asked for"
    return _LACKS[stage](use_case, (_if_all_went_well(use_case),), situation or Situation())


def could_run(use_case: UseCase, stage: Stage, history: Sequence[Record], situation: Situation | None = None) -> bool:
    """Whether a stage above the winner was applicable: not ruled out, and nothing it needs is missing."""
    now = situation or Situation()
    return ruled_out(use_case, stage, now) is None and _LACKS[stage](use_case, history, now) is None


def student_venue(use_case: UseCase) -> Venue | None:
    """Where a distilled student would answer: at a managed host, where residency does not allow that on own machines.

    Which host that will be is not known yet, so a list of hosts rules it out.
    """
    limits = use_case.requirements.residency
    if limits is None or ("managed" in limits.venues and not limits.hosts):
        return "managed"
    return "self_host" if "self_host" in limits.venues else None


def evaluated(history: Sequence[Record]) -> tuple[Record, ...]:
    """The stages that were measured, without skips and without the reference."""
    return tuple(r for r in history if r.stage != "reference" and r.skipped is None)


def best(history: Sequence[Record]) -> Record | None:
    """The parent of the next stage: fewest failed requirements, then highest lower bound of quality, then cheapest."""
    return min(
        evaluated(history),
        key=lambda r: (len(r.verdict.named("FAIL")) if r.verdict else 99, -r.quality_lower, r.usd_per_1k),
        default=None,
    )


def teacher(history: Sequence[Record]) -> Record | None:
    """Who may teach a student: the highest lower bound of quality among the candidates that surely pass quality.

    A cache answers as what is behind it, and is measured on traffic with its repetition: its quality is no teacher's.
    """
    passing = [r for r in evaluated(history) if r.passes("quality") and r.stage != "cache"]
    return max(passing, key=lambda r: r.quality_lower, default=None)


def resolve(verdict: Verdict, evaluation: Evaluation, use_case: UseCase) -> Resolution | None:
    """How an UNDECIDED verdict is resolved; None where the verdict is sure or an error."""
    if verdict.outcome != "UNDECIDED":
        return None
    if use_case.on_undecided != "estimate":
        return _POLICY[use_case.on_undecided]
    plain = plain_outcome(evaluation, use_case.gate_requirements)
    return "pass" if plain == "PASS" else "climb"


_POLICY: dict[OnUndecided, Resolution] = {"climb": "climb", "stop": "stop", "ask": "ask"}


def _within_reach(use_case: UseCase) -> tuple[Stage, ...]:
    return LADDER[: LADDER.index(use_case.last_stage) + 1]


def _if_all_went_well(use_case: UseCase) -> Record:
    """A parent that leaves nothing to wish for: what is lacking beside it, no measurement can supply."""
    models = use_case.models
    met = tuple(RequirementVerdict(name=name, outcome="PASS", reason="") for name in use_case.requirements.bounds)
    is_open = bool(models.base or models.student or any(model.is_open for model in models.candidates))
    return Record(stage="prompt", verdict=Verdict(outcome="PASS", reason="", requirements=met), open_weights=is_open)


def _halt(stage: Stage, record: Record, now: Situation) -> Step | None:
    """The end of a climb, or a question to a person, where this record calls for it; None lets it climb on."""
    if record.skipped is not None:
        return None
    if record.verdict is None:
        return Step(action="end", outcome="error", stage=stage, reason=f"{stage} was logged without an evaluation")
    if record.verdict.outcome == "ERROR":
        return Step(action="end", outcome="error", stage=stage, reason=record.verdict.reason)
    if record.passed:
        return Step(action="end", outcome=stage, stage=stage, reason=record.verdict.reason)
    if record.verdict.outcome == "UNDECIDED" and record.resolution != "climb":
        action: Literal["ask", "end"] = "ask" if record.resolution == "ask" and now.can_ask else "end"
        outcome: Outcome | None = "undecided" if action == "end" else None
        return Step(action=action, outcome=outcome, stage=stage, reason=record.verdict.reason)
    return None


def _consider(use_case: UseCase, stage: Stage, below: Sequence[Record], now: Situation) -> Step:
    """Skip a stage with the reason, or see about leave and money for it."""
    why = _cannot(use_case, stage, below, now)
    return Step(action="skip", stage=stage, reason=why) if why else _afford(use_case, stage, now)


def _cannot(use_case: UseCase, stage: Stage, history: Sequence[Record], now: Situation) -> str | None:
    """Why a stage is skipped, or None."""
    if use_case.approvals.get(stage) == "never":
        return f"approvals.{stage} is never"
    parent = best(history)
    if parent and not REMEDIES[stage] & parent.possibly_failing:
        return f"cannot remedy what fails: {', '.join(sorted(parent.possibly_failing)) or 'nothing'}"
    return _LACKS[stage](use_case, history, now)


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
    base = use_case.models.base
    if base is None:
        return "models.base names no open weights"
    if not use_case.may_be_sent_to(base):
        return f"models.base is in {base.venue}, where residency does not allow it"
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
    return _lacks_for_fine_tune(use_case, history, now)


def _lacks_for_distill(use_case: UseCase, history: Sequence[Record], now: Situation) -> str | None:
    is_encoder = use_case.training.student.kind == "encoder"
    if is_encoder and use_case.task.kind != "classification":
        return f"an encoder student answers with a label, and the task is {use_case.task.kind}; training.student: {{kind: causal}} can"
    if teacher(history) is None:
        return "no candidate passes quality, so there is no teacher"
    if is_encoder and not use_case.models.student:
        return "models.student is not set"
    if not is_encoder and not use_case.models.base:
        return "models.base names no open weights to make a causal student of"
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


_LACKS = {
    "prompt": _lacks_for_prompt,
    "rag": _lacks_for_rag,
    "cache": _lacks_for_cache,
    "fine_tune": _lacks_for_fine_tune,
    "pretrain": _lacks_for_pretrain,
    "distill": _lacks_for_distill,
    "self_host": _lacks_for_self_host,
}


def _afford(use_case: UseCase, stage: Stage, now: Situation) -> Step:
    """Leave and money for a stage that could help: run it, ask, or end as rejected or budget."""
    estimate = now.estimates.get(stage, 0.0)
    left = min(use_case.budget_usd - now.usd_spent, use_case.budget_usd_per_month - now.usd_spent_this_month)
    if estimate > left:
        why = (
            f"{stage} may cost ${estimate:.4g}, ${max(left, 0):.4g} is left of budget_usd {use_case.budget_usd:g} and "
            f"budget_usd_per_month {use_case.budget_usd_per_month:g}; raise the one that binds"
        )
        return Step(action="end", outcome="budget", stage=stage, reason=why)
    if use_case.approval(stage, estimate) == "granted" or now.answers.get(stage) == "granted":
        return Step(action="run", stage=stage, reason=f"estimated at most ${estimate:.4g}")
    if now.can_ask and stage not in now.answers:
        return Step(action="ask", stage=stage, reason=f"{stage} needs approval; estimated at most ${estimate:.4g}")
    why = f"{stage} needs approval and nobody granted it; set approvals: {{{stage}: granted}}, or never to skip it"
    return Step(action="end", outcome="rejected", stage=stage, reason=why)


def _nearest_miss(history: Sequence[Record]) -> str:
    nearest = best(history)
    if nearest is None or nearest.verdict is None:
        return "no stage could be run; see the reasons of the skipped ones"
    return f"nearest miss is {nearest.stage}: {nearest.verdict.reason}"
