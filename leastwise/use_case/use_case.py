"""What somebody wants of a language model: task, data, requirements, traffic, models and money, as one frozen model.

It does not read the file it comes from, look at the data or know how a requirement is tested.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from leastwise.part import Part
from leastwise.use_case.data import Data
from leastwise.use_case.judge import LEAST_HUMAN_GRADES, Judge
from leastwise.use_case.model import Model, Models
from leastwise.use_case.requirements import SHARES, Requirement, Requirements
from leastwise.use_case.settings import Caching, Consistency, Forgetting, Guarding, Hosting, Retrieval, Searching
from leastwise.use_case.stages import LADDER, Stage
from leastwise.use_case.task import Task
from leastwise.use_case.traffic import Traffic
from leastwise.use_case.training import DEFAULT_REPLAY_SHARE, Training

Approval = Literal["ask", "granted", "never"]
OnUndecided = Literal["estimate", "climb", "stop", "ask"]


class UseCase(Part):
    """One use case, as read from a YAML file."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{1,60}$", description="Name; also the MLflow experiment.")
    description: str = Field("", max_length=2000, description="For people.")
    task: Task
    data: Data
    requirements: Requirements
    traffic: Traffic
    models: Models
    retrieval: Retrieval = Retrieval()
    search: Searching = Searching()
    hosting: Hosting = Hosting()
    training: Training = Training()
    caching: Caching = Caching()
    cascades: bool = Field(
        True,
        description="Where cost is required, prompt (with two models or more) and distill also try a "
        "cheap candidate that hands on what it is unsure of.",
    )
    guard: Guarding = Guarding()
    judge: Judge | None = Field(None, description="A model that grades free text by a rubric.")
    consistency: Consistency | None = Field(None, description="Measure how often repeated answers agree; costs calls.")
    forgetting: Forgetting = Forgetting()
    alpha: float = Field(
        0.05,
        gt=0,
        le=0.2,
        description="Probability of a false PASS over the whole ladder, and of a false FAIL a stage.",
    )
    budget_usd: float = Field(10.0, ge=0, description="Hard cap on what one climb spends.")
    budget_usd_per_month: float = Field(100.0, ge=0, description="Hard cap on all flows of the use case in a month.")
    last_stage: Stage = Field("self_host", description="The last stage the climb may reach.")
    approvals: dict[Stage, Approval] = Field(
        {}, description="ask, granted or never by stage; pretrain and self_host ask unless told otherwise."
    )
    ask_above_usd: float = Field(100.0, ge=0, description="A stage estimated above this asks for approval.")
    on_undecided: OnUndecided = Field(
        "estimate", description="What to do when the data ran out before the gate was sure."
    )
    accept_estimate: bool = Field(
        False,
        description="True: a climb that stops where only the plain estimate meets the bounds ends with exit status 0. "
        "It is not called sure all the same, and becomes champion only by a person's word.",
    )
    certificate_days: int = Field(90, ge=1, le=3650, description="How long a climb's certificate holds at most, days.")
    reference: Literal["report", "stop"] = Field("report", description="stop: end the climb if no LLM is needed.")
    confirm_rows: int = Field(1000, ge=1, description="Most test rows the winner's final figure is measured on.")
    allow_no_test: bool = Field(False, description="True: accept a climb whose final figure has no untouched split.")

    @model_validator(mode="after")
    def _declining_can_be_measured(self) -> Self:
        """Rule 4: what cannot be measured with these data is refused before anything is spent."""
        can_be = self.data.has_out_of_scope and self.task.decline_label
        if self.requirements.ood_decline and not can_be:
            raise ValueError(
                "requirements.ood_decline: cannot be measured; add data.out_of_scope (inputs to decline), or make some "
                "by data.held_out_labels or data.unrelated, and task.decline_label (the answer that declines)"
            )
        return self

    @model_validator(mode="after")
    def _adherence_leaves_room_for_quality(self) -> Self:
        quality, adherence = self.requirements.quality, self.requirements.adherence
        is_label = self.task.kind == "classification"
        if is_label and quality and adherence and quality.bound - quality.margin > adherence.bound:
            raise ValueError(
                f"requirements.adherence.bound: {adherence.bound:g} contradicts quality.bound {quality.bound:g}: an "
                "output outside the format is never right, so such an adherence cannot pass; raise adherence"
            )
        return self

    @model_validator(mode="after")
    def _shifted_rows_are_there(self) -> Self:
        """Rule 4, as above."""
        if self.requirements.shift_quality and not self.data.has_shifted:
            raise ValueError(
                "requirements.shift_quality: cannot be measured; add data.shifted (labelled shifted rows), or make "
                "some by data.made_shifts"
            )
        return self

    @model_validator(mode="after")
    def _rows_are_units_for_a_reason(self) -> Self:
        data = self.data
        if data.rows_are_units_because and (data.unit_by or not data.split_by):
            raise ValueError(
                "data.rows_are_units_because: says why rows that share data.split_by count one by one, which they do "
                "only with data.unit_by: null; set that, or remove the reason"
            )
        return self

    @model_validator(mode="after")
    def _held_out_labels_are_not_the_tasks(self) -> Self:
        held_out = self.data.held_out_labels
        if held_out and (self.task.kind != "classification" or set(held_out) & set(self.task.labels)):
            raise ValueError(
                "data.held_out_labels: are labels of the rows that the task does not have; remove them from task.labels"
            )
        return self

    @model_validator(mode="after")
    def _there_is_text_to_replay(self) -> Self:
        if self.training.replay_share and not self.data.general:
            raise ValueError(
                f"training.replay_share: {self.training.replay_share:g} of what? add data.general (text the model "
                "should not forget), or remove replay_share"
            )
        return self

    @model_validator(mode="after")
    def _margins_can_be_decided(self) -> Self:
        for name in (name for name, limit in self.requirements.bounds.items() if limit.margin == 0):
            if name not in SHARES:
                raise ValueError(
                    f"requirements.{name}.margin: 0 can never be decided, since cost and latency are of future traffic "
                    "whatever data.population says; give a tolerance"
                )
            if self.data.population == "future_traffic":
                raise ValueError(
                    f"requirements.{name}.margin: 0 can never be decided for future traffic; give a tolerance, or "
                    "declare data.population: this_set"
                )
        return self

    @model_validator(mode="after")
    def _gold_documents_are_there(self) -> Self:
        if self.data.gold_column and not self.data.documents:
            raise ValueError(
                "data.gold_column: names documents that answer a row, but data.documents is missing; add it"
            )
        if self.retrieval.mode == "auto" and not (self.data.gold_column and self.data.dev and self.retrieval.documents):
            raise ValueError(
                "retrieval.mode: auto chooses by the gold documents of dev rows; add data.gold_column, data.dev and "
                "retrieval.documents, or name dense, bm25 or hybrid"
            )
        return self

    @model_validator(mode="after")
    def _final_figure_is_clean(self) -> Self:
        """Rule 11: the winner is measured once more, on rows nothing was tuned or judged on."""
        if not self.data.test and not self.allow_no_test:
            raise ValueError("data.test: missing; add an untouched split, or set allow_no_test: true")
        return self

    @model_validator(mode="after")
    def _general_ability_can_be_measured(self) -> Self:
        """Rule 4, as above."""
        if "general_ability" not in self.requirements.bounds:
            return self
        if not (self.data.general or self.data.general_tasks):
            raise ValueError(
                "requirements.general_ability: cannot be measured; add data.general (general text) or "
                "data.general_tasks"
            )
        shut = next((model.uri for model in self.models.candidates if not model.is_open or model.base_url), None)
        if shut:
            raise ValueError(
                f"requirements.general_ability: {shut} cannot be measured, since general tasks are scored by a model's "
                "own probabilities in process; name open weights that are here (package://, file://, s3://, hf:// "
                "without base_url)"
            )
        if self.reference == "stop":
            raise ValueError(
                "reference: stop: a classifier has no general ability; set report, or drop the requirement"
            )
        return self

    @model_validator(mode="after")
    def _residency_leaves_a_model(self) -> Self:
        limits = self.requirements.residency
        if limits and not any(self.may_be_sent_to(model) for model in self.models.candidates):
            where = ((each.uri, f"{each.venue}, {each.request_host or 'no host'}") for each in self.models.candidates)
            listed = ", ".join(f"{uri} ({place})" for uri, place in where)
            raise ValueError(
                f"requirements.residency: none of models.candidates is in an allowed venue and host ({listed}); add "
                f"one in {' or '.join(limits.venues)}"
            )
        return self

    @model_validator(mode="after")
    def _judge_can_be_corrected(self) -> Self:
        """Rule 4, as above: a judge alone is no measurement."""
        if not self.is_graded:
            return self
        if self.judge is None or not self.data.graded:
            raise ValueError(
                "task.metric: judge needs judge (models and rubric) and data.graded (answers graded by people, at "
                f"least {LEAST_HUMAN_GRADES}), from which the judge's error is known"
            )
        if self.data.unit_by or self.data.population == "this_set":
            raise ValueError(
                "task.metric: judge grades rows of future traffic; remove data.unit_by and population: this_set, "
                "neither of which is built for a corrected judge (rows that share data.split_by count once too, unless "
                "data.unit_by is null and data.rows_are_units_because says why)"
            )
        return self

    @model_validator(mode="after")
    def _judge_may_grade(self) -> Self:
        if self.judge is None:
            return self
        if self.task.kind != "free_text":
            raise ValueError(f"judge: grades free text; a {self.task.kind} is scored exactly, remove the judge")
        if not any(self.may_be_sent_to(model) for model in self.judge.models):
            raise ValueError("judge.models: residency allows none of them; name one in an allowed venue and host")
        return self

    @property
    def reachable_stages(self) -> tuple[Stage, ...]:
        """The stages a climb may reach, cheapest first: up to `last_stage`."""
        return LADDER[: LADDER.index(self.last_stage) + 1]

    @property
    def searches(self) -> bool:
        """Whether prompts are searched for: on labelled dev rows, by scores that cost nothing."""
        return self.search.is_on and self.data.dev is not None and not self.is_graded

    @property
    def offers_cascades(self) -> bool:
        """Whether a cascade may be tried: only cost is a reason to, and its threshold is chosen by exact scores.

        Never where general ability is required, which is one model's.
        """
        bounds = self.requirements.bounds
        return (
            self.cascades and "usd_per_1k_requests" in bounds and "general_ability" not in bounds and not self.is_graded
        )

    @property
    def replay_share(self) -> float:
        """Share of general text in continued pre-training; see `training.replay_share`."""
        if not self.data.general:
            return 0.0
        share = self.training.replay_share
        return DEFAULT_REPLAY_SHARE if share is None else share

    @property
    def offers_guards(self) -> bool:
        """Whether a guard may be tried: only what must be declined is a reason to."""
        return self.guard.offered and "ood_decline" in self.requirements.bounds

    @property
    def is_graded(self) -> bool:
        """Whether quality is a judge's grade, corrected by people's."""
        return self.task.kind == "free_text" and self.task.metric == "judge"

    @property
    def judge_model(self) -> Model | None:
        """The judge: the first allowed model of another family than candidates and base, else the first allowed."""
        others = [*self.models.candidates, *filter(None, [self.models.base])]
        return self.judge.choose([*filter(self.may_be_sent_to, self.judge.models)], others) if self.judge else None

    def may_be_sent_to(self, model: Model) -> bool:
        """Whether residency lets data go to this model."""
        limits = self.requirements.residency
        return limits is None or limits.allows(model)

    def approval(self, stage: Stage, estimated_usd: float) -> Approval:
        """A person's leave for a stage of that estimated cost, as far as the file settles it (rule 7)."""
        policy = self.approvals.get(stage)
        if policy:
            return policy
        asks = stage in ("pretrain", "self_host") or estimated_usd > self.ask_above_usd
        return "ask" if asks else "granted"

    @property
    def gate_requirements(self) -> tuple[Requirement, ...]:
        """The requirements as the gate judges them."""
        return tuple(
            Requirement(name=name, bound=limit.bound, margin=limit.margin)
            for name, limit in self.requirements.bounds.items()
        )
