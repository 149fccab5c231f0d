"""What somebody wants of a language model: task, data, requirements, traffic, models and money, as one frozen model.

It does not read the file it comes from, look at the data or know how a requirement is tested.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from leastwise.economics import Multipliers
from leastwise.gate import SHARES, Requirement, RequirementName
from leastwise.judge import LEAST_HUMAN_GRADES, Judge
from leastwise.model import Model, Venue, check_model_uri
from leastwise.part import Part, written_but_for
from leastwise.prices import Gpu, Price
from leastwise.student import EncoderStudent, Student
from leastwise.task import Task

Stage = Literal["prompt", "rag", "cache", "fine_tune", "pretrain", "distill", "self_host"]
LADDER: tuple[Stage, ...] = ("prompt", "rag", "cache", "fine_tune", "pretrain", "distill", "self_host")
Approval = Literal["ask", "granted", "never"]
SearchMode = Literal["dense", "hybrid", "bm25"]
OnUndecided = Literal["estimate", "climb", "stop", "ask"]

DEFAULT_REPLAY_SHARE = 0.1

Share = Annotated[float, Field(ge=0, le=1)]


Shift = Literal["typos", "upper", "lower", "shorter", "longer"]


class Data(Part):
    """Where the rows are. Every value is a path relative to the use case file, a local path, or an s3:// URI."""

    train: str | None = Field(None, description="Labelled examples for retrieval and training.")
    dev: str | None = Field(None, description="Labelled rows on which prompts, thresholds and checkpoints are tuned.")
    gate: str = Field(description="Labelled rows the gates are judged on; never tuned on.")
    test: str | None = Field(None, description="Untouched labelled rows; the winner's reported figure comes from here.")
    documents: str | None = Field(None, description="Documents to retrieve and to continue pre-training on.")
    unlabelled: str | None = Field(None, description="Text a teacher may label for distillation.")
    out_of_scope: str | None = Field(None, description="Inputs that must be declined, which ood_decline is judged on.")
    out_of_scope_dev: str | None = Field(
        None, description="Other inputs to decline, on which a guard's threshold is chosen; best of other kinds than out_of_scope."
    )
    held_out_labels: tuple[str, ...] = Field(
        (), description="Labels to be treated as out of scope: their rows leave train, dev, gate and test; those of gate and "
        "test are declined or not, those of dev choose thresholds."
    )
    unrelated: str | None = Field(
        None, description="Text nobody would ask this system: out of scope too, one half to judge, one to choose thresholds."
    )
    shifted: str | None = Field(None, description="Labelled rows from changed conditions; needed by shift_quality.")
    made_shifts: tuple[Shift, ...] = Field(
        (), description="Shifts made of the gate rows, each row under one of them, in place of or beside `shifted`."
    )
    kind_column: str = Field("kind", description="Column of out-of-scope and shifted rows that names their kind, if there is one.")
    general: str | None = Field(
        None,
        description="General text (columns id, text) a trained model should not forget: a fifth, drawn by hash, is held to "
        "measure it; the rest is replayed in continued pre-training.",
    )
    general_tasks: str | None = Field(
        None,
        description="Own general tasks in place of those made from data.general: columns id, text, choices (a JSON list) and "
        "label (the right choice).",
    )
    paraphrases: str | None = Field(
        None, description="Gate rows in other words (columns id of the gate row, text): is the answer the same?"
    )
    graded: str | None = Field(
        None,
        description="Answers that people have graded 0..1 (columns id, text, answer, grade and, "
        "where there is one, the expected answer); a judge gates only with 100 or more.",
    )
    traffic: str | None = Field(None, description="Sample of real requests with their repetition; judges cache.")
    time_column: str | None = Field(None, description="Column of data.traffic with the time of a request (date or unix seconds); "
                                    "without it requests are taken as evenly spread over the month.")
    id_column: str = Field("id", description="Column with a unique id.")
    text_column: str = Field("text", description="Column with the input text.")
    label_column: str = Field("label", description="Column with the expected answer.")
    gold_column: str | None = Field(None, description="Column with the ids of the documents that answer a row (one, a list, or its "
                                    "JSON; any one of them is enough): retrieval is then measured on its own.")
    language: str | None = Field(None, pattern="^[a-z]{2}$", description="Language texts should be in (ISO 639-1, such as en); others "
                                 "are reported. Empty: not looked at.")
    mask: tuple[Literal["email", "phone", "card", "iban", "us_ssn", "private_key", "aws_key", "token", "jwt", "password"], ...] = Field(
        (), description="Kinds of personal data and secrets that are masked in every text before it goes anywhere."
    )
    date_column: str | None = Field(None, description="Column with the date of a row; its coverage is reported.")
    split_by: str | None = Field(None, description="Column whose groups must not be in two splits.")
    unit_by: str | None = Field(
        None, description="Column whose rows are one unit (a conversation, a customer) and count once in the gate."
    )
    population: Literal["future_traffic", "this_set"] = Field(
        "future_traffic", description="this_set: the gate set itself is what must pass; margins may then be 0."
    )


    @property
    def has_out_of_scope(self) -> bool:
        """Whether there are inputs to decline, given or made."""
        return bool(self.out_of_scope or self.held_out_labels or self.unrelated)

    @property
    def has_shifted(self) -> bool:
        """Whether there are shifted rows, given or made."""
        return bool(self.shifted or self.made_shifts)


class Bound(Part):
    """One requirement: the value wanted and the tolerance the gate may use."""

    bound: float = Field(description="The value wanted.", allow_inf_nan=False)
    margin: float = Field(
        ge=0,
        allow_inf_nan=False,
        description="Tolerance: a candidate this much worse than the bound is wrongly passed with probability <= alpha.",
    )


class Residency(Part):
    """Where prompts, judges, teachers and embeddings may go; binding from the first stage on."""

    venues: tuple[Venue, ...] = Field(min_length=1, description="Venues data may be sent to.")
    hosts: tuple[str, ...] = Field((), description="Host names data may be sent to; empty: any host of the venues.")


class Requirements(Part):
    """What the winner must meet. Any subset; a requirement left out is not tested."""

    quality: Bound | None = Field(None, description="The task's metric, a share in 0..1.")
    adherence: Bound | None = Field(None, description="Share of outputs in the demanded format.")
    p95_latency_ms: Bound | None = Field(None, description="95th percentile of latency over HTTP, milliseconds.")
    usd_per_1k_requests: Bound | None = Field(None, description="All-in dollars for 1,000 requests at this traffic.")
    ood_decline: Bound | None = Field(None, description="Share of out-of-scope inputs declined.")
    shift_quality: Bound | None = Field(None, description="Quality on shifted inputs.")
    general_ability: Bound | None = Field(
        None, description="Share of general tasks the model itself still gets right (4 choices: 0.25 is chance); open weights only."
    )
    residency: Residency | None = Field(None, description="Where data may go.")

    @model_validator(mode="after")
    def _bounds_make_sense(self) -> Self:
        if not self.bounds:
            raise ValueError(
                "no requirement with a bound; add at least one, for example quality: {bound: 0.8, margin: 0.05}"
            )
        for name, wanted in self.bounds.items():
            _check_range(name, wanted)
        if self.quality and self.shift_quality and self.shift_quality.bound > self.quality.bound:
            raise ValueError(
                f"shift_quality.bound: {self.shift_quality.bound:g} contradicts quality.bound {self.quality.bound:g}: "
                "shifted inputs cannot be asked to do better than ordinary ones; lower it or raise quality"
            )
        return self

    @property
    def bounds(self) -> dict[RequirementName, Bound]:
        """The requirements that are measured, in the order they are reported."""
        named: dict[RequirementName, Bound | None] = {
            "quality": self.quality,
            "adherence": self.adherence,
            "p95_latency_ms": self.p95_latency_ms,
            "usd_per_1k_requests": self.usd_per_1k_requests,
            "ood_decline": self.ood_decline,
            "shift_quality": self.shift_quality,
            "general_ability": self.general_ability,
        }
        return {name: bound for name, bound in named.items() if bound is not None}


def _check_range(name: RequirementName, wanted: Bound) -> None:
    if name in SHARES:
        if not 0 < wanted.bound <= 1:
            raise ValueError(f"{name}.bound: {wanted.bound:g} is outside 0..1, the range of a share; give 0.9 for 90%")
        if wanted.margin >= wanted.bound:
            raise ValueError(
                f"{name}.margin: {wanted.margin:g} reaches from the bound {wanted.bound:g} down to 0, so anything would "
                "pass; give a margin well below the bound, for example 0.05"
            )
    elif wanted.bound <= 0:
        raise ValueError(f"{name}.bound: {wanted.bound:g} must be above 0")
    elif wanted.margin > 2 * wanted.bound:
        raise ValueError(
            f"{name}.margin: {wanted.margin:g} is more than twice the bound {wanted.bound:g}, so the gate would say "
            "nothing; give a margin below the bound"
        )


class Traffic(Part):
    """How much is asked, on which cost and latency depend."""

    requests_per_month: int = Field(gt=0, description="Requests a month.")
    peak_requests_per_s: float = Field(1.0, gt=0, description="Requests a second in the busiest hour.")
    concurrency: int = Field(2, ge=1, le=512, description="Requests in flight at once; latency is measured at it.")
    output_tokens: int = Field(12, ge=1, le=8192, description="Most tokens one answer may have.")
    retry_share: Share = Field(0.0, description="Share of requests that have to be sent twice.")


class Models(Part):
    """The models a use case may draw on."""

    candidates: tuple[Model, ...] = Field(min_length=1, description="Models to prompt, tried cheapest first.")
    base: Model | None = Field(None, description="Open weights to fine-tune; needed by fine_tune and pretrain.")
    embedder: str | None = Field(None, description="Embedding model for retrieval, the reference and drift.")
    student: str | None = Field(None, description="Encoder from which distillation makes its student.")

    @model_validator(mode="after")
    def _uris_are_readable(self) -> Self:
        for uri in filter(None, (self.embedder, self.student)):
            check_model_uri(uri)
        if self.base and not self.base.is_open:
            raise ValueError(f"base: {self.base.uri} is not open weights; name hf://, s3://, file:// or package://")
        return self


class Retrieval(Part):
    """What is put before a request; the numbers are the use case's, they are not searched for yet."""

    examples: int = Field(8, ge=0, le=64, description="Labelled examples retrieved from data.train.")
    documents: int = Field(0, ge=0, le=64, description="Documents retrieved from data.documents.")
    fixed_examples: int = Field(
        4, ge=0, le=64, description="Few-shot examples of the prompt stage, the same each time."
    )
    mode: SearchMode | Literal["auto"] = Field(
        "dense",
        description="How they are searched: dense (by meaning), bm25 (by words), hybrid (both, ranks fused), or auto: "
        "whichever finds most gold documents of data.dev.",
    )

    @model_serializer(mode="wrap")
    def _default_mode_is_not_written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What was asked before there were modes is still the same question."""
        return written_but_for(write(self), mode="dense")


class Caching(Part):
    """The response cache of production, whose gain the cache stage judges by replaying traffic."""

    ttl_s: int = Field(86_400, ge=1, le=31_536_000, description="How long an answer may be given out again, seconds.")
    most_mb: float = Field(256.0, gt=0, le=1_000_000, description="Size of the store in megabytes.")


class Consistency(Part):
    """Asking again: does the same input get the same answer? Reported, not gated."""

    rows: int = Field(50, ge=10, le=1000, description="Gate rows that are asked again.")
    samples: int = Field(3, ge=2, le=20, description="Answers to each.")
    temperature: float = Field(0.7, ge=0, le=2, description="Sampling temperature of these answers.")


class Guarding(Part):
    """What trained and retrieving candidates may add where `ood_decline` is required: declining what they were not made for."""

    offered: bool = Field(True, description="False: no guard is tried, a candidate must decline by itself.")
    max_false_decline: float = Field(
        0.05, ge=0, lt=1, description="Share of in-scope requests that may be declined; the threshold holds it on dev rows."
    )
    dev_rows: int = Field(300, ge=30, le=10_000, description="Dev rows of either kind that are answered to choose a guard.")


class Forgetting(Part):
    """How general ability is measured before and after training, where data.general or data.general_tasks is set."""

    texts: int = Field(64, ge=8, le=2000, description="Held general texts, at most, whose perplexity is taken.")
    tasks: int = Field(100, ge=25, le=2000, description="General tasks, at most; general_ability is decided on these.")


class Hosting(Part):
    """What own endpoints cost: `managed` bills tokens above a minimum, `self_host` bills whole machines."""

    usd_per_month_per_machine: float = Field(0.0, ge=0, description="One machine, dollars a month.")
    spare_machines: int = Field(0, ge=0, le=100, description="Machines kept beyond what the peak hour needs.")
    storage_usd_per_month: float = Field(0.0, ge=0, description="Weights, logs and backups, dollars a month.")
    operations_usd_per_month: float = Field(0.0, ge=0, description="People's share for keeping it up, dollars a month.")
    managed_minimum_usd_per_month: float = Field(0.0, ge=0, description="Least a managed host bills a month.")
    price_decline_per_year: float = Field(0.0, ge=0, lt=1, description="Share by which token prices are taken to fall a year.")
    managed_price: Price | None = Field(None, description="Dollars per million tokens of own weights at that host.")
    capacity: bool = Field(True, description="Whether machines to serve on are to be had; self_host needs it.")


class Training(Part):
    """Limits of training and what its hardware costs."""

    usd_per_hour: float = Field(0.0, ge=0, description="Dollars an hour of the training machine; 0 with a gpu: from the "
                                "price book.")
    gpu: Gpu | None = Field(None, description="GPU of the training machine, whose speed estimates take; empty: this machine.")
    method: Literal["lora", "full"] = Field("lora", description="lora trains adapters of 0.1-2% of the weights.")
    max_examples: int = Field(2400, ge=1, description="Examples seen in one training, all epochs together.")
    learning_rate: float = Field(2e-3, gt=0, lt=1, description="Peak learning rate.")
    rank: int = Field(16, ge=1, le=512, description="Rank of the LoRA matrices.")
    upper_blocks_share: float = Field(
        0.34, gt=0, le=1, description="Share of the blocks, from the top, that are trained."
    )
    epochs: int = Field(1, ge=1, le=100, description="Passes over the training rows, within max_examples.")
    batch_size: int = Field(16, ge=1, le=4096, description="Examples a step, over all processes.")
    gradient_checkpointing: bool = Field(
        False, description="Compute activations twice instead of keeping them: for models that do not fit otherwise."
    )
    prompt: Literal["instruction", "empty"] = Field(
        "instruction",
        description="System turn of trained candidates; empty is shorter: the adapter is for this one task anyway.",
    )
    dev_checks: int = Field(2, ge=1, le=100, description="How often a training is measured on dev; its best is kept.")
    dev_rows: int = Field(64, ge=1, le=2000, description="Dev rows a training is measured on, by greedy answers.")
    early_stop_patience: int = Field(
        3, ge=0, description="Measurements on dev in a row that are no better before training stops; 0: never."
    )
    teacher_labels: int = Field(3000, ge=100, description="Texts a teacher labels for distillation, at most.")
    choose_labels: Literal["active", "random"] = Field(
        "random", description="Which texts it labels where there are more: those a cheap model is unsure of, or any."
    )
    student: Student = Field(EncoderStudent(), description="What the teacher is distilled into.")
    label_in_batches: bool = Field(
        False,
        description="Buy an api teacher's labels through its batch interface: about half the price, up to a day's wait.",
    )
    pretrain_steps: int = Field(60, ge=1, description="Optimizer steps of continued pre-training.")
    replay_share: float | None = Field(
        None,
        ge=0,
        le=0.9,
        description="Share of the packed sequences of continued pre-training that are general text (data.general), against "
        "forgetting; empty: 0.1 where data.general is set, else none.",
    )
    seed: int = Field(0, ge=0, description="Seed of every shuffle and initialisation.")
    retrain_every_days: int = Field(90, ge=1, description="Days between retrainings, for recurring cost.")
    labels_per_retraining: int = Field(0, ge=0, description="New labels bought for one retraining.")
    usd_per_label: float = Field(0.0, ge=0, description="Dollars a human label costs.")
    surrounding: Multipliers = Field(Multipliers(), description="What comes with a training, as multiples of its cost.")


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
    hosting: Hosting = Hosting()
    training: Training = Training()
    caching: Caching = Caching()
    cascades: bool = Field(True, description="Where cost is required, prompt (with two models or more) and distill also try a "
                           "cheap candidate that hands on what it is unsure of.")
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
    reference: Literal["report", "stop"] = Field("report", description="stop: end the climb if no LLM is needed.")
    confirm_rows: int = Field(1000, ge=1, description="Most test rows the winner's final figure is measured on.")
    allow_no_test: bool = Field(False, description="True: accept a climb whose final figure has no untouched split.")

    @model_validator(mode="after")
    def _can_be_measured(self) -> Self:
        wanted = self.requirements.bounds
        if "ood_decline" in wanted and not (self.data.has_out_of_scope and self.task.decline_label):
            raise ValueError(
                "requirements.ood_decline: cannot be measured; add data.out_of_scope (inputs to decline), or make some by "
                "data.held_out_labels or data.unrelated, and task.decline_label (the answer that declines)"
            )
        quality, adherence = wanted.get("quality"), wanted.get("adherence")
        is_label = self.task.kind == "classification"
        if is_label and quality and adherence and quality.bound - quality.margin > adherence.bound:
            raise ValueError(
                f"requirements.adherence.bound: {adherence.bound:g} contradicts quality.bound {quality.bound:g}: an output "
                "outside the format is never right, so such an adherence cannot pass; raise adherence"
            )
        if "shift_quality" in wanted and not self.data.has_shifted:
            raise ValueError(
                "requirements.shift_quality: cannot be measured; add data.shifted (labelled shifted rows), or make some by "
                "data.made_shifts"
            )
        held_out = self.data.held_out_labels
        if held_out and (self.task.kind != "classification" or set(held_out) & set(self.task.labels)):
            raise ValueError(
                "data.held_out_labels: are labels of the rows that the task does not have; remove them from task.labels"
            )
        if self.training.replay_share and not self.data.general:
            raise ValueError(
                f"training.replay_share: {self.training.replay_share:g} of what? add data.general (text the model should "
                "not forget), or remove replay_share"
            )
        for name, bound in wanted.items():
            if bound.margin == 0 and name not in SHARES:
                raise ValueError(
                    f"requirements.{name}.margin: 0 can never be decided, since cost and latency are of future traffic "
                    "whatever data.population says; give a tolerance"
                )
            if bound.margin == 0 and self.data.population == "future_traffic":
                raise ValueError(
                    f"requirements.{name}.margin: 0 can never be decided for future traffic; give a tolerance, or "
                    "declare data.population: this_set"
                )
        if self.data.gold_column and not self.data.documents:
            raise ValueError("data.gold_column: names documents that answer a row, but data.documents is missing; add it")
        if self.retrieval.mode == "auto" and not (self.data.gold_column and self.data.dev and self.retrieval.documents):
            raise ValueError(
                "retrieval.mode: auto chooses by the gold documents of dev rows; add data.gold_column, data.dev and "
                "retrieval.documents, or name dense, bm25 or hybrid"
            )
        if not self.data.test and not self.allow_no_test:
            raise ValueError("data.test: missing; add an untouched split, or set allow_no_test: true")
        return self

    @model_validator(mode="after")
    def _general_ability_can_be_measured(self) -> Self:
        if "general_ability" not in self.requirements.bounds:
            return self
        if not (self.data.general or self.data.general_tasks):
            raise ValueError(
                "requirements.general_ability: cannot be measured; add data.general (general text) or data.general_tasks"
            )
        shut = next((model.uri for model in self.models.candidates if not model.is_open or model.base_url), None)
        if shut:
            raise ValueError(
                f"requirements.general_ability: {shut} cannot be measured, since general tasks are scored by a model's own "
                "probabilities in process; name open weights that are here (package://, file://, s3://, hf:// without base_url)"
            )
        if self.reference == "stop":
            raise ValueError("reference: stop: a classifier has no general ability; set report, or drop the requirement")
        return self

    @model_validator(mode="after")
    def _residency_leaves_a_model(self) -> Self:
        limits = self.requirements.residency
        if limits and not any(self.may_be_sent_to(model) for model in self.models.candidates):
            asked = ", ".join(f"{model.uri} ({model.venue})" for model in self.models.candidates)
            raise ValueError(
                f"requirements.residency: none of models.candidates is in an allowed venue and host ({asked}); add one "
                f"in {' or '.join(limits.venues)}"
            )
        return self

    @model_validator(mode="after")
    def _judge_can_judge(self) -> Self:
        if self.is_judged:
            if self.judge is None or not self.data.graded:
                raise ValueError(
                    "task.metric: judge needs judge (models and rubric) and data.graded (answers graded by people, at least "
                    f"{LEAST_HUMAN_GRADES}), from which the judge's error is known"
                )
            if self.data.unit_by or self.data.population == "this_set":
                raise ValueError(
                    "task.metric: judge grades rows of future traffic; remove data.unit_by and population: this_set, "
                    "neither of which is built for a corrected judge"
                )
        if self.judge is None:
            return self
        if self.task.kind != "free_text":
            raise ValueError(f"judge: grades free text; a {self.task.kind} is scored exactly, remove the judge")
        if not any(self.may_be_sent_to(model) for model in self.judge.models):
            raise ValueError("judge.models: residency allows none of them; name one in an allowed venue and host")
        return self

    @property
    def offers_cascades(self) -> bool:
        """Whether a cascade may be tried: only cost is a reason to, and its threshold is chosen by exact scores.

        Never where general ability is required, which is one model's.
        """
        wanted = self.requirements.bounds
        return self.cascades and "usd_per_1k_requests" in wanted and "general_ability" not in wanted and not self.is_judged

    @property
    def replay_share(self) -> float:
        """Share of general text in continued pre-training; see `training.replay_share`."""
        if not self.data.general:
            return 0.0
        wanted = self.training.replay_share
        return DEFAULT_REPLAY_SHARE if wanted is None else wanted

    @property
    def offers_guards(self) -> bool:
        """Whether a guard may be tried: only what must be declined is a reason to."""
        return self.guard.offered and "ood_decline" in self.requirements.bounds

    @property
    def is_judged(self) -> bool:
        """Whether quality is a judge's grade, corrected by people's."""
        return self.task.kind == "free_text" and self.task.metric == "judge"

    @property
    def judge_model(self) -> Model | None:
        """The judge: the first allowed model of another family than candidates and base, else the first allowed."""
        if self.judge is None:
            return None
        judged = [*self.models.candidates, *filter(None, [self.models.base])]
        return self.judge.chosen([m for m in self.judge.models if self.may_be_sent_to(m)], judged)

    def may_be_sent_to(self, model: Model) -> bool:
        """Whether residency lets data go to this model."""
        limits = self.requirements.residency
        if limits is None:
            return True
        return model.venue in limits.venues and (not limits.hosts or model.host in limits.hosts)

    def approval(self, stage: Stage, estimated_usd: float) -> Approval:
        """What is known of a person's leave for a stage of that estimated cost."""
        given = self.approvals.get(stage)
        if given:
            return given
        asks = stage in ("pretrain", "self_host") or estimated_usd > self.ask_above_usd
        return "ask" if asks else "granted"

    @property
    def gate_requirements(self) -> tuple[Requirement, ...]:
        """The requirements as the gate judges them."""
        return tuple(
            Requirement(name=name, bound=wanted.bound, margin=wanted.margin)
            for name, wanted in self.requirements.bounds.items()
        )
