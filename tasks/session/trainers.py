"""Which stages a climb may come to, who trains for them, and what must hold of that before the first paid call.

It asks no host and loads no weights.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from functools import partial

from leastwise.errors import BadInput, Check, problems_of, refuse
from leastwise.ladder.needs import Situation, ruled_out
from leastwise.models.machine import check_quantize
from leastwise.training.hosted.examples import check_fit
from leastwise.training.settings import check_together
from leastwise.use_case import LADDER, Stage
from tasks.session.workspace import Prospect

TRAINED: frozenset[Stage] = frozenset({"fine_tune", "pretrain"})


def possible(prospect: Prospect) -> list[Stage]:
    """The stages that a climb may come to, as far as is known before it."""
    question = prospect.question
    counts = question.counts()
    situation = Situation(
        train_rows=counts["train"],
        document_rows=counts["documents"],
        unlabelled_rows=counts["unlabelled"],
        repeat_share=question.repeat_share,
    )
    return [stage for stage in LADDER if ruled_out(question.use_case, stage, situation) is None]


def trained_here(prospect: Prospect) -> frozenset[Stage]:
    """The stages that train a base on machines of one's own."""
    at_host = {"fine_tune"} if prospect.question.use_case.training.managed else set[str]()
    return frozenset(stage for stage in possible(prospect) if stage in TRAINED and stage not in at_host)


def check_host(prospect: Prospect) -> None:
    """What a host is to train it still trains, and its examples are short enough."""
    use_case, train = prospect.question.use_case, prospect.question.tables.get("train")
    managed = use_case.training.managed
    if managed is None or train is None or "fine_tune" not in possible(prospect):
        return
    if "general_ability" in use_case.requirements.bounds:
        raise BadInput(
            "requirements.general_ability: cannot be measured of what a host trains, whose weights stay there; leave "
            "out training.managed, or drop the requirement"
        )
    tunable = partial(prospect.catalogue.check_tunable, datetime.now(UTC).date())
    refuse(problems_of([tunable, partial(check_fit, use_case, managed, train)]))


def check_training_machine(prospect: Prospect) -> None:
    """What a training will need is there: where machines meet, and the library of 4 bits where it is trained on
    this machine (with LEASTWISE_POOLS=1 that is another, which says so itself).
    """
    training, stages = prospect.question.use_case.training, possible(prospect)
    trained = trained_here(prospect)
    is_causal = bool(trained) or ("distill" in stages and training.student.kind == "causal")
    checks: list[Check] = [partial(check_together, training)] if is_causal else []
    if trained and os.environ.get("LEASTWISE_POOLS") != "1":
        checks.append(partial(check_quantize, training.quantize))
    refuse(problems_of(checks))


def untold_of_host(prospect: Prospect) -> tuple[str, ...]:
    """What nobody wrote down of a base that a host is to train, and is found out only when the training is paid."""
    managed = prospect.question.use_case.training.managed
    if managed is None or "fine_tune" not in possible(prospect):
        return ()
    entry = prospect.catalogue.model_book.entry(managed.base.uri)
    if entry is not None and entry.may_be_tuned is not None:
        return ()
    return (
        f"nobody wrote down that {managed.base.uri} can be tuned and its adapters answer by the token; look at "
        f"{managed.base.request_host} before a training is paid, and say so in infra/models.yaml (may_be_tuned)",
    )
