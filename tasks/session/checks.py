"""What must hold before the first call is paid, all that is wrong in one report: `advise` and `customize` ask the same.

A check raises BadInput; nothing is spent and no weights are loaded. What a use case says is apart from what only this
machine cannot reach (a model on a hub): advice says the latter and goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from leastwise.answering.prompts import check_room
from leastwise.answering.servers import check_servable
from leastwise.endpoints.providers import check_judge_key, check_keys, check_own_keys
from leastwise.endpoints.sending.decision import check_decisions
from leastwise.errors import BadInput, Check, problems_of, refuse
from leastwise.evaluating.judge_scorer import check_grades
from leastwise.models import weights
from leastwise.models.chat import check_template
from leastwise.models.encoder import embedder_dir
from leastwise.models.student import texts_cut
from leastwise.money.token_counts import most_request_tokens, most_tokens
from leastwise.record.certificate.signing import check_key
from leastwise.rows.general_text import check_general
from leastwise.stores import storage
from leastwise.training import causal_student, trainable_model
from leastwise.training.training_rows import check_lengths, examples_of
from leastwise.use_case import Stage, UseCase
from leastwise.use_case.prompts import trained_prompt
from tasks.session.destinations import destinations
from tasks.session.endpoint import check_cluster, check_endpoint
from tasks.session.held import JUDGED, check_held
from tasks.session.trainers import TRAINED, check_host, check_training_machine, possible, trained_here, untold_of_host
from tasks.session.workspace import Prospect

if TYPE_CHECKING:
    import pandas as pd

UNTRAINED: frozenset[Stage] = frozenset({"prompt", "rag", "cache"})
RELIED_ON: dict[str, frozenset[Stage]] = {  # what a suite must let through before a stage starts
    "train": TRAINED,
    "documents": frozenset({"pretrain"}),
    "unlabelled": frozenset({"distill"}),
    "traffic": frozenset({"cache"}),
}
MOST_LOOKED_AT = 2000  # texts of which it is said how many a student cuts


def check(prospect: Prospect) -> None:
    """What must hold before a run that asks models is opened; BadInput lists every problem."""
    refuse(problems_of([*stated(prospect), *reached(prospect)]))


def check_retraining(prospect: Prospect) -> None:
    """What must hold before a retraining is opened: rows, writable state, prices, the judge's key and all its money."""
    costing, judged = prospect.costing, partial(check_judge_key, prospect.question.use_case)
    weights_, machine = prospect.catalogue.check_weights, partial(check_training_machine, prospect)
    refuse(problems_of([*_basics(prospect, check_money=lambda: costing.check_retraining()), weights_, judged, machine]))


def candidate_checks(prospect: Prospect, stage: Stage | None) -> list[Check]:
    """The checks before one candidate of this stage is judged; `prospect` is of a use case with its models alone.

    Of weights that are there already no training is estimated: what they cost to ask is held to the caps as it comes.
    """
    question, costing = prospect.question, prospect.costing
    untrained = stage if stage in UNTRAINED else None
    return [
        *_basics(prospect, (*JUDGED, "traffic"), lambda: costing.check_candidate(untrained) if untrained else None),
        partial(check_keys, question.use_case),
        partial(check_own_keys, question.use_case),
        partial(check_decisions, question.use_case),
        partial(check_grades, question),
        partial(check_general, question),
    ]


def _basics(prospect: Prospect, held: Sequence[str] = (), check_money: Check | None = None) -> list[Check]:
    catalogue = prospect.catalogue
    return [
        partial(_check_tables, prospect, held),
        partial(_check_places, prospect),
        partial(check_key, catalogue.home),
        lambda: catalogue.check_prices(possible(prospect)),
        check_money or (lambda: prospect.costing.check_start()),
        *destinations(prospect.question.use_case),
    ]


def _check_places(prospect: Prospect) -> None:
    """What is made can be written: here, and for other machines where models are put that can be made."""
    storage.check_writable(prospect.catalogue.home)
    place = prospect.question.use_case.training.whole_models
    if place and {"pretrain", "distill"} & set(possible(prospect)):
        storage.check_writable(place)


def _check_tables(prospect: Prospect, held: Sequence[str]) -> None:
    """Rows can be read and are apart; then those of the tables `held` are what their suites ask for."""
    prospect.question.tables.check()
    hold(prospect, held)


def hold(prospect: Prospect, held: Sequence[str] = (*JUDGED, *RELIED_ON)) -> None:
    """BadInput for what the suites of these tables refuse; tables that no stage will rely on are left out."""
    stages = possible(prospect)
    names = {name: "" for name in held if name in JUDGED}
    for name in (each for each in held if each in RELIED_ON):
        if first := next((stage for stage in stages if stage in RELIED_ON[name]), None):
            names[name] = f" {first} may be reached, which relies on it: or set last_stage before {first}."
    check_held(prospect.question, names, prospect.catalogue.home)


def stated(prospect: Prospect, held: Sequence[str] = tuple(RELIED_ON)) -> list[Check]:
    """The checks of what a use case says and of its rows; a climb's first step holds JUDGED tables to their suites."""
    question, catalogue = prospect.question, prospect.catalogue
    return [
        *_basics(prospect, held),
        partial(check_endpoint, question.use_case),
        partial(_check_weights, prospect, far=False),
        partial(check_keys, question.use_case),
        partial(check_decisions, question.use_case),
        partial(check_grades, question),
        partial(check_general, question),
        catalogue.reflecting,
        partial(_check_dev, prospect),
        partial(check_host, prospect),
        partial(_check_teachers, prospect),
        partial(_check_corpus, prospect),
        lambda: check_room(question, catalogue, has_teacher="distill" in possible(prospect)),
    ]


def reached(prospect: Prospect) -> list[Check]:
    """The checks of what is elsewhere, weights and keys: advice on a machine that does not reach them is advice all the
    same.
    """
    question = prospect.question
    return [
        partial(_check_weights, prospect, far=True),
        partial(check_own_keys, question.use_case),
        partial(check_training_machine, prospect),
        lambda: check_cluster(question.use_case, possible(prospect)),
    ]


def _check_dev(prospect: Prospect) -> None:
    """What is tuned on dev rows while it is trained needs some."""
    use_case, stages = prospect.question.use_case, possible(prospect)
    needing = [stage for stage in stages if stage in trained_here(prospect)]
    if "distill" in stages and use_case.training.student.kind == "encoder":
        needing.append("distill")
    if needing and not use_case.data.dev:
        raise BadInput(
            f"data.dev: {' and '.join(needing)} may be reached, which keep what does best on dev rows, and there are "
            f"none; add data.dev (labelled rows apart from the other splits), or set last_stage before {needing[0]}"
        )


def _check_teachers(prospect: Prospect) -> None:
    """Whoever may come to teach a student may do so by its terms, or is known not to: else the stages below would be
    paid for first.
    """
    use_case = prospect.question.use_case
    asked = [model for model in use_case.models.candidates if use_case.may_be_sent_to(model) and not model.is_open]
    managed = use_case.training.managed
    asked += [managed.base] if managed and use_case.may_be_sent_to(managed.base) else []
    unread = [model.uri for model in asked if model.training_on_output is None]
    if unread and "distill" in possible(prospect):
        raise BadInput(
            f"models.candidates: training_on_output of {' and '.join(unread)} is not set, and distill may be reached, "
            "where a student is trained on the answers of the best candidate; read the terms and set it to true or "
            "false (then it never teaches), or set last_stage before distill"
        )


def _check_corpus(prospect: Prospect) -> None:
    """The corpus fills one training sequence, counted high."""
    use_case, documents = prospect.question.use_case, prospect.question.tables.get("documents")
    if "pretrain" not in possible(prospect) or documents is None:
        return
    most, counted = use_case.training.max_tokens, 0
    for text in documents["text"]:
        counted += most_tokens(str(text)) + 1
        if counted >= most:
            return
    raise BadInput(
        f"data.documents: at most {counted:,} tokens in all, fewer than the {most:,} of one training sequence "
        "(training.max_tokens); add documents, or set last_stage before pretrain"
    )


def _check_weights(prospect: Prospect, far: bool) -> None:
    """Open weights can be read; what will be trained has a template and rows that fit; what is served can be."""
    catalogue, home = prospect.catalogue, prospect.catalogue.home
    served, trained, needed = _served(prospect), _trained(prospect), catalogue.open_uris()
    here = [uri for uri in sorted(needed | served) if uri.startswith(("hf://", "s3://")) == far]
    readable = [uri for uri in here if not problems_of([partial(catalogue.revision, uri)])]
    checks: list[Check] = [partial(catalogue.revision, uri) for uri in here if uri in needed and uri not in readable]
    contexts = {uri: catalogue.model(uri).context_tokens for uri in readable}
    checks += [partial(check_servable, uri, home, contexts[uri]) for uri in readable if uri in served]
    checks += [partial(_check_training, prospect, uri, trained[uri]) for uri in readable if uri in trained]
    refuse(problems_of(checks))


def _served(prospect: Prospect) -> set[str]:
    """Open weights that may be served on this machine: candidates, those among them that self_host would move here, and
    whatever is trained, since nobody else serves what a stage made.
    """
    use_case = prospect.question.use_case
    moves = "self_host" in possible(prospect)
    asked = (*use_case.models.candidates, *filter(None, [use_case.judge_model]))
    allowed = (model for model in asked if model.is_open and use_case.may_be_sent_to(model))
    here = {model.uri for model in allowed if not model.base_url or (moves and model.venue != "self_host")}
    return here | set(_trained(prospect))


def _trained(prospect: Prospect) -> dict[str, list[str]]:
    """Open weights that may be trained, each with the tables of its examples."""
    use_case, stages = prospect.question.use_case, set(possible(prospect))
    base, student = use_case.models.base, use_case.training.student
    tables: dict[str, list[str]] = {}
    if base and trained_here(prospect):
        tables[base.uri] = ["train", "dev"]
    if "distill" in stages and student.kind == "causal" and (uri := student.uri or (base.uri if base else None)):
        tables.setdefault(uri, []).append("unlabelled")
    return tables


def _check_training(prospect: Prospect, uri: str, tables: list[str]) -> None:
    use_case, question = prospect.question.use_case, prospect.question
    frames = {name: frame for name in tables if (frame := question.tables.get(name)) is not None}
    limit, home = use_case.training.max_tokens, prospect.catalogue.home
    base = use_case.models.base if trained_here(prospect) else None
    if "unlabelled" in tables:
        student = use_case.training.student
        causal_student.check_vocabulary(student, uri, base.uri if base else None, home)
    is_package, room = uri.startswith("package://"), limit - use_case.traffic.output_tokens
    if is_package and all(_surely_fit(use_case, frame, limit) for frame in frames.values()):
        return  # packages have a template, and reading their tokenizer takes seconds
    directory = weights.tokenizer_dir(uri, home)
    check_template(directory, uri)
    if "unlabelled" in tables:
        causal_student.check_blocks(use_case.training.student, uri, home)
    checks: list[Check] = [partial(trainable_model.check_known, directory, uri)]
    for name, frame in frames.items():
        if name == "unlabelled":
            rows = causal_student.rows_of(use_case.task, directory, frame.assign(label=""))
            checks.append(partial(check_lengths, f"data.{name}", rows, directory, room))
        else:
            kept = frame.head(use_case.training.dev_rows) if name == "dev" else frame
            rows = examples_of(use_case, kept, directory)
            checks.append(partial(check_lengths, f"data.{name}", rows, directory, limit))
    refuse(problems_of(checks))


def _surely_fit(use_case: UseCase, frame: pd.DataFrame, limit: int) -> bool:
    """Whether every example is short enough by its bytes."""
    around = most_request_tokens((trained_prompt(use_case), "", "")) + use_case.traffic.output_tokens
    answers = frame["label"] if "label" in frame else [""] * len(frame)
    lengths = (most_tokens(f"{text}{answer}") for text, answer in zip(frame["text"], answers, strict=True))
    return around + max(lengths, default=0) <= limit


def notes(prospect: Prospect) -> tuple[str, ...]:
    """What is no reason to refuse, and should be known before: texts of which a student reads only the start, a host
    of which little is known.
    """
    untold = untold_of_host(prospect)
    use_case = prospect.question.use_case
    student, uri = use_case.training.student, use_case.models.student
    gate = prospect.question.tables.get("gate")
    if "distill" not in possible(prospect) or student.kind != "encoder" or uri is None or gate is None:
        return untold
    texts = list(gate["text"].head(MOST_LOOKED_AT))
    cut: list[str] = []
    problems_of([lambda: cut.append(texts_cut("data.gate", texts, embedder_dir(uri), student.max_tokens))])
    return (*untold, *filter(None, cut))
