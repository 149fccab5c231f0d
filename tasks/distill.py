"""Stage 6: a student trained on the best passing teacher's answers."""

from __future__ import annotations

import logging

from prefect import task

from leastwise import ladder
from leastwise.answering.servers import prove_servable
from leastwise.answering.workspace import Workspace
from leastwise.evaluating.cascade_offer import CascadeOffer
from leastwise.evaluating.comparison import compare_with_teacher as compare_student
from leastwise.evaluating.stage import evaluate_stage
from leastwise.evaluating.tries import Offer
from leastwise.ladder.candidate import Candidate, Prompt, Weights
from leastwise.run_id import RunId
from leastwise.training import causal_student
from leastwise.training.stage_weights import causal_base, label_unlabelled, need_teacher, train_student
from leastwise.use_case.prompts import short_prompt
from leastwise.use_case.student import CausalStudent
from tasks.session.console import show_teacher
from tasks.session.results import show_result
from tasks.session.workspace import open_workspace

log = logging.getLogger("leastwise.tasks.distill")


@task(name="teacher labels")
def label_with_teacher(climb: RunId) -> str:
    """The best passing teacher labels unlabelled text; gives back the URI of the labelled table."""
    work = open_workspace(climb)
    student = work.use_case.training.student
    if isinstance(student, CausalStudent):  # labels are paid, and are for nothing where it could not be judged
        prove_servable(work.home, causal_student.base_dir(work.catalogue, student), student.uri or "the student")
    return label_unlabelled(work).uri


@task(name="train the student")
def distill_student(climb: RunId, labels_uri: str) -> Weights:
    """Train the student of the use case on the teacher's labels, each once."""
    return train_student(open_workspace(climb), labels_uri)


@task(name="evaluate")
def evaluate_distill(climb: RunId, weights: Weights) -> RunId:
    """Measure the stage and log it by the best of its candidates."""
    work = open_workspace(climb)
    return show_result(work, evaluate_stage(work, "distill", distill_tries(work, weights)))


def distill_tries(work: Workspace, weights: Weights) -> list[Candidate | Offer]:
    """The student alone, then a cascade that hands what the student is unsure of to its teacher."""
    student = student_candidate(work, weights)
    tries: list[Candidate | Offer] = [student]
    return [*tries, CascadeOffer("distill", student, need_teacher(work))] if work.use_case.offers_cascades else tries


def student_candidate(work: Workspace, weights: Weights) -> Candidate:
    """A distilled student at a managed host, or on own machines where residency wants that."""
    use_case, teacher = work.use_case, need_teacher(work)
    venue, student, encoder = ladder.student_venue(use_case), use_case.training.student, use_case.models.student
    assert venue is not None
    if isinstance(student, CausalStudent):
        uri = causal_base(work, student)
        prompt: Prompt | None = Prompt(system=short_prompt(use_case.task))
    else:
        assert encoder is not None
        uri, prompt = encoder, None
    return Candidate(
        stage="distill",
        model=uri,
        revision=work.revision(uri),
        venue=venue,
        prompt=prompt,
        weights=weights,
        parent=teacher.key,
    )


@task(name="compare with the teacher")
def compare_with_teacher(climb: RunId, run_id: RunId) -> None:
    """Student against teacher on the gate rows both answered: agreement, and how much worse it may be at most."""
    work = open_workspace(climb)
    run = work.run.stage(run_id)
    comparison = compare_student(work, run)
    if comparison is None:
        return
    if not comparison.figures:
        log.info(f"student and its {comparison.teacher_stage} teacher answered no gate row in common")
        return
    run.write(comparison.figures)
    show_teacher(comparison.teacher_stage, comparison.figures)
